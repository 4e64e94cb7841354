"""Features of images for distances between sets of them: a small classifier, trained here, or raw pixels.

The classifier is fixed: two 3 x 3 convolutions of stride 2 to 32 and 64 channels, a dense layer to 64 features, all
with ReLU, and one to the classes; Adam with a cosine from 2e-3 over `STEPS` batches of 128 training images, seed 0.
It is trained once for each dataset and kept in the cache. Its name holds the first 8 digits of the SHA-256 of its
weights: distances in features of other weights cannot be compared.
"""
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from embeddings_jax.data.cache import cache_root, cached, digest
from embeddings_jax.errors import InputError
from embeddings_jax.ops.kernels.convolution import convolve

VERSION = 1  # Of the classifier: raise it when the same images would give other weights.
CHANNELS, FEATURES = (32, 64), 64
STEPS, BATCH_SIZE, RATE = 1400, 128, 2e-3
AT_ONCE = 500  # Images.


class ImageFeatures(NamedTuple):
  """An encoder of images that names itself.

  Attributes:
    name: Name with the checksum of its weights, as it stands in metrics.
    encode: Images uint8 [n, height, width, channels] -> float64 [n, dim].
    classify: Images -> numbers of their classes, or None.
    accuracy: Accuracy of `classify` on the test split.
    classes: Names of the classes.
  """

  name: str
  encode: Callable[[np.ndarray], np.ndarray]
  classify: Callable[[np.ndarray], np.ndarray] | None = None
  accuracy: float = float("nan")
  classes: tuple[Any, ...] = ()


def pixels(shape: tuple[int, ...]) -> ImageFeatures:
  """Returns the encoder of raw pixels in [0, 1]."""
  return ImageFeatures(f"pixels_{size_name(shape)}", lambda images: images.reshape(len(images), -1) / 255)


def size_name(shape: tuple[int, ...]) -> str:
  """Returns `28x28_uint8` of the shape of images: they are not resized, and rounded to 8 bits."""
  return f"{shape[0]}x{shape[1]}_uint8"


def trained_classifier(
    images: np.ndarray, labels: np.ndarray, train: np.ndarray, test: np.ndarray, *, fingerprint: str,
    cache_dir: Any = None, steps: int = STEPS,
) -> ImageFeatures:
  """Returns the classifier of a dataset, from the cache or trained.

  Args:
    images: uint8 [n, height, width, channels].
    labels: Class of each image.
    train, test: Rows to train on, and for the accuracy.
    fingerprint: The dataset's.
    cache_dir: Directory of derived data.
    steps: Batches to train on.
  """
  classes, number = np.unique(labels, return_inverse=True)
  key = digest("generation", VERSION, fingerprint, len(images), len(train), len(classes), steps)[:32]
  path = cache_root(cache_dir) / f"classifier-{key}.npz"

  def build(temporary: Path) -> None:
    params = train_classifier(images[train], number[train].astype(np.int32), len(classes), steps)
    with open(temporary, "wb") as file:
      np.savez(file, **params)

  with np.load(cached(path, build), allow_pickle=False) as stored:
    params = {name: stored[name] for name in stored.files}
  content = hashlib.sha256()
  for name in sorted(params):
    content.update(name.encode() + params[name].tobytes())
  weights = {name: jnp.asarray(value) for name, value in params.items()}
  forward = jax.jit(lambda x: features_and_logits(weights, x))

  def outputs(chosen: np.ndarray, place: int) -> np.ndarray:
    pieces = [chosen[first:first + AT_ONCE] for first in range(0, len(chosen), AT_ONCE)]
    padded = [np.pad(piece, [(0, AT_ONCE - len(piece))] + [(0, 0)] * 3) for piece in pieces]
    return np.concatenate([np.asarray(forward(piece)[place])[:len(own)] for piece, own in zip(padded, pieces)])

  classify = lambda chosen: outputs(chosen, 1).argmax(1)
  return ImageFeatures(
      f"classifier_{content.hexdigest()[:8]}_{size_name(images.shape[1:])}",
      lambda chosen: outputs(chosen, 0).astype(np.float64), classify,
      float((classify(images[test]) == number[test]).mean()), tuple(classes.tolist()))


def train_classifier(images: np.ndarray, labels: np.ndarray, num_classes: int, steps: int) -> dict[str, np.ndarray]:
  """Returns the parameters of a trained classifier."""
  if len(np.unique(labels)) < 2:
    raise InputError("generation: the training images have one class; there is nothing to classify")
  params = first_params(jax.random.key(0), images.shape[1:], num_classes)
  optimizer = optax.adam(optax.cosine_decay_schedule(RATE, steps))

  def loss(params, batch):
    return optax.softmax_cross_entropy_with_integer_labels(features_and_logits(params, batch[0])[1], batch[1]).mean()

  @jax.jit
  def update(params, state, batch):
    updates, state = optimizer.update(jax.grad(loss)(params, batch), state, params)
    return optax.apply_updates(params, updates), state

  state, rng = optimizer.init(params), np.random.default_rng(0)
  order = np.concatenate([rng.permutation(len(images)) for _ in range(1 + steps * BATCH_SIZE // len(images))])
  for step in range(steps):
    rows = order[step * BATCH_SIZE:(step + 1) * BATCH_SIZE]
    params, state = update(params, state, (images[rows], labels[rows]))
  return {name: np.asarray(value) for name, value in params.items()}


def first_params(rng: jax.Array, shape: tuple[int, ...], num_classes: int) -> dict[str, jax.Array]:
  """Returns weights by the rule of He et al., and biases of 0, for images of a shape."""
  rows, columns = (-(-length // 4) for length in shape[:2])
  sizes = {"conv_0": (3, 3, shape[2], CHANNELS[0]), "conv_1": (3, 3, *CHANNELS),
           "dense": (rows * columns * CHANNELS[1], FEATURES), "out": (FEATURES, num_classes)}
  params = {}
  for key, (name, size) in zip(jax.random.split(rng, len(sizes)), sizes.items()):
    params[name] = jax.random.normal(key, size) * (2 / np.prod(size[:-1])) ** 0.5
    params[f"{name}_bias"] = jnp.zeros(size[-1])
  return params


def features_and_logits(params: Mapping[str, Any], images: Any) -> tuple[jax.Array, jax.Array]:
  """Returns features [n, 64] and logits of the classes; sides are filled up to multiples of 4."""
  x = jnp.asarray(images).astype(jnp.float32) / 255 - 0.5
  x = jnp.pad(x, ((0, 0), (0, -x.shape[1] % 4), (0, -x.shape[2] % 4), (0, 0)))
  for name in ("conv_0", "conv_1"):
    x = jax.nn.relu(convolve(x, params[name], 2) + params[f"{name}_bias"])
  x = jax.nn.relu(x.reshape(len(x), -1) @ params["dense"] + params["dense_bias"])
  return x, x @ params["out"] + params["out_bias"]
