"""Zero-shot accuracy and calibration of a CLIP model on the generated tasks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from towers import encode_text, normalised

from clipcal.datasets import DOMAINS, TASKS, make_shapes
from clipcal.metrics import expected_calibration_error


class ZeroShotTasks:
    """The image features of all tasks and domains, encoded once with the image tower of a model."""

    @torch.no_grad()
    def __init__(self, model: CLIP, subset: str) -> None:
        self.tasks = []
        for task in TASKS:
            for domain in DOMAINS:
                data = make_shapes(task, domain=domain, subset=subset, n_per_class=40, random_state=0)
                images = F.normalize(model.visual(normalised(data.images)), dim=-1)
                self.tasks.append((task, domain, data.class_names, data.target, images))

    @torch.no_grad()
    def table(self, model: CLIP) -> Iterator[dict]:
        """Yield one record per task and domain: accuracy, mean confidence and ECE."""
        for task, domain, class_names, target, images in self.tasks:
            text = encode_text(model, [f"a photo of a {name}." for name in class_names])
            y_prob = torch.softmax(100.0 * (images @ text.T).double(), dim=-1).numpy()
            order = np.argsort(class_names)
            y_prob, names = y_prob[:, order], np.asarray(class_names)[order]
            yield {
                "task": task,
                "domain": domain,
                "n_classes": len(names),
                "accuracy": round(float((names[y_prob.argmax(1)] == target).mean()), 4),
                "confidence": round(float(y_prob.max(1).mean()), 4),
                "ece": round(float(expected_calibration_error(target, y_prob, labels=names)), 4),
            }
