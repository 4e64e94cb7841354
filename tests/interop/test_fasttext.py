"""Models of fastText: a file made by hand, gensim's own, and what is wrong with others."""
import struct

import numpy as np
import pytest

from embeddings_jax.interop import word_vectors
from embeddings_jax.interop.fasttext import hashes, read_fasttext
from embeddings_jax.types import InputError


def model(words=(b"ab", b"c"), labels=(), dim=2, bucket=5, min_n=2, max_n=3, version=12, pruned=-1, quantized=False):
  table = np.random.default_rng(0).normal(size=(len(words) + bucket, dim)).astype("<f4")
  data = struct.pack("<ii", 793712314, version)
  data += struct.pack("<12id", dim, 5, 5, 1, 5, 1, 2, 1, bucket, min_n, max_n, 100, 1e-4)
  data += struct.pack("<iiiqq", len(words) + len(labels), len(words), len(labels), 9, pruned)
  data += b"".join(word + b"\0" + struct.pack("<qb", 3, kind) for kind, listed in enumerate((words, labels))
                   for word in listed)
  return data + struct.pack("<?qq", quantized, *table.shape) + table.tobytes() + b"output", table


def fnv(text):
  value = 2166136261
  for byte in text:
    value = (value ^ (byte if byte < 128 else byte | 0xFFFFFF00)) * 16777619 % 2**32
  return value


def test_a_vector_is_the_mean_of_a_words_and_its_ngrams(tmp_path):
  data, table = model(labels=(b"__label__x",))
  (tmp_path / "m.bin").write_bytes(data)
  grams = {b"ab": [b"<a", b"<ab", b"ab", b"ab>", b"b>"], b"c": [b"<c", b"<c>", b"c>"]}
  expected = [np.mean([table[i], *(table[2 + fnv(gram) % 5] for gram in listed)], 0)
              for i, listed in enumerate(grams.values())]
  actual = word_vectors.read(tmp_path / "m.bin")
  assert actual.words == ["ab", "c"] and word_vectors.recognize(tmp_path / "m.bin") == "fasttext"
  np.testing.assert_allclose(actual.vectors, expected, atol=1e-6)
  first = word_vectors.read(tmp_path / "m.bin", limit=1)
  assert first.words == ["ab"] and first.vectors.tolist() == actual.vectors[:1].tolist()


def test_without_ngrams_a_vector_is_the_words(tmp_path):
  data, table = model(bucket=0, max_n=0, min_n=0)
  (tmp_path / "m.bin").write_bytes(data)
  np.testing.assert_array_equal(read_fasttext(tmp_path / "m.bin")[1], table)


def test_ngrams_are_of_characters():
  assert sorted(hashes("né".encode(), 1, 2)) == sorted(fnv(gram.encode()) for gram in (
      "<n", "n", "né", "é", "é>"))


@pytest.mark.parametrize("data, message", [
    (model(version=11)[0], "is a model of fastText in version 11, only 12 is read; in gensim"),
    (model(quantized=True)[0], "is a quantized model"), (model(pruned=3)[0], "is a pruned model"),
    (model()[0][:40], "ends within its header; it was cut short"), (model()[0][:-40], "damaged or cut short"),
    (model(words=(b"ab",))[0][:100], "ends within word 1 of 1; it was cut short"),
    (model(dim=0)[0], "damaged, its header has 0 dimensions"),
    (model(words=(b"a", b"a"))[0], "word 2: the word 'a' was in word 1 already; errors=replace"),
    (model(words=(b"\xff",))[0], "word 1: .* is not UTF-8"),
])
def test_what_is_not_read_is_named(tmp_path, data, message):
  (tmp_path / "m.bin").write_bytes(data)
  with pytest.raises(InputError, match=f"m.bin: {message}") as error:
    word_vectors.read(tmp_path / "m.bin")
  assert "\n" not in str(error.value)


@pytest.mark.parity
def test_gensim_reads_the_same_vectors(tmp_path):
  from gensim.models.fasttext import FastText, load_facebook_vectors, save_facebook_model

  theirs = FastText([["café", "naïve", "日本", "the", "a"]] * 3, vector_size=7, min_count=1, min_n=2, max_n=5,
                    bucket=50, epochs=1)
  save_facebook_model(theirs, str(tmp_path / "m.bin"))
  expected = load_facebook_vectors(str(tmp_path / "m.bin"))
  actual = word_vectors.read(tmp_path / "m.bin")
  assert actual.words == expected.index_to_key
  np.testing.assert_allclose(actual.vectors, np.stack([expected[word] for word in actual.words]), atol=1e-7)
  expected.save_word2vec_format(str(tmp_path / "m.vec"))
  np.testing.assert_allclose(word_vectors.read(tmp_path / "m.vec").vectors, actual.vectors, atol=1e-7)
