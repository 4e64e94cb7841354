"""Discrete codes of a run, as data for a second run, and back: a prior over codes and what its samples stand for."""
from typing import Any

import jax
import numpy as np

from embeddings_jax.data.cache import cache_root, cached, digest
from embeddings_jax.data.dataset import Dataset, content_digest
from embeddings_jax.data.encoders.codes import CodeEncoder
from embeddings_jax.data.images import as_images
from embeddings_jax.errors import InputError

VERSION = 1  # Of cached codes.
AT_ONCE = 250  # Images.


def load_quantizer(path: str) -> tuple[Any, CodeEncoder]:
  """Returns a run that makes discrete codes, and their encoder.

  Raises:
    InputError: There is no run, or its model has no discrete codes.
  """
  from embeddings_jax.runs.load import load_run

  run = load_run(path)
  if "codes" not in run.model.outputs:
    raise InputError(f"codes={path}: holds a {run.config['name']}, which has no discrete codes; vq_vae has")
  _, rows, columns = jax.eval_shape(run.model.outputs["codes"], run.state, run.encoder.example()).shape
  return run, CodeEncoder(len(run.state.extra["counts"]), rows, columns, path, checksum(run))


def checksum(run: Any) -> str:
  """Returns the SHA-256 of the parameters and the codebook of a run."""
  return content_digest(np.asarray(leaf) for leaf in jax.tree.leaves((run.state.params, run.state.extra)))


def read(path: str, dataset: Dataset, cache_dir: str | None = None) -> Dataset:
  """Returns the codes of a dataset of images, int32 [n, length], from the cache or made by a run.

  Args:
    path: Work directory of the run.
    dataset: Images, or rows that are.
    cache_dir: Directory of derived data.
  """
  if dataset.kind != "images" and dataset.image_shape is None:
    raise InputError(f"data={dataset.name}: holds {dataset.kind}, and codes={path} are of images; name a dataset of "
                     "images")
  run, encoder = load_quantizer(path)
  images = run.encoder.adapt(as_images(dataset), cache_dir)
  fingerprint = digest("codes", VERSION, encoder.checksum, images.fingerprint, len(images.items))

  def build(temporary: Any) -> None:
    compiled = jax.jit(run.model.outputs["codes"])
    codes = np.empty((len(images.items), encoder.length), np.int32)
    for first in range(0, len(codes), AT_ONCE):
      items = images.items[first:first + AT_ONCE]
      batch = run.encoder.encode(items)
      padded = {name: np.pad(value, [(0, AT_ONCE - len(items))] + [(0, 0)] * (value.ndim - 1))
                for name, value in batch.items()}
      codes[first:first + AT_ONCE] = np.asarray(compiled(run.state, padded)).reshape(AT_ONCE, -1)[:len(items)]
    with open(temporary, "wb") as file:
      np.save(file, codes)

  items = np.load(cached(cache_root(cache_dir) / f"codes-{fingerprint[:32]}.npy", build), allow_pickle=False)
  return images._replace(kind="codes", items=items, fingerprint=fingerprint)


def decode(encoder: CodeEncoder, tokens: np.ndarray) -> np.ndarray:
  """Returns the images that sampled tokens [n, length or more] stand for.

  A token that is no code, as a weak prior may draw, counts as the nearest one.

  Raises:
    InputError: The run that made the codes has changed.
  """
  if tokens.shape[1] < encoder.length:
    raise InputError(f"sample_length={tokens.shape[1]}: an image has {encoder.length} codes; set model.sample_length "
                     f"to {encoder.length}")
  run, own = load_quantizer(encoder.origin)
  if own.checksum != encoder.checksum:
    raise InputError(f"{encoder.origin}: has changed since the prior learned its codes, which mean other images now; "
                     "train the prior again")
  codes = np.clip(tokens[:, :encoder.length], 0, encoder.num_codes - 1).reshape(-1, *encoder.shape).astype(np.int32)
  compiled = jax.jit(run.model.outputs["decode"])
  pieces = range(0, len(codes), AT_ONCE)
  return np.concatenate([np.asarray(compiled(run.state, codes[first:first + AT_ONCE])) for first in pieces])


def sample(run: Any, num: int, *, seed: int = 0, **options: Any) -> np.ndarray:
  """Draws codes from a prior, and returns the images that they stand for, [num, height, width, channels].

  Args:
    run: A run of the prior, whose encoder is a `CodeEncoder`.
    num: Number of images.
    seed: Random seed.
    **options: Hyperparameters of sampling, as `temperature` and `top_k` of `gpt`.
  """
  model = run.rebuild(sample_length=run.encoder.length, **options)
  compiled = jax.jit(model.outputs["sample"], static_argnums=2)
  with jax.set_mesh(run.mesh):
    keys = [jax.random.fold_in(jax.random.key(seed), piece) for piece in range(-(-num // AT_ONCE))]
    tokens = np.concatenate([np.asarray(compiled(run.state, key, min(num, AT_ONCE), None)) for key in keys])[:num]
  return decode(run.encoder, tokens)
