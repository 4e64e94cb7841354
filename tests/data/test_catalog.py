import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from embeddings_jax.data import wordsets
from embeddings_jax.data.catalog import available, entries, load
from embeddings_jax.types import InputError


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
  """One cache for the module: nothing is decoded twice."""
  path = tmp_path_factory.getbasetemp() / "cache"
  monkeypatch.setenv("EMBEDDINGS_CACHE", str(path))
  return path


@pytest.mark.parametrize("name, shape, low, high, mean", [
    ("digits", (1797, 64), 0, 1, 0.30526),
    ("translated-digits", (1797, 144), 0, 1, 0.30526 * 64 / 144),
    ("photographs", (2 * 53 * 80, 192), 0, 1, 0.40428),
    ("iris", (150, 4), 0.1, 7.9, 3.4645),
    ("wine", (178, 13), 0.13, 1680, 69.1337),
])
def test_embedded_rows(name, shape, low, high, mean):
  dataset = load(name)
  assert dataset.items.shape == shape and dataset.items.dtype == np.float32
  np.testing.assert_allclose([dataset.items.min(), dataset.items.max(), dataset.items.mean(dtype=np.float64)],
                             [low, high, mean], rtol=1e-4)
  assert all(len(label) == len(dataset.items) for label in dataset.labels.values())
  assert dataset.fingerprint == load(name).fingerprint


def test_a_photograph_is_its_patches():
  from sklearn.datasets import load_sample_images

  image = load_sample_images().images[0]
  patch = load("photographs").items[80 * 2 + 3].reshape(8, 8, 3)  # Third row of patches, fourth column.
  np.testing.assert_allclose(patch * 255, image[16:24, 24:32], atol=1e-4)


def test_photographs_in_larger_patches():
  dataset = load("photographs", image_size=32)
  assert dataset.items.shape == (2 * 13 * 20, 32 * 32 * 3) and dataset.image_shape == (32, 32, 3)
  with pytest.raises(InputError, match="image_size=500: photographs have 427 pixels at most"):
    load("photographs", image_size=500)


def test_available_says_where(tmp_path, monkeypatch):
  monkeypatch.delenv("EMBEDDINGS_DATA", raising=False)
  (tmp_path / "small-numeric").mkdir()
  (tmp_path / "small-numeric" / "galaxies.csv").write_text("")
  where = {line.name: line.where for line in available(tmp_path)}
  assert set(where) == set(entries())
  assert where["iris"] == "embedded" and where["galaxies"] == str(tmp_path)
  assert where["faithful"] == "missing: small-numeric/faithful.csv"
  kinds = ("rows", "images", "video", "text", "audio", "pairs", "triples", "questions", "words", "graph")
  assert all(line.kind in kinds and line.license for line in available())


def test_bad_names_and_files(tmp_path, monkeypatch):
  monkeypatch.delenv("EMBEDDINGS_DATA", raising=False)
  with pytest.raises(InputError, match="data=digit: unknown dataset; did you mean 'digits'?"):
    load("digit")
  with pytest.raises(InputError, match="data=qqqq: unknown dataset; catalog.available"):
    load("qqqq")
  with pytest.raises(InputError, match="faithful.csv: needs the folder .*data_dir or .EMBEDDINGS_DATA"):
    load("faithful")
  with pytest.raises(InputError, match="faithful.csv: no such file; point data_dir or .EMBEDDINGS_DATA"):
    load("faithful", data_dir=tmp_path)
  (tmp_path / "small-numeric").mkdir()
  (tmp_path / "small-numeric" / "faithful.csv").write_text("no")
  got = hashlib.sha256(b"no").hexdigest()
  with pytest.raises(InputError, match=f"faithful.csv: damaged .* is {got} and should be 5043db1e2c51c8e8fd67e0868"):
    load("faithful", data_dir=tmp_path)
  with pytest.raises(InputError, match="word similarity 'ws': unknown; there are ws353,"):
    wordsets.word_similarity("ws", tmp_path)


@pytest.mark.data
def test_small_tables():
  faithful, galaxies, penguins = load("faithful"), load("galaxies"), load("penguins")
  assert faithful.items.shape == (272, 2) and faithful.columns == ["eruptions", "waiting"]
  np.testing.assert_allclose(faithful.items.mean(0), [3.487783, 70.897059], rtol=1e-6)
  np.testing.assert_allclose(galaxies.items[:2, 0], [9172, 9350])
  assert penguins.items.shape == (342, 4) and penguins.items[0].tolist() == pytest.approx([39.1, 18.7, 181, 3750])
  assert "4" not in penguins.names  # The fourth row has no measurements.
  whole = load("penguins", missing="marginalize")
  assert whole.items.shape == (344, 4) and np.isnan(whole.items[3]).all() and len(whole.names) == 344
  assert len(whole.labels["species"]) == 344
  with pytest.raises(InputError, match="penguins: row 3, column 0 .* missing; .*missing=drop"):
    load("penguins", missing="error")
  assert np.unique(penguins.labels["species"], return_counts=True)[1].tolist() == [151, 68, 123]


@pytest.mark.data
def test_fashion_mnist():
  dataset = load("fashion-mnist")
  assert dataset.items.shape == (70000, 784) and dataset.items.max() == 1
  assert dataset.split["train"][[0, -1]].tolist() == [0, 59999] and len(dataset.split["test"]) == 10000
  test = dataset.split["test"]
  assert np.bincount(dataset.labels["class"][test]).tolist() == [1000] * 10
  assert dataset.labels["class"][:4].tolist() == [9, 0, 0, 3]


@pytest.mark.data
def test_texts():
  wikitext, press = load("wikitext-2"), load("ap")
  assert {k: len(v) for k, v in wikitext.split.items()} == {"valid": 60, "test": 62}
  assert wikitext.items[60].startswith("= Robert <unk> =\nRobert <unk> is an English film")
  assert len(press.items) == 2246 and press.names[0] == "AP881218-0003"
  assert press.items[0].startswith("A 16-year-old student")


@pytest.mark.data
def test_enwiki():
  dataset = load("enwiki-2015")
  assert len(dataset.items) == 6514 and dataset.names[0] == "Anarchism"
  assert dataset.items[0].startswith("Anarchism\n\nAnarchism is a political philosophy")
  assert not any("<doc id=" in dataset.items[i] or "</doc>" in dataset.items[i] for i in range(0, 6514, 100))


@pytest.mark.data
@pytest.mark.slow
def test_newsgroups():
  dataset = load("20news")
  assert {k: len(v) for k, v in dataset.split.items()} == {"train": 11314, "test": 7532}
  assert len(set(dataset.labels["group"])) == 20
  assert not any("\nFrom: " in text and "\nSubject: " in text for text in dataset.items[:50])


@pytest.mark.data
def test_sst2():
  dataset = load("sst2")
  assert {k: len(v) for k, v in dataset.split.items()} == {"train": 60614, "dev": 6735, "test": 872}
  first = dataset.split["test"][0]
  assert dataset.items[first] == "it 's a charming and often affecting journey ."
  assert dataset.labels["sentiment"][first] == "positive"
  assert (dataset.labels["sentiment"][dataset.split["test"]] == "positive").sum() == 444


@pytest.mark.data
def test_spoken_digits():
  dataset = load("fsdd")
  assert len(dataset.items) == 3000 and dataset.rate == 8000
  assert sum(map(len, dataset.items)) / 8000 == pytest.approx(1312, abs=1)
  assert len(dataset.split["test"]) == 300
  assert {dataset.names[i].split("_")[-1] for i in dataset.split["test"]} == set("01234")
  at = list(dataset.names).index("7_theo_12")
  assert (dataset.labels["digit"][at], dataset.labels["speaker"][at]) == (7, "theo")


@pytest.mark.data
def test_word_sets(tmp_path):
  sizes = {name: len(wordsets.word_similarity(name)) for name in wordsets.WORD_SIMILARITY}
  assert sizes == {"ws353": 353, "ws353-sim": 203, "ws353-rel": 252, "simlex999": 999, "men": 3000, "mturk287": 287,
                   "rg65": 65, "mc30": 30}
  assert wordsets.word_similarity("ws353")[:2] == [("love", "sex", 6.77), ("tiger", "cat", 7.35)]
  sections = wordsets.analogies()
  assert len(sections) == 14 and sum(map(len, sections.values())) == 19544
  assert sections["capital-common-countries"][0] == ("Athens", "Greece", "Baghdad", "Iraq")

  path = tmp_path / "word-similarity" / "EN-MC-30.txt"
  path.parent.mkdir()
  shutil.copy(Path(os.environ["EMBEDDINGS_DATA"]) / "word-similarity" / "EN-MC-30.txt", path)
  data = bytearray(path.read_bytes())
  data[7] ^= 1
  path.write_bytes(data)
  with pytest.raises(InputError, match="EN-MC-30.txt: damaged"):
    wordsets.word_similarity("mc30", tmp_path)
