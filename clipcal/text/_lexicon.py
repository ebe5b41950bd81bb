"""Load the nouns from which outliers are drawn."""

from __future__ import annotations

import lzma
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from pathlib import Path

__all__ = ["load_nouns"]


def load_nouns(source: str | Path | Iterable[str] = "wordnet") -> tuple[str, ...]:
    """Load a lexicon of nouns.

    Parameters
    ----------
    source : {"wordnet", "nltk"}, path or iterable of str, default="wordnet"
        ``"wordnet"`` is the packaged list of the 117,798 nouns of WordNet 3.0. ``"nltk"`` reads the
        WordNet corpus installed for nltk, in whatever version. A path is a UTF-8 text file with one noun
        per line. Anything else is an iterable of nouns.

    Returns
    -------
    nouns : tuple of str
        The nouns, in the order of the source, without duplicates, with underscores replaced by spaces.

    Raises
    ------
    FileNotFoundError
        If the file or the nltk corpus does not exist.
    ValueError
        If there are no nouns, or the file is not UTF-8.

    References
    ----------
    .. [1] C. Fellbaum (ed.), "WordNet: An Electronic Lexical Database", MIT Press, 1998.

    Examples
    --------
    >>> from clipcal.text import load_nouns
    >>> nouns = load_nouns()
    >>> len(nouns), "denim" in nouns
    (117798, True)
    >>> load_nouns(["dog", "hot_dog", "dog"])
    ('dog', 'hot dog')
    """
    if isinstance(source, str) and source == "wordnet":
        return _packaged()
    if isinstance(source, str) and source == "nltk":
        words: Iterable[str] = _from_nltk()
    elif isinstance(source, (str, Path)):
        path = Path(source)
        if not path.is_file():
            raise FileNotFoundError(
                f"lexicon={str(source)!r} is neither 'wordnet', 'nltk' nor a file; "
                "pass one of these or a list of nouns."
            )
        try:
            words = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise ValueError(f"The lexicon {str(path)!r} is not UTF-8 text; save it as UTF-8.") from error
    else:
        words = source
    nouns = _cleaned(words)
    if not nouns:
        raise ValueError("The lexicon is empty; pass 'wordnet', 'nltk', a file or a non-empty list of nouns.")
    return nouns


def _cleaned(words: Iterable[str]) -> tuple[str, ...]:
    spaced = (" ".join(str(word).replace("_", " ").split()) for word in words)
    return tuple(dict.fromkeys(word for word in spaced if word))


@cache
def _packaged() -> tuple[str, ...]:
    data = files("clipcal.text").joinpath("wordnet_nouns.txt.xz").read_bytes()
    return _cleaned(lzma.decompress(data).decode("utf-8").splitlines())


def _from_nltk() -> list[str]:
    from nltk.corpus import wordnet

    try:
        return sorted(wordnet.all_lemma_names(pos="n"))
    except LookupError:
        raise FileNotFoundError(
            "lexicon='nltk' requires the WordNet corpus of nltk, which is not installed; run "
            "`python -m nltk.downloader wordnet`, or use the packaged lexicon='wordnet'."
        ) from None
