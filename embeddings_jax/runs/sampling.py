"""Samples of models that decode codes: from the prior, from a density fitted to codes, or between two items."""
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from embeddings_jax.errors import InputError, check_choice

CODES = ("prior", "uniform", "gaussian", "mixture")
MAX_ITEMS = 10_000  # Training items to whose codes a density is fitted.
DECODED_AT_ONCE = 256


def sample(run: Any, num: int = 1, *, codes: str = "", num_components: int = 10, seed: int = 0,
           data_dir: str | None = None, cache_dir: str | None = None) -> np.ndarray:
  """Draws samples from a model that decodes codes.

  Args:
    run: A `runs/run.py: Run`.
    num: Number of samples.
    codes: Distribution of the codes: `prior`, the model's own, as of a VAE; or fitted to the codes of the training
      items: `uniform` in the box that they fill, the naive baseline; `gaussian`; or `mixture`, of full-covariance
      Gaussians by EM. By default the prior where the model has one, else `gaussian`.
    num_components: Gaussians of the mixture.
    seed: Random seed.
    data_dir, cache_dir: Directories of the catalog's files and of derived data.

  Returns:
    `[num, ...]`, for images float32 in [0, 1].
  """
  has_prior = "sample" in run.model.outputs
  codes = codes or ("prior" if has_prior else "gaussian")
  check_choice("codes", codes, CODES)
  if num < 1:
    raise InputError(f"num={num}: must be at least 1")
  if codes == "prior":
    if not has_prior:
      raise InputError(f"codes=prior: {run.config['name']} has no prior; use {', '.join(CODES[1:])}")
    return run.sample(num, seed=seed)
  if "decode" not in run.model.outputs:
    raise InputError(f"sample: {run.config['name']} has no decoder")
  return decode(run, draw_codes(training_codes(run, data_dir, cache_dir), codes, num, num_components=num_components,
                                seed=seed))


def decode(run: Any, codes: Any) -> np.ndarray:
  """Returns what a model makes of latent codes [n, dim], some at a time."""
  codes = np.asarray(codes, np.float32)
  pieces = range(0, len(codes), DECODED_AT_ONCE)
  return np.concatenate([run.decode(codes[first:first + DECODED_AT_ONCE]) for first in pieces])


def reconstruct_texts(run: Any, texts: Sequence[str]) -> list[str]:
  """Returns what an autoencoder of text writes for each text, the likeliest token each time."""
  batch = run.encoder.encode(list(texts))
  with jax.set_mesh(run.mesh):
    tokens = np.asarray(jax.jit(run.model.outputs["reconstruct"])(run.state, batch)["reconstructed"])
  return [run.encoder.decode(row) for row in tokens]


def interpolate(run: Any, first: Any, last: Any, steps: int = 12) -> Any:
  """Returns `steps` items decoded from codes on the line between those of two, ends included: images, or texts."""
  if "decode" not in run.model.outputs:
    raise InputError(f"interpolate: {run.config['name']} has no code of an item to decode")
  if steps < 2:
    raise InputError(f"steps={steps}: must be at least 2, the two ends")
  ends = np.asarray(run.embed([first, last]), np.float32)
  weight = np.linspace(0, 1, steps, dtype=np.float32)[:, None]
  tokens = decode(run, (1 - weight) * ends[0] + weight * ends[1])
  return [run.encoder.decode(row) for row in tokens] if hasattr(run.encoder, "token_ids") else tokens


def training_codes(run: Any, data_dir: str | None = None,
                   cache_dir: str | None = None) -> np.ndarray:
  """Returns codes of the run's training items, of at most `MAX_ITEMS` evenly spaced ones."""
  from embeddings_jax.runs import build

  dataset = run.prepared.dataset if run.prepared else build.read_dataset(
      run.config, encoder=run.encoder, data_dir=data_dir, cache_dir=cache_dir)
  rows = np.asarray(dataset.split.get("train", np.arange(len(dataset.items))))
  rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), MAX_ITEMS)).astype(int)]
  items = dataset.items[rows] if isinstance(dataset.items, np.ndarray) else [dataset.items[i] for i in rows]
  return np.asarray(run.embed(items), np.float32)


def draw_codes(codes: np.ndarray, kind: str, num: int, *, num_components: int = 10, seed: int = 0) -> np.ndarray:
  """Draws codes [num, dim] from a density of `CODES` that is fitted to codes [n, dim]."""
  rng = np.random.default_rng(seed)
  if kind == "uniform":
    return rng.uniform(codes.min(0), codes.max(0), (num, codes.shape[1])).astype(np.float32)
  if kind == "gaussian":
    root = np.linalg.cholesky(np.cov(codes.T).reshape(codes.shape[1], -1) + 1e-6 * np.eye(codes.shape[1]))
    return (codes.mean(0) + rng.normal(size=(num, codes.shape[1])) @ root.T).astype(np.float32)
  from embeddings_jax.runs.fit import fit

  if num_components > len(codes):
    raise InputError(f"num_components={num_components}: there are {len(codes)} codes; use fewer components")
  mean, spread = codes.mean(0), np.maximum(codes.std(0), 1e-6)
  mixture = fit("gmm", (codes - mean) / spread, num_components=num_components, covariance="full", seed=seed,
                data_options={"standardize": False}, mesh=_mesh())
  return mean + spread * np.asarray(mixture.sample(num, seed=seed), np.float32)


def _mesh() -> jax.sharding.Mesh:
  """One device: a few thousand codes are too few for several."""
  from embeddings_jax.train.mesh import make_mesh

  return make_mesh("data:1", jax.devices()[:1])


def image_grid(images: np.ndarray, columns: int = 0) -> np.ndarray:
  """Returns images [n, height, width, channels] in [0, 1] as one uint8 image, with a pixel of white between them."""
  columns = columns or int(np.ceil(np.sqrt(len(images))))
  rows = -(-len(images) // columns)
  pixels = np.rint(255 * np.clip(images, 0, 1)).astype(np.uint8)
  framed = np.pad(pixels, ((0, rows * columns - len(images)), (0, 1), (0, 1), (0, 0)), constant_values=255)
  _, height, width, channels = framed.shape
  return framed.reshape(rows, columns, height, width, channels).transpose(0, 2, 1, 3, 4).reshape(
      rows * height, columns * width, channels)[:-1, :-1]


def write_images(path: str, images: np.ndarray, columns: int = 0) -> None:
  """Writes images [n, height, width, channels] in [0, 1] as `.npy` float32, or side by side as `.png`."""
  from etils import epath

  from embeddings_jax.data.files.atomic import replacing
  from embeddings_jax.runs import workdir

  if not path.endswith((".npy", ".png")):
    raise InputError(f"output={path}: must end in .npy or .png")
  if path.endswith(".npy"):
    workdir.write_array(epath.Path(path), np.asarray(images, np.float32))
    return
  if images.ndim != 4 or images.shape[-1] not in (1, 3):
    raise InputError(f"output={path}: {list(images.shape)} are no images; write .npy")
  from PIL import Image

  grid = image_grid(images, columns)
  with replacing(path) as file:
    Image.fromarray(grid[..., 0] if grid.shape[-1] == 1 else grid).save(file, format="PNG")
