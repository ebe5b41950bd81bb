"""Text features of prompts encoded one at a time, with all 77 positions and without shared parts."""

import torch
from torch.nn.functional import normalize

START, END = 49406, 49407


def encode(backbone, text):
    """Return the token ids of a text, without markers."""
    ids = backbone.tokenize([text])[0].tolist()
    return ids[1 : ids.index(END)]


def plain_rows(backbone, context, name, position):
    """Return the embedding at each position, shape (length, token_dim), with the end marker last."""
    table = backbone.model.token_embedding.weight
    whole, bare = encode(backbone, f"{name}."), encode(backbone, name)
    # If the full stop is part of the last token of the name, it moves with the name.
    named, rest = table[whole[: len(bare)]], table[whole[len(bare) :]]
    n_before = {"end": len(context), "middle": len(context) // 2, "front": 0}[position]
    start, end = table[[START]], table[[END]]
    return torch.cat([start, context[:n_before], named, context[n_before:], rest, end])


def plain_features(backbone, rows, deep=None):
    """Run the modules of the text tower on all 77 positions, and normalize the feature."""
    return normalize(plain_raw_features(backbone, rows, deep), dim=0)


def plain_raw_features(backbone, rows, deep=None):
    """Run the modules of the text tower on all 77 positions.

    ``deep[k]``, shape (n, token_dim), replaces the n positions
    after the start marker, at the input of block k.
    """
    model, deep = backbone.model, deep or {}
    padding = model.token_embedding.weight[[0]].expand(77 - len(rows), -1)
    x = torch.cat([rows, padding]) + model.positional_embedding
    for number, block in enumerate(model.transformer.resblocks):
        if number in deep:
            x = torch.cat([x[:1], deep[number], x[1 + len(deep[number]) :]])
        x = block(x[None], attn_mask=model.attn_mask)[0]
    return model.ln_final(x)[len(rows) - 1] @ model.text_projection
