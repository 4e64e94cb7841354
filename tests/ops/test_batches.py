"""Batches of another form than a model reads end in one line, whichever model it is."""
import importlib
import inspect
import pkgutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from embeddings_jax import array_source, models
from embeddings_jax.models.autoencoders.mae import mae
from embeddings_jax.models.contrastive.simclr import simclr
from embeddings_jax.models.language.bert import bert
from embeddings_jax.models.mixtures.gmm import gmm
from embeddings_jax.nets.resnet import encoder
from embeddings_jax.ops.batches import takes
from embeddings_jax.types import InputError, Model

IMAGES = "expected 'image': uint8 from 0 to 255, or floats from 0 to 1, .n, height, width, channels."
KEY = jax.random.key(0)
SIMCLR = simclr(encoder=encoder(width=4))
MAE = mae(patch_size=2, dim=8, num_layers=1, num_heads=2, mlp_dim=8, decoder_dim=8, decoder_layers=1, decoder_heads=2,
          decoder_mlp_dim=8)
BERT = bert(vocab_size=9, mask_id=1, dim=8, num_layers=1, num_heads=2, max_length=8)
GMM = gmm(num_components=2)


@pytest.mark.parametrize("model,name,batch,message", [
    (SIMCLR, "simclr", {"image": np.zeros((4, 8, 8), np.uint8)},
     rf"'image' of the batch is uint8 .4, 8, 8.; {IMAGES}"),
    (MAE, "mae", {"image": np.zeros((4, 8, 8, 1), np.int32)}, rf"'image' of the batch is int32 .*; {IMAGES}"),
    (MAE, "mae", {"image": np.zeros((4, 3, 8, 8), np.float32)}, "'image' .* expected the channels on the last axis"),
    (MAE, "mae", {"images": np.zeros((4, 8, 8, 1), np.uint8)},
     rf"the batch has no 'image', {IMAGES}; it has 'images' uint8 .4, 8, 8, 1."),
    (MAE, "mae", {"image": np.zeros((4, 8, 8, 1), np.uint8), "mask": np.ones(3)}, "'image' .* 4 rows, 'mask' 3"),
    (BERT, "bert", {"tokens": np.zeros((4, 8), np.float32)}, "'tokens' of the batch is float32 .*; expected .*ids"),
    (BERT, "bert", {"tokens": np.zeros(8, np.int32)}, "'tokens' of the batch is int32 .8.; .* .n, length."),
    (BERT, "bert", {}, "the batch has no 'tokens', .*; it has nothing"),
    (GMM, "gmm", {"x": np.zeros(8, np.float32)}, "'x' of the batch is float32 .8.; expected .* .n, num_features."),
    (GMM, "gmm", {"rows": jnp.zeros((8, 2))}, "the batch has no 'x'"),
])
def test_what_a_batch_lacks_is_named(model, name, batch, message):
  """By `init` called on arrays and traced, and by `embed`."""
  shapes = {"mae": {"image": jnp.zeros((4, 8, 8, 1))}, "bert": {"tokens": jnp.zeros((4, 8), int)},
            "simclr": {"image": jnp.zeros((4, 8, 8, 1))}, "gmm": {"x": jnp.zeros((8, 2))}}
  state = jax.eval_shape(model.init, KEY, shapes[name])
  for call in (lambda: model.init(KEY, batch), lambda: jax.eval_shape(model.init, KEY, batch),
               lambda: jax.eval_shape(model.embed, state, batch)):
    with pytest.raises(InputError, match=f"^{name}: {message}") as error:
      call()
    assert "\n" not in str(error.value)


def test_a_batch_is_a_dict():
  with pytest.raises(InputError, match=f"^mae: the batch is a ndarray; expected a dict of arrays, {IMAGES[9:]}"):
    MAE.init(KEY, np.zeros((4, 8, 8, 1)))


@pytest.mark.parametrize("high", [255.0, -0.5, np.nan])
def test_floats_that_are_no_pixels_are_refused_where_they_enter(high):
  image = np.zeros((4, 8, 8, 1), np.float32)
  image[0, 0] = high
  for call in (lambda: MAE.init(KEY, {"image": image}), lambda: MAE.init(KEY, {"image": jnp.asarray(image)}),
               lambda: array_source({"image": image}, 2)):
    with pytest.raises(InputError, match="image.* floats from .* expected 0 to 1 .or uint8 from 0 to 255"):
      call()


def test_other_errors_of_a_model_stay_as_they_are():
  @takes(x=2)
  def broken():
    fail = lambda *_: {}["x in the model"]
    return Model(fail, fail, fail)

  with pytest.raises(KeyError, match="x in the model"):
    broken().init(KEY, {"x": np.zeros((2, 2))})


def test_every_model_checks_its_batches():
  names = [module.name for module in pkgutil.walk_packages(models.__path__, "embeddings_jax.models.")
           if not module.ispkg]
  assert len(names) > 20
  for name in names:
    factory = getattr(importlib.import_module(name), name.rpartition(".")[2])
    assert inspect.unwrap(factory) is not factory, name
