"""Texts as users keep them: tables with a column of texts, JSON, Arrow files, pages, folders for classes."""
import gzip
import json
import sys

import numpy as np
import pytest

from embeddings_jax.data.catalog import load
from embeddings_jax.data.encoders.bytes import ByteEncoder
from embeddings_jax.data.encoders.rows import RowEncoder
from embeddings_jax.data.files.html import read_html
from embeddings_jax.data.tasks import load_examples
from embeddings_jax.types import InputError

RECORDS = [{"text": "one, two", "label": "a", "id": 7}, {"text": "three", "label": "b", "id": 9}]


@pytest.fixture
def folder(tmp_path, monkeypatch):
  monkeypatch.setenv("EMBEDDINGS_CACHE", str(tmp_path / "cache"))
  (tmp_path / "own").mkdir()
  return tmp_path / "own"


def write(folder, files):
  for name, text in files.items():
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")


def write_arrow(path, columns, metadata=None, stream=False):
  import pyarrow as pa
  import pyarrow.parquet

  table = pa.table(columns).replace_schema_metadata(metadata)
  if path.suffix == ".parquet":
    pyarrow.parquet.write_table(table, path)
    return
  with (pa.ipc.new_stream if stream else pa.ipc.new_file)(path, table.schema) as file:
    file.write_table(table, 2)


def test_tables_with_a_column_of_texts_are_labeled_documents(folder):
  texts = {"a.csv": 'id,text,label\n7,"one, two",a\n9,three,b\n', "b.csv": "id;text;label\n7;one, two;a\n9;three;b\n",
           "c.tsv": "id\ttext\tlabel\n7\tone, two\ta\n9\tthree\tb\n", "d.jsonl": "\n".join(map(json.dumps, RECORDS))}
  write(folder, texts)
  for name in texts:
    dataset = load(str(folder / name))
    assert (dataset.kind, list(dataset.items)) == ("text", ["one, two", "three"])
    assert dataset.labels["label"].tolist() == ["a", "b"] and dataset.names.tolist() == ["7", "9"]
    assert ByteEncoder(9).read(folder / name) == ["one, two", "three"]
    task = load_examples(str(folder / name))
    assert task.items == ["one, two", "three"] and task.labels["label"].tolist() == ["a", "b"]
  write(folder, {"q.tsv": 'text\tlabel\nhe said "hi\ta\n"quoted" and so\tb\n'})
  assert list(load(str(folder / "q.tsv")).items) == ['he said "hi', '"quoted" and so']  # Literal, as in GLUE's files.
  write(folder, {"e.csv": "id,remark,stars\n1,good,5\n2,bad,1\n"})
  dataset = load(str(folder / "e.csv"), field="remark")
  assert list(dataset.items) == ["good", "bad"] and not dataset.labels
  with pytest.raises(InputError, match="a.csv holds documents, e.csv numbers; choose one by a glob"):
    load(str(folder / "*.csv"))


@pytest.mark.parametrize("name, text, message", [
    ("a.csv", "text,label\none,a\ntwo\n", "a.csv: line 3 has 1 columns, the header has 2"),
    ("a.csv", "text,label\n,a\n", "a.csv: is empty, it has no text"),
    ("a.html", "<title>T</title><script>1</script>", "a.html: is empty, it has no visible text"),
    ("a.html", "<meta charset=klingon>x", "a.html: names the unknown encoding 'klingon'"),
])
def test_broken_texts_are_named(folder, name, text, message):
  write(folder, {name: text})
  with pytest.raises(InputError, match=message) as error:
    load(str(folder / name))
  assert "\n" not in str(error.value)


def test_records_without_labels_or_sentences_are_no_task(folder):
  write(folder, {"a.jsonl": '{"text": "x"}\n{"text": "y", "label": 1}\n', "b.jsonl": '{"title": "x"}',
                 "c.jsonl": '{"text": "x", "label": "u"}\n{"text": "y"}\n'})
  with pytest.raises(InputError, match="line 1: has no sentences; name them sentence1 and sentence2, or text"):
    load_examples(str(folder / "b.jsonl"))
  with pytest.raises(InputError, match="c.jsonl: line 2: has no text or number in the field 'label'"):
    load_examples(str(folder / "c.jsonl"))


def test_records_are_pairs_and_triples_too(folder):
  pairs = [{"sentence1": "a", "sentence2": "b", "score": 3}, {"sentence1": "c", "sentence2": "d", "score": 0.5}]
  triples = [{"anchor": "a", "positive": "b", "negative": "c"}]
  write(folder, {"p.jsonl": "\n".join(map(json.dumps, pairs)), "t.json": json.dumps(triples)})
  dataset = load(str(folder / "p.jsonl"))
  assert (dataset.kind, dataset.items) == ("pairs", [("a", "b"), ("c", "d")])
  assert dataset.labels["score"].tolist() == [3, 0.5] and dataset.names[1] == f"{folder}/p.jsonl: line 2"
  dataset = load(str(folder / "t.json"))
  assert (dataset.kind, dataset.items) == ("triples", [("a", "b", "c")])


def test_visible_text_of_pages(folder):
  page = """<!DOCTYPE html><html><head><meta charset="latin-1"><title>A &amp;
    B</title><style>p {color: red}</style></head><body><nav hidden>menu</nav><h1>Caf\u00e9 &eacute;</h1>
    <p>one <b>two</b>,
       three<br>four <script>var x = "<p>no</p>";</script></p><div style="display: none">gone <p>too</p></div>
    <ul><li>a<li>b</ul><p>5 &lt; 6<td>end</body></html>"""
  (folder / "a.html").write_bytes(page.encode("latin-1"))
  title, text = read_html(folder / "a.html")
  assert title == "A & B"
  assert text == "Caf\u00e9 \u00e9\none two, three\nfour\na\nb\n5 < 6\nend"
  (folder / "b.htm.gz").write_bytes(gzip.compress("<p>b\u00e9".encode()))
  dataset = load(str(folder))
  assert list(dataset.items) == [text, "b\u00e9"] and dataset.names.tolist() == ["A & B", "b.htm.gz"]
  assert ByteEncoder(99).read(folder) == [text, "b\u00e9"]
  (folder / "c.html").write_bytes(b"<p>caf\xe9")
  with pytest.raises(InputError, match="c.html: not utf-8 at byte 6; convert it, or .* errors=replace"):
    load(str(folder / "c.html"))
  assert list(load(str(folder / "c.html"), errors="replace").items) == ["caf\ufffd"]


def test_folders_are_classes_and_splits_of_documents(folder):
  write(folder, {"train/pos/1.txt": "good\nfilm\n", "train/neg/2.txt": "bad\n", "test/pos/3.txt": "fine\n",
                 "test/neg/4.txt": "poor\nwork\n"})
  dataset = load(str(folder), documents="file")
  assert list(dataset.items) == ["poor\nwork", "fine", "bad", "good\nfilm"]
  assert dataset.labels["class"].tolist() == ["neg", "pos", "neg", "pos"]
  assert {part: rows.tolist() for part, rows in dataset.split.items()} == {"test": [0, 1], "train": [2, 3]}
  assert dataset.names.tolist() == ["test/neg/4.txt", "test/pos/3.txt", "train/neg/2.txt", "train/pos/1.txt"]
  lines = load(str(folder))
  assert list(lines.items) == ["poor", "work", "fine", "bad", "good", "film"]
  assert lines.labels["class"].tolist() == ["neg", "neg", "pos", "neg", "pos", "pos"]
  assert "6 documents, each line is one, by documents=file each file; the label 'class' is their" in lines.note
  task = load_examples(str(folder))
  assert list(task.items) == list(dataset.items)
  assert task.labels["class"].tolist() == ["neg", "pos", "neg", "pos"]
  (folder / "train/pos/1.txt").write_text("")
  with pytest.raises(InputError, match="1.txt: is empty"):
    load(str(folder), documents="file")


def test_arrow_files_are_documents_with_named_classes(folder):
  features = {"info": {"features": {"label": {"names": ["neg", "pos"], "_type": "ClassLabel"}}}}
  metadata = {"huggingface": json.dumps(features)}
  for part, texts, labels in (("train", ["good", "bad", None], [1, 0, 1]), ("test", ["fine"], [1])):
    (folder / part).mkdir()
    write_arrow(folder / part / "data-00000-of-00001.arrow", {"text": texts, "label": labels}, metadata, stream=True)
    write(folder, {f"{part}/state.json": "{}", f"{part}/dataset_info.json": "{}"})
  write(folder, {"dataset_dict.json": '{"splits": ["train", "test"]}'})
  dataset = load(str(folder))
  assert list(dataset.items) == ["fine", "good", "bad"] and dataset.labels["label"].tolist() == ["pos", "pos", "neg"]
  assert {part: rows.tolist() for part, rows in dataset.split.items()} == {"test": [0], "train": [1, 2]}
  assert list(load_examples(str(folder)).items) == ["fine", "good", "bad"]
  assert ByteEncoder(9).read(folder / "train" / "*.arrow") == ["good", "bad", ""]
  write_arrow(folder / "pairs.parquet", {"sentence1": ["a"], "sentence2": ["b"], "score": [2.5]})
  pairs = load(str(folder / "pairs.parquet"))
  assert pairs.items == [("a", "b")] and pairs.labels["score"].tolist() == [2.5]


def test_parquet_holds_rows(folder):
  columns = {"x": np.array([1, 2, 3]), "kind": ["u", "v", "u"], "y": np.array([.5, .25, np.nan]),
             "n": np.array([1, 2**53 + 1, 3]), "__index_level_0__": ["a", "b", "c"]}
  write_arrow(folder / "a.parquet", columns)
  with pytest.raises(InputError, match="a.parquet: row 2 .from 0., column 'y': nan is not a finite number"):
    load(str(folder / "a.parquet"))
  dataset = load(str(folder / "a.parquet"), missing="drop")
  assert dataset.columns == ["x", "y", "n"] and dataset.names == ["a", "b"]
  assert dataset.items.tolist() == [[1, .5, 1], [2, .25, 2**53]] and dataset.labels["kind"].tolist() == ["u", "v"]
  assert dataset.integers[2].tolist() == [1, 2**53 + 1]
  assert [row.tolist() for row in RowEncoder(1, columns=["x"]).read(folder / "a.parquet")] == [[1], [2], [3]]
  write_arrow(folder / "b.feather", {"x": [1, None], "when": np.array(["2020-01-01"] * 2, "M8[s]")})
  with pytest.raises(InputError, match="b.feather: the column 'when' holds timestamp.* choose others by columns"):
    load(str(folder / "b.feather"))


def test_without_pyarrow_its_extra_is_said(folder, monkeypatch):
  (folder / "a.parquet").write_bytes(b"PAR1")
  monkeypatch.setitem(sys.modules, "pyarrow", None)
  with pytest.raises(InputError, match=r"a.parquet: the package pyarrow is missing.*embeddings_jax\[parquet\]"):
    load(str(folder / "a.parquet"))


def test_damaged_arrow_files_are_named(folder):
  for name in ("a.parquet", "b.arrow"):
    write_arrow(folder / name, {"text": ["one", "two"] * 500})
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[:len(data) // 2])
    with pytest.raises(InputError, match=f"{name}: (not a file that pyarrow can read|damaged)") as error:
      load(str(folder / name))
    assert "\n" not in str(error.value)
