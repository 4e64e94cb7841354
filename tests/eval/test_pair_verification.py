"""Verification: scikit-learn's AUC, thresholds by hand, what counts as alike, nothing chosen on the test part."""
import types

import numpy as np
import pytest

from embeddings_jax.eval.metrics import roc_auc
from embeddings_jax.eval.pair_verification import best_threshold, pair_verification
from embeddings_jax.eval.pairs import alike
from embeddings_jax.types import InputError

AUC, ACCURACY, THRESHOLD = "test/verification_auc", "test/verification_accuracy", "verification_threshold"


def dataset(labels, split=None):
  return types.SimpleNamespace(name="made", kind="pairs", items=[(f"a{i}", f"b{i}") for i in range(len(labels))],
                               labels={"score" if np.asarray(labels).dtype.kind in "fi" else "label":
                                       np.asarray(labels)}, split=split or {})


def embedding(cosine):
  def embed(sentences):
    angle = [0 if s[0] == "a" else np.arccos(cosine[int(s[1:])]) for s in sentences]
    return np.stack([np.cos(angle), np.sin(angle)], 1)
  return embed


def test_auc_is_the_share_of_couples_in_order():
  noise = np.random.default_rng(0)
  for _ in range(20):
    scores, positive = noise.integers(0, 8, 50), noise.random(50) < 0.4
    gain = scores[positive][:, None] - scores[~positive]
    assert roc_auc(scores, positive) == pytest.approx(np.mean((gain > 0) + (gain == 0) / 2))
  assert np.isnan(roc_auc(np.arange(3), np.zeros(3, bool)))


def test_thresholds_by_hand():
  kinds = np.array([False, True, False, True, True])
  assert best_threshold(np.array([1.0, 2, 3, 4, 5]), kinds) == 1.5  # As right as 3.5, and lower.
  assert best_threshold(np.array([1.0, 2, 2, 4, 5]), kinds) == 1.5
  assert best_threshold(np.array([1.0, 2.0]), np.array([True, True])) == 1
  assert best_threshold(np.array([1.0, 2.0]), np.array([False, False])) == np.nextafter(2, 3)


def test_by_hand():
  label = ["entailment", "contradiction", "neutral", "entailment", "entailment", "contradiction", "contradiction"]
  split = {"dev": np.arange(3), "test": np.arange(3, 7)}
  actual = pair_verification(embedding([0.8, 0.2, 0.9, 0.9, 0.4, 0.6, 0.1]), dataset(label, split))
  assert actual == {"dev/verification_auc": 1, THRESHOLD: pytest.approx(0.5), AUC: 3 / 4, ACCURACY: 1 / 2}


def test_a_pair_at_the_threshold_is_alike():
  label = ["1", "0", "1", "0"]
  actual = pair_verification(embedding([1, 0, 0.5, 0.5]), dataset(label, {"dev": [0, 1], "test": [2, 3]}))
  assert actual[ACCURACY] == 0.5 and actual[AUC] == 0.5


def test_perfect_and_random():
  noise = np.random.default_rng(1)
  score = noise.uniform(0, 5, 3000)
  actual = pair_verification(embedding(score / 5), dataset(score), seed=2)
  assert actual[AUC] == 1 and actual[ACCURACY] > 0.99 and "dev/verification_auc" not in actual
  assert 0.2 < actual[THRESHOLD] < 0.8
  actual = pair_verification(lambda s: noise.normal(size=(len(s), 20)), dataset(score), seed=2)
  assert actual[AUC] == pytest.approx(0.5, abs=0.1) and actual[ACCURACY] == pytest.approx(0.5, abs=0.1)


def test_which_pairs_are_alike():
  assert alike(dataset([0.0, 1, 1.2, 3.9, 4, 5])).tolist() == [0, 0, -1, -1, 1, 1]
  assert alike(dataset([0.0, 1, 1])).tolist() == [0, 1, 1]
  assert alike(dataset(["not_entailment", "entailment"])).tolist() == [0, 1]
  assert alike(dataset(["duplicate", "not_duplicate", "x"])).tolist() == [1, 0, -1]
  with pytest.raises(InputError, match="which pairs are alike. label has the classes a, b, and none of entailment"):
    alike(dataset(["a", "b"]))


def test_nothing_is_chosen_on_the_test_part():
  noise = np.random.default_rng(3)
  label, cosine = noise.choice(["1", "0"], 300), noise.random(300)
  split = {"dev": np.arange(100), "test": np.arange(100, 300)}
  first = pair_verification(embedding(cosine), dataset(label, split))
  label[100:] = np.where(label[100:] == "1", "0", "1")
  turned = pair_verification(embedding(cosine), dataset(label, split))
  assert turned[THRESHOLD] == first[THRESHOLD]
  assert turned[ACCURACY] == pytest.approx(1 - first[ACCURACY])
  assert set(pair_verification(embedding(cosine), dataset(label, {"test": np.arange(300)}))) == {AUC}


def test_what_cannot_be_asked():
  with pytest.raises(InputError, match="the part test of 'made' has pairs of one kind only"):
    pair_verification(embedding([0.5] * 4), dataset(["1", "0", "1", "1"], {"dev": [0, 1], "test": [2, 3]}))
  nothing = dataset(["1"])
  nothing.labels = {}
  with pytest.raises(InputError, match="'made' has no labels"):
    pair_verification(len, nothing)
