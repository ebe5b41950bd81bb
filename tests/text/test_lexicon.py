"""Loading the lexicon of nouns."""

import subprocess
import sys

import pytest

from clipcal.text import load_nouns


def test_packaged_list():
    nouns = load_nouns()
    assert len(nouns) == len(set(nouns)) == 117_798
    assert {"dog", "hot dog", "denim", "kosciuszko", "'hood"} <= set(nouns)
    assert not any("_" in noun or noun != noun.strip() or not noun for noun in nouns)
    assert load_nouns("wordnet") is nouns


@pytest.mark.parametrize("as_type", [str, lambda path: path], ids=["str", "Path"])
def test_text_file(tmp_path, as_type):
    path = tmp_path / "nouns.txt"
    path.write_text("dog\n\nhot_dog\r\ndog\n  crème  brûlée \n", encoding="utf-8")
    assert load_nouns(as_type(path)) == ("dog", "hot dog", "crème brûlée")


def test_order_of_an_iterable_is_kept():
    assert load_nouns(noun for noun in ["b", "a_c", "b", "a c"]) == ("b", "a c")


def test_error_for_a_missing_file_lists_the_options():
    with pytest.raises(FileNotFoundError, match="lexicon='wordnett' is neither 'wordnet', 'nltk' nor a file"):
        load_nouns("wordnett")


@pytest.mark.parametrize("source", [[], ["", " _ "]])
def test_empty_lexicon_raises(source):
    with pytest.raises(ValueError, match="lexicon is empty; pass"):
        load_nouns(source)


def test_error_for_a_missing_nltk_corpus(tmp_path, monkeypatch):
    # In a subprocess, since nltk caches a corpus once it is loaded.
    code = (
        "import nltk; nltk.data.path[:] = []\n"
        "from clipcal.text import load_nouns\n"
        "try: load_nouns('nltk')\n"
        "except FileNotFoundError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "nltk.downloader wordnet" in done.stdout
    assert "use the packaged lexicon='wordnet'" in done.stdout


def test_nltk_corpus_is_read_and_sorted(monkeypatch):
    corpus = pytest.importorskip("nltk.corpus")

    class Corpus:
        def all_lemma_names(self, pos):
            assert pos == "n"
            return iter(["hot_dog", "apple"])

    monkeypatch.setattr(corpus, "wordnet", Corpus())
    assert load_nouns("nltk") == ("apple", "hot dog")
