"""Restores images: by a trained network, by the deep image prior, by total variation or by interpolation."""
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from embeddings_jax.errors import InputError, check_choice
from embeddings_jax.models.autoencoders.deep_image_prior import deep_image_prior
from embeddings_jax.ops import total_variation
from embeddings_jax.ops.degradations import Degradation, check_mask
from embeddings_jax.ops.image_quality import psnr
from embeddings_jax.types import Model

METHODS = ("network", "deep_image_prior", "total_variation", "guess")
STEPS_AT_ONCE = 50
TV_WEIGHTS = {"denoise": 0.08, "superres": 0.003, "inpaint": 0.03}  # Chosen on one photograph of scikit-learn's.


class Restored(NamedTuple):
  """A restored image, float32 [height, width, channels] in [0, 1].

  Attributes:
    image: The result.
    others: Of the deep image prior: results by both rules of stopping, `latest`, and with the clean image `oracle`,
      the best of all steps.
    steps: Updates made; 0 of methods without any.
  """

  image: np.ndarray
  others: Mapping[str, np.ndarray] = {}
  steps: int = 0


def restore(image: Any, task: str, *, method: str = "", run: Any = None, mask: Any = None, clean: Any = None,
            scale: int = 2, kernel: str = "bicubic", weight: float | None = None, steps: int = 2000, seed: int = 0,
            **options: Any) -> Restored:
  """Restores one degraded image.

  Args:
    image: The observation, uint8 or floats in [0, 1], [height, width] or [height, width, channels].
    task: `denoise`, `superres` or `inpaint`.
    method: `network` (of `run`), `deep_image_prior`, `total_variation` or `guess` (the observation; enlarged by
      bicubic interpolation for `superres`, its holes filled from around them for `inpaint`); by default the network
      if there is a run, else the deep image prior.
    run: A trained `restoration`.
    mask: Of `inpaint`: [height, width], non-zero where the image is to be kept.
    clean: The clean image, for the oracle of the deep image prior.
    scale, kernel: Of `superres`, see `Degradation`.
    weight: Of `total_variation`; by default `TV_WEIGHTS`.
    steps: Most updates of the deep image prior.
    seed: Random seed.
    **options: Hyperparameters of `deep_image_prior`.

  Raises:
    InputError: The image, the mask or an option does not fit.
  """
  method = method or ("network" if run is not None else "deep_image_prior")
  check_choice("method", method, METHODS)
  observed = _floats(image, "image")[None]
  if task == "inpaint" and mask is None:
    raise InputError("task='inpaint': needs a mask, non-zero where the image is to be kept")
  visible = check_mask(mask, observed) if task == "inpaint" else np.ones((*observed.shape[:3], 1), np.float32)
  factor = scale if task == "superres" else 1
  degradation = Degradation(task, 0.0, scale, kernel).check(*(factor * side for side in observed.shape[1:3]))
  if method == "network":
    return Restored(_by_network(run, task, observed, visible))
  if method == "deep_image_prior":
    clean = None if clean is None else _floats(clean, "clean")[None]
    return _by_deep_image_prior(degradation, observed, visible, clean, steps, seed, options)
  if method == "guess":
    return Restored(np.clip(np.asarray(degradation.guess(jnp.asarray(observed * visible), visible)), 0, 1)[0])
  restored = jax.jit(lambda x, mask: total_variation.restore(
      degradation, x, mask, weight=TV_WEIGHTS[task] if weight is None else weight, num_steps=500))(observed, visible)
  return Restored(np.asarray(restored)[0])


def _by_network(run: Any, task: str, observed: np.ndarray, visible: np.ndarray) -> np.ndarray:
  if run is None or run.config["name"] != "restoration":
    raise InputError("method='network': needs a run of the model 'restoration'")
  if run.config["model"]["task"] != task:
    raise InputError(f"task={task!r}: the run was trained for {run.config['model']['task']!r}")
  if observed.shape[3] != run.encoder.shape[2]:
    raise InputError(f"image: has {observed.shape[3]} channels, the run's images have {run.encoder.shape[2]}")
  padded, cropped = _padded(observed, visible, 2 ** (len(run.config["model"]["widths"]) - 1))
  with jax.set_mesh(run.mesh):
    restored = jax.jit(run.model.outputs["predict"])(run.state, {"image": padded[0], "observed": padded[0],
                                                              "visible": padded[1]})
  factor = restored.shape[1] // padded[0].shape[1]
  return np.asarray(restored)[0, :factor * cropped[0], :factor * cropped[1]]


def _by_deep_image_prior(degradation: Degradation, observed: np.ndarray, visible: np.ndarray,
                         clean: np.ndarray | None, steps: int, seed: int, options: Mapping[str, Any]) -> Restored:
  model, init, advance = _prior(degradation, tuple(
      (name, tuple(value) if isinstance(value, list) else value) for name, value in sorted(options.items())))
  widths = options.get("widths") or inspect.signature(deep_image_prior).parameters["widths"].default
  padded, cropped = _padded(observed, visible, 2 ** (len(widths) - 1))
  batch = {"image": jnp.asarray(padded[0]), "visible": jnp.asarray(padded[1])}
  factor = degradation.scale if degradation.task == "superres" else 1
  height, width = (factor * side for side in cropped)
  rng = jax.random.key(seed)
  state = init(rng, batch)
  best = (jnp.float32(-jnp.inf), state.mean)
  made = 0
  while made < steps:
    (state, best), converged = advance((state, best), made, rng, batch, clean)
    made += STEPS_AT_ONCE
    if converged[-1]:
      break
  results = {name: value for name, value in model.outputs["components"](state).items() if value.ndim == 4}
  results["restored"] = model.outputs["reconstruct"](state, batch)["reconstructed"]
  if clean is not None:
    results["oracle"] = best[1]
  images = {name: np.asarray(value)[0, :height, :width] for name, value in results.items()}
  if not images["restored"].any():  # No step came after the burn-in.
    images["restored"] = images["latest"]
  return Restored(images.pop("restored"), images, made)


@functools.lru_cache(maxsize=4)
def _prior(degradation: Degradation, options: tuple[tuple[str, Any], ...]) -> tuple[Model, Callable, Callable]:
  """Returns a deep image prior, its `init`, and a function that makes `STEPS_AT_ONCE` updates; compiled once a size.

  The latter takes (the state, the best PSNR and image so far), the number of the first update, a key, the batch, and
  the clean image or None.
  """
  model = deep_image_prior(task=degradation.task, scale=degradation.scale, kernel=degradation.kernel, **dict(options))

  @jax.jit
  def advance(carry, first, rng, batch, clean):
    def step(carry, number):
      state, best = carry
      state, metrics = model.update(state, batch, jax.random.fold_in(rng, number))
      if clean is not None:
        value = psnr(clean, state.mean[:, :clean.shape[1], :clean.shape[2]])[0]
        best = (jnp.maximum(value, best[0]), jnp.where(value > best[0], state.mean, best[1]))
      return (state, best), metrics["converged"]

    return jax.lax.scan(step, carry, first + jnp.arange(STEPS_AT_ONCE))

  return model, jax.jit(model.init), advance


def _floats(image: Any, name: str) -> np.ndarray:
  """Returns an image as float32 [height, width, channels] in [0, 1]."""
  image = np.asarray(image)
  values = image.astype(np.float32) / (255 if image.dtype == np.uint8 else 1)
  values = values[..., None] if values.ndim == 2 else values
  if values.ndim != 3 or values.shape[2] not in (1, 3) or not (values.min() >= 0 and values.max() <= 1):
    raise InputError(f"{name}: is {image.dtype} {list(image.shape)}; expected [height, width, 1 or 3], uint8 or "
                     "floats from 0 to 1")
  return values


def _padded(observed: np.ndarray, visible: np.ndarray, multiple: int,
            ) -> tuple[tuple[np.ndarray, np.ndarray], tuple[int, int]]:
  """Returns an image whose sides are multiples, its mask, 0 on what was added, and the sides before."""
  height, width = observed.shape[1:3]
  added = ((0, 0), (0, -height % multiple), (0, -width % multiple), (0, 0))
  return (np.pad(observed, added, mode="edge"), np.pad(visible, added)), (height, width)
