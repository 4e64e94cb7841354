"""Rows with missing values, weights and labels on their way from a config to a model."""
import numpy as np
import pytest

from embeddings_jax.runs import build, presets
from embeddings_jax.types import InputError


@pytest.fixture
def table(tmp_path):
  """Two clusters; the last but one column counts rows, the last tells the cluster of some."""
  rng = np.random.default_rng(0)
  x = rng.normal(size=(40, 2)) + np.repeat([[0, 0], [8, 8]], 20, axis=0)
  label = np.repeat([5, 3], 20)
  label[2:20], label[22:] = -1, -1
  rows = [f"{a:.4f},{b:.4f},{i % 3},{z}" for i, ((a, b), z) in enumerate(zip(x, label))]
  rows[7] = rows[7].replace(rows[7].split(",")[0], "")
  path = tmp_path / "rows.csv"
  path.write_text("a,b,copies,group\n" + "\n".join(rows) + "\n")
  return path


def load(model, path, **options):
  config = presets.load_config(model, "tiny")
  for name, value in options.items():
    config.data[name] = value
  config.data.name = str(path)
  data = build.prepare(config, data_dir=None, cache_dir=None)
  return config, data


def test_gaps_weights_and_labels_reach_the_batch(table):
  config, data = load("gmm", table, missing="marginalize", weight="copies", label="group", standardize=True)
  batch = data.splits["train"].batch_at(0)
  assert batch["x"].shape == (40, 2) and np.isnan(batch["x"]).sum() == 1
  np.testing.assert_allclose(np.nanmean(batch["x"], 0), 0, atol=1e-5)
  assert batch["weight"].tolist() == [i % 3 for i in range(40)]
  assert batch["label"][[0, 1, 2, 20, 21, 22]].tolist() == [1, 1, -1, 0, 0, -1]  # In the order of 3 and 5.
  assert data.facts["missing"] and data.facts["num_labels"] == 2
  assert data.dataset.columns == ["a", "b"] and data.dataset.items.shape == (40, 2)
  assert np.isnan(data.encoder.encode(data.dataset.items)["x"]).sum() == 1
  with pytest.raises(InputError, match="num_components=1: the data has 2 labels"):
    config.model.num_components = 1
    build.make_model(config, data.facts, 5)


def test_a_start_is_a_file_of_means(table, tmp_path):
  np.savetxt(tmp_path / "means.csv", [[1.0, 2, 3], [3, 4, 5]], delimiter=",")
  config, data = load("kmeans", table, missing="drop", weight="copies", start=str(tmp_path / "means.csv"))
  assert data.facts["num_rows"] == 39
  _, other = load("kmeans", table, missing="drop", weight="copies")
  assert data.dataset.fingerprint != other.dataset.fingerprint
  np.testing.assert_array_equal(data.facts["means"], [[1, 2, 3], [3, 4, 5]])


@pytest.mark.parametrize("model,options,message", [
    ("gmm", {}, "line 9, column 1: the value is missing"),
    ("gmm", {"missing": "drop", "weight": "count"}, "has no column 'count'; a, b, copies, group"),
    ("gmm", {"missing": "drop", "weight": "group"}, "weights are numbers from 0 up"),
    ("gmm", {"missing": "drop", "label": "a"}, "labels are whole numbers"),
    ("kmeans", {"missing": "marginalize"}, "missing=marginalize: kmeans needs every value; use drop")])
def test_mistakes_are_one_line(table, model, options, message):
  with pytest.raises(InputError, match=message) as error:
    config, data = load(model, table, **options)
    build.make_model(config, data.facts, 5)
  assert "\n" not in str(error.value)
