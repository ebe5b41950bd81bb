"""Read images and embed them with a frozen CLIP."""

from clipcal.images._encoder import CLIPImageEncoder
from clipcal.images._encoding import encode_images
from clipcal.images._inputs import as_images, input_kind
from clipcal.images._pixel_loader import PixelLoader as PixelLoader
from clipcal.images._reading import image_digest, read_image
from clipcal.images._sequences import ImagePaths, LazyImages
from clipcal.images._shards import load_embeddings

__all__ = [
    "CLIPImageEncoder",
    "ImagePaths",
    "LazyImages",
    "as_images",
    "encode_images",
    "image_digest",
    "input_kind",
    "load_embeddings",
    "read_image",
]
