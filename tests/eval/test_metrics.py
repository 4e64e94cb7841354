import logging

import numpy as np
import pytest

from embeddings_jax.eval import metrics


def test_f1_of_classes_is_that_of_their_counts():
  rng = np.random.default_rng(4)
  right = rng.integers(0, 4, 200)
  guessed = np.where(rng.random(200) < 0.6, right, rng.integers(0, 4, 200))
  expected = [2 * ((right == i) & (guessed == i)).sum() / ((right == i).sum() + (guessed == i).sum())
              for i in range(4)]
  np.testing.assert_allclose(metrics.f1_scores(guessed, right), expected)
  assert metrics.accuracy(guessed, right) == (right == guessed).sum() / 200
  assert np.isnan(metrics.accuracy(right[:0], right[:0]))


def test_f1_of_absent_classes_is_not_defined():
  np.testing.assert_array_equal(metrics.f1_scores(np.array([0, 2, 0, 0]), np.array([0, 2, 2, 0])),
                                [0.8, np.nan, 2 / 3])


def test_correlations_by_hand():
  x, y = np.array([1, 2, 2, 5], np.float32), np.array([0.0, 1, 3, 2])
  # Deviations -1.5 -0.5 -0.5 2.5 and -1.5 -0.5 1.5 0.5; ranks 1 2.5 2.5 4 and 1 2 4 3.
  assert metrics.pearson(x, y) == pytest.approx(3 / np.sqrt(9 * 5))
  assert metrics.spearman(x, y) == pytest.approx(3 / np.sqrt(4.5 * 5))
  assert metrics.pearson(x, -x) == pytest.approx(-1) and metrics.spearman(x, x**3) == pytest.approx(1)


def test_area_under_the_curve_counts_ties_half():
  # Of six couples of a positive and a negative one, two are in order and two are ties.
  positive = np.array([True, False, True, True, False])
  assert metrics.roc_auc(np.array([1, 2, 2, 3, 2]), positive) == pytest.approx(3 / 6)
  assert np.isnan(metrics.roc_auc(np.arange(3), np.ones(3, bool)))


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
  actual = metrics.entity_scores(guessed, right)
  np.testing.assert_allclose([actual[name] for name in ("precision", "recall", "f1")], [1 / 2, 2 / 3, 4 / 7])
  assert metrics.entity_scores([["O"]], [["O"]]) == {"precision": 0, "recall": 0, "f1": 0}
