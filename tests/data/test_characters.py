"""Words as characters: encoder, corpus and windows."""
import logging

import numpy as np
import pytest

from embeddings_jax.data import characters as module
from embeddings_jax.data.characters import character_source, spell_documents
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.documents import is_validation
from embeddings_jax.data.encoders import load_encoder
from embeddings_jax.data.encoders.characters import CharacterEncoder, split_words_and_marks
from embeddings_jax.types import InputError

ENCODER = CharacterEncoder([*module.MARKS, "cat", "the"], 6, 6)
BEGIN, END = [259, 257, 260, 261, 261, 261], [259, 258, 260, 261, 261, 261]


def spelling(word):
  data = [byte + 1 for byte in word.encode()[:4]]
  return [259, *data, 260] + [261] * (4 - len(data))


def test_worked_by_hand():
  batch = ENCODER.encode(["the é.", ["catch"]])
  assert batch["characters"].dtype == np.uint16 and batch["characters"].shape == (2, 6, 6)
  assert batch["characters"][0].tolist() == [BEGIN, spelling("the"), spelling("é"), spelling("."), END, [0] * 6]
  assert batch["characters"][1].tolist() == [BEGIN, spelling("catc"), END] + [[0] * 6] * 3
  assert batch["tokens"].tolist() == [[0, 4, 2, 2, 1, -1], [0, 2, 1, -1, -1, -1]]
  assert ENCODER.lengths(batch).tolist() == [5, 3] and batch["mask"].tolist() == [1, 1]
  assert ENCODER.encode(["cat"])["tokens"].tolist() == [[0, 3, 1]]
  assert ENCODER.facts == {"vocab_size": 5, "special_ids": [0]}


def test_words_and_marks():
  assert split_words_and_marks("Don\u2019t (really) go, <S> 3.5% 東京_x\u2028y") == [
      "Don\u2019t", "(", "really", ")", "go", ",", "<", "S", ">", "3", ".", "5", "%", "東京_x", "y"]


def test_places_of_words_and_cuts(caplog):
  with caplog.at_level(logging.WARNING):
    batch = CharacterEncoder(ENCODER.words, 6, 6).encode_words([["a", "<S>", "c", "d", "e"], ["the"]])
  assert batch["word_starts"].tolist() == [[1, 2, 3, 4, -1], [1, -1, -1, -1, -1]]
  assert batch["tokens"].tolist() == [[0, 2, 2, 2, 2, 1], [0, 4, 1, -1, -1, -1]]  # A word `<S>` is no mark.
  assert batch["characters"][0, 2].tolist() == spelling("<S>")
  assert "1 of 2 texts have more than 4 words" in caplog.text


def test_files_round_trip(tmp_path):
  ENCODER.save(tmp_path)
  loaded = load_encoder(tmp_path)
  assert isinstance(loaded, CharacterEncoder) and loaded.fingerprint == ENCODER.fingerprint
  for key, value in ENCODER.encode(["the cat sat"]).items():
    np.testing.assert_array_equal(loaded.encode(["the cat sat"])[key], value, strict=True)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
  names = [x + y + z for x in "abcdefgh" for y in "ghijklmn" for z in "mnop"]
  documents = ["The cat. The dog ran.", "A cat.", *(f"The {name}." for name in names)]
  return documents, spell_documents(Dataset("d", "text", documents, fingerprint="d"), vocab_size=6, max_characters=6,
                                    max_length=6, cache_dir=tmp_path_factory.mktemp("cache"))


def test_corpus(corpus):
  documents, texts = corpus
  assert texts.encoder.words == ["<S>", "</S>", "<UNK>", ".", "The", "cat"]
  assert texts.train[:12].tolist()[:6] == [0, 4, 5, 3, 1, 0] and isinstance(texts.train, np.memmap)
  held_out = [text for text in documents if is_validation(text)]
  assert len(texts.validation) == 5 * len(held_out) > 0
  count = lambda i: (texts.train == i).sum()
  assert texts.facts["counts"].tolist() == [0, count(1), (texts.train > 5).sum(), count(3), count(4), count(5)]
  assert texts.facts["num_documents"] == len(documents) - len(held_out)
  assert texts.facts["num_raw_words"] == len(texts.train) - 2 * (texts.train == 0).sum()
  assert texts.characters.shape == (texts.facts["num_words"] + 1, 6) and not texts.characters[-1].any()
  assert texts.characters[:2].tolist() == [BEGIN, END] and texts.characters[5].tolist() == spelling("cat")
  # Each word's spelling is its own, also of words that only held-out text has.
  actual = {bytes((row[1:row.tolist().index(260)] - 1).astype(np.uint8)).decode() for row in texts.characters[3:-1]}
  assert actual == {word for text in documents for word in split_words_and_marks(text)}


@pytest.mark.parametrize("resident", [True, False])
def test_windows_are_what_the_encoder_says(corpus, resident):
  _, texts = corpus
  source = character_source(texts.validation, texts.characters, 6, 5, 2, order="sequential", remainder="pad",
                            resident=resident)
  batches = [source.batch_at(step) for step in range(source.facts["steps_per_epoch"])]
  rows = {key: np.concatenate([batch[key][batch["mask"] > 0] for batch in batches]) for key in batches[0]}
  sentences = [text for text in corpus[0] if is_validation(text)]
  expected = CharacterEncoder(texts.encoder.words, 6, 6).encode(sentences)
  np.testing.assert_array_equal(rows["characters"], expected["characters"][:, :5], strict=True)
  np.testing.assert_array_equal(rows["tokens"], expected["tokens"][:, :5], strict=True)
  longer = character_source(texts.validation, texts.characters, 6, 7, 1, order="sequential", resident=resident)
  last = longer.batch_at(longer.facts["steps_per_epoch"] - 1)
  beyond = 7 * longer.facts["num_rows"] - len(texts.validation)
  assert (last["tokens"][0, 7 - beyond:] == -1).all() and not last["characters"][0, 7 - beyond:].any() and beyond


@pytest.mark.parametrize("call, message", [
    (lambda: ENCODER.encode([]), "no items"),
    (lambda: CharacterEncoder(["a", "b", "c"], 6, 6), "must begin with <S>, </S>, <UNK>"),
    (lambda: CharacterEncoder(module.MARKS, 3, 6), "max_characters=3: expected an integer from 4 to 4096"),
    (lambda: spell_documents(Dataset("d", "rows", [1]), vocab_size=9, max_characters=6, max_length=6), "holds rows"),
    (lambda: spell_documents(Dataset("d", "text", ["a"]), vocab_size=3, max_characters=6, max_length=6), "too small"),
    (lambda: spell_documents(Dataset("none", "text", ["", " "], fingerprint="none"), vocab_size=9, max_characters=6,
                             max_length=6), "none: has no text to train on"),
])
def test_bad_input(call, message):
  with pytest.raises(InputError, match=message):
    call()
