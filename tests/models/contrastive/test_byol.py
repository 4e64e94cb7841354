"""BYOL's update by hand: the loss against the target's vectors, and the target that follows."""
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from embeddings_jax.models.contrastive.byol import byol
from embeddings_jax.nets import convnet
from embeddings_jax.nets.siamese import Mlp, Siamese
from embeddings_jax.ops.augment import augmented, pair_of_views
from embeddings_jax.types import InputError

ENCODER = dict(channels=(4, 8), strides=(2, 2))
SIZES = dict(projector_dims=(8, 5), predictor_dim=32)


def images(num=6, channels=1):
  """Gray ones, whose changes compile quickest."""
  return jnp.asarray(np.random.default_rng(0).integers(0, 256, (num, 16, 16, channels)), jnp.uint8)


def unit(x):
  x = np.asarray(x, np.float64)
  length = np.linalg.norm(x, axis=1, keepdims=True)
  return np.where(length > 1e-6, x / np.maximum(length, 1e-6), 0)  # As `ops/similarity.py: l2_normalize`.


def test_loss_is_the_distance_of_predictions_from_the_target_s_other_view():
  x = images(channels=3)
  model = byol(encoder=convnet.encoder(**ENCODER), **SIZES)
  state = jax.jit(model.init)(jax.random.key(0), {"image": x})
  # Another target than the network itself.
  state = state._replace(extra=state.extra | {"target": jax.tree.map(lambda leaf: leaf * 1.3 + 0.1,
                                                                    state.extra["target"])})
  _, metrics = jax.jit(model.update)(state, {"image": x}, jax.random.key(1))

  online = Siamese(convnet.encoder(**ENCODER), Mlp((8, 5), last_bias=False), Mlp((32, 5)))
  target = Siamese(convnet.encoder(**ENCODER), Mlp((8, 5), last_bias=False))

  def apply(network, params, view):
    statistics = {name: state.extra["batch_stats"][name] for name in params}
    return network.apply({"params": params, "batch_stats": statistics}, {"image": view}, deterministic=False,
                         mutable=["batch_stats"])[0]

  @jax.jit
  def vectors(params, slow, rng):
    views = [augmented(op, jax.random.fold_in(rng, i), x) for i, op in enumerate(pair_of_views("byol", 16))]
    return [apply(online, params, view)["q"] for view in views], [apply(target, slow, view)["z"] for view in views]

  q, z = ([unit(part) for part in each] for each in vectors(state.params, state.extra["target"], jax.random.key(1)))
  expected = sum(((q[i] - z[1 - i]) ** 2).sum(1) for i in (0, 1)).mean()
  np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-3)


def test_target_follows_and_ends_by_standing_still():
  x = images()
  model = byol(encoder=convnet.encoder(**ENCODER), **SIZES, target_decay=0.5, num_steps=4, optimizer=optax.sgd(0.1))
  state = jax.jit(model.init)(jax.random.key(0), {"image": x})
  update = jax.jit(model.update)
  for k in range(6):
    old = state
    state, _ = update(old, {"image": x}, jax.random.key(k))
    decay = 1 - 0.5 * (np.cos(np.pi * min(k, 4) / 4) + 1) / 2
    for name in ("encoder", "projector"):
      slow, fast, actual = (jax.tree.leaves(tree[name]) for tree in (old.extra["target"], state.params,
                                                                     state.extra["target"]))
      for a, b, c in zip(slow, fast, actual, strict=True):
        np.testing.assert_allclose(c, decay * a + (1 - decay) * b, rtol=1e-5, atol=1e-6)
  assert decay == 1 and "predictor" not in state.extra["target"]


def test_the_target_is_another_buffer_than_the_parameters():
  """Both are donated."""
  model = byol(encoder=convnet.encoder(**ENCODER), **SIZES)
  state = jax.jit(model.init)(jax.random.key(0), {"image": images()})
  update = jax.jit(model.update, donate_argnums=0)
  state, _ = update(state, {"image": images()}, jax.random.key(0))
  state, metrics = update(state, {"image": images()}, jax.random.key(1))
  assert np.isfinite(metrics["loss"])


def test_a_target_that_never_moves_is_refused():
  with pytest.raises(InputError, match="target_decay=1"):
    byol(encoder=convnet.encoder(**ENCODER), target_decay=1)
