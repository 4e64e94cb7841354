"""Retrieval: a ranking by hand, scikit-learn's average precision, a perfect and a random embedding."""
import types

import numpy as np
import pytest
import scipy.sparse
from sklearn.metrics import average_precision_score, ndcg_score

from embeddings_jax.eval.retrieval import average_precision, ndcg, nearest, ranks_of, retrieval
from embeddings_jax.types import InputError


def dataset(labels, num_test=1):
  rows = np.arange(len(labels))
  return types.SimpleNamespace(name="set", items=rows, labels={"class": np.asarray(labels)},
                               split={"train": rows[:-num_test], "test": rows[-num_test:]})


def test_by_hand():
  """Ranked a b a a: precisions 1, 2/3, 3/4 at the relevant ones; a zero vector has cosine 0 and comes last."""
  vectors = np.array([[1, 0], [5, 2], [1, 1], [0, 0], [2, 0]])
  actual = retrieval(lambda items: vectors[items], dataset(["a", "b", "a", "a", "a"]))
  assert actual["class/test/map"] == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
  assert actual["class/test/precision_at_10"] == pytest.approx(3 / 4)  # There are but four.
  assert actual["class/test/recall_at_10"] == actual["class/test/mrr"] == 1
  gains = 1 / np.log2([2, 3, 4, 5])
  assert actual["class/test/ndcg_at_10"] == pytest.approx((gains.sum() - gains[1]) / gains[:3].sum())


def test_the_first_relevant_one_and_recall_by_hand():
  """Ten of twelve other items are nearer than the first relevant one, and one ties with it."""
  angle = np.radians([*range(1, 11), 20, 20, 40, 0])
  labels = np.array([*"bbbbbbbbbb", *"ab", "a", "a"])
  actual = retrieval(lambda items: np.stack([np.cos(angle), np.sin(angle)], 1)[items], dataset(labels))
  assert actual["class/test/mrr"] == pytest.approx(1 / 12) and actual["class/test/recall_at_10"] == 0
  assert actual["class/test/ndcg_at_10"] == 0
  labels[3] = "a"
  actual = retrieval(lambda items: np.stack([np.cos(angle), np.sin(angle)], 1)[items], dataset(labels))
  assert actual["class/test/mrr"] == pytest.approx(1 / 4)
  assert actual["class/test/recall_at_10"] == pytest.approx(1 / 3)


def test_ties_are_scikit_learns():
  noise = np.random.default_rng(0)
  for _ in range(20):
    scores, relevant = noise.integers(0, 6, 40).astype(np.float32), noise.random(40) < 0.3
    relevant[0] = True
    assert average_precision(ranks_of(scores, relevant)) == pytest.approx(average_precision_score(relevant, scores))
    for k in (1, 10, 40):
      assert ndcg(ranks_of(scores, relevant), k) == pytest.approx(ndcg_score([relevant], [scores], k=k))
  assert nearest(np.array([[1.0, 3, 3, 2]], np.float32), 3).tolist() == [[1, 2, 3]]


def test_perfect_random_and_sparse():
  noise = np.random.default_rng(0)
  label = noise.integers(0, 5, 1000)
  given = dataset(label, 300)
  perfect = retrieval(lambda items: 3.0 * np.eye(5)[label[items]], given)
  assert perfect.pop("class/test/recall_at_10") < 0.1  # Of some 140 relevant ones.
  assert set(perfect.values()) == {1.0}
  vectors = noise.normal(size=(1000, 8)) * (noise.random((1000, 8)) < 0.5)
  dense = retrieval(lambda items: vectors[items], given)
  assert dense["class/test/map"] == pytest.approx(0.2, abs=0.03)
  assert dense["class/test/precision_at_10"] == pytest.approx(0.2, abs=0.03)
  assert dense["class/test/ndcg_at_10"] == pytest.approx(0.2, abs=0.03)
  sparse = retrieval(lambda items: scipy.sparse.csr_array(vectors[items]), given)
  assert sparse == pytest.approx(dense, abs=1e-3)
  given.split = {}  # Then a fifth is asked, drawn by class.
  assert retrieval(lambda items: vectors[items], given, seed=3)["class/test/map"] == pytest.approx(0.2, abs=0.03)


def test_what_cannot_be_asked():
  with pytest.raises(InputError, match="'set' has no labels"):
    retrieval(lambda items: items, types.SimpleNamespace(name="set", items=[0], labels={}, split={}))
  with pytest.raises(InputError, match="retrieval: the embedding of row 2 is not finite"):
    retrieval(lambda items: np.where(items == 2, np.nan, 1.0)[:, None], dataset([*"abab"]))
