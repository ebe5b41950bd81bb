"""Tokens of texts, which are kept between calls."""

import copy
import pickle
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import open_clip
import pytest
import torch

from clipcal.backbones import _tokens, open_backbone
from clipcal.backbones._tokens import PromptTokenizer
from clipcal.exceptions import ClassNameError

WORDS = ["dog", "hot dog", "a photo of a cat.", "red", "", "Ångström", "x y z w v u t s r q"]
LONG = "very " * 80


class Counting:
    """Tokenizer of CLIP that counts how often it gets each text."""

    def __init__(self):
        self.simple = open_clip.SimpleTokenizer()
        self.seen = Counter()

    def __call__(self, texts, context_length):
        """Count texts and tokenize them."""
        self.seen.update(texts)
        return self.simple(texts, context_length=context_length)


class Tower:
    """The members of a text tower that a tokenizer uses."""

    context_length = 77
    pad_id = 0

    def __init__(self, can_truncate=True):
        self.can_truncate = can_truncate

    def end_positions(self, tokens):
        """Return the position of the end marker, the largest token id."""
        return tokens.argmax(dim=-1)


def tokenizer(can_truncate=True):
    return PromptTokenizer(Counting(), Tower(can_truncate))


def plain(texts, can_truncate=True):
    """Tokenize with open_clip alone."""
    tokens = open_clip.SimpleTokenizer()(list(texts), context_length=77)
    return tokens[:, : int(tokens.argmax(dim=1).max()) + 1] if can_truncate else tokens


def assert_plain(tokenize, texts, can_truncate=True):
    tokens = tokenize(texts)
    assert tokens.dtype == torch.long and tokens.is_contiguous()
    assert torch.equal(tokens, plain(texts, can_truncate))


@pytest.mark.parametrize("can_truncate", [True, False])
def test_each_text_is_tokenized_once(can_truncate):
    tokenize = tokenizer(can_truncate)
    for texts in (WORDS[:3], WORDS[1:5], WORDS[::-1], [*WORDS[:2], *WORDS[:2]], tuple(WORDS[3:4]), WORDS):
        assert_plain(tokenize, texts, can_truncate)
    assert tokenize.tokenizer.seen == Counter(WORDS)


def test_changes_of_a_result_do_not_change_later_ones():
    tokenize = tokenizer()
    tokenize(WORDS).zero_()
    assert_plain(tokenize, WORDS)


def test_texts_that_are_too_long_raise_each_time_and_the_others_are_kept():
    tokenize = tokenizer()
    for _ in range(2):
        with pytest.raises(ClassNameError, match=r"'very very .* has 82 tokens.* the limit is 77\."):
            tokenize(["dog", LONG, "cat"])
    assert tokenize.tokenizer.seen == Counter({"dog": 1, "cat": 1, LONG: 2})
    assert_plain(tokenize, ["cat", "dog"])
    with pytest.raises(ClassNameError, match="at least 308 tokens"):
        tokenize(["dog", LONG * 5, LONG])
    assert tokenize.tokenizer.seen["dog"] == tokenize.tokenizer.seen["cat"] == 1


def test_number_of_kept_texts_is_limited(monkeypatch):
    monkeypatch.setattr(_tokens, "_MAX_KEPT", 4)
    tokenize, rng = tokenizer(), np.random.default_rng(0)
    for _ in range(60):
        texts = rng.choice(WORDS, size=rng.integers(1, 12)).tolist()
        assert_plain(tokenize, texts)
        assert len(tokenize._kept) <= 4
    # Texts of the same call are not tokenized again when others are dropped.
    tokenize = tokenizer()
    for texts in (["a", "b", "c", "d"], ["d", "e"], ["d", "e"]):
        assert_plain(tokenize, texts)
    assert tokenize.tokenizer.seen == Counter("abcde") and sorted(tokenize._kept) == ["d", "e"]


@pytest.mark.parametrize("max_kept", [3, 1000])
def test_threads(monkeypatch, max_kept):
    monkeypatch.setattr(_tokens, "_MAX_KEPT", max_kept)
    tokenize = tokenizer()
    expected = dict(zip(WORDS, plain(WORDS, can_truncate=False), strict=True))

    def work(seed):
        rng = np.random.default_rng(seed)
        for _ in range(40):
            texts = rng.choice(WORDS, size=5).tolist()
            rows = torch.stack([expected[text] for text in texts])
            tokens = tokenize(texts)
            assert torch.equal(tokens, rows[:, : tokens.shape[1]]) and not rows[:, tokens.shape[1] :].any()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))


@pytest.mark.parametrize("duplicate", [copy.copy, lambda object_: pickle.loads(pickle.dumps(object_))])
def test_copies_and_pickles_have_no_kept_texts(duplicate):
    tokenize = tokenizer()
    tokenize(WORDS)
    other = duplicate(tokenize)
    assert not other._kept and len(tokenize._kept) == len(WORDS)
    assert_plain(other, WORDS[:2])
    assert_plain(tokenize, WORDS)
    assert len(other._kept) == 2


def test_nouns_of_the_embedded_backbone_equal_plain_tokens():
    from clipcal.text import load_nouns

    backbone = open_backbone("mini", device="cpu")
    texts = [f"a photo of a {noun}." for noun in load_nouns()[::200]]
    reference = plain(texts)
    for _ in range(2):
        assert torch.equal(backbone.tokenize(texts), reference)
