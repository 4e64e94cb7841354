"""Messages of a run on its rows and its metrics."""
from types import SimpleNamespace

import numpy as np
import pytest

from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.encoders.bytes import ByteEncoder
from embeddings_jax.data.encoders.rows import RowEncoder
from embeddings_jax.runs import evaluation, inference, row_index, summary
from embeddings_jax.runs.run import Run
from embeddings_jax.types import InputError


def documents(number=6):
  labels = {"kind": np.array([f"k{i % 2}" for i in range(number)])}
  return Dataset("d", "text", [f"text\t{i}\nand more" for i in range(number)], labels=labels,
                 names=[f"n{i}" if i else "" for i in range(number)])


def test_the_index_of_a_sample_names_the_items_of_the_whole(tmp_path):
  sample = evaluation.subset(documents(), 3, seed=0)
  assert sample.rows.tolist() == sorted(sample.rows) and len(sample.items) == 3
  row_index.write(tmp_path / "rows.tsv", row_index.of_dataset(sample))
  columns = row_index.read(tmp_path / "rows.tsv")
  assert list(columns) == ["row", "item", "name", "kind", "text"] and columns["row"] == ["0", "1", "2"]
  for item, name, kind, text in zip(*list(columns.values())[1:]):
    assert (name, kind, text) == (f"n{item}" if item != "0" else "", f"k{int(item) % 2}", f"text {item} and more")
  assert evaluation.subset(documents(), 6, 0).rows is None


def test_a_query_shows_the_first_words_of_documents(tmp_path, monkeypatch):
  dataset = documents(3)._replace(items=["the cat " * 40, "a dog", "a bird"])
  np.save(tmp_path / "embeddings.npy", np.eye(3, dtype=np.float32))
  row_index.write(tmp_path / "rows.tsv", row_index.of_dataset(dataset))
  monkeypatch.setattr(inference, "embedder", lambda *_: lambda texts: np.float32([[0.9, 0.1, 0.4]]))
  run = Run(tmp_path, {"config": {"name": "lsa"}}, None, None, 3, SimpleNamespace(names=None), None)
  (near,) = run.neighbors(["x"], k=3).values()
  assert [name for name, _ in near] == ["document 0: " + "the cat " * 12 + "the ...", "n2: a bird", "n1: a dog"]
  (tmp_path / "rows.tsv").write_text("row\titem\n0\n")
  with pytest.raises(InputError, match="rows.tsv: line 2 has 1 columns, the header has 2"):
    run.neighbors(["x"])


def test_items_of_files_are_named_by_their_places(tmp_path):
  (tmp_path / "a.txt").write_text("one\n\nthree\n")
  (tmp_path / "b.csv").write_text("name,x\nu,1\nv,2\n")
  items, places = ByteEncoder(9).read_indexed(tmp_path / "a.txt")
  assert row_index.of_items(items, places)["name"] == ["a.txt:1", "a.txt:2", "a.txt:3"]
  assert list(row_index.of_items(items, places)["text"]) == ["one", "", "three"]
  items, places = RowEncoder(1, columns=["x"]).read_indexed(tmp_path / "b.csv")
  assert places == ["u", "v"] and "text" not in row_index.of_items(items, places)


def test_messages_have_no_name_of_a_logger():
  import logging

  from experiments.command import _Message

  record = lambda level: logging.LogRecord("root", level, "", 0, "a.csv: %d rows", (3,), None)
  assert _Message().format(record(logging.WARNING)) == "warning: a.csv: 3 rows"
  assert _Message().format(record(logging.INFO)) == "a.csv: 3 rows"


def test_the_closing_table_has_baselines_as_columns():
  metrics = {"class/all/nmi": 0.75, "questions": 1234.0, "iris/class/all/nmi": 0.5, "untrained/class/all/nmi": 0.25,
             "pixels/class/all/nmi": 0.125}
  assert summary.table(metrics, ("untrained", "pixels")) == [
      "                    trained  untrained  pixels",
      "class/all/nmi        0.7500     0.2500  0.1250  higher is better",
      "questions             1,234          -       -",
      "iris/class/all/nmi   0.5000          -       -  higher is better"]
  assert summary.table({}) == []
