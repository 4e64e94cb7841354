"""Node regression: the solver against scikit-learn's, attributes from files and networkx, known scores."""
import networkx as nx
import numpy as np
import pytest

from embeddings_jax.data.dataset import Dataset, as_dataset
from embeddings_jax.data.graphs import read, read_attributes
from embeddings_jax.errors import InputError
from embeddings_jax.eval.node_regression import PENALTIES, node_regression, r2, ridge


@pytest.mark.parametrize("shape", [(60, 8), (12, 30)])
def test_ridge_is_scikit_learn_s(shape):
  from sklearn.linear_model import RidgeCV
  from sklearn.metrics import r2_score
  from sklearn.preprocessing import StandardScaler

  noise = np.random.default_rng(0)
  x = noise.normal(size=shape) * np.exp(noise.normal(size=shape[1])) + 3
  y = x[:, 0] + noise.normal(size=shape[0])
  scaler = StandardScaler().fit(x)
  reference = RidgeCV(PENALTIES).fit(scaler.transform(x), y)
  new = noise.normal(size=(20, shape[1])) + 3
  expected = reference.predict(scaler.transform(new))
  np.testing.assert_allclose(ridge(x, y)(new), expected, rtol=1e-8)
  assert r2(expected, new[:, 0]) == pytest.approx(r2_score(new[:, 0], expected))


def test_constant_features_and_values_are_no_trouble():
  x = np.stack([np.arange(10.0), np.full(10, 5.0)], 1)
  np.testing.assert_allclose(ridge(x, 2 * x[:, 0] + 1)(x), 2 * x[:, 0] + 1, rtol=1e-3)
  assert r2(np.zeros(3), np.ones(3)) == 0


def test_scores_of_linear_and_of_random_attributes():
  noise = np.random.default_rng(0)
  vectors = noise.normal(size=(200, 5))
  linear = vectors @ noise.normal(size=5)
  known = np.where(np.arange(200) < 20, np.nan, linear)
  dataset = Dataset("nodes", "graph", [str(i) for i in range(200)], attributes={
      "linear": known, "random": noise.normal(size=200)})
  scores = node_regression(lambda items: vectors, dataset)
  assert all(scores[f"linear/train{percent}/r2"] > 0.999 for percent in (10, 50, 90))
  assert scores["random/train50/r2"] < 0.05
  with pytest.raises(InputError, match="has no numeric attributes; give config.data.attributes=FILE"):
    node_regression(lambda items: vectors, dataset._replace(attributes={}))
  with pytest.raises(InputError, match="1 % of 180 nodes with 'linear' leave fewer than 3"):
    node_regression(lambda items: vectors, dataset, train=(1,))


def test_attributes_of_files_and_of_networkx(tmp_path):
  (tmp_path / "g.txt").write_text("a b\nb c\n")
  path = tmp_path / "numbers.csv"
  path.write_text("node,age,height\nb,3,1.5\na,,-2e1\n")
  dataset = read(str(tmp_path / "g.txt"), cache_dir=tmp_path, attributes=str(path))
  np.testing.assert_array_equal(dataset.attributes["age"], [np.nan, 3, np.nan])
  np.testing.assert_array_equal(dataset.attributes["height"], [-20, 1.5, np.nan])
  for text, message in (("node,age\nz,1\n", "line 2: the graph has no node 'z'"),
                        ("node,age\na,old\n", "line 2: age: 'old' is no number"),
                        ("node,age\na,1,2\n", "line 2: has 3 cells, the header 2"),
                        ("node,age,age\n", "line 1: expected a header with different names"), ("", "has no line")):
    path.write_text(text)
    with pytest.raises(InputError, match=message):
      read_attributes(str(path), ["a", "b"])
  graph = nx.path_graph(3)
  nx.set_node_attributes(graph, {0: 0.5, 1: 1.5, 2: 2.5}, "weight")
  nx.set_node_attributes(graph, 1, "class")
  dataset = read("x", dataset=as_dataset(graph))
  np.testing.assert_array_equal(dataset.attributes["weight"], [0.5, 1.5, 2.5])
  assert list(dataset.labels) == ["class"]
