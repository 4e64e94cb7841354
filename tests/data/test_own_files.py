"""The user's own files: what they become, and one clear line for each way in which they can be wrong."""
import bz2
import csv
import gzip
import json
import lzma
import struct
import sys
import wave

import numpy as np
import pytest
import zstandard

from embeddings_jax.data.catalog import load
from embeddings_jax.data.dataset import Dataset, from_texts, take_columns
from embeddings_jax.data.documents import byte_stream, is_validation
from embeddings_jax.data.encoders import load_encoder
from embeddings_jax.data.encoders.bytes import ByteEncoder
from embeddings_jax.data.encoders.rows import RowEncoder
from embeddings_jax.data.encoders.waveforms import WaveformEncoder
from embeddings_jax.data.files import arrays
from embeddings_jax.types import InputError


def write_wav(path, samples, rate=8000, width=2, channels=1):
  with wave.open(str(path), "wb") as clip:
    clip.setnchannels(channels)
    clip.setsampwidth(width)
    clip.setframerate(rate)
    clip.writeframes(np.asarray(samples).tobytes())


@pytest.fixture
def folder(tmp_path, monkeypatch):
  monkeypatch.setenv("EMBEDDINGS_CACHE", str(tmp_path / "cache"))
  monkeypatch.delenv("EMBEDDINGS_DATA", raising=False)
  (tmp_path / "own").mkdir()
  return tmp_path / "own"


@pytest.mark.parametrize("suffix, opener", [
    ("", open), (".gz", gzip.open), (".xz", lzma.open), (".bz2", bz2.open), (".zst", zstandard.open)])
def test_lines_are_documents(folder, suffix, opener):
  path = folder / f"a.txt{suffix}"
  with opener(path, "wb") as file:
    file.write("\ufeffOne é\r\n\n  \ntwo\0three\nfour".encode())
  dataset = load(str(path))
  assert dataset.kind == "text" and list(dataset.items) == ["One é", "two three", "four"]
  assert dataset.items[1:] == ["two three", "four"] and dataset.items[-1] == "four"


def test_wikiextractor_marks_bound_documents(folder):
  (folder / "w.txt").write_text('<doc id="1" url="u" title="A &quot; B">\nA\n\nfirst\nline\n</doc>\n'
                                '<doc id="2" url="u" title="C">\nC\n\nsecond\n</doc>\n')
  dataset = load(str(folder / "w.txt"))
  assert list(dataset.items) == ["A\n\nfirst\nline", "C\n\nsecond"]
  assert list(dataset.names) == ["A &quot; B", "C"]


def test_glob_and_folder_join_files_in_order(folder):
  (folder / "b.txt").write_text("b")
  (folder / "a.txt").write_text("a1\na2\n")
  for path in (folder / "*.txt", folder):
    assert list(load(str(path)).items) == ["a1", "a2", "b"]


def test_file_of_unknown_name_is_text(folder):
  (folder / "text8").write_text("anarchism originated as")
  assert list(load(str(folder / "text8")).items) == ["anarchism originated as"]


def test_byte_stream_separates_documents_by_zero(folder):
  (folder / "a.txt").write_text("ab\ncé\n")
  stream, starts = byte_stream(load(str(folder / "a.txt")))
  assert bytes(stream) == "ab\0cé".encode() and starts.tolist() == [0, 3]
  assert isinstance(stream, np.memmap)


def test_fingerprint_is_of_the_content(folder):
  for name, text in (("a", "one\ntwo"), ("b", "one\ntwo\n"), ("c", "one\ntwo!")):
    (folder / f"{name}.txt").write_text(text)
  first, same, other = (load(str(folder / f"{name}.txt")).fingerprint for name in "abc")
  assert first == same != other and len(first) == 64


def test_csv_with_and_without_header(folder):
  (folder / "h.csv").write_text("x,y\n1,2\n\n3,4.5\n")
  (folder / "n.tsv").write_text("1\t2\n3\t4.5\n")
  with_header, without = load(str(folder / "h.csv")), load(str(folder / "n.tsv"))
  assert with_header.columns == ["x", "y"] and without.columns is None
  np.testing.assert_array_equal(with_header.items, np.array([[1, 2], [3, 4.5]], np.float32))
  np.testing.assert_array_equal(without.items, with_header.items)
  assert with_header.items.dtype == np.float32


def test_npy_rows(folder, monkeypatch):
  np.save(folder / "a.npy", np.arange(12, dtype=np.int16).reshape(3, 2, 2))
  np.save(folder / "f.npy", np.ones((3, 4), np.float32))
  np.testing.assert_array_equal(load(str(folder / "a.npy")).items, np.arange(12, dtype=np.float32).reshape(3, 4))
  assert type(load(str(folder / "f.npy")).items) is np.ndarray
  monkeypatch.setattr(arrays, "IN_MEMORY_BYTES", 47)
  assert isinstance(load(str(folder / "f.npy")).items, np.memmap)
  assert load(str(folder / "*.npy")).items.shape == (6, 4)


def test_wavs(folder):
  (folder / "s").mkdir()
  (folder / "LICENSE").write_text("Not data.")
  write_wav(folder / "s" / "a.wav", np.array([1, -2, 300], "<i2"))
  write_wav(folder / "b.wav", np.array([0, 128, 255], np.uint8), width=1)
  write_wav(folder / "c.wav", np.array([[100, 200], [-4, -6]], "<i2"), channels=2)
  dataset = load(str(folder))
  assert dataset.kind == "audio" and dataset.rate == 8000
  assert [clip.tolist() for clip in dataset.items] == [[-32768, 0, 32512], [150, -5], [1, -2, 300]]
  assert all(clip.dtype == np.int16 for clip in dataset.items)
  assert dataset.labels["folder"].tolist() == ["own", "own", "s"]


def test_idx_folder_finds_labels_and_split(folder):
  def write(name, values):
    header = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
    (folder / name).write_bytes(gzip.compress(header + values.tobytes()))

  write("t10k-images-idx3-ubyte.gz", np.full((1, 2, 2), 255, np.uint8))
  write("t10k-labels-idx1-ubyte.gz", np.array([7], np.uint8))
  write("train-images-idx3-ubyte.gz", np.arange(8, dtype=np.uint8).reshape(2, 2, 2))
  write("train-labels-idx1-ubyte.gz", np.array([3, 4], np.uint8))
  dataset = load(str(folder))
  np.testing.assert_allclose(dataset.items * 255, [[0, 1, 2, 3], [4, 5, 6, 7], [255] * 4], rtol=1e-6)
  assert dataset.labels["class"].tolist() == [3, 4, 7]
  assert {k: v.tolist() for k, v in dataset.split.items()} == {"train": [0, 1], "test": [2]}
  assert {k: v.tolist() for k, v in load(f"{folder}/t10k*").split.items()} == {"test": [0]}  # Not to be trained on.
  assert not load(f"{folder}/train*").split


def truncated_wav(path):
  write_wav(path, np.arange(100, dtype="<i2"))
  path.write_bytes(path.read_bytes()[:-10])


def compressed_wav(path):
  write_wav(path, np.arange(100, dtype="<i2"))
  path.write_bytes(path.read_bytes().replace(b"fmt \x10\0\0\0\1\0", b"fmt \x10\0\0\0\7\0"))


def zst(data):
  return zstandard.ZstdCompressor(write_checksum=True).compress(data)


BAD = {
    "text not UTF-8": ("a.txt", b"fine\nab\xff\n", r"a\.txt: not UTF-8 at byte 7;.*errors=replace"),
    "binary of unknown kind": ("a.bin", b"PK\3\4\0\0", "a.bin: is not text, and its name is none of"),
    "empty text": ("a.txt", b"", "a.txt: is empty"),
    "blank text": ("a.txt", b"\n  \n", "a.txt: is empty"),
    "broken gzip": ("a.txt.gz", gzip.compress(b"hello " * 99)[:-12], "a.txt.gz: broken compressed file"),
    "not gzip": ("a.txt.gz", b"hello", "a.txt.gz: broken compressed file"),
    "broken xz": ("a.txt.xz", lzma.compress(b"hello " * 99)[:-12], "a.txt.xz: broken compressed file"),
    "damaged xz": ("a.txt.xz", b"hello", "a.txt.xz: broken compressed file"),
    "damaged bz2": ("a.txt.bz2", b"hello", "a.txt.bz2: cannot be read"),
    "broken zst": ("a.txt.zst", zst(b"hello " * 99)[:-5], "a.txt.zst: broken compressed file"),
    "damaged zst": ("a.txt.zst", b"hello", "a.txt.zst: broken compressed file"),
    "ragged csv": ("a.csv", b"x,y\n1,2\n3\n", "a.csv: line 3 has 1 columns, the lines before have 2"),
    "NaN in csv": ("a.csv", b"1,2\n\n3,nan\n", "a.csv: line 3, column 2: nan is not a finite number"),
    "infinite in float32": ("a.csv", b"1,1e39\n", "a.csv: line 1, column 2: inf is not a finite number"),
    "word in csv": ("a.csv", b"1,2\n3,abc\n", "a.csv: line 2, column 2: 'abc' is not a number"),
    "word in the first line": ("a.csv", b"1,abc\n3,4\n", "a.csv: line 1, column 2: 'abc' is not a number"),
    "missing cell": ("a.csv", b"1,2\n3,\n", "a.csv: line 2, column 2: the value is missing"),
    "empty csv": ("a.csv", b"", "a.csv: is empty"),
    "header alone": ("a.csv", b"x,y\n", "a.csv: is empty"),
    "csv not UTF-8": ("a.csv", b"x,y\n\xe9,1\n", "a.csv: not UTF-8 at byte 4"),
    "not npy": ("a.npy", b"hello world", "a.npy: not a .npy file"),
    "empty npy": ("a.npy", b"", "a.npy: not a .npy file"),
    "npy with NaN": ("a.npy", lambda p: np.save(p, np.array([[1, 2], [3, np.nan]])), "a.npy: row 1, column 1"),
    "npy of strings": ("a.npy", lambda p: np.save(p, np.array([["a"]])), "a.npy: holds <U1"),
    "npy of objects": ("a.npy", lambda p: np.save(p, np.array([[{}]])), "a.npy: not a .npy file of numbers"),
    "npy of one axis": ("a.npy", lambda p: np.save(p, np.arange(3)), r"a.npy: has shape \(3,\)"),
    "npy without rows": ("a.npy", lambda p: np.save(p, np.zeros((0, 3))), r"a.npy: has shape \(0, 3\)"),
    "truncated npy": ("a.npy", lambda p: (np.save(p, np.ones((9, 9))), p.write_bytes(p.read_bytes()[:-8])),
                      "a.npy: not a .npy file"),
    "not a wav": ("a.wav", b"hello", "a.wav: not a PCM wav"),
    "empty wav": ("a.wav", b"", "a.wav: is empty"),
    "compressed wav": ("a.wav", compressed_wav, "a.wav: not a PCM wav .*0x0007.*16 bit PCM"),
    "truncated wav": ("a.wav", truncated_wav, "a.wav: truncated wav, 190 of 200 bytes"),
    "wav without samples": ("a.wav", lambda p: write_wav(p, np.zeros(0, "<i2")), "a.wav: has no samples"),
    "not idx": ("a.idx", b"hello", "a.idx: not an idx file"),
    "truncated idx": ("a.idx", struct.pack(">BBBBI", 0, 0, 8, 1, 9) + b"abc", "a.idx: broken idx file"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_file_is_named_in_one_line(folder, case):
  name, content, message = BAD[case]
  if callable(content):
    content(folder / name)
  else:
    (folder / name).write_bytes(content)
  with pytest.raises(InputError, match=message) as error:
    load(str(folder / name))
  assert "\n" not in str(error.value) and str(folder) in str(error.value)


def test_zst_of_several_frames_in_small_reads(folder):
  """As `cat a.zst b.zst` and pzstd make them: a reader of the first frame alone would lose the rest."""
  lines = [f"line {i} " + "x" * (i % 977) for i in range(3000)]
  text = "\n".join(lines).encode()
  (folder / "a.txt.zst").write_bytes(zst(text[:70001]) + zst(b"") + zst(text[70001:]))
  assert list(load(str(folder / "a.txt.zst")).items) == lines
  (folder / "b.csv.zst").write_bytes(zst(b"x,y\n1,2\n"))
  assert load(str(folder / "b.csv.zst")).items.tolist() == [[1, 2]]
  (folder / "c.txt.zst").write_bytes(zst(text[:70001]) + zst(text)[:-9])
  with pytest.raises(InputError, match="c.txt.zst: broken compressed file"):
    load(str(folder / "c.txt.zst"))


def test_without_zstandard_its_name_is_said(folder, monkeypatch):
  (folder / "a.txt.zst").write_bytes(b"x")
  monkeypatch.setitem(sys.modules, "zstandard", None)
  with pytest.raises(InputError, match="a.txt.zst: the package zstandard is missing.*pip install zstandard"):
    load(str(folder / "a.txt.zst"))


def test_a_generator_is_a_corpus(folder, tmp_path):
  dataset = from_texts((f"text {i}\nü\0" for i in range(3)), "mine")
  assert (dataset.name, dataset.kind) == ("mine", "text")
  assert list(dataset.items) == [f"text {i}\nü " for i in range(3)]
  again = from_texts([f"text {i}\nü\0" for i in range(3)], "another name")
  other = from_texts(["text 0\nü\0"], "mine")
  assert again.fingerprint == dataset.fingerprint != other.fingerprint
  assert again.items.stream.filename == dataset.items.stream.filename
  with pytest.raises(InputError, match="mine: is empty"):
    from_texts(iter(()), "mine")
  with pytest.raises(InputError, match="mine: document 1 is of type bytes, should be str"):
    from_texts(["a", b"b"], "mine")
  kept = [path for path in (tmp_path / "cache").iterdir() if path.suffix not in (".lock", ".manifest")]
  assert len(kept) == 2  # Drafts, whole and broken, are gone.


def test_a_function_of_a_file_is_a_corpus(folder):
  (folder / "mine.py").write_text("def articles():\n  yield 'one'\n  yield 'two'\nsize = 3\n")
  with pytest.raises(InputError, match="mine.py:articles: is code.* give data=.*mine.py:articles"):
    load(f"{folder / 'mine.py'}:articles")
  dataset = load(f"{folder / 'mine.py'}:articles", allow_code=True)
  assert list(dataset.items) == ["one", "two"] and dataset.name.endswith("mine.py:articles")
  for name, message in (("mine.py:size", "mine.py defines no function size"), ("none.py:f", "there is no file")):
    with pytest.raises(InputError, match=message):
      load(str(folder / name), allow_code=True)


def test_replace_goes_on(folder):
  (folder / "a.txt").write_bytes(b"fine\nab\xff\n")
  assert list(load(str(folder / "a.txt"), errors="replace").items) == ["fine", "ab\ufffd"]
  with pytest.raises(InputError, match="must be 'strict' or 'replace'"):
    load(str(folder / "a.txt"), errors="ignore")
  (folder / "a.csv").write_bytes(b"\xe9,y\n1,2\n")
  assert load(str(folder / "a.csv"), errors="replace").columns == ["\ufffd", "y"]


def test_an_error_leaves_nothing_in_the_cache(folder, tmp_path):
  (folder / "a.txt").write_bytes(b"\xff")
  with pytest.raises(InputError):
    load(str(folder / "a.txt"))
  assert not [path for path in (tmp_path / "cache").iterdir() if path.suffix not in (".lock", ".manifest")]


def test_missing_mixed_and_unlike_files(folder):
  with pytest.raises(InputError, match="no such file"):
    load(str(folder / "none.txt"))
  with pytest.raises(InputError, match="no such file"):
    load(str(folder / "*.txt"))
  with pytest.raises(InputError, match="the folder has no files"):
    load(str(folder))
  write_wav(folder / "a.wav", np.ones(4, "<i2"))
  write_wav(folder / "b.wav", np.ones(4, "<i2"), rate=16000)
  with pytest.raises(InputError, match="b.wav: has 16000 samples per second, .*a.wav has 8000"):
    load(str(folder))
  (folder / "a.csv").write_text("1,2\n")
  with pytest.raises(InputError, match="several kinds"):
    load(str(folder))
  (folder / "b.csv").write_text("1,2,3\n")
  with pytest.raises(InputError, match="b.csv: has 3 columns, .*a.csv has 2"):
    load(str(folder / "*.csv"))


def test_encoders_read_files(folder):
  (folder / "a.txt").write_text("king\n\nmy queen\n")
  assert ByteEncoder(9).read(folder / "a.txt") == ["king", "", "my queen"]
  (folder / "a.csv").write_text("1,2\n3,4\n")
  assert [row.tolist() for row in RowEncoder(2).read(folder / "a.csv")] == [[1, 2], [3, 4]]
  write_wav(folder / "a.wav", np.ones(4, "<i2"))
  (folder / "list.txt").write_text("a.wav\na.wav\n")
  assert WaveformEncoder(8000).read(folder / "a.wav") == [str(folder / "a.wav")]
  assert WaveformEncoder(8000).read(folder / "list.txt") == [str(folder / "a.wav")] * 2
  (folder / "empty.txt").write_text("")
  for encoder, message in ((ByteEncoder(9), "is empty"), (WaveformEncoder(8000), "no wav")):
    with pytest.raises(InputError, match=message):
      encoder.read(folder / "empty.txt")


def test_rows_are_read_by_the_names_of_their_columns(folder):
  """Columns in another order gave the vectors of other rows."""
  file = folder / "a.csv"
  file.write_text("y,id,x\n2,7,1\n4,9,3\n")
  read = lambda columns: np.stack(RowEncoder(len(columns or "abc"), columns=columns).read(file)).tolist()
  assert read(["x", "y"]) == [[1, 2], [3, 4]] and read(None) == [[2, 7, 1], [4, 9, 3]]
  with pytest.raises(InputError, match="a.csv: has no column 'z'; the run's columns are x, z"):
    read(["x", "z"])
  file.write_text("2,1\n4,3\n")
  assert read(["x", "y"]) == [[2, 1], [4, 3]]
  encoder = RowEncoder(2, columns=["x", "y"])
  encoder.save(folder / "encoder")
  assert load_encoder(folder / "encoder").columns == ["x", "y"]
  with pytest.raises(InputError, match="columns: expected the names of 2 features"):
    RowEncoder(2, columns=["x"])


def test_one_percent_is_held_out_for_ever():
  held = [i for i in range(20000) if is_validation(f"document {i}")]
  assert 150 < len(held) < 250 and held[:3] == [72, 117, 273]


def test_missing_values_are_refused_left_out_or_kept(folder):
  (folder / "a.csv").write_text("x,y\n1,2\n3,\nNA,4\n5,6\n")
  np.save(folder / "a.npy", np.array([[1, 2], [3, np.nan], [5, 6]]))
  with pytest.raises(InputError, match="a.csv: line 3, column 2: the value is missing"):
    load(str(folder / "a.csv"), missing="error")
  assert load(str(folder / "a.csv"), missing="drop").items.tolist() == [[1, 2], [5, 6]]
  assert load(str(folder / "a.npy"), missing="drop").items.tolist() == [[1, 2], [5, 6]]
  kept = load(str(folder / "a.csv"), missing="marginalize").items
  np.testing.assert_array_equal(kept, [[1, 2], [3, np.nan], [np.nan, 4], [5, 6]])
  assert np.isnan(load(str(folder / "a.npy"), missing="marginalize").items).sum() == 1
  for name, text, missing, message in (
      ("inf.csv", "1,inf\n", "marginalize", "inf is not a finite number"),
      ("gaps.csv", "1,\n,2\n", "drop", "every row lacks a value"),
      ("a.csv", "1,2\n", "ignore", "missing=ignore: must be one of error, drop, marginalize")):
    (folder / name).write_text(text)
    with pytest.raises(InputError, match=message):
      load(str(folder / name), missing=missing)


def test_columns_are_taken_out(folder):
  rows = np.arange(12, dtype=np.float32).reshape(3, 4)
  dataset = Dataset("d", "rows", rows, columns=["a", "b", "c", "e"])
  rest, (c, first) = take_columns(dataset, ["c", "0"])
  assert rest.columns == ["b", "e"] and rest.items.tolist() == [[1, 3], [5, 7], [9, 11]]
  assert c.tolist() == [2, 6, 10] and first.tolist() == [0, 4, 8]
  assert take_columns(dataset, ["e"])[0].items.base is not None  # A view.
  for names, message in (("f", "d: has no column 'f'; a, b, c, e"), ("abce", "has no column but a, b, c, e")):
    with pytest.raises(InputError, match=message):
      take_columns(dataset, list(names))


SENTENCES = {
    "pairs.tsv": ("a cat\ta \"mat\n\na\tb\n1\t42\n", "pairs", [("a cat", 'a "mat'), ("a", "b"), ("1", "42")], {}),
    "scored.tsv": ("a cat\ta mat\t4.5\nb\tc\t0\n", "pairs", [("a cat", "a mat"), ("b", "c")], {"score": [4.5, 0]}),
    "named.tsv": ("id\tscore\tsentence1\tsentence2\n7\t2\ta\tb\n", "pairs", [("a", "b")], {"score": [2]}),
    "labeled.tsv": ("gold_label\tpremise\thypothesis\nneutral\ta\tb\n-\tc\td\n", "pairs", [("a", "b")],
                     {"label": ["neutral"]}),
    "triples.tsv": ("a\tb\tc\none\ttwo\t3\n", "triples", [("a", "b", "c"), ("one", "two", "3")], {}),
    "one.tsv.gz": ("a\tb\tc\n", "triples", [("a", "b", "c")], {}),
    "nli.csv": ('sent0,sent1,hard_neg\n"a, b",c,"d ""e"""\n', "triples", [("a, b", "c", 'd "e"')], {}),
}


@pytest.mark.parametrize("name", SENTENCES)
def test_sentences_are_told_from_numbers(folder, name):
  text, kind, items, labels = SENTENCES[name]
  with (gzip.open if name.endswith(".gz") else open)(folder / name, "wb") as file:
    file.write(text.encode())
  dataset = load(str(folder / name))
  assert (dataset.kind, dataset.items) == (kind, items) and not dataset.split
  assert {key: value.tolist() for key, value in dataset.labels.items()} == labels
  assert len(dataset.names) == len(items) and str(folder / name) in dataset.names[0]


def test_numbers_stay_rows(folder):
  for name, text in (("a.tsv", "x\ty\n1\t2\n"), ("b.csv", "x,y\n1,2\n"), ("c.tsv", "1\t2\t3\n")):
    (folder / name).write_text(text)
    assert load(str(folder / name)).kind == "rows"


@pytest.mark.parametrize("text, message", [
    ("a\tb\tc\nd\te\n", "a.tsv: line 2 has 2 columns, needs 3"),
    ("a\tb\nc\n", "a.tsv: line 2 has 1 columns, the lines before have 2"),
    ("a\tb\nc\td\ne\n", "a.tsv: line 3 has 1 columns, needs 2"),
    ("a\tb\t1\nd\te\tmuch\n", "a.tsv: line 2: the score 'much' is not a finite number"),
    ("a\tb\t1\nd\te\t\n", "a.tsv: line 2: the label is missing"),
    ("anchor\tpositive\tnegative\n", "is empty, it has no example"),
])
def test_broken_sentences_are_named(folder, text, message):
  (folder / "a.tsv").write_text(text)
  with pytest.raises(InputError, match=message) as error:
    load(str(folder / "a.tsv"))
  assert "\n" not in str(error.value)


def test_tables_of_sentences_are_joined_if_they_are_alike(folder):
  (folder / "a.tsv").write_text("a\tb\n")
  (folder / "b.tsv").write_text("c\td\n")
  assert load(str(folder)).items == [("a", "b"), ("c", "d")]
  (folder / "b.tsv").write_text("c\td\t1\n")
  with pytest.raises(InputError, match="b.tsv: holds scored pairs, .*a.tsv holds pairs"):
    load(str(folder))
  (folder / "b.tsv").write_text("1\t2\n")
  with pytest.raises(InputError, match="a.tsv holds sentences, b.tsv numbers"):
    load(str(folder))


def table(folder, text, name="a.csv", **options):
  (folder / name).write_text(text, newline="")
  return load(str(folder / name), **options)


FRACTIONS = "".join(f"{i}.5,{i}.25\n" for i in range(12))


@pytest.mark.parametrize("text, columns, names, rows", [
    (",x,y\na,1,2\nb,3,4\n", ["x", "y"], ["a", "b"], [[1, 2], [3, 4]]),  # R's write.csv, or pandas with an index.
    (",0,1\n0,1,2\n1,3,4\n", ["0", "1"], ["0", "1"], [[1, 2], [3, 4]]),  # pandas without names of columns.
    ('"rownames","x"\n"1",7\n"2",8\n', ["x"], ["1", "2"], [[7], [8]]),
    ("Unnamed: 0,x\n5,7\n3,8\n", ["x"], ["5", "3"], [[7], [8]]),
    ("x,y\nu,1,2\nv,3,4\n", ["x", "y"], ["u", "v"], [[1, 2], [3, 4]]),  # R's write.table.
    ("model,x\nMazda RX4,1\nFiat,2\n", ["x"], ["Mazda RX4", "Fiat"], [[1], [2]]),
    ("id,x\n1,7\n2,8\n3,9\n", ["x"], ["1", "2", "3"], [[7], [8], [9]]),
    ("id,x\n1,7\n2,8\n2,9\n", ["id", "x"], None, [[1, 7], [2, 8], [2, 9]]),
    ("0,1,2\n3,4,5\n", ["0", "1", "2"], None, [[3, 4, 5]]),
    ("2001,2002,2003\n.5,.25,.125\n", ["2001", "2002", "2003"], None, [[.5, .25, .125]]),
    ("2001,2002,2003\n5,2,1\n", None, None, [[2001, 2002, 2003], [5, 2, 1]]),
    ("0,1\n1,0\n", None, None, [[0, 1], [1, 0]]),
    ("1,2,3\n2,1,3\n", None, None, [[1, 2, 3], [2, 1, 3]]),
    ("0\n.5\n", None, None, [[0], [.5]]),
    ("x\r1\r2\r", ["x"], None, [[1], [2]]),
    ("\ufeffx,y\r\n1,2\r\n", ["x", "y"], None, [[1, 2]]),
    ('x,"y\nz"\n1,2\n', ["x", "y\nz"], None, [[1, 2]]),
])
def test_headers_and_names_of_rows_are_recognized(folder, text, columns, names, rows):
  dataset = table(folder, text)
  assert dataset.columns == columns and dataset.names == names and dataset.items.tolist() == rows
  assert f"{len(rows)} rows of {len(rows[0])} columns" in dataset.note
  assert all(name in dataset.note for name in columns or ())
  assert ("names of the rows" in dataset.note or "counts the rows" in dataset.note) == (names is not None)


@pytest.mark.parametrize("cells", [("1,000", "2,000"), ("5%", "6%"), ("$1.50", "$2"), ("True", "False")])
def test_numbers_and_classes_are_no_names_of_rows(folder, cells):
  with pytest.raises(InputError, match="line 2, column 1: '.*' is not a number"):
    table(folder, "kind,x\n" + "".join(f'"{cell}",{i}\n' for i, cell in enumerate(cells)))


def test_columns_of_words_are_labels(folder):
  text = "id,size,species,width\na,1,setosa,2\nb,3,virginica,4\nc,5,setosa,6\n"
  dataset = table(folder, text)
  assert dataset.columns == ["size", "width"] and dataset.names == ["a", "b", "c"]
  assert dataset.items.tolist() == [[1, 2], [3, 4], [5, 6]]
  assert {name: values.tolist() for name, values in dataset.labels.items()} == {
      "species": ["setosa", "virginica", "setosa"]}
  assert "the column 'species' holds words and is a label" in dataset.note
  with pytest.raises(InputError, match="line 5, column 4: 'x' is not a number"):
    table(folder, text + "d,7,setosa,x\n")
  assert table(folder, "sex,x\nmale,1\nfemale,2\nmale,3\n").labels["sex"].tolist() == ["male", "female", "male"]
  big = table(folder, "id,kind,n\na,u,9007199254740993\nb,v,9007199254740995\n")
  assert big.integers[0].tolist() == [9007199254740993, 9007199254740995]


def test_two_columns_need_rows_enough_to_tell_a_header_of_numbers(folder):
  assert table(folder, "0,1\n" + FRACTIONS).columns == ["0", "1"]
  assert len(table(folder, "0,1\n" + FRACTIONS).items) == 12
  assert len(table(folder, "0,1\n1.5,2\n" + FRACTIONS).items) == 14


def test_numbers_keep_their_digits_until_they_are_centered(folder):
  times = 1_700_000_000 + np.arange(60) * 0.5
  text = "t,v\n" + "".join(f"{t:.2f},{i % 7}\n" for i, t in enumerate(times))
  dataset = table(folder, text)
  assert dataset.items.dtype == np.float64 and len(np.unique(dataset.items[:, 0])) == 60
  np.save(folder / "a.npy", dataset.items)
  np.testing.assert_array_equal(load(str(folder / "a.npy")).items, dataset.items, strict=True)
  expected = (times - times.mean()) / times.std()
  standard, centered = RowEncoder.standardizing(dataset.items), RowEncoder.centering(dataset.items)
  np.testing.assert_allclose(standard.encode(dataset.items)["x"][:, 0], expected, atol=1e-6)
  x = centered.encode(list(dataset.items))["x"]
  np.testing.assert_allclose(x[:, 0], times - times.mean(), atol=1e-6)
  np.testing.assert_array_equal(x[:, 1], dataset.items[:, 1])  # Small numbers stay where they are.
  saved = RowEncoder(**centered.options())
  np.testing.assert_array_equal(saved.encode(dataset.items)["x"], x)
  plain = table(folder, "x\n1\n2.5\n", "b.csv")
  assert plain.items.dtype == np.float32 and RowEncoder.centering(plain.items).mean is None
  tenths = table(folder, "x\n.1\n.7\n", "c.csv")  # Not exact in float32, but near enough.
  assert tenths.items.dtype == np.float64 and RowEncoder.centering(tenths.items).mean is None
  np.testing.assert_array_equal(RowEncoder.centering(tenths.items).encode(tenths.items)["x"],
                                np.array([[.1], [.7]], np.float32))


def test_labels_and_ids_never_become_floats(folder):
  big = 2**53
  dataset = table(folder, f"x,id,key\n1,{big},{2**70}\n2,{big + 1},{2**70 + 1}\n3,{big + 2},{2**70}\n")
  rest, (ids, keys) = take_columns(dataset, ["id", "key"])
  assert ids.dtype == np.int64 and ids.tolist() == [big, big + 1, big + 2]
  assert keys.tolist() == [str(2**70), str(2**70 + 1), str(2**70)]
  assert rest.items.tolist() == [[1], [2], [3]] and not rest.integers
  np.save(folder / "a.npy", np.array([[1, big + 1], [2, big + 3]]))
  _, (ids,) = take_columns(load(str(folder / "a.npy")), ["1"])
  assert ids.tolist() == [big + 1, big + 3]
  near = table(folder, f"x,id\n1,{2**60 + 1}\n2,{2**60 + 2}\n", "b.csv")  # As floats they are one number.
  assert take_columns(near, ["id"])[1][0].tolist() == [2**60 + 1, 2**60 + 2]
  dropped = table(folder, f"x,id\n1,{big + 1}\n,{big + 3}\n3,{big + 5}\n", missing="drop")
  assert take_columns(dropped, ["id"])[1][0].tolist() == [big + 1, big + 5]


def test_line_breaks_and_long_fields_in_quotes(folder):
  text = 'sentence1,sentence2,score\n"The cat\nsat\r\nhere","A ""cat""\rwas",4.0\n"Rain",LONG,4.5\n'
  (folder / "a.csv").write_bytes(text.replace("LONG", "word " * 40_000).encode())
  dataset = load(str(folder / "a.csv"))
  assert dataset.items[0] == ("The cat sat here", 'A "cat" was') and len(dataset.items[1][1]) == 199_999
  assert dataset.labels["score"].tolist() == [4.0, 4.5] and csv.field_size_limit() == 131072
  with pytest.raises(InputError, match="line 2 has 2 columns, the lines before have 1"):
    table(folder, "A title\n1,2\n3,4\n")
  for text in ('sentence1,sentence2\n"a,b\nc,d\n', 'x,y\n1,"2\n3,4\n'):
    with pytest.raises(InputError, match="a.csv: line 2: a quotation mark is never closed"):
      table(folder, text)


@pytest.mark.parametrize("text", ["1_0,2\n", "1,2\n3,1_000\n"])
def test_underscores_are_no_part_of_numbers(folder, text):
  with pytest.raises(InputError, match="is not a number"):
    table(folder, text)


@pytest.mark.parametrize("name, content, message", [
    ("a.json", b'[{"text": "x"}, 3]', "item 1 .from 0. is no object"),
    ("a.jsonl", b'{"text": "x"}\n\n{"text": 3}\n', "line 3: has no text in the field 'text'; it has text; name one"),
    ("a.jsonl", b'{"a": "x", "b": "y"}', "line 1: which field is the text. name one of a, b by field"),
    ("a.jsonl", b'{"text": "x"', "line 1: not JSON"),
    ("a.ndjson.gz", gzip.compress(b"\n", mtime=0), "is empty, it has no text"),
    ("a.HTML", b"<script>x</script>", "is empty, it has no visible text"),
    ("a.txt", b"\xef\xbb\xbf\n<!DOCTYPE html><p>x", ".html is not read as plain text; .* called .html"),
    ("page", b"<?xml version='1.0'?><x/>", ".xml is not read"),
    ("a.txt", b'\xef\xbb\xbf\n[{"a \\"b": 1}]', ".json is not read"),
    ("a.txt", "letters".encode("utf-16-le"), "is UTF-16 or UTF-32, or no text; convert it"),
    ("a.txt", "letters".encode("utf-32-be"), "is UTF-16 or UTF-32, or no text; convert it"),
    ("a.txt", b"%PDF-1.7\n", ".pdf is not read"),
    ("a.docx", b"PK\3\4", ".docx is not read"),
    ("a.ipynb", b"{}", ".ipynb is not read"),
    ("a.parquet", b"PAR1", "a.parquet: not a file that pyarrow can read"),
    ("a.dta", b"PAR", ".dta is not read; write it as .csv, .npy or .txt"),
    ("a.pkl", b"\x80\x04", ".pkl is not read; write its numbers as .csv or .npy"),
    ("a.7z", b"7z", ".7z is not read; unpack it"),
    ("a.mp3", b"ID3", ".mp3 is not read; convert its sound"),
    ("a.heic", b"x", ".heic is not read; convert it to .png"),
    ("a.txt", "text".encode("utf-16"), "is UTF-16; convert it, as by iconv -f UTF-16"),
])
def test_formats_that_are_not_read_say_the_way_out(folder, name, content, message):
  (folder / name).write_bytes(content)
  with pytest.raises(InputError, match=message):
    load(str(folder / name), errors="replace")
  with pytest.raises(InputError, match=message):
    ByteEncoder(9).read(folder / name, errors="replace")


def test_json_and_json_lines_are_documents(folder):
  records = [{"id": 7, "title": "no", "text": "caf\u00e9 one ", "label": "a"}, {"text": "", "label": "a"},
             {"text": "two", "label": 3}, {"text": "four", "class": "b"}]
  (folder / "a.jsonl").write_text("\n".join(map(json.dumps, records)) + "\n\n")
  (folder / "b.json").write_text(json.dumps(records))
  for name in ("a.jsonl", "b.json"):
    dataset = load(str(folder / name))
    assert list(dataset.items) == ["caf\u00e9 one", "two", "four"] and dataset.names.tolist() == ["7", "", ""]
    assert dataset.labels["label"].tolist() == ["a", "3", ""]
    assert dataset.labels["class"].tolist() == ["", "", "b"]
    assert ByteEncoder(9).read(folder / name) == ["caf\u00e9 one", "", "two", "four"]
  assert list(load(str(folder / "a.jsonl"), field="text").items) == ["caf\u00e9 one", "two", "four"]
  with pytest.raises(InputError, match="line 2: has no text in the field 'title'; it has label, text; name"):
    load(str(folder / "a.jsonl"), field="title")
  (folder / "c.txt").write_text("three")
  with pytest.raises(InputError, match="holds files of several kinds .json, text.; choose one by a glob"):
    load(str(folder))


def test_files_that_are_left_out_are_told(folder, caplog):
  for name in ("a.foo", "b.foo", "README.txt"):
    (folder / name).write_text("{}")
  assert list(load(str(folder)).items) == ["{}"]
  assert "2 of 3 files are left out, whose names tell nothing that is read, as a.foo" in caplog.text


def test_links_are_followed_and_a_folder_reached_twice_is_named(folder, caplog):
  outside = folder.parent / "elsewhere"
  for name in ("one/a.txt", "two/b.txt"):
    (outside / name).parent.mkdir(parents=True)
    (outside / name).write_text(name)
  (folder / "x").mkdir()
  (folder / "x" / "c.txt").write_text("c")
  (folder / "linked").symlink_to(outside)
  (folder / "a link to x").symlink_to(folder / "x")
  (folder / "x" / "up").symlink_to(folder)
  (folder / "gone.txt").symlink_to(folder / "nothing.txt")
  assert list(load(str(folder)).items) == ["one/a.txt", "two/b.txt", "c"]
  said = caplog.text
  assert f"{folder}/a link to x: is {folder}/x, which was read already" in said
  assert f"{folder}/x/up: is {folder}, which was read already" in said and "gone.txt: is a link to nowhere" in said
  assert list(load(f"{folder}/**/*.txt").items) == ["one/a.txt", "two/b.txt", "c"]  # Not once for each way there.


def test_blank_lines_end_documents_where_they_are_asked_for(folder):
  text = "\ufeffOne a.\none b.\r\n\n \nTwo.\n\n"
  lines, blank, auto = (table(folder, text, "a.txt", documents=how) for how in ("line", "blank", "auto"))
  assert list(lines.items) == ["One a.", "one b.", "Two."] and not lines.lines
  assert list(blank.items) == list(auto.items) == ["One a.\none b.", "Two."] and blank.lines and auto.lines
  assert lines.fingerprint != blank.fingerprint == auto.fingerprint
  assert list(table(folder, "a\nb\n\n", "b.txt", documents="auto").items) == ["a", "b"]
  paragraphs = table(folder, "One. Two.\n\nThree. Four.\n\nFive.\nSix.\n\nSeven.\n", "d.txt", documents="auto")
  assert list(paragraphs.items)[:3] == ["One. Two.", "Three. Four.", "Five.\nSix."] and not paragraphs.lines
  marked = table(folder, '<doc id="1" title="T">\na\n\nb\n</doc>\n', "c.txt", documents="auto")
  assert list(marked.items) == ["a\n\nb"] and not marked.lines
  with pytest.raises(InputError, match="documents=page: must be one of line, blank, file, auto"):
    table(folder, "a\n", "b.txt", documents="page")


def test_old_line_ends_and_late_byte_order_marks(folder):
  assert list(table(folder, "one\rtwo\r\rthree", "a.txt").items) == ["one", "two", "three"]
  assert list(table(folder, "one\n\ufefftwo\r\nthree\n", "b.txt").items) == ["one", "two", "three"]
  (folder / "c.dat").write_bytes(b"\xef\xbb\xbf1 0:2\r\n1 1:3\r\n")
  (folder / "vocab.txt").write_bytes(b"\xef\xbb\xbfx\r\ny\r\n")
  assert [dict(document) for document in load(str(folder / "c.dat")).items] == [{"x": 2}, {"y": 3}]


def extensible_wav(bits=16, subformat=1, size=None):
  samples = np.arange(-50, 50, dtype="<i2").tobytes()
  guid = struct.pack("<HHQ", subformat, 0, 0x719b3800aa000080) [:4] + bytes.fromhex("00001000800000aa00389b71")
  form = struct.pack("<HHIIHHHHI", 0xfffe, 1, 8000, 16000, 2, bits, 22, bits, 4) + guid
  size = len(samples) if size is None else size
  body = struct.pack("<4sI", b"fmt ", len(form)) + form + struct.pack("<4sI", b"LIST", 3) + b"abc\0" + struct.pack(
      "<4sI", b"data", size) + samples
  return struct.pack("<4sI4s", b"RIFF", 4 + len(body), b"WAVE") + body


def test_extensible_and_streamed_wavs(folder):
  for size in (None, 0xffffffff):
    (folder / "a.wav").write_bytes(extensible_wav(size=size))
    dataset = load(str(folder / "a.wav"))
    assert dataset.rate == 8000 and dataset.items[0].tolist() == list(range(-50, 50))
  for content, message in ((extensible_wav(subformat=3), "16 bit samples"),
                           (extensible_wav(bits=20), "20 bit samples"),
                           (extensible_wav(size=2**31), "truncated wav, 200 of 2147483648 bytes")):
    (folder / "a.wav").write_bytes(content)
    with pytest.raises(InputError, match=message):
      load(str(folder / "a.wav"))


@pytest.mark.parametrize("line, message", [
    ("1 4000000000:1", "word 4000000000 is not one of the 2147483647"),
    ("1 99999999:1", "has 100000000 columns and 1 counts"),
    ("1 0:1e999", "a count of inf"), ("1 0:1_0", "should be `n word:count"), ("1 0:nan", "a count of nan"),
    ("1 -3:1", "should be `n word:count"), ("2 0:1", "says 2 words and has 1"),
])
def test_numbers_of_words_that_ask_for_gigabytes_are_refused(folder, line, message):
  (folder / "a.dat").write_text(line + "\n")
  with pytest.raises(InputError, match=message):
    load(str(folder / "a.dat"))


def test_headers_that_ask_for_gigabytes_are_refused(folder):
  np.save(folder / "a.npy", np.ones((2, 3)))
  data = (folder / "a.npy").read_bytes()
  for shape, message in ((b"(2, 3000000000000)", "truncated: 48 bytes of values"), (b"(-2, -3)", "not a .npy file")):
    header = data[10:128].replace(b"(2, 3)", shape).rstrip().ljust(117) + b"\n"
    (folder / "b.npy").write_bytes(data[:10] + header + data[128:])
    with pytest.raises(InputError, match=message):
      load(str(folder / "b.npy"))
