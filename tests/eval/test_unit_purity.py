"""Purity of units: a table by hand, scikit-learn's information, clusters of training frames, bad input."""
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import mutual_info_score

from embeddings_jax.eval.unit_purity import clustered, purity, unit_purity
from embeddings_jax.runs import needs
from embeddings_jax.types import InputError, Model


def test_metrics_by_hand():
  """Ten frames: unit 0 has labels 0 0 0 1, unit 1 has 1 1, unit 2 has 0 2 2 2."""
  labels = np.array([0, 0, 0, 1, 1, 1, 0, 2, 2, 2])
  units = np.array([0, 0, 0, 0, 1, 1, 2, 2, 2, 2])
  share = np.array([4, 3, 3]) / 10
  metrics = purity(labels, units)
  assert metrics["label_purity"] == pytest.approx(0.8) and metrics["cluster_purity"] == pytest.approx(0.8)
  given = -(0.4 * (0.75 * np.log(0.75) + 0.25 * np.log(0.25)) * 2)
  entropy = -(share * np.log(share)).sum()
  assert metrics["pnmi"] == pytest.approx((entropy - given) / entropy)
  assert metrics["pnmi"] == pytest.approx(mutual_info_score(labels, units) / entropy)


def test_more_units_than_labels_keep_label_purity_and_lose_cluster_purity():
  labels = np.repeat(np.arange(3), 40)
  assert purity(labels, labels) == pytest.approx({"label_purity": 1, "cluster_purity": 1, "pnmi": 1})
  split = purity(labels, 4 * labels + np.arange(120) % 4)
  assert split == pytest.approx({"label_purity": 1, "cluster_purity": 0.25, "pnmi": 1})
  assert purity(labels, np.zeros(120, int)) == pytest.approx({"label_purity": 1 / 3, "cluster_purity": 1, "pnmi": 0})


def test_test_frames_get_the_clusters_of_training_frames():
  rng = np.random.default_rng(0)
  centers = 9 * np.eye(4)
  train, test = (np.repeat(np.arange(4), n) for n in (50, 20))
  units = clustered(centers[train] + rng.normal(size=(200, 4)), centers[test] + rng.normal(size=(80, 4)), 12, 0)
  metrics = purity(test, units)
  assert metrics["label_purity"] == pytest.approx(1) and metrics["pnmi"] == pytest.approx(1)
  assert metrics["cluster_purity"] < 0.8 and len(np.unique(units)) > 6
  with pytest.raises(InputError, match="num_units=9: must be from 2 to the 4 frames of the clips"):
    clustered(centers, centers, 9, 0)


def test_frames_of_padding_are_left_out_and_a_label_of_one_class_is_refused():
  encode = lambda clips: {"signal": np.stack([np.pad(clip, (0, 12 - len(clip))) for clip in clips]),
                          "length": np.array([len(clip) for clip in clips]), "mask": np.ones(len(clips), np.float32)}
  model = Model(None, None, None, {"hidden": lambda state, batch: jnp.stack(
      [batch["signal"].reshape(len(batch["signal"]), -1, 4)] * 2, 1)})
  subject = SimpleNamespace(model=model, state=(jnp.zeros(1),), encoder=SimpleNamespace(rate=8, encode=encode))
  provided = needs.NEEDS["frames"].provide(subject)["frames"]
  clips = [np.arange(8, dtype=np.int16), np.arange(12, dtype=np.int16)]
  layers = provided(clips)
  assert sorted(layers) == ["0", "1"] and [len(clip) for clip in layers["1"]] == [2, 3]
  np.testing.assert_array_equal(layers["0"][1], np.arange(12).reshape(3, 4))
  assert needs.NEEDS["frames"].provide(SimpleNamespace(model=model, encoder=SimpleNamespace())) is None
  data = SimpleNamespace(items=clips, labels={"class": np.zeros(2, int)}, split={})
  with pytest.raises(InputError, match="unit_purity: no label of the clips has two classes"):
    unit_purity(None, data, frames=provided)
