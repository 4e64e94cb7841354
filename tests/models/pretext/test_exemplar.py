"""Exemplar networks: the losses by hand, images told apart, class weights over `model`."""
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from networks import images

from embeddings_jax.models.pretext.exemplar import exemplar
from embeddings_jax.nets import convnet
from embeddings_jax.train.mesh import make_mesh, state_shardings
from embeddings_jax.types import InputError

SMALL = dict(num_rows=8, patch=8, projector_dims=(16,), grid=1)


def trunk():
  return convnet.encoder(channels=(4, 8), strides=(1, 2))


def numbered(n=8):
  return images(n, 8, 8, 3) | {"number": jnp.arange(n, dtype=jnp.int32)}


def test_triplets_are_those_of_distortions():
  """The mean over anchors and positives, by a loop over the projections of the drawn distortions."""
  from embeddings_jax.nets.pretext import PretextNetwork
  from embeddings_jax.nets.siamese import Mlp

  batch = numbered(4)
  model = exemplar(encoder=trunk(), **SMALL, loss="triplet", views=2, margin=0.4)
  state = model.init(jax.random.key(0), batch)
  drawn = model.outputs["draws"](state, batch, jax.random.key(1))["patches"].reshape(8, 8, 8, 3)
  z, _ = PretextNetwork(trunk(), Mlp((16,))).apply(
      {"params": state.params, "batch_stats": state.extra["batch_stats"]}, {"image": drawn}, deterministic=False,
      mutable=["batch_stats"])
  z = np.asarray(z, np.float64)
  z /= np.linalg.norm(z, axis=1, keepdims=True)
  distance = ((z[:, None] - z) ** 2).sum(-1)
  losses = []
  for a in range(8):
    p = a ^ 1
    farther = [distance[a, n] for n in range(8) if n // 2 != a // 2 and distance[a, n] > distance[a, p]]
    if farther:
      losses.append(max(0, distance[a, p] - min(farther) + 0.4))
  actual = model.outputs["training_loss"](state, batch, jax.random.key(1))
  np.testing.assert_allclose(actual, np.mean(losses), rtol=1e-3)


def test_images_are_told_apart():
  model = exemplar(encoder=trunk(), **SMALL, views=8, optimizer=optax.adam(1e-2))
  batch = numbered()
  batch["image"] = batch["image"][:, :2, :2].repeat(4, 1).repeat(4, 2)  # Four colors each.
  state, update = jax.jit(model.init)(jax.random.key(0), batch), jax.jit(model.update)
  assert state.params["classes"]["kernel"].shape == (16, 8)
  first = None
  for step in range(60):
    state, metrics = update(state, batch, jax.random.key(step))
    first = first or float(metrics["loss"])
  assert 1.5 < first < 3.5 and metrics["loss"] < 1.2 and metrics["accuracy"] > 0.7  # log 8 = 2.1 at first.


def test_class_weights_lie_over_the_model_axis():
  model = exemplar(encoder=trunk(), **SMALL)
  shapes = jax.eval_shape(model.init, jax.random.key(0), numbered())
  mesh = make_mesh("data:2,model:4", jax.devices()[:8])
  specs = state_shardings(shapes, mesh, model.rules)
  assert specs.params["classes"]["kernel"].spec[1] == "model" and specs.params["classes"]["bias"].spec[0] == "model"


def test_bad_input_is_refused():
  model = exemplar(encoder=trunk(), **SMALL)
  state = model.init(jax.random.key(0), numbered())
  with pytest.raises(InputError, match="pipeline=numbered_images"):
    model.update(state, images(8, 8, 8, 3), jax.random.key(0))
  for options, message in ((dict(loss="triplet"), "views=1"), (dict(hue=0.7), "hue=0.7"), (dict(loss="l2"), "l2")):
    with pytest.raises(InputError, match=message):
      exemplar(encoder=trunk(), **SMALL, **options)
