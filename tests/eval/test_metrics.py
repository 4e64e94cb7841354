import logging

import numpy as np
import pytest

from embeddings_jax.eval import metrics


@pytest.mark.parametrize("classes", [2, 4])
def test_classes_as_scikit_learn_counts_them(classes):
  from sklearn import metrics as reference

  rng = np.random.default_rng(classes)
  right = rng.integers(0, classes, 200)
  guessed = np.where(rng.random(200) < 0.6, right, rng.integers(0, classes, 200))
  np.testing.assert_allclose(metrics.matthews(guessed, right), reference.matthews_corrcoef(right, guessed))
  np.testing.assert_allclose(metrics.f1_scores(guessed, right), reference.f1_score(right, guessed, average=None))
  assert metrics.accuracy(guessed, right) == reference.accuracy_score(right, guessed)


def test_constant_guesses_and_absent_classes():
  right = np.array([0, 2, 2, 0])
  assert metrics.matthews(np.zeros(4, int), right) == 0
  np.testing.assert_array_equal(metrics.f1_scores(np.array([0, 2, 0, 0]), right), [0.8, np.nan, 2 / 3])


def test_correlations_as_scipy_has_them():
  from scipy import stats

  rng = np.random.default_rng(0)
  x = rng.integers(0, 6, 100).astype(np.float32)  # With ties.
  y = x + rng.normal(size=100)
  np.testing.assert_allclose(metrics.pearson(x, y), stats.pearsonr(x, y)[0], rtol=1e-6)
  np.testing.assert_allclose(metrics.spearman(x, y), stats.spearmanr(x, y)[0], rtol=1e-6)


def test_correlations_that_are_not_defined_say_why(caplog):
  x = np.arange(100)
  for predicted, scores, reason in ((x, np.full(100, 0.1), "all scores are equal"), (x[:1], x[:1], "1 pairs"),
                                    (np.full(100, 0.1), x, "all values of the model are equal")):
    for name in ("pearson", "spearman"):
      caplog.clear()
      with caplog.at_level(logging.WARNING):
        assert np.isnan(getattr(metrics, name)(predicted, scores, "the metric"))
      assert caplog.messages == [f"the metric is not defined (nan): {reason}"
                                 + (", a correlation needs two" if "1" in reason else "")]


def test_deviations_are_those_of_samples():
  assert metrics.mean_and_std([1, 2, 4]) == (pytest.approx(7 / 3), pytest.approx(np.sqrt(7 / 3)))
  assert np.isnan(metrics.mean_and_std([1])[1])


@pytest.mark.parametrize("tags, expected", [
    ("O B-a I-a O B-b", {(1, 3, "a"), (4, 5, "b")}),
    ("B-a B-a I-a", {(0, 1, "a"), (1, 3, "a")}),
    ("I-a I-a O I-b", {(0, 2, "a"), (3, 4, "b")}),  # The repair: an I- that has no B- begins an entity,
    ("B-a I-b I-b", {(0, 1, "a"), (1, 3, "b")}),  # and so does one of another type.
    ("I-a B-a", {(0, 1, "a"), (1, 2, "a")}),  # IOB1.
    ("S-a B-b E-b B-b", {(0, 1, "a"), (1, 3, "b"), (3, 4, "b")}),
    ("O O", set()),
])
def test_entities_of_tags(tags, expected):
  assert metrics.entities(tags.split()) == expected


def test_entity_scores_by_hand():
  right = [["B-a", "I-a", "O", "B-b"], ["O", "B-a"]]
  guessed = [["B-a", "O", "O", "B-b"], ["B-a", "B-a"]]
  # Two of four guesses, (3, 4, b) and (1, 2, a), are right; three are there.
  found = metrics.entity_scores(guessed, right)
  np.testing.assert_allclose([found[name] for name in ("precision", "recall", "f1")], [1 / 2, 2 / 3, 4 / 7])
  assert metrics.entity_scores([["O"]], [["O"]]) == {"precision": 0, "recall": 0, "f1": 0}
