"""Tokenized prompts."""

import torch
from toy_backbone import AnyWidthBackbone
from tuning_problem import problem_of

from clipcal.methods import CLIPAdapter


def test_rows_of_other_tensors_stay_with_their_names():
    learner = CLIPAdapter().learner(problem_of(AnyWidthBackbone(), ["dog"]))
    names, nouns = ["dog", "old grey river"], ["violin", "bee", "very old hammer"]
    joined = learner.prompts(names).joined(learner.prompts(nouns))
    features = joined.extra["zero_shot"]
    expected = learner.prompts(names + nouns)
    torch.testing.assert_close(features, expected.extra["zero_shot"])
    assert torch.equal(joined.tokens, expected.tokens)
    for rows in (torch.tensor([4, 0]), slice(1, 3)):
        part = joined.take(rows)
        assert torch.equal(part.extra["zero_shot"], features[rows])
        assert torch.equal(part.tokens, joined.tokens[rows])
