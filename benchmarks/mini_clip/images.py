"""Stage 1: both towers on generated images with captions, and on nouns with their glosses."""

from __future__ import annotations

import argparse

import numpy as np
import torch
from captions import CONDITIONS, Captioner
from curve import Curve
from evaluate import ZeroShotTasks
from open_clip.model import CLIP
from towers import Optimization, contrast, encode_images, encode_text, new_model, normalised
from wordnet import Synset

from clipcal.scenes import render, sample_scenes


def train_on_images(args: argparse.Namespace, synsets: list[Synset], curve: Curve) -> CLIP:
    torch.manual_seed(args.seed)
    generator = np.random.default_rng(args.seed)
    model = new_model()
    optimization = Optimization(model.named_parameters(), args.lr, args.steps)
    captioner = Captioner(args.imprecise)
    for step in range(args.steps):
        scenes = sample_scenes(generator, args.batch_size, CONDITIONS)
        images = normalised(render(scenes, generator))
        long = generator.random() < 0.12
        captions = [captioner(generator, scenes, row, long) for row in range(len(scenes))]
        loss = contrast(encode_images(model, images), encode_text(model, captions))
        record = {"stage": 1, "step": step, "loss": loss.item(), "long": bool(long)}
        if step % 2 == 0:
            chosen = [synsets[i] for i in generator.choice(len(synsets), args.n_glosses, replace=False)]
            prompts = [f"a photo of a {one.lemmas[generator.integers(len(one.lemmas))]}." for one in chosen]
            gloss_loss = contrast(
                encode_text(model, prompts), encode_text(model, [one.gloss[:160] for one in chosen])
            )
            record["gloss_loss"] = gloss_loss.item()
            loss = loss + args.gloss_weight * gloss_loss
        optimization.step(loss)
        if step % 20 == 0:
            curve.write(record)
        if step % args.check_every == args.check_every - 1:
            model.eval()
            for row in ZeroShotTasks(model, "validation").table(model):
                curve.write({"stage": 1, "step": step, **row})
            model.train()
    return model
