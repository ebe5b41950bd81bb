"""Hash everything that determines the embeddings of a CLIP model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from clipcal.backbones._text_tower import TextTower

# Short, as some text towers have a small context length.
_TEXTS = ["a dog.", "737-800", "(bird)", "Zo\u00eb", "A  b"]


def fingerprint_of(
    model: Any,
    tower: TextTower,
    preprocess_cfg: dict[str, Any],
    preprocess: Callable[[Image.Image], torch.Tensor],
    tokenize: Callable[[Sequence[str]], torch.Tensor],
) -> str:
    """Return the SHA-256 of weights, structure, and sample outputs of transform and tokenizer."""
    # The repr of the model is not used, as it changes with the version of torch.
    structure = {
        "preprocess": preprocess_cfg,
        "quick_gelu": has_quick_gelu(model),
        "heads": [module.num_heads for module in model.modules() if hasattr(module, "num_heads")],
        "text": [tower.pool, tower.eos_id, tower.pad_id, tower.module.attn_mask is not None],
    }
    digest = hashlib.sha256(json.dumps(structure, sort_keys=True).encode())
    # Functions cannot be hashed, so hash their outputs on sample inputs.
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    examples = {
        "transformed": preprocess(Image.fromarray(pixels)),
        "tokenized": torch.cat([tokenize([text]).flatten() for text in _TEXTS]),
    }
    for key, tensor in [*examples.items(), *sorted(model.state_dict().items())]:
        digest.update(f"{key}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def has_quick_gelu(model: Any) -> bool:
    """Whether a model uses QuickGELU, which its weights do not show."""
    return any(type(module).__name__ == "QuickGELU" for module in model.modules())
