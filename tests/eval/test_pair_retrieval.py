"""Retrieval of partners: ranks by hand, ties, several partners, a perfect and a random embedding."""
import types

import numpy as np
import pytest

from embeddings_jax.eval.pair_retrieval import pair_retrieval
from embeddings_jax.types import InputError


def dataset(items, labels=None, split=None):
  return types.SimpleNamespace(name="made", kind="pairs", items=items, split=split or {},
                               labels={key: np.asarray(value) for key, value in (labels or {}).items()})


def at(angles):
  return lambda sentences: np.array([[np.cos(angles[s]), np.sin(angles[s])] for s in sentences])


def test_by_hand():
  """a finds b first; c finds d behind b and f, which is as far; e's partner is unlike and only a candidate."""
  items = dataset([("a", "b"), ("c", "d"), ("e", "f")], {"score": [5, 4, 0.5]})
  actual = pair_retrieval(at({"a": 0, "b": 0.1, "c": 0, "d": 0.3, "e": 1, "f": -0.3}), items)
  assert actual == {"all/recall_at_1": 0.5, "all/recall_at_10": 1, "all/mrr": pytest.approx((1 + 1 / 3) / 2),
                    "candidates": 3}


def test_other_partners_are_no_rivals():
  label = ["entailment", "entailment", "contradiction", "entailment"]
  items = dataset([("a", "b"), ("a", "c"), ("a", "d"), ("e", "c")], {"label": label})
  actual = pair_retrieval(at({"a": 0, "b": 0.1, "c": 0.2, "d": 0.15, "e": 3}), items)
  # b is the first; c is behind d alone, b is as right; e: c is nearest.
  assert actual["all/mrr"] == pytest.approx((1 + 1 / 2 + 1) / 3) and actual["candidates"] == 3


def test_equal_sentences_are_left_out_and_parts_kept_apart():
  items = [("a", "a"), ("a", "b"), ("x", "y")]
  actual = pair_retrieval(at({"a": 0, "b": 1, "x": 0, "y": 0}), dataset(items, split={"test": [0, 1]}))
  assert actual["test/mrr"] == 1 and actual["candidates"] == 2  # `a` is asked, so that it is no rival of b.
  with pytest.raises(InputError, match="pair_retrieval: no pair of 'made' is alike"):
    pair_retrieval(at({"a": 0}), dataset([("a", "a")]))


def test_perfect_and_random():
  noise = np.random.default_rng(0)
  items = dataset([(f"a{i}", f"b{i}") for i in range(700)])
  table = noise.normal(size=(700, 20))
  perfect = pair_retrieval(lambda s: np.array([table[int(x[1:])] for x in s]), items)
  assert perfect == {"all/recall_at_1": 1, "all/recall_at_10": 1, "all/mrr": 1, "candidates": 700}
  random = pair_retrieval(lambda s: noise.normal(size=(len(s), 20)), items)
  assert random["all/recall_at_10"] == pytest.approx(10 / 700, abs=0.015) and random["all/mrr"] < 0.03
  constant = pair_retrieval(lambda s: np.ones((len(s), 3)), items)
  assert constant["all/mrr"] == pytest.approx(1 / 700) and constant["all/recall_at_10"] == 0
