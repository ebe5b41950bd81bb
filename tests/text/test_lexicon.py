"""The nouns that outliers are drawn from."""

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
def test_file(tmp_path, as_type):
    path = tmp_path / "nouns.txt"
    path.write_text("dog\n\nhot_dog\r\ndog\n  crème  brûlée \n", encoding="utf-8")
    assert load_nouns(as_type(path)) == ("dog", "hot dog", "crème brûlée")


def test_iterable_keeps_its_order():
    assert load_nouns(noun for noun in ["b", "a_c", "b", "a c"]) == ("b", "a c")


def test_missing_file_names_the_choices():
    with pytest.raises(FileNotFoundError, match="lexicon='wordnett' is neither 'wordnet', 'nltk' nor a file"):
        load_nouns("wordnett")


@pytest.mark.parametrize("source", [[], ["", " _ "]])
def test_nothing_left(source):
    with pytest.raises(ValueError, match="holds no nouns; pass"):
        load_nouns(source)


def test_nltk_without_its_corpus(tmp_path, monkeypatch):
    # In another process, since nltk keeps a corpus that it has found once.
    code = (
        "import nltk; nltk.data.path[:] = []\n"
        "from clipcal.text import load_nouns\n"
        "try: load_nouns('nltk')\n"
        "except FileNotFoundError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "nltk.downloader wordnet" in done.stdout
    assert "lexicon='wordnet', which is packaged" in done.stdout


def test_nltk_corpus_is_read_and_sorted(monkeypatch):
    corpus = pytest.importorskip("nltk.corpus")

    class Corpus:
        def all_lemma_names(self, pos):
            assert pos == "n"
            return iter(["hot_dog", "apple"])

    monkeypatch.setattr(corpus, "wordnet", Corpus())
    assert load_nouns("nltk") == ("apple", "hot dog")
