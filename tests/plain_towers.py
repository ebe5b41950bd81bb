"""Both towers with prompts, for one image and one class at a time, and steps of methods that train them."""

from dataclasses import replace

import torch
from plain_prompts import encode, plain_features, plain_rows
from training_steps import cross_entropy_of
from tuning_problem import problem_of

from clipcal.training import ImageViews, PixelData, torch_generator

NAMES = ["dog", "golden retriever puppy", "crane (bird)"]
NOUNS = ["denim", "violin", "old lantern", "granite"]


def pixel_data(backbone, n_classes=1, n_samples=5, seed=3):
    """Return random images with unequal weights."""
    size = backbone.model.visual.image_size
    pixels = torch.randn((n_samples, 3, *size), generator=torch_generator(seed))
    rows = torch.arange(n_samples)
    views = ImageViews(lambda chosen, numbers: pixels[chosen], backbone)
    return PixelData(rows % n_classes, 0.5 + rows / n_samples, views=views, rows=rows)


def pixel_problem(backbone, names=NAMES, **settings):
    """Return a tuning problem whose images, and those of other classes, are pixels."""
    problem = problem_of(backbone, names, data=pixel_data(backbone, len(names)), **settings)
    return replace(problem, other_images=lambda seed: pixel_data(backbone, n_samples=4, seed=seed))


def plain_image(backbone, pixels, prompts=None):
    """Return the unnormalized feature of one image (3, height, width), with all operations written out."""
    visual, prompts = backbone.model.visual, prompts or {}
    kernel = visual.conv1.weight
    size = kernel.shape[-1]
    patches = [
        (kernel * pixels[:, top : top + size, left : left + size]).sum(dim=(1, 2, 3))
        for top in range(0, pixels.shape[1], size)
        for left in range(0, pixels.shape[2], size)
    ]
    x = torch.stack([visual.class_embedding, *patches]) + visual.positional_embedding
    n_own = len(x)
    if prompts:
        x = torch.cat([x, prompts[0]])
    x = _layer_norm(visual.ln_pre, x)
    for number, block in enumerate(visual.transformer.resblocks):
        if number > 0 and number in prompts:
            x = torch.cat([x[:n_own], prompts[number]])
        x = x + _attention(block.attn, _layer_norm(block.ln_1, x))
        hidden = _linear(block.mlp.c_fc, _layer_norm(block.ln_2, x))
        x = x + _linear(block.mlp.c_proj, hidden / (1 + torch.exp(-1.702 * hidden)))
    return _layer_norm(visual.ln_post, x[0]) @ visual.proj


def _linear(module, x):
    return x @ module.weight.T + module.bias


def _layer_norm(module, x):
    centered = x - x.mean(dim=-1, keepdim=True)
    variance = (centered**2).mean(dim=-1, keepdim=True)
    return centered / (variance + module.eps).sqrt() * module.weight + module.bias


def _attention(module, x):
    width = x.shape[1]
    projected = x @ module.in_proj_weight.T + module.in_proj_bias
    found = []
    for start in range(0, width, width // module.num_heads):
        query, key, value = (
            projected[:, part * width + start :][:, : width // module.num_heads] for part in range(3)
        )
        scores = query @ key.T / query.shape[1] ** 0.5
        found.append(scores.softmax(dim=1) @ value)
    return _linear(module.out_proj, torch.cat(found, dim=1))


def words_of(backbone, text):
    """Return the token embeddings of a text, (n_tokens, token_dim)."""
    return backbone.model.token_embedding.weight[encode(backbone, text)]


def zero_shot_of(backbone, name, words="a photo of a"):
    return plain_features(backbone, plain_rows(backbone, words_of(backbone, words), name, "end"))


def tuned_text(backbone, parameters, name, *, frozen="", prefix=""):
    """Return the rows and the deep prompts of a name, where `frozen` are words between context and name."""
    context = parameters[f"{prefix}context"]
    if frozen:
        context = torch.cat([context, words_of(backbone, frozen)])
    deep = dict(enumerate(parameters.get(f"{prefix}deep_context", ()), start=1))
    return plain_rows(backbone, context, name, "end"), deep


def image_prompts(parameters, prefix=""):
    """Return the prompts of the image tower: learned, or computed from those of the text tower."""
    if "visual_prompts" in parameters:
        return dict(enumerate(parameters["visual_prompts"]))
    of_text = [parameters[f"{prefix}context"], *parameters.get(f"{prefix}deep_context", ())]
    found = {}
    for block, vectors in enumerate(of_text):
        weight, bias = (parameters[f"{prefix}couplings.{block}.{part}"] for part in ("weight", "bias"))
        found[block] = torch.stack([weight @ vector + bias for vector in vectors])
    return found


def outlier_losses(backbone, outliers, tuned_text_of, tuned_image_of):
    """Return the loss of outliers with the default weight; names are nouns, and numbers rows of images."""
    if not outliers:
        return {}
    if isinstance(outliers[0], str):
        pairs = [(tuned_text_of(noun), zero_shot_of(backbone, noun)) for noun in outliers]
    else:
        pixels = next(pixel_data(backbone, n_samples=4, seed=7).in_order()).pixels
        pairs = [(tuned_image_of(pixels[row]), plain_image(backbone, pixels[row])) for row in outliers]
    cosines = [torch.cosine_similarity(tuned, frozen, dim=0) for tuned, frozen in pairs]
    name = "dor" if isinstance(outliers[0], str) else "dor-visual"
    return {name: 2.0 * (1 - sum(cosines) / len(cosines))}


def unit(vector):
    return vector / vector.norm()


def two_tower_reference(backbone, *, frozen="", text_of=None, more_losses=None):
    """Return the reference of a method with prompts in one or both towers and the cross-entropy.

    Parameters
    ----------
    backbone : OpenClipBackbone
    frozen : str, default=""
        Words between context and name.
    text_of : callable, default=None
        ``text_of(parameters, name)`` returns the unit feature of a name, by default with learned prompts.
    more_losses : callable, default=None
        ``more_losses(batch, images, texts, logits)`` returns further losses.
    """

    def of_text(parameters, name):
        return plain_features(backbone, *tuned_text(backbone, parameters, name, frozen=frozen))

    text_of = text_of or of_text

    def reference(parameters, batch, outliers):
        prompts = image_prompts(parameters)

        def image_of(pixels):
            return unit(plain_image(backbone, pixels, prompts))

        images = torch.stack([image_of(pixels) for pixels in batch.pixels])
        texts = torch.stack([text_of(parameters, name) for name in NAMES])
        logits = backbone.logit_scale * images @ texts.T
        losses = {"cross_entropy": cross_entropy_of(batch, logits)}
        if more_losses is not None:
            losses |= more_losses(batch, images, texts, logits)
        losses |= outlier_losses(backbone, outliers, lambda noun: text_of(parameters, noun), image_of)
        return logits, losses, None

    return reference


def outlier_term(kind, problem, learner):
    """Return no loss term, or that of outliers in the text or the image tower."""
    from clipcal.regularizers import DynamicOutlierRegularizer, VisualOutlierRegularizer

    if kind is None:
        return None
    if kind == "dor":
        return DynamicOutlierRegularizer(lexicon=NOUNS, batch_size=2).prepare(problem, learner)
    # The tuning problem takes a seed in place of images.
    return VisualOutlierRegularizer(images=7, n_outliers=2).prepare(problem, learner)
