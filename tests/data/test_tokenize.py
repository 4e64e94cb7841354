import hashlib

import numpy as np
import pytest

from embeddings_jax.data import text
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.text import tokenize
from embeddings_jax.types import InputError


def corpus(*documents):
  return Dataset("corpus", "text", documents, fingerprint=hashlib.sha256("\n".join(documents).encode()).hexdigest())


def test_worked_by_hand(tmp_path):
  dataset = corpus("The cat saw the 2 cats.", "Dog!", "A cat, a dog; the CAT")
  tokens = tokenize(dataset, normalize="a-z", min_count=2, cache_dir=tmp_path)
  # the 3, cat 3, a 2, dog 2; saw, two and cats occur once.
  assert tokens.encoder.names == ["cat", "the", "a", "dog"]
  assert tokens.tokens.tolist() == [1, 0, 1, -1, 3, -1, 2, 0, 2, 3, 1, 0]
  assert tokens.tokens.dtype == np.int32 and isinstance(tokens.tokens, np.memmap)
  counts = tokens.facts.pop("counts")
  assert counts.tolist() == [3, 3, 2, 2]
  assert tokens.facts == {"vocab_size": 4, "num_words": 10, "num_raw_words": 13, "num_documents": 3}
  assert tokens.encoder.encode(["the dog", "Cats"])["tokens"].tolist() == [[1, 3], [-1, -1]]


def test_document_without_known_words_keeps_its_place(tmp_path):
  tokens = tokenize(corpus("a a", "b", "a"), min_count=2, cache_dir=tmp_path)
  assert tokens.tokens.tolist() == [0, 0, -1, -1, 0]


def test_max_size_keeps_the_most_frequent(tmp_path):
  tokens = tokenize(corpus("b b a a c"), normalize="cased", min_count=1, max_size=2, cache_dir=tmp_path)
  assert tokens.encoder.names == ["a", "b"] and tokens.tokens.tolist() == [1, 1, 0, 0]
  assert tokens.facts["num_words"] == 4 and tokens.facts["num_raw_words"] == 5


LINES = "It is 1 a.m. in NYC! Is it?\nYes ."
ONE, TWO = ["it is one a m", "in nyc", "is it"], ["yes"]


@pytest.mark.parametrize("boundaries,runs", [
    ("document", [" ".join(ONE + TWO), "no"]),
    ("line", [" ".join(ONE), *TWO, "no"]),
    ("sentence", [*ONE, *TWO, "no"]),
    ("none", [" ".join([*ONE, *TWO, "no"])]),
])
def test_boundaries(tmp_path, boundaries, runs):
  tokens = tokenize(corpus(LINES, "No"), min_count=1, boundaries=boundaries, cache_dir=tmp_path)
  text = " ".join("|" if i < 0 else tokens.encoder.names[i] for i in tokens.tokens)
  assert text.split() == " | ".join(runs).split()
  assert tokens.facts["num_documents"] == len(runs)


def test_words_between_spaces_stay_as_they_are(tmp_path):
  dataset = corpus("I like deep learning . I like NLP . I enjoy flying .")
  tokens = tokenize(dataset, normalize="spaces", boundaries="sentence", min_count=1, cache_dir=tmp_path)
  text = [tokens.encoder.names[i] if i >= 0 else "|" for i in tokens.tokens]
  assert text == "I like deep learning . | I like NLP . | I enjoy flying .".split()
  assert tokens.encoder.encode(["NLP .", "nlp"])["tokens"].tolist()[1] == [-1, -1]


@pytest.mark.parametrize("normalize", ["a-z", "lower", "cased", "spaces"])
def test_pieces_never_cut_words(tmp_path, monkeypatch, normalize):
  rng = np.random.default_rng(0)
  words = np.array(["naïve", "Straße", "x", "don't", "日本語", "10", "longerword", "\u2019"])
  dataset = corpus(*[" ".join(rng.choice(words, rng.integers(0, 9))) for _ in range(200)])
  whole = tokenize(dataset, normalize=normalize, min_count=1, cache_dir=tmp_path / "whole")
  monkeypatch.setattr(text, "_SLAB", 7)
  pieces = tokenize(dataset, normalize=normalize, min_count=1, cache_dir=tmp_path / "pieces")
  np.testing.assert_array_equal(whole.tokens, pieces.tokens)
  assert whole.encoder.fingerprint == pieces.encoder.fingerprint
  # Document by document, as the encoder reads them.
  ends = np.flatnonzero(np.append(whole.tokens, -1) == -1)
  starts = np.append(0, ends[:-1] + 1)
  for document, start, end in zip(dataset.items, starts, ends):
    row = whole.encoder.encode([document])["tokens"][0]
    np.testing.assert_array_equal(row[row >= 0], whole.tokens[start:end])


def test_cache_is_read_again_and_options_have_their_own(tmp_path, monkeypatch):
  dataset = corpus("a b", "b c")
  first = tokenize(dataset, min_count=1, cache_dir=tmp_path)
  other = tokenize(dataset, min_count=2, cache_dir=tmp_path)
  assert len(first.encoder.vocabulary) == 3 and len(other.encoder.vocabulary) == 1
  monkeypatch.setattr(text, "_build", None)  # Would fail if it were called.
  again = tokenize(dataset, min_count=1, cache_dir=tmp_path)
  np.testing.assert_array_equal(first.tokens, again.tokens)


def test_bad_input(tmp_path):
  with pytest.raises(InputError, match="no word occurs 5 times in 2 words"):
    tokenize(corpus("a b"), cache_dir=tmp_path)
  with pytest.raises(InputError, match="must be 'a-z'"):
    tokenize(corpus("a b"), normalize="a-Z", cache_dir=tmp_path)
  with pytest.raises(InputError, match="boundaries='page': must be one of document, line"):
    tokenize(corpus("a b"), boundaries="page", cache_dir=tmp_path)
  with pytest.raises(InputError, match="holds rows"):
    tokenize(corpus("a b")._replace(kind="rows"), cache_dir=tmp_path)
