"""Backbone implementation for open_clip models."""

from __future__ import annotations

import copy
import copyreg
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from functools import cached_property
from typing import TYPE_CHECKING, Any

import open_clip
import torch
from open_clip.model import TextTransformer
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict
from torch import nn

from clipcal.backbones._augment import random_view
from clipcal.backbones._copies import Uncopied, reopen_backbone
from clipcal.backbones._device import autocast, resolve_device, resolve_precision
from clipcal.backbones._fingerprint import fingerprint_of
from clipcal.backbones._image_tower import ImageTower
from clipcal.backbones._packing import Packing
from clipcal.backbones._prefix import bytes_per_token
from clipcal.backbones._text_tower import TextTower
from clipcal.backbones._threads import image_product, join_parts, product_size, threads_for
from clipcal.backbones._tokens import PromptTokenizer
from clipcal.exceptions import BackboneError

if TYPE_CHECKING:
    from PIL.Image import Image


class OpenClipBackbone(Uncopied):
    """A frozen open_clip model.

    Estimators create it from the name of a backbone. Use this class directly for your own models.

    Parameters
    ----------
    model : nn.Module
        An open_clip model. It is frozen, set to evaluation mode, converted to float32 and moved to `device`,
        all in place. It must not be modified later, as results computed from its weights are cached.
    tokenizer : callable
        ``tokenizer(texts, context_length=n)`` returns token ids (n_texts, n), padded on the right.
    preprocess : callable or None, default=None
        Transform from a PIL image to a tensor (3, height, width). None for the evaluation transform in
        ``model.visual.preprocess_cfg``.
    name : str, default=""
        Name that opens the same backbone, if there is one. A backbone with a name is pickled as its name, one
        without is pickled with its weights.
    device : str or torch.device, default="auto"
        Device to run on; see :func:`resolve_device`.
    precision : {"auto", "fp32", "bf16"}, default="auto"
        Precision of the towers. ``"auto"`` is bfloat16 autocast on CUDA devices that support it natively,
        float32 otherwise. Results are always float32.

    Attributes
    ----------
    name : str
        The given name.
    embedding_dim, token_dim, context_length, n_start_tokens : int
        See :class:`Backbone`.
    logit_scale : float
        Factor of the cosine similarities.
    device : torch.device
        Device of the towers.
    precision : {"fp32", "bf16"}
        The resolved precision.
    model : nn.Module
        The open_clip model.
    text_tower : TextTower
        The text tower.

    Raises
    ------
    BackboneError
        If the text tower does not support token embeddings as input.

    References
    ----------
    Radford et al., *Learning Transferable Visual Models From Natural Language Supervision*, ICML 2021,
    arXiv:2103.00020.

    Examples
    --------
    >>> import open_clip
    >>> from clipcal.backbones import OpenClipBackbone
    >>> model = open_clip.CLIP(
    ...     embed_dim=32,
    ...     vision_cfg=dict(image_size=32, patch_size=16, width=64, layers=1),
    ...     text_cfg=dict(width=64, heads=1, layers=1),
    ... )
    >>> backbone = OpenClipBackbone(model, open_clip.SimpleTokenizer(), device="cpu")
    >>> tokens = backbone.tokenize(["a photo of a dog.", "a cat."])
    >>> tokens.shape
    torch.Size([2, 8])
    >>> backbone.encode_text(backbone.embed_tokens(tokens), tokens).shape
    torch.Size([2, 32])
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Callable[..., torch.Tensor],
        preprocess: Callable[[Image], torch.Tensor] | None = None,
        *,
        name: str = "",
        device: str | torch.device = "auto",
        precision: str = "auto",
    ) -> None:
        self.name = name
        self.device = resolve_device(device)
        self.precision = resolve_precision(precision, self.device)
        self.text_tower = _text_tower(model)
        self.model: Any = model.to(self.device).float().eval().requires_grad_(False)
        self._tokenizer = PromptTokenizer(tokenizer, self.text_tower)
        carried = open_clip.get_model_preprocess_cfg(model)
        cfg = self._preprocess_cfg = PreprocessCfg(**merge_preprocess_dict(PreprocessCfg(), carried))
        self._preprocess = image_transform_v2(cfg, is_train=False) if preprocess is None else preprocess
        self._fingerprint: str | None = None
        self.files: dict[str, Any] = {}
        self.embedding_dim = _embedding_dim(self.text_tower)
        self.token_dim = self.text_tower.width
        self.context_length = self.text_tower.context_length
        self.n_start_tokens = self._tokenizer.n_start_tokens
        self.logit_scale = math.exp(float(model.get_parameter("logit_scale")))

    @property
    def fingerprint(self) -> str:
        """SHA-256 of weights, structure and preprocessing; computed at the first access."""
        if self._fingerprint is None:
            self._fingerprint = fingerprint_of(
                self.model, self.text_tower, asdict(self._preprocess_cfg), self.preprocess, self.tokenize
            )
        return self._fingerprint

    def preprocess(self, image: Image) -> torch.Tensor:
        """Apply the evaluation transform to an image; return a tensor (3, height, width)."""
        return self._preprocess(image)

    def augment(self, image: Image, generator: torch.Generator) -> torch.Tensor:
        """Draw a random crop of 8 to 100 % of an image, flipped with probability 0.5: (3, height, width)."""
        cfg = self._preprocess_cfg
        height, width = (cfg.size, cfg.size) if isinstance(cfg.size, int) else cfg.size
        return random_view(image, generator, (height, width), cfg.mean, cfg.std)

    def encode_images(self, pixels: torch.Tensor) -> torch.Tensor:
        """Embed pixels (n, 3, height, width) as (n, embedding_dim), not normalized, without gradients."""

        def encode(rows: slice) -> torch.Tensor:
            with torch.no_grad(), autocast(self.device, self.precision):
                return self.model.encode_image(pixels[rows].to(self.device), normalize=False).float()

        return self._over_images(encode, len(pixels))

    @cached_property
    def image_tower(self) -> ImageTower:
        """The image tower; raises BackboneError if it does not support prompts."""
        return ImageTower(self.model.visual)

    def embed_pixels(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the input of the first block of the image tower, without gradients."""
        tower = self.image_tower

        def embed(rows: slice) -> torch.Tensor:
            with torch.no_grad(), autocast(self.device, self.precision):
                return tower.embed(pixels[rows].to(self.device))

        return self._over_images(embed, len(pixels))

    def encode_pixels(
        self,
        images: torch.Tensor,
        prompts: Mapping[int, torch.Tensor] | None = None,
        *,
        activation_checkpointing: bool = False,
    ) -> torch.Tensor:
        """Embed images with prompts in the image tower; differentiable; see :class:`Backbone`."""
        tower, with_graph = self.image_tower, torch.is_grad_enabled()
        prompts = {} if prompts is None else prompts
        # Checked before prompts are split into parts, where surplus prompts would go unnoticed.
        tower.check_prompts(prompts, len(images))

        def encode(rows: slice) -> torch.Tensor:
            part = {number: p if p.ndim == 2 else p[rows] for number, p in prompts.items()}
            with torch.set_grad_enabled(with_graph), autocast(self.device, self.precision):
                found = tower.encode(
                    images[rows].to(self.device), part, activation_checkpointing=activation_checkpointing
                )
                return found.float()

        return self._over_images(encode, len(images), in_parts=not with_graph)

    def tokenize(self, texts: Sequence[str]) -> torch.Tensor:
        """Tokenize texts to token ids (n, length) on the device; ClassNameError if one is too long."""
        return self._tokenizer(texts).to(self.device)

    def text_lengths(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the number of tokens of each text (n,), including start and end markers."""
        return self._tokenizer.lengths(tokens)

    def embed_tokens(self, tokens: torch.Tensor) -> torch.Tensor:
        """Look up token embeddings (n, length, token_dim), without positional embeddings."""
        return self.text_tower.embed(tokens)

    def encode_text(self, token_embeddings: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Embed prompts (n, length, token_dim) as (n, embedding_dim), not normalized, differentiable."""
        with self._threads(tokens.numel()), autocast(self.device, self.precision):
            return self.text_tower.encode(token_embeddings, tokens).float()

    @property
    def shares_prefix(self) -> bool:
        """Whether :meth:`encode_suffixes` is supported."""
        return self.text_tower.shares_prefix

    @property
    def text_bytes_per_token(self) -> int:
        """Approximate memory per token of a prompt for the backward pass."""
        return bytes_per_token(self.text_tower, self.precision)

    @property
    def n_text_blocks(self) -> int:
        """Number of blocks of the text tower."""
        return len(self.text_tower.module.transformer.resblocks)

    def encode_suffixes(
        self,
        prefix: torch.Tensor,
        suffixes: torch.Tensor,
        packing: Packing,
        deep: Mapping[int, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Embed names behind one or several prefixes; see :class:`Backbone`."""
        encoder = self.text_tower.prefix_encoder(self.precision)
        if not torch.is_grad_enabled() and self.device.type == "cpu" and prefix.ndim == 2 and not deep:
            return encoder.in_parts(prefix, suffixes, packing)
        n_rows = prefix.shape[:-1].numel() + suffixes.shape[:-1].numel()
        # The encoder casts explicitly, so autocast of the caller must be disabled.
        with self._threads(n_rows), autocast(self.device, "fp32"):
            return encoder(prefix, suffixes, packing, deep, n_start=self.n_start_tokens)

    def _over_images(
        self, encode: Callable[[slice], torch.Tensor], n_images: int, in_parts: bool = True
    ) -> torch.Tensor:
        """Encode images with a suitable number of threads, in parts if gradients are not needed."""
        if self.device.type != "cpu":
            return encode(slice(None))
        work = image_product(self.model.visual, n_images)
        if in_parts:
            return join_parts(encode, [1] * n_images, work)
        with threads_for(work):
            return encode(slice(None))

    def _threads(self, n_rows: int) -> AbstractContextManager[None]:
        """Set the number of threads for `n_rows` tokens in the text tower."""
        return threads_for(product_size(n_rows, self.token_dim) if self.device.type == "cpu" else math.inf)

    def __repr__(self) -> str:
        name = self.name or type(self.model).__name__
        return f"OpenClipBackbone({name!r}, device={str(self.device)!r}, precision={self.precision!r})"

    def __reduce__(self) -> Any:
        if not self.name:
            return copyreg.__newobj__, (type(self),), self.__getstate__()  # type: ignore[attr-defined]
        return reopen_backbone, (self.name, str(self.device), self.precision)

    def __getstate__(self) -> dict[str, Any]:
        # Drop state that use creates: fingerprint, image tower and the word cache of the tokenizer.
        state = self.__dict__ | {"_fingerprint": None}
        state.pop("image_tower", None)
        tokenizer = state["_tokenizer"].tokenizer
        if isinstance(tokenizer, SimpleTokenizer):
            state["_tokenizer"] = copy.copy(state["_tokenizer"])
            state["_tokenizer"].tokenizer = copy.copy(tokenizer)
            special = [tokenizer.decoder[i] for i in tokenizer.all_special_ids]
            state["_tokenizer"].tokenizer.cache = dict(zip(special, special, strict=True))
        return state


def _text_tower(model: nn.Module) -> TextTower:
    """Return the text tower, whose modules are attributes of the model or of a submodule."""
    if isinstance(model, open_clip.CLIP):
        eos_id = getattr(model, "text_eos_id", None)
        return TextTower(model, pool=model.text_pool_type, eos_id=eos_id)
    tower = getattr(model, "text", None)
    if isinstance(tower, TextTransformer):
        eos_id = getattr(tower, "eos_id", None)
        return TextTower(tower, pool=tower.pool_type, eos_id=eos_id, pad_id=tower.pad_id)
    raise unsupported_text_tower(type(model if tower is None else tower).__name__, type(model).__name__)


def unsupported_text_tower(tower: str, owner: str) -> BackboneError:
    """Return the error for a text tower that does not support token embeddings as input."""
    return BackboneError(
        f"{owner} has the text tower {tower}, which does not support prompts as embeddings. "
        "Use open_clip's CLIP, CustomTextCLIP or CoCa with a TextTransformer, "
        "that is, any open_clip architecture without 'hf_model_name' in its text_cfg."
    )


def _embedding_dim(tower: TextTower) -> int:
    projection = tower.module.text_projection
    if projection is None:
        return tower.width
    return int(projection.out_features if isinstance(projection, nn.Linear) else projection.shape[1])
