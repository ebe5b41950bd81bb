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


def plain_features(backbone, rows):
    """Run the modules of the text tower on all 77 positions, and normalize the feature."""
    return normalize(plain_raw_features(backbone, rows), dim=0)


def plain_raw_features(backbone, rows):
    """Run the modules of the text tower on all 77 positions."""
    model = backbone.model
    padded = torch.zeros(77, model.token_embedding.embedding_dim)
    padded[len(rows) :] = model.token_embedding.weight[0]
    x = torch.cat([rows, padded[len(rows) :]]) + model.positional_embedding
    x = model.transformer(x[None], attn_mask=model.attn_mask)
    return model.ln_final(x)[0, len(rows) - 1] @ model.text_projection
