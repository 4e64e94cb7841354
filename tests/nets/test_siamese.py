"""Properties shared by `simclr`, `byol` and `simsiam`: views, statistics, padding, learning, mistakes."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from embeddings_jax import array_source, train
from embeddings_jax.models.contrastive.byol import byol
from embeddings_jax.models.contrastive.simclr import simclr
from embeddings_jax.models.contrastive.simsiam import simsiam
from embeddings_jax.nets import convnet
from embeddings_jax.nets.siamese import Mlp
from embeddings_jax.ops.uniformity import deviation
from embeddings_jax.runs import optimizers
from embeddings_jax.types import InputError

SMALL = dict(projector_dims=(16, 8), blur=False)
MODELS = {"simclr": functools.partial(simclr, **SMALL, temperature=0.5),
          "byol": functools.partial(byol, **SMALL, predictor_dim=16, target_decay=0.9, augmentation="simclr"),
          "simsiam": functools.partial(simsiam, **SMALL, predictor_dim=4)}


def encoder(**options):
  return convnet.encoder(**{"channels": (4, 8), "strides": (1, 2), **options})


def images(num=8, size=16, channels=1, seed=0):
  """Gray ones, whose changes compile quickest."""
  return np.random.default_rng(seed).integers(0, 256, (num, size, size, channels)).astype(np.uint8)


def started(model, batch):
  return jax.jit(model.init)(jax.random.key(0), batch)


@pytest.mark.parametrize("name", MODELS)
def test_padding_changes_nothing(name):
  model = MODELS[name](encoder=encoder())
  x = images()
  state = started(model, {"image": x})
  one = {"image": jnp.asarray(x), "mask": jnp.array([1.0] * 5 + [0.0] * 3)}
  other = {"image": one["image"].at[5:].set(0), "mask": one["mask"]}
  (state_one, actual), (state_other, expected) = (jax.jit(model.update)(state, batch, jax.random.key(1))
                                                  for batch in (one, other))
  np.testing.assert_allclose(actual["loss"], expected["loss"], rtol=1e-5)
  np.testing.assert_allclose(actual["deviation"], expected["deviation"], rtol=1e-4)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), state_one.extra["batch_stats"],
               state_other.extra["batch_stats"])


@pytest.mark.parametrize("name", MODELS)
def test_a_calibrated_network_has_the_statistics_of_its_batch(name):
  """Then the running statistics make of that batch what its own make of it."""
  model = MODELS[name](encoder=encoder())
  batch = {"image": jnp.asarray(images(16))}
  state = started(model, batch)
  assert all((leaf == 0).all() | (leaf == 1).all() for leaf in jax.tree.leaves(state.extra["batch_stats"]))
  calibrated = state._replace(extra=model.outputs["calibrated"](state, batch))
  assert jax.tree.structure(calibrated) == jax.tree.structure(state)
  net = encoder()
  variables = {"params": state.params["encoder"], "batch_stats": state.extra["batch_stats"]["encoder"]}
  expected, _ = net.apply(variables, batch, deterministic=False, method="features", mutable=["batch_stats"])
  np.testing.assert_allclose(model.embed(calibrated, batch), expected.mean(1), rtol=1e-4, atol=1e-4)


def photographs():
  """16 x 16 patches of two photographs, shuffled."""
  from sklearn import datasets

  patches = []
  for image in datasets.load_sample_images().images:
    rows, columns = (length // 16 for length in image.shape[:2])
    cut = image[:16 * rows, :16 * columns].reshape(rows, 16, columns, 16, 3)
    patches.append(cut.swapaxes(1, 2).reshape(-1, 16, 16, 3))
  return np.random.default_rng(0).permutation(np.concatenate(patches))


@pytest.mark.parametrize("name, most", [
    ("simclr", 4.5), pytest.param("byol", 2.5, marks=pytest.mark.long), ("simsiam", -0.2)])
def test_views_of_pictures_agree_after_training(name, most, mesh_of):
  """Before, the losses are about log 127 = 4.8, 4 and 0: those of directions at random. Nothing has collapsed, as
  images that were never seen show."""
  patches = photographs()
  unseen, seen = {"image": jnp.asarray(patches[:64])}, patches[64:]
  optimizer = optimizers.optimizer({"name": "adam", "learning_rate": 3e-3, "schedule": "cosine"}, 60)
  model = MODELS[name](encoder=convnet.encoder(channels=(8, 16, 32), strides=(1, 2, 2)), optimizer=optimizer,
                       min_scale=0.5)
  losses = []
  state = train(model, array_source({"image": seen}, 64), steps=60, mesh=mesh_of(), log_every=1,
                write=lambda step, record: losses.append(record["loss"]))
  assert np.mean(losses[-10:]) < most < losses[0] - 0.1
  vectors = jax.jit(model.embed)(state, unseen)
  assert deviation(vectors - vectors.mean(0)) > 0.5


@pytest.mark.parametrize("name", MODELS)
def test_mistakes(name):
  model = MODELS[name](encoder=encoder())
  with pytest.raises(InputError, match="batch_size=1"):
    model.init(jax.random.key(0), {"image": images(1)})
  with pytest.raises(InputError, match="no images"):
    model.init(jax.random.key(0), {"x": np.zeros((2, 3), np.float32)})
  with pytest.raises(InputError, match="Mlp gives no features"):
    MODELS[name](encoder=Mlp((4,))).init(jax.random.key(0), {"image": images(2)})
  with pytest.raises(InputError, match="accumulate=2"):
    MODELS[name](encoder=encoder(), accumulate=2)
  with pytest.raises(InputError, match="augmentation='simcrl'"):
    broken = functools.partial(MODELS[name], augmentation="simcrl")(encoder=encoder())
    broken.update(started(broken, {"image": images(2)}), {"image": jnp.asarray(images(2))}, jax.random.key(0))


def test_mlp_is_dense_layers_with_batch_normalization():
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(12, 5)), jnp.float32)
  net = Mlp((7, 3), last_norm=True)
  variables = net.init(jax.random.key(0), x)
  actual, _ = net.apply(variables, x, deterministic=False, mutable=["batch_stats"])
  normal = lambda y: (y - y.mean(0)) / np.sqrt(y.var(0) + 1e-5)
  first = np.maximum(normal(np.asarray(x) @ np.asarray(variables["params"]["dense_0"]["kernel"])), 0)
  np.testing.assert_allclose(actual, normal(first @ np.asarray(variables["params"]["dense_1"]["kernel"])), atol=1e-5)
  assert not any("bias" in layer for name, layer in variables["params"].items() if name.startswith("dense"))
