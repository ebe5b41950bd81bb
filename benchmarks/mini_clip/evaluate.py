"""Zero-shot accuracy and calibration of a CLIP model during training, on the generated tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F

from clipcal.datasets import DOMAINS, TASKS, make_shapes
from clipcal.metrics import expected_calibration_error


@torch.no_grad()
def zero_shot_table(
    model: torch.nn.Module, encode_text: Callable, tokenizer: object, normalised: Callable, *, subset: str
) -> Iterator[dict]:
    """Yield one record per task and domain: accuracy, mean confidence and ECE."""
    for task in TASKS:
        for domain in DOMAINS:
            data = make_shapes(task, domain=domain, subset=subset, n_per_class=40, random_state=0)
            text = encode_text(model, tokenizer, [f"a photo of a {name}." for name in data.class_names])
            image = F.normalize(model.visual(normalised(data.images)), dim=-1)
            y_prob = torch.softmax(100.0 * (image @ text.T).double(), dim=-1).numpy()
            order = np.argsort(data.class_names)
            y_prob, names = y_prob[:, order], np.asarray(data.class_names)[order]
            yield {
                "task": task,
                "domain": domain,
                "n_classes": len(names),
                "accuracy": round(float((names[y_prob.argmax(1)] == data.target).mean()), 4),
                "confidence": round(float(y_prob.max(1).mean()), 4),
                "ece": round(float(expected_calibration_error(data.target, y_prob, labels=names)), 4),
            }
