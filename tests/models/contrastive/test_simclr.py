"""SimCLR's update by hand: its two views, NT-Xent of cosines, the network that is kept."""
import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from embeddings_jax.models.contrastive.simclr import simclr
from embeddings_jax.nets import convnet, resnet
from embeddings_jax.nets.siamese import Mlp, Siamese
from embeddings_jax.ops import augment
from embeddings_jax.ops.augment import augmented, pair_of_views
from embeddings_jax.types import InputError

ENCODER = dict(depth=8, width=4)


def test_loss_is_that_of_the_other_view_among_all():
  rng = np.random.default_rng(0)
  images = jnp.asarray(rng.integers(0, 256, (6, 16, 16, 3)), jnp.uint8)
  model = simclr(encoder=resnet.encoder(**ENCODER), projector_dims=(8, 5), temperature=0.3, strength=0.5, blur=False)
  state = jax.jit(model.init)(jax.random.key(0), {"image": images})
  new, metrics = jax.jit(model.update)(state, {"image": images}, jax.random.key(1))

  op, _ = pair_of_views("simclr", 16, strength=0.5, blur=False)
  network = Siamese(resnet.encoder(**ENCODER), Mlp((8, 5)))

  @jax.jit
  def apply(variables, rng):
    views = [augmented(op, jax.random.fold_in(rng, i), images) for i in (0, 1)]
    return views, network.apply(variables, {"image": jnp.concatenate(views)}, deterministic=False,
                                mutable=["batch_stats"])

  views, (found, moved) = apply({"params": state.params, **state.extra}, jax.random.key(1))
  z = np.asarray(found["z"], np.float64)
  z /= np.linalg.norm(z, axis=1, keepdims=True)
  terms = np.exp(z @ z.T / 0.3)
  np.fill_diagonal(terms, 0)
  positive = terms[np.arange(12), np.roll(np.arange(12), 6)]
  np.testing.assert_allclose(metrics["loss"], np.mean(np.log(terms.sum(1) / positive)), rtol=2e-4)
  np.testing.assert_allclose(metrics["accuracy"], (terms.max(1) == positive).mean(), atol=1e-6)
  chex.assert_trees_all_close(new.extra, moved, rtol=1e-4, atol=1e-5)
  assert np.abs(np.asarray(views[0] - views[1])).mean() > 0.01


def test_scores_in_chunks_give_the_same_update():
  images = jnp.asarray(np.random.default_rng(1).integers(0, 256, (8, 16, 16, 1)), jnp.uint8)
  losses = []
  for chunk_size in (0, 4):
    model = simclr(encoder=resnet.encoder(**ENCODER), projector_dims=(8, 5), blur=False, chunk_size=chunk_size)
    state = jax.jit(model.init)(jax.random.key(0), {"image": images})
    losses.append(jax.jit(model.update)(state, {"image": images}, jax.random.key(1))[1])
  for name in ("loss", "gradient_norm"):
    np.testing.assert_allclose(losses[0][name], losses[1][name], rtol=1e-5)


def test_another_frame_of_the_clip_is_the_second_view(monkeypatch):
  images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3)), jnp.uint8)
  shift = lambda rng, image: image + jax.random.uniform(rng)
  monkeypatch.setattr(augment, "pair_of_views", lambda *_, **__: (shift, lambda rng, image: -image))
  one, two = augment.two_views(jax.random.key(1), images, "simclr", positives=images[::-1])
  pixels = np.asarray(images, np.float32) / 255
  np.testing.assert_allclose(one - one[:, :1, :1], pixels - pixels[:, :1, :1], atol=1e-6)
  np.testing.assert_allclose(two, -pixels[::-1], rtol=1e-6)
  model = simclr(encoder=convnet.encoder(channels=(4,), strides=(2,)), projector_dims=(4,))
  state = jax.jit(model.init)(jax.random.key(0), {"image": images})
  loss = jax.jit(model.outputs["training_loss"])
  alone = loss(state, {"image": images, "positive": images}, jax.random.key(2))
  assert abs(loss(state, {"image": images, "positive": images[::-1]}, jax.random.key(2)) - alone) > 1e-3


def test_a_temperature_of_0_is_refused():
  with pytest.raises(InputError, match="temperature=0"):
    simclr(encoder=resnet.encoder(**ENCODER), temperature=0)
