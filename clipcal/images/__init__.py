"""From whatever holds pictures to embeddings."""

from ._encoder import CLIPImageEncoder
from ._encoding import encode_images
from ._inputs import ImagePaths, as_images, input_kind
from ._reading import image_digest, read_image

__all__ = [
    "CLIPImageEncoder",
    "ImagePaths",
    "as_images",
    "encode_images",
    "image_digest",
    "input_kind",
    "read_image",
]
