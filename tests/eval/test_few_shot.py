"""Few-shot classification: cases by hand, scikit-learn's classifier on the same draws, perfect and random ones."""
import types

import numpy as np
import pytest
import scipy.sparse
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from embeddings_jax.eval.few_shot import few_shot
from embeddings_jax.types import InputError


def dataset(labels, num_test):
  rows = np.arange(len(labels))
  return types.SimpleNamespace(name="set", items=rows, labels={"class": np.asarray(labels)},
                               split={"train": rows[:-num_test], "test": rows[-num_test:]})


def test_by_hand():
  """Whatever is drawn, the border lies between the classes, and one of four test items on the wrong side."""
  x = np.array([[-1.0], [-1.0], [1.0], [1.0], [-3.0], [-0.5], [0.5], [-0.1]])
  actual = few_shot(lambda items: x[items], dataset([*"aabbaabb"], 4), shots=(1, 2))
  assert actual == {"class/test/few_shot_1/accuracy": 0.75, "class/test/few_shot_1/deviation": 0,
                    "class/test/few_shot_2/accuracy": 0.75, "class/test/few_shot_2/deviation": 0}


def test_the_deviation_is_that_over_draws_by_hand():
  """The one item of `a` is at -1 and those of `b` at 1 or, as often, at -3: then the test item at 2 is an `a`."""
  x = np.array([[-1.0], [1.0], [-3.0], [2.0]])
  actual = few_shot(lambda items: x[items], dataset([*"abbb"], 1), seed=3)
  share = actual["class/test/few_shot_1/accuracy"]
  assert 0 < share < 1 and share * 10 == pytest.approx(round(share * 10))
  assert actual["class/test/few_shot_1/deviation"] == pytest.approx(np.sqrt(share * (1 - share) * 10 / 9))
  assert set(actual) == {"class/test/few_shot_1/accuracy", "class/test/few_shot_1/deviation"}  # Of `a` there is one.


@pytest.mark.parametrize("sparse", [False, True])
def test_it_is_scikit_learns_classifier(sparse):
  rng = np.random.default_rng(0)
  label = rng.integers(0, 3, 400)
  x = rng.normal(size=(400, 6)) * 3 + 2 * np.eye(6)[label] + 5
  actual = few_shot(lambda items: scipy.sparse.csr_array(x[items]) if sparse else x[items], dataset(label, 200),
                    seed=1)
  scale = StandardScaler(with_mean=not sparse).fit(x[:200])
  draws = np.random.default_rng(1)
  expected = {1: [], 5: [], 10: [], 25: []}
  for _ in range(10):
    order = [draws.permutation(np.flatnonzero(label[:200] == i)) for i in range(3)]
    for n, values in expected.items():
      rows = np.concatenate([part[:n] for part in order])
      # Its C weighs the sum of losses against |W|² / 2; ours is their mean against 0.1 |W|² / 2.
      reference = LogisticRegression(C=1 / (0.1 * len(rows)), tol=1e-6, max_iter=10_000)
      reference.fit(scale.transform(x[rows]), label[rows])
      values.append(reference.score(scale.transform(x[200:]), label[200:]))
  assert len(actual) == 8
  for n, values in expected.items():
    assert actual[f"class/test/few_shot_{n}/accuracy"] == pytest.approx(np.mean(values), abs=0.5 / 200)
    assert actual[f"class/test/few_shot_{n}/deviation"] == pytest.approx(np.std(values, ddof=1), abs=0.5 / 200)
  assert actual["class/test/few_shot_25/accuracy"] > actual["class/test/few_shot_1/accuracy"]


def test_perfect_and_random():
  label = np.random.default_rng(0).integers(0, 5, 1500)
  actual = few_shot(lambda items: np.eye(5)[label[items]], dataset(label, 500))
  assert {value for name, value in actual.items() if name.endswith("accuracy")} == {1.0}
  noise = np.random.default_rng(1).normal(size=(1500, 4))
  actual = few_shot(lambda items: noise[items], dataset(label, 500))
  assert all(abs(value - 0.2) < 0.05 for name, value in actual.items() if name.endswith("accuracy"))


def test_what_is_refused():
  with pytest.raises(InputError, match="few_shot: dataset 'set' has no labels"):
    few_shot(lambda items: items, types.SimpleNamespace(name="set", items=[0], labels={}, split={}))
  with pytest.raises(InputError, match="few_shot: the embedding of train row 1 is not finite"):
    few_shot(lambda items: np.array([[0.0], [np.nan], [1.0]]), dataset([*"aba"], 1))
  with pytest.raises(InputError, match="few_shot: labels 'class' of dataset 'set' have one class"):
    few_shot(lambda items: np.zeros((3, 1)), dataset([*"aab"], 1))
