"""Tables as other programs write them: separators, decimal marks, headers, columns that are chosen, labels."""
import gzip
import logging

import numpy as np
import pytest

from embeddings_jax.data import reading
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.encoders.rows import RowEncoder
from embeddings_jax.data.files import row_buffer
from embeddings_jax.data.files.dialects import TableOptions, recognize
from embeddings_jax.data.files.tables import read_csv
from embeddings_jax.types import InputError

FLOWERS = "".join(f"{i}.5,{i}.25,{kind}\n" for i, kind in enumerate(["setosa", "setosa", "virginica"]))


@pytest.fixture
def rows(tmp_path):
  def read(text, name="a.csv", **options):
    (tmp_path / name).write_text(text)
    return reading.rows(str(tmp_path / name), cache_dir=str(tmp_path / "cache"), **options)
  return read


@pytest.mark.parametrize("text, name", [
    ("x;y\n1,5;-2\n3;4,25\n", "a.csv"), ("x\ty\n1,5\t-2\n3\t4,25\n", "a.tsv"), ("x\ty\n1.5\t-2\n3\t4.25\n", "a.csv"),
    ("x;y\n1.5;-2\n3;4.25\n", "a.csv"), ("x,y\n1.5,-2\n3,4.25\n", "a.tsv")])
def test_separators_and_decimal_commas_are_recognized(rows, text, name):
  dataset = rows(text, name)
  assert dataset.columns == ["x", "y"] and dataset.items.tolist() == [[1.5, -2], [3, 4.25]]
  assert ("decimal commas" in dataset.note) == ("1,5" in text)


def test_marks_that_cannot_be_recognized_are_named(rows):
  assert rows("x|y\n1|2\n", separator="bar").items.tolist() == [[1, 2]]
  text = "x;y\n1,000;2\n3,500;4\n"
  with pytest.raises(InputError, match="a.csv: '1,000' may have a decimal comma or one between thousands; say"):
    rows(text)
  assert rows(text, decimal="comma").items.tolist() == [[1, 2], [3.5, 4]]
  with pytest.raises(InputError, match="line 2, column 1: '1,000' is not a number"):
    rows(text, decimal="point")
  with pytest.raises(InputError, match=r"line 53, column 2: '4\.5' is not a number, others have decimal commas"):
    rows("x;y\n" + "1,5;2\n" * 51 + "3;4.5\n")
  for option, value in (("separator", "colon"), ("decimal", "dot"), ("header", "maybe")):
    with pytest.raises(InputError, match=f"{option}={value}: unknown; "):
      rows("x,y\n1,2\n", **{option: value})
  with pytest.raises(InputError, match="separator=comma: cannot be the decimal mark as well"):
    rows("x,y\n1,2\n", separator="comma", decimal="comma")


def test_semicolons_in_words_do_not_separate_cells(tmp_path):
  (tmp_path / "a.csv").write_text("terms,x,y\na;b,1,2\nc;d,3,4\n")
  assert recognize(tmp_path / "a.csv").separator == ","


def test_a_header_of_numbers_is_told(rows):
  text = "2001,2002\n1,2\n3,4\n"
  assert rows(text).items.tolist() == [[2001, 2002], [1, 2], [3, 4]]
  named = rows(text, header="yes")
  assert named.columns == ["2001", "2002"] and named.items.tolist() == [[1, 2], [3, 4]]


def test_chosen_columns_leave_the_others_unread(rows, tmp_path):
  text = "date,y,note,x,kind\n2020-01-01,1,,2,u\n?,3,n/a,4,v\n"
  with pytest.raises(InputError, match="line 2, column"):
    rows(text)
  dataset = rows(text, columns="x,y", label="kind")
  assert dataset.columns == ["x", "y"] and dataset.items.tolist() == [[2, 1], [4, 3]]
  assert dataset.beside["label"].tolist() == [0, 1] and dataset.labels["kind"].tolist() == ["u", "v"]
  weighted = rows(text, columns="x", weight="y")
  assert weighted.columns == ["x"] and weighted.beside["weight"].tolist() == [1, 3]
  with pytest.raises(InputError, match="has no column 'knd'; did you mean kind. it has date, y, note, x, kind"):
    rows(text, columns="knd")
  with pytest.raises(InputError, match="the column 'kind' holds words; .* label=kind"):
    rows(text, columns="x,kind")
  encoder = RowEncoder(2, columns=["x", "y"])
  assert [row.tolist() for row in encoder.read(tmp_path / "a.csv")] == [[2, 1], [4, 3]]


def test_a_label_of_words_without_a_header(rows):
  """The form of the original iris.data."""
  dataset = rows(FLOWERS, label="2")
  assert dataset.items.tolist() == [[0.5, 0.25], [1.5, 1.25], [2.5, 2.25]]
  assert dataset.labels["2"].tolist() == ["setosa", "setosa", "virginica"]
  assert dataset.beside["label"].tolist() == [0, 0, 1]
  assert "the column 2 (from 0) holds words and is a label" in dataset.note
  few = rows("species,x\nsetosa,1\nvirginica,2\n", label="species")  # Not the names of the rows.
  assert few.labels["species"].tolist() == ["setosa", "virginica"] and few.names is None and few.columns == ["x"]
  named = rows("king,1,2\nqueen,3,4\nman,5,6\n")
  assert named.names == ["king", "queen", "man"] and "the first column holds the names of the rows" in named.note
  with pytest.raises(InputError, match="has no column 'species'"):
    rows(FLOWERS, label="species")


def test_labels_may_be_missing_and_look_like_numbers(rows):
  dataset = rows("x,size\n1,5%\n2,10%\n3,NA\n", label="size")
  assert dataset.beside["label"].tolist() == [1, 0, -1] and dataset.columns == ["x"]
  assert rows("x,n\n1,0\n2,10\n3,2\n", label="n").beside["label"].tolist() == [0, 2, 1]


def test_numbers_have_ascii_digits(rows):
  with pytest.raises(InputError, match="line 2, column 1: '٣' is not a number in ASCII digits"):
    rows("x,y\n٣,2\n")
  assert rows("x,y\n\u00a03,2\n").items.tolist() == [[3, 2]]


def test_columns_of_a_dataset_in_memory():
  x = np.arange(12, dtype=np.float32).reshape(3, 4)
  whole = Dataset("d", "rows", x, columns=list("abcd"), fingerprint="f", integers={2: np.array([1, 2, 3])})
  dataset = reading.rows("", dataset=whole, columns="d,2")
  np.testing.assert_array_equal(dataset.items, x[:, [3, 2]])
  assert dataset.columns == ["d", "c"] and list(dataset.integers) == [1] and dataset.fingerprint != whole.fingerprint


def test_many_rows_are_kept_on_the_disk(tmp_path, monkeypatch, caplog):
  monkeypatch.setattr(row_buffer, "IN_MEMORY_BYTES", 1000)
  monkeypatch.setattr(row_buffer, "_SECONDS", 0)
  monkeypatch.setattr("embeddings_jax.data.files.tables._BLOCK", 64)
  caplog.set_level(logging.INFO, "embeddings_jax.progress")
  x = np.random.default_rng(0).integers(0, 99, (400, 3)) / np.array([1, 4, 10])
  text = "kind,x,y,z\n" + "".join(f"k{i % 3},{','.join(map(str, row))}\n" for i, row in enumerate(x.tolist()))
  (tmp_path / "a.csv.gz").write_bytes(gzip.compress(text.encode()))
  table = read_csv(tmp_path / "a.csv.gz", spill=tmp_path / "cache")
  assert isinstance(table.rows, np.memmap) and table.rows.dtype == np.float64
  np.testing.assert_array_equal(table.rows, x)
  assert table.labels["kind"].tolist() == [f"k{i % 3}" for i in range(400)]
  single = read_csv(tmp_path / "a.csv.gz", options=TableOptions(columns=["x", "y"]), spill=tmp_path / "cache")
  assert isinstance(single.rows, np.memmap) and single.rows.dtype == np.float32
  np.testing.assert_array_equal(single.rows, x[:, :2])
  assert not list((tmp_path / "cache").iterdir()) and "rows are read" in caplog.text
  np.testing.assert_array_equal(row_buffer.joined([single.rows, single.rows], tmp_path)[400:], x[:, :2])
