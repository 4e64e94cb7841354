"""Word vectors out and in: byte for byte gensim's, and one clear line for each way in which a file can be wrong."""
import gzip
import lzma
import tracemalloc

import numpy as np
import pytest

from embeddings_jax.interop import word_vectors
from embeddings_jax.interop.word_vectors import FORMATS, read, recognize, write
from embeddings_jax.types import InputError

WORDS = ["the", "Zürich", "日本", "don't", "5", "1e3", "a\u2028b", "tab\tword", "\ufeff"]


@pytest.fixture(scope="module")
def vectors():
  """Numbers of all magnitudes, zeros, subnormal ones, the largest and the smallest."""
  noise = np.random.default_rng(0)
  values = noise.normal(size=(len(WORDS), 7)) * 10.0 ** noise.integers(-12, 12, (len(WORDS), 7))
  values[0] = [0, -0.0, 1, 1e-45, np.finfo(np.float32).max, np.finfo(np.float32).tiny, 1 / 3]
  return values.astype(np.float32)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_what_is_written_is_read_and_recognized(tmp_path, vectors, format, suffix):
  name = "v.npy" if format == "npy" else f"v.txt{suffix}"
  write(tmp_path / name, WORDS, vectors, format)
  assert recognize(tmp_path / name) == format
  for given in ("", format):
    actual = read(tmp_path / name, given)
    assert actual.words == WORDS and actual.vectors.dtype == np.float32
    assert actual.vectors.tobytes() == vectors.tobytes()
  before = (tmp_path / name).read_bytes()
  write(tmp_path / name, WORDS, vectors, format)
  assert (tmp_path / name).read_bytes() == before  # No time, no name in the .gz.
  assert not [path for path in tmp_path.iterdir() if "draft" in path.name]


def test_the_text_by_hand(tmp_path):
  write(tmp_path / "v", ["a", "b"], np.array([[1, -0.1], [1e-05, 2e20]]), "word2vec")
  assert (tmp_path / "v").read_bytes() == b"2 2\na 1.0 -0.1\nb 1e-05 2e+20\n"
  write(tmp_path / "v", ["a", "b"], np.array([[1, -0.1], [1e-05, 2e20]]), "glove")
  assert (tmp_path / "v").read_bytes() == b"a 1.0 -0.1\nb 1e-05 2e+20\n"
  write(tmp_path / "v", ["a"], np.array([[1.0, 2.0]]), "word2vec-binary")
  assert (tmp_path / "v").read_bytes() == b"1 2\na \0\0\x80?\0\0\0@"


@pytest.mark.parity
@pytest.mark.parametrize("format", ["word2vec", "word2vec-binary", "glove"])
def test_both_ways_with_gensim(tmp_path, vectors, format):
  from gensim.models import KeyedVectors

  options = {"word2vec": {}, "word2vec-binary": {"binary": True}, "glove": {"write_header": False}}[format]
  theirs = KeyedVectors(7)
  theirs.add_vectors(WORDS, vectors)
  theirs.save_word2vec_format(str(tmp_path / "theirs"), **options)
  write(tmp_path / "ours", WORDS, vectors, format)
  assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
  options = {"no_header": True} if format == "glove" else options
  loaded = KeyedVectors.load_word2vec_format(str(tmp_path / "ours"), **options)
  assert loaded.index_to_key == WORDS
  actual = read(tmp_path / "theirs")
  assert actual.words == WORDS
  for values in (loaded.vectors, actual.vectors):
    np.testing.assert_array_equal(values, vectors)


@pytest.mark.parity
def test_words_with_spaces_are_what_gensim_gets_wrong(tmp_path):
  """Its text cannot be read back, its binary is read as other words: why we refuse to write them."""
  from gensim.models import KeyedVectors

  theirs = KeyedVectors(2)
  theirs.add_vectors(["New York", "b"], np.ones((2, 2), np.float32))
  theirs.save_word2vec_format(str(tmp_path / "text"))
  with pytest.raises(ValueError, match="could not convert string to float"):
    KeyedVectors.load_word2vec_format(str(tmp_path / "text"))
  assert read(tmp_path / "text").words == ["New York", "b"]
  theirs.save_word2vec_format(str(tmp_path / "binary"), binary=True)
  try:
    assert KeyedVectors.load_word2vec_format(str(tmp_path / "binary"), binary=True).index_to_key != ["New York", "b"]
  except (UnicodeDecodeError, EOFError):
    pass
  with pytest.raises(InputError):
    read(tmp_path / "binary")


def test_files_of_the_c_programs(tmp_path):
  """word2vec ends lines with a space, and binary vectors with a line end; GloVe may have the first line or not."""
  (tmp_path / "text").write_bytes(b"2 2\n</s> 0.1 0.2 \nthe -1.5 3 \n")
  (tmp_path / "binary").write_bytes(b"2 2\n</s> " + np.float32([0.1, 0.2]).tobytes() + b"\nthe "
                                    + np.float32([-1.5, 3]).tobytes() + b"\n")
  (tmp_path / "glove").write_bytes(b"</s> 0.1 0.2\r\nthe -1.5 3")
  (tmp_path / "with header").write_bytes(b"2 2\n</s> 0.1 0.2\nthe -1.5 3\n\n")
  for name in ("text", "binary", "glove", "with header"):
    actual = read(tmp_path / name, "glove" if name == "with header" else "")
    assert actual.words == ["</s>", "the"]
    np.testing.assert_array_equal(actual.vectors, np.float32([[0.1, 0.2], [-1.5, 3]]))


def test_words_with_spaces_in_text(tmp_path):
  (tmp_path / "v").write_text(". . . 0.5 1\nat name@domain.com 2 3\nthe 4 5\n")
  actual = read(tmp_path / "v")
  assert actual.words == [". . .", "at name@domain.com", "the"]
  assert actual.vectors.tolist() == [[0.5, 1], [2, 3], [4, 5]]


def test_words_that_end_with_numbers_need_a_header(tmp_path):
  (tmp_path / "v").write_text("2 2\nat 5 0.5 1\nthe 4 5\n")
  assert read(tmp_path / "v").words == ["at 5", "the"] and read(tmp_path / "v").vectors.tolist() == [[0.5, 1], [4, 5]]
  (tmp_path / "v").write_text("2 2\na 1 2 3\nb 4 5 6\n")
  with pytest.raises(InputError, match="v: line 2: 'a 1' and all other words end with a number, so their vectors"):
    read(tmp_path / "v")


@pytest.mark.parametrize("format", FORMATS)
def test_the_first_words_of_a_file(tmp_path, vectors, format):
  path = tmp_path / ("v.npy" if format == "npy" else "v")
  write(path, WORDS, vectors, format)
  actual = read(path, limit=3)
  assert actual.words == WORDS[:3] and actual.vectors.tobytes() == vectors[:3].tobytes()
  assert read(path, limit=99).words == WORDS
  with pytest.raises(InputError, match="limit=-1: must be a number of words"):
    read(path, limit=-1)


def test_compressed_and_npy_of_a_run(tmp_path):
  with lzma.open(tmp_path / "v.txt.xz", "wb") as file:
    file.write(b"a 1 2\n")
  assert read(tmp_path / "v.txt.xz").vectors.tolist() == [[1, 2]]
  np.save(tmp_path / "embeddings.npy", np.eye(2))
  (tmp_path / "vocabulary.txt").write_text("New York\na\u2028b\n")
  actual = read(tmp_path / "embeddings.npy")
  assert actual.words == ["New York", "a\u2028b"] and actual.vectors.tolist() == [[1, 0], [0, 1]]


def _binary(*words, dim=2):
  return b"".join(word + b" " + np.arange(dim, dtype="<f4").tobytes() for word in words)


BAD = {
    "empty": (b"", "v: is empty"),
    "empty binary": (b"", "v: is empty", "word2vec-binary"),
    "no header": (b"a 1 2\n", "v: line 1: 'a 1 2' should be the numbers of words and dimensions", "word2vec"),
    "too few words": (b"3 2\na 1 2\nb 3 4\n", "v: ends after 2 of the 3 words that line 1 tells of; it was"),
    "too many words": (b"1 2\na 1 2\nb 3 4\n", "v: line 3: there are more words than the 1 that line 1 tells of"),
    "cut within a line": (b"2 3\na 1 2 3\nb 1 2", "v: line 3: the word 'b' has a vector of 2 numbers, should have 3"),
    "dimension too small": (b"a 1 2\nb 1\n", "v: line 2: the word 'b' has a vector of 1 numbers, should have 2"),
    "dimension too large": (b"a 1 2\nb 1 2 3\n", "v: line 2: the word 'b' has a vector of 3 numbers, should have 2"),
    "errors that even out": (b"a 1 2\nb 1 2 3\nc 1\n", "v: line 2: the word 'b' has a vector of 3"),
    "header's dimension": (b"2 3\na 1 2\nb 3 4\n", "v: line 2: the word 'a' has a vector of 2 numbers, should"),
    "no number": (b"2 2\na 1 2\nb 1 x\n", "v: line 3: '1 x' should be 2 numbers"),
    "no number in line 2": (b"1 2\na 1 x\n", "v: line 2: '1 x' should be 2 numbers"),
    "decimal comma": (b"a 1.5 2\nb 1,5 2\n", "v: line 2: '1,5 2' should be 2 numbers"),
    "not a number": (b"a 1 2\nb nan 2\n", "v: line 2: the vector of 'b' has a number that is not finite"),
    "too great": (b"a 1 1e39\n", "v: line 1: the vector of 'a' has a number that is not finite"),
    "no vector": (b"hello\nworld\n", "v: line 1: 'hello' should be a word and the numbers of its vector"),
    "not UTF-8": (b"a 1 2\nb\xff 1 2\n", r"v: line 2: 'b\\\\xff' is not UTF-8.*errors=replace"),
    "twice": (b"a 1 2\nb 1 2\na 3 4\n", "v: line 3: the word 'a' was in line 1 already; errors=replace keeps the"),
    "binary cut": (b"2 2\n" + _binary(b"a", b"b")[:-1], "v: ends within word 2 of the 2 words"),
    "binary too few": (b"3 2\n" + _binary(b"a", b"b"), "v: ends within word 3 of the 3 words"),
    "binary too many": (b"1 2\n" + _binary(b"a", b"b"), "v: goes on after the 1 words of 2 numbers"),
    "binary dimension": (b"2 9\n" + _binary(b"a", b"b", dim=99), "v: word 2: .*is not UTF-8|goes on after"),
    "binary without words": (b"2 1\nx " + b"\xff" * 200000, "v: word 2 is longer than 65536 bytes"),
    "binary not UTF-8": (b"1 2\n" + _binary(b"\xff"), "v: word 1: .*is not UTF-8"),
    "binary twice": (b"2 2\n" + _binary(b"a", b"a"), "v: word 2: the word 'a' was in word 1 already"),
    "binary not finite": (b"1 2\na " + np.float32([1, np.inf]).tobytes(), "v: word 1: the vector of 'a' .* finite"),
    "header of terabytes": (b"99999999999999 99999999\na 1\n", "do not fit into a file of 28 bytes", "word2vec"),
    "unknown format": (b"a 1\n", "format=word2vce: unknown; one of word2vec", "word2vce"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_named_in_one_line(tmp_path, case):
  content, message, *format = BAD[case]
  (tmp_path / "v").write_bytes(content)
  with pytest.raises(InputError, match=message) as error:
    read(tmp_path / "v", *format)
  assert "\n" not in str(error.value) and len(str(error.value)) < 300


@pytest.mark.parametrize("format,content", [
    ("glove", b"king 1 0\r\nqueen 0 1\r\n"), ("word2vec", b"2 2\r\nking 1 0\r\nqueen 0 1\r\n"),
    ("word2vec-binary", b"2 2\n" + _binary(b"king", b"queen")), ("npy", b"king\r\nqueen\r\n")])
def test_byte_order_marks_and_carriage_returns_are_no_part_of_words(tmp_path, format, content):
  path = tmp_path / "v.txt"
  if format == "npy":
    path = tmp_path / "v.npy"
    np.save(path, np.eye(2))
  (tmp_path / ("v.vocabulary.txt" if format == "npy" else "v.txt")).write_bytes(b"\xef\xbb\xbf" + content)
  assert read(path).words == ["king", "queen"]


@pytest.mark.parametrize("content,message", [
    (b"\x80\x04\x95\x01", "is a pickle .gensim's .kv and .model are.*save_word2vec_format"),
    (b"\xba\x16\x4f\x2f\x0b\0\0\0", "is a model of fastText.*save_word2vec_format"),
    (b"PK\x03\x04rest", "is an archive .of torch, Keras or NumPy"), (b"\x89HDF\r\n", "is HDF5"),
    (b"\x93NUMPY\x01\0", "is a .npy file; give it a name that ends in .npy"),
    (b"a" * (1 << 24), "line 1 is longer than 16 MiB")])
def test_files_of_other_programs_are_named_and_never_unpickled(tmp_path, content, message):
  (tmp_path / "v.kv").write_bytes(content)
  for format in ("", "word2vec", "glove"):
    with pytest.raises(InputError, match=message):
      read(tmp_path / "v.kv", format)
  with pytest.raises(InputError, match="is a directory"):
    read(tmp_path)


def test_other_bad_files(tmp_path):
  (tmp_path / "v.gz").write_bytes(gzip.compress(b"a 1 2\n" * 99)[:-9])
  with pytest.raises(InputError, match="v.gz: broken compressed file"):
    read(tmp_path / "v.gz")
  with pytest.raises(InputError, match="none: cannot be read"):
    read(tmp_path / "none")
  np.save(tmp_path / "v.npy", np.eye(3))
  with pytest.raises(InputError, match="v.npy: its words are not there, neither v.vocabulary.txt nor vocabulary.txt"):
    read(tmp_path / "v.npy")
  (tmp_path / "v.vocabulary.txt").write_text("a\nb\n")
  with pytest.raises(InputError, match="v.vocabulary.txt: has 2 words for the 3 vectors of v.npy"):
    read(tmp_path / "v.npy")
  (tmp_path / "v.vocabulary.txt").write_text("a\nb\na\n")
  with pytest.raises(InputError, match="line 3: the word 'a' was in line 1 already"):
    read(tmp_path / "v.npy")
  assert read(tmp_path / "v.npy", errors="replace").vectors.tolist() == [[1, 0, 0], [0, 1, 0]]
  (tmp_path / "v.vocabulary.txt").write_bytes(b"a\nb\n\xff\n")
  with pytest.raises(InputError, match="v.vocabulary.txt: not UTF-8 at byte 4"):
    read(tmp_path / "v.npy")


@pytest.mark.parametrize("binary", [False, True])
def test_replace_goes_on_and_keeps_the_first_of_equal_words(tmp_path, binary):
  rows = [(b"a\xff", 0), (b"b", 1), (b"a\xfe", 2), (b"b", 3), (b"c", 4)]
  if binary:
    lines = b"".join(word + b" " + np.float32([x, -x]).tobytes() for word, x in rows)
  else:
    lines = b"".join(b"%s %d %d\n" % (word, x, -x) for word, x in rows)
  (tmp_path / "v").write_bytes(b"5 2\n" + lines)
  actual = read(tmp_path / "v", errors="replace")
  assert actual.words == ["a\ufffd", "b", "c"] and actual.vectors[:, 0].tolist() == [0, 1, 4]
  with pytest.raises(InputError, match="must be 'strict' or 'replace'"):
    read(tmp_path / "v", errors="ignore")


def test_what_cannot_be_written_is_refused_and_leaves_the_old_file(tmp_path):
  one = np.ones((1, 2), np.float32)
  (tmp_path / "v").write_text("old")
  for words, vectors, format, message in [
      (["New York"], one, "word2vec-binary", "'New York' has white space or is empty, which word2vec-binary cannot"),
      ([""], one, "glove", "has white space or is empty"), (["a\nb"], one, "npy", "white space"),
      (["a", "b"], one, "glove", r"2 words for vectors of shape \[1, 2\]"),
      (["a", "a"], np.ones((2, 2)), "glove", "listed twice"), (["a"], one * np.nan, "glove", "'a' is not finite"),
      (["a"], one, "text", "format=text: unknown"), (["a"], one, "npy", "ends in .npy")]:
    with pytest.raises(InputError, match=message):
      write(tmp_path / "v", words, vectors, format)
  with pytest.raises(InputError, match="plain or as .gz"):
    write(tmp_path / "v.xz", ["a"], one, "glove")
  assert [path.name for path in tmp_path.iterdir()] == ["v"] and (tmp_path / "v").read_text() == "old"


@pytest.mark.parametrize("format", ["word2vec", "word2vec-binary", "glove"])
def test_memory_beside_the_result_is_bounded(tmp_path, monkeypatch, format):
  """The result has 2.4 MB, its text 7 MB: neither the file nor a second copy is ever in memory."""
  monkeypatch.setattr(word_vectors, "_BLOCK_BYTES", 1 << 17)
  monkeypatch.setattr(word_vectors, "_BLOCK_ROWS", 128)
  words = [f"word{i}" for i in range(6000)]
  vectors = np.random.default_rng(0).normal(size=(6000, 100)).astype(np.float32)
  peaks = []
  for call in (lambda: write(tmp_path / "v", words, vectors, format), lambda: read(tmp_path / "v")):
    tracemalloc.start()
    call()
    peaks.append(tracemalloc.get_traced_memory()[1] / 1e6)
    tracemalloc.stop()
  assert peaks[0] < 1.2 and 2.4 < peaks[1] < 2.4 + 2.2, peaks
