"""Features that were computed before: their file, and a backbone that looks the text features up."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from clipcal.exceptions import BackboneError, ClassNameError
from clipcal.text import fill

# Some files store the mean over templates next to the templates, under this name.
AVERAGE = "averageprompt"


class MissingTextError(ClassNameError):
    """The file has no features of a text."""


class Features(NamedTuple):
    """Image and text features of one CLIP model.

    `images` has the shape (n_images, n_features), `texts` (n_templates, n_classes, n_features). `target` are
    class indices of the images.
    """

    model: str
    images: np.ndarray
    target: np.ndarray
    texts: np.ndarray
    templates: list[str]
    class_names: list[str]

    @property
    def labels(self) -> np.ndarray:
        """Class names of the images."""
        return np.array(self.class_names)[self.target]

    def backbone(self, logit_scale: float, *, text_norm: float | None = None) -> FeatureBackbone:
        """Return a backbone for the texts; `text_norm` replaces the norms of their features."""
        rows = self.texts.reshape(-1, self.texts.shape[-1])
        if text_norm is not None:
            rows = rows * (text_norm / np.linalg.norm(rows, axis=1, keepdims=True))
        texts = [text for template in self.templates for text in fill(template, self.class_names)]
        return FeatureBackbone(texts, rows, logit_scale)


def read_features(path: Path) -> Iterator[Features]:
    """Yield the features of each model in a file; real_features.py describes the format."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    required = {"class_names", "templates", "labels"}
    models = [name.removeprefix("images_") for name in arrays if name.startswith("images_")]
    lacking = sorted(required - arrays.keys()) + [f"texts_{m}" for m in models if f"texts_{m}" not in arrays]
    if lacking or not models:
        missing = ", ".join(lacking) or "images_MODEL and texts_MODEL"
        raise SystemExit(f"{path.name} has no {missing}; see --help for the arrays of a file of features.")
    names = [" ".join(str(name).replace("_", " ").split()) for name in arrays["class_names"]]
    templates = [str(template) for template in arrays["templates"]]
    kept = [row for row, template in enumerate(templates) if template != AVERAGE]
    for model in models:
        images, texts = (arrays[f"{kind}_{model}"].astype(np.float32) for kind in ("images", "texts"))
        expected = (len(templates), len(names), images.shape[-1])
        if texts.shape != expected:
            raise SystemExit(f"texts_{model} has the shape {texts.shape}; expected {expected}.")
        yield Features(
            model, images, arrays["labels"], texts[kept], [as_template(templates[k]) for k in kept], names
        )


def as_template(text: str) -> str:
    """Return a template with a placeholder, which files may leave out at the end: ``"a_photo_of_a"``."""
    return text if "{}" in text else f"{text.replace('_', ' ')} {{}}."


class FeatureBackbone:
    """Backbone that knows a list of texts and their features, and encodes no images.

    A text is one token, its number in the list. Methods that put learned vectors before the name cannot be
    used, since their texts are not in the list.

    Parameters
    ----------
    texts : sequence of str, length n_texts
        The texts, filled templates such as ``"a satellite photo of a beach."``.
    features : ndarray, shape (n_texts, n_features)
        Their features.
    logit_scale : float
        Factor of the cosine similarities.
    """

    name = ""
    token_dim = 1
    context_length = 77
    n_start_tokens = 0
    device = torch.device("cpu")

    def __init__(self, texts: Sequence[str], features: np.ndarray, logit_scale: float) -> None:
        self.number = {text: number for number, text in enumerate(texts)}
        self.features = torch.from_numpy(np.asarray(features, dtype=np.float32))
        self.logit_scale = logit_scale
        self.embedding_dim = self.features.shape[1]
        digest = hashlib.sha256(repr((list(texts), logit_scale)).encode())
        digest.update(self.features.numpy().tobytes())
        self.fingerprint = digest.hexdigest()

    def preprocess(self, image: object) -> torch.Tensor:
        """Raise an error, as do the other members that need an image."""
        raise BackboneError("A backbone of stored features encodes no images; pass embeddings.")

    def augment(self, image: object, generator: torch.Generator) -> torch.Tensor:
        return self.preprocess(image)

    def encode_images(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.preprocess(pixels)

    def tokenize(self, texts: Sequence[str]) -> torch.Tensor:
        """Return the number of each text, shape (n, 1)."""
        unknown = next((text for text in texts if text not in self.number), None)
        if unknown is not None:
            raise MissingTextError(
                f"There are no stored features of the text {unknown!r}; known are texts such as "
                f"{next(iter(self.number))!r}."
            )
        return torch.tensor([[self.number[text]] for text in texts], dtype=torch.long).reshape(-1, 1)

    def text_lengths(self, tokens: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(tokens), dtype=torch.long)

    def embed_tokens(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens[..., None].float()

    def encode_text(self, token_embeddings: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Return the stored features of the texts."""
        return self.features[tokens[:, 0]]

    def __sklearn_clone__(self) -> FeatureBackbone:
        return self
