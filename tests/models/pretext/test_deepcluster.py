"""DeepCluster: k-means, weights and mutual information against scikit-learn; passes by hand; planted clusters."""
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from networks import images
from sklearn.cluster import KMeans
from sklearn.datasets import make_blobs
from sklearn.decomposition import PCA
from sklearn.metrics import normalized_mutual_info_score

from embeddings_jax.models.pretext import deepcluster as module
from embeddings_jax.models.pretext.deepcluster import deepcluster
from embeddings_jax.nets import convnet
from embeddings_jax.types import InputError

SMALL = dict(num_rows=24, steps_per_epoch=3, num_clusters=3, num_components=4, num_turns=8, shift=0)


def trunk():
  return convnet.encoder(channels=(4, 8), strides=(1, 2))


def test_whitening_is_scikit_learns():
  rows = np.random.default_rng(0).normal(size=(50, 6)) @ np.diag([5, 4, 3, 2, 1, 0.5])
  expected = PCA(3, whiten=True).fit_transform(rows)
  expected /= np.linalg.norm(expected, axis=1, keepdims=True)
  actual = np.asarray(module.whitened(jnp.asarray(rows, jnp.float32), 3))
  np.testing.assert_allclose(np.abs(actual), np.abs(expected), atol=2e-3)


def test_separate_clusters_are_found_as_by_scikit_learn():
  rows, truth = make_blobs(120, 2, centers=4, cluster_std=0.3, random_state=1)
  rows = jnp.asarray(rows, jnp.float32)
  expected = KMeans(4, n_init=5, random_state=0).fit(rows)
  inertia = []
  for seed in range(5):
    labels = np.asarray(module.clustered(jax.random.key(seed), rows, 4, 20))
    means = np.stack([rows[labels == k].mean(0) for k in range(4)])
    inertia.append(((rows - means[labels]) ** 2).sum())
    assert len(np.unique(labels)) == 4  # None stays empty.
  np.testing.assert_allclose(min(inertia), expected.inertia_, rtol=1e-4)


def test_mutual_information_is_scikit_learns():
  rng = np.random.default_rng(0)
  old, new = rng.integers(-1, 4, 60), rng.integers(0, 4, 60)
  new = np.where(rng.random(60) < 0.5, np.maximum(old, 0), new)
  expected = normalized_mutual_info_score(old[old >= 0], new[old >= 0], average_method="geometric")
  np.testing.assert_allclose(module.mutual_information(jnp.asarray(old), jnp.asarray(new), 4), expected, rtol=1e-4)
  assert module.mutual_information(jnp.full(60, -1), jnp.asarray(new), 4) == 0


def batches(seed=0):
  """Three batches of eight, twenty-four images in all."""
  every = images(24, 8, 8, 1, seed)["image"]
  order = np.random.default_rng(seed).permutation(24)
  return [{"image": every[order[i::3]], "number": jnp.asarray(order[i::3], jnp.int32)} for i in range(3)]


def test_the_first_pass_fills_the_bank_and_then_labels_and_head_are_new():
  model = deepcluster(encoder=trunk(), **SMALL, optimizer=optax.adam(1e-2))
  parts = batches()
  state, update = jax.jit(model.init)(jax.random.key(0), parts[0]), jax.jit(model.update)
  states = [state]
  for part in parts:
    state, metrics = update(state, part, jax.random.key(1))
    states.append(state)
    assert metrics["loss"] == 0 and metrics["gradient_norm"] == 0
  _, _, before, after = states
  same = jax.tree.map(lambda a, b: bool((a == b).all()), before.params, after.params)
  assert all(jax.tree.leaves(same["encoder"])) and not same["projector"]["dense_0"]["kernel"]
  assert (before.extra["labels"] == -1).all()
  labels = np.asarray(after.extra["labels"])
  rng = jax.random.split(jax.random.fold_in(jax.random.key(0), 3))[0]
  np.testing.assert_array_equal(labels, module.clustered(rng, module.whitened(after.extra["bank"], 4), 3, 8))
  assert not np.asarray(after.extra["bank"] == 0).all(1).any()

  # The loss of the next update, by hand.
  from embeddings_jax.nets.pretext import variables_of
  part = parts[1]
  z, _ = trunk().apply(variables_of(after.params, after.extra), part, False, method="features",
                       mutable=["batch_stats"])
  dense = after.params["projector"]["dense_0"]
  logits = np.asarray(z.mean(1) @ dense["kernel"] + dense["bias"], np.float64)
  label = labels[np.asarray(part["number"])]
  weights = 1 / np.bincount(labels, minlength=3)[label]
  losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(8), label]
  _, metrics = update(after, part, jax.random.key(1))
  np.testing.assert_allclose(metrics["loss"], (weights * losses).sum() / weights.sum(), rtol=1e-4)


@pytest.mark.parametrize("loss", ["softmax", "supcon"])
def test_planted_clusters_are_kept_and_learned(loss):
  """Images of three brightnesses: clusters agree from pass to pass, and with the truth."""
  kind = np.arange(24) % 3
  rng = np.random.default_rng(0)
  every = np.array([0.1, 0.5, 0.9])[kind][:, None, None, None] + rng.normal(0, 0.05, (24, 8, 8, 1))
  every = jnp.asarray(255 * np.clip(every, 0, 1), jnp.uint8)
  model = deepcluster(encoder=trunk(), **SMALL | dict(num_components=2), loss=loss, optimizer=optax.adam(3e-3))
  state, update = jax.jit(model.init)(jax.random.key(0), {"image": every[:8]}), jax.jit(model.update)
  for step in range(12):
    number = np.random.default_rng(step // 3).permutation(24)[step % 3::3]
    state, metrics = update(state, {"image": every[number], "number": jnp.asarray(number)}, jax.random.key(step))
  labels = np.asarray(state.extra["labels"])
  assert normalized_mutual_info_score(kind, labels) > 0.7
  assert state.extra["agreement"] > 0.6 and np.isfinite(metrics["loss"])


def test_clusters_may_stay_for_several_passes():
  """Clusters are found after the first epoch and every second one after it: epochs 1 and 3 of 1 to 4."""
  model = deepcluster(encoder=trunk(), **SMALL, cluster_every=2)
  parts = batches()
  state, update = jax.jit(model.init)(jax.random.key(0), parts[0]), jax.jit(model.update)
  changes = []
  for step in range(12):
    before = state.params["projector"]["dense_0"]["bias"]
    state, _ = update(state, parts[step % 3], jax.random.key(step))
    # A new head has no bias; an old one has moved.
    changes.append(bool((np.asarray(state.params["projector"]["dense_0"]["bias"]) == 0).all() and before.any()))
  assert changes[8] and not any(changes[3:8]) and not any(changes[9:])


def test_bad_input_is_refused():
  with pytest.raises(InputError, match="num_clusters=30: must be from 2 to the 24"):
    deepcluster(encoder=trunk(), **SMALL | dict(num_clusters=30))
  model = deepcluster(encoder=trunk(), **SMALL)
  state = model.init(jax.random.key(0), images(4, 8, 8, 1))
  with pytest.raises(InputError, match="pipeline=numbered_images"):
    model.update(state, images(4, 8, 8, 1), jax.random.key(0))
