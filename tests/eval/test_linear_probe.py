"""Linear probe: optimum of the written objective, perfect and random embeddings, nothing chosen on test rows."""

import logging
from typing import NamedTuple

import numpy as np
import pytest
import scipy.optimize

from embeddings_jax.eval.clustering import clustering
from embeddings_jax.eval.few_shot import few_shot
from embeddings_jax.eval.knn import knn
from embeddings_jax.eval.linear_probe import classifier, linear_probe, logistic_regression, probe_accuracy
from embeddings_jax.eval.retrieval import retrieval
from embeddings_jax.types import InputError


class _Data(NamedTuple):
  name: str
  items: np.ndarray
  labels: dict
  split: dict


def _data(num=600, classes=3, seed=0):
  rng = np.random.default_rng(seed)
  label = rng.integers(0, classes, num)
  return _Data("made", np.arange(num), {"digit": label, "name": np.array(["a", "b", "c"])[(label + 1) % 3]},
               {"train": np.arange(num // 2), "test": np.arange(num // 2, num)})


def test_worked_case():
  # Two classes at -1 and +1: the sign decides, and one of the four test rows is on the wrong side.
  train, labels = np.array([[-1.0], [1.0]] * 10), np.array([0, 1] * 10)
  assert probe_accuracy(train, labels, np.array([[-3.0], [-0.2], [0.1], [-0.4]]), np.array([0, 0, 1, 1])) == 0.75


def test_fit_is_the_optimum_of_the_objective():
  rng = np.random.default_rng(0)
  x, y = rng.normal(size=(60, 4)), rng.integers(0, 3, 60)

  def objective(flat):
    w, b = flat[:12].reshape(3, 4), flat[12:]
    logits = x @ w.T + b
    log_probability = logits - scipy.special.logsumexp(logits, axis=1, keepdims=True)
    return -log_probability[np.arange(60), y].mean() + 0.05 / 2 * np.square(w).sum()

  best = scipy.optimize.minimize(objective, np.zeros(15), tol=1e-10)
  classifier = logistic_regression(x, y, 0.05)
  actual = np.concatenate([classifier.coef_.ravel(), classifier.intercept_])
  assert objective(actual) == pytest.approx(best.fun, abs=1e-6)
  np.testing.assert_allclose(classifier.coef_, best.x[:12].reshape(3, 4), atol=1e-3)


def test_perfect_and_random_embeddings():
  data = _data()
  noise = np.random.default_rng(1)
  perfect = linear_probe(lambda items: np.eye(3)[data.labels["digit"]][items] * 1e-3 + 7, data)
  assert perfect == {"digit/test/accuracy": 1.0, "name/test/accuracy": 1.0}
  random = linear_probe(lambda items: noise.normal(size=(len(items), 8)), data)
  assert all(abs(value - 1 / 3) < 0.09 for value in random.values())


def test_constant_embedding_gives_the_most_frequent_class():
  label = np.array([0] * 30 + [1] * 10)
  data = _Data("made", np.arange(80), {"x": np.tile(label, 2)}, {"train": np.arange(40), "test": np.arange(40, 80)})
  assert linear_probe(lambda items: np.full((80, 3), 0.3), data)["x/test/accuracy"] == 0.75


def test_test_rows_change_no_choice():
  data, rng = _data(), np.random.default_rng(2)
  features = np.eye(3)[data.labels["digit"]] + rng.normal(size=(600, 3))
  train, test = data.split["train"], data.split["test"]
  labels = data.labels["digit"]
  whole = probe_accuracy(features[train], labels[train], features[test], labels[test])
  halves = [probe_accuracy(features[train], labels[train], features[h], labels[h]) for h in np.split(test, 2)]
  assert np.mean(halves) == pytest.approx(whole)


def test_the_penalty_is_the_best_one_held_out():
  """Held-out labels that only a strong penalty, or only a weak one, gets right decide."""
  rng = np.random.default_rng(3)
  x, y = rng.normal(size=(80, 60)), rng.integers(0, 2, 80)
  other = rng.normal(size=(500, 60))
  told = {penalty: classifier(x, y, penalties=(penalty,))(other) for penalty in (1e-1, 1e-4)}
  assert (told[1e-1] != told[1e-4]).mean() > 0.02
  for labels in told.values():
    np.testing.assert_array_equal(classifier(x, y, held_out=(other, labels), penalties=(1e-4, 1e-1))(other), labels)


def test_labels_with_one_class_are_left_out_with_a_line(caplog):
  labels = {"one": np.zeros(40, int), "two": np.arange(40) % 2, "rare": np.r_[[1], np.zeros(39, int)]}
  embed = lambda items: np.stack([items % 2, items == 0], 1).astype(float)
  given = _Data("made", np.arange(40), labels, {"train": np.arange(30), "test": np.arange(30, 40)})
  for protocol, key in ((linear_probe, "accuracy"), (knn, "knn_accuracy"), (few_shot, "few_shot_1/accuracy")):
    caplog.clear()
    with caplog.at_level(logging.WARNING):
      actual = protocol(embed, given)
    assert actual[f"two/test/{key}"] == actual[f"rare/test/{key}"] == 1
    assert caplog.messages == [f"{protocol.__name__}: label 'one' of dataset 'made' has one class and is left out"]
  for protocol in (linear_probe, knn, few_shot, retrieval, clustering):
    with pytest.raises(InputError, match="labels 'one'.* have one class; there is nothing to tell apart"):
      protocol(lambda items: 1 / 0, given._replace(labels={"one": labels["one"]}))
  with pytest.raises(InputError, match="1 labeled items cannot be divided"):
    linear_probe(embed, _Data("made", [0], {"one": np.zeros(1)}, {}))


def test_no_labels_and_not_finite_are_refused():
  with pytest.raises(InputError, match="has no labels"):
    linear_probe(lambda items: np.ones((3, 2)), _Data("made", np.arange(3), {}, {}))
  with pytest.raises(InputError, match="train row 1 is not finite"):
    probe_accuracy(np.array([[0.0], [np.nan]]), np.array([0, 1]), np.zeros((1, 1)), np.array([0]))
