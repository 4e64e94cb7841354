"""Restoration by a trained network beside the methods that people use without one."""
import jax
import ml_collections
import numpy as np
from absl import flags

from embeddings_jax.data.catalog import load
from embeddings_jax.data.images import as_images
from embeddings_jax.errors import InputError
from embeddings_jax.ops.degradations import Degradation
from embeddings_jax.ops.image_quality import psnr
from embeddings_jax.runs import build
from embeddings_jax.runs.load import load_run
from embeddings_jax.types import Array, Source

FLAGS = flags.FLAGS

NUM_IMAGES = 200  # Evenly spaced over the split.
TV_WEIGHTS = (0.02, 0.04, 0.06, 0.08, 0.12, 0.16)


def restoration_table() -> dict:
  """PSNR of a `restoration` run on test images, beside scikit-image's and scipy's methods for its task.

  denoise: total variation (`denoise_tv_chambolle`), its weight chosen on training images. superres: bicubic
  interpolation. inpaint: linear interpolation (`griddata`, the nearest pixel outside of the hull), biharmonic
  interpolation (`inpaint_biharmonic`), and normalized convolution, where our network starts. All methods restore the
  same observations, clipped to [0, 1].
  """
  if not FLAGS.workdir:
    raise InputError("--workdir is missing: a run of the model 'restoration'")
  run = load_run(FLAGS.workdir)
  if run.config["name"] != "restoration":
    raise InputError(f"--workdir={FLAGS.workdir}: is a run of {run.config['name']!r}, not of 'restoration'")
  options = {name: run.config["model"][name] for name in Degradation._fields}
  degradation = Degradation(**options)
  dataset = as_images(load(FLAGS.data, data_dir=FLAGS.data_dir, cache_dir=FLAGS.cache_dir))
  clean, observed, mask = observations(dataset, "test", degradation)
  with jax.set_mesh(run.mesh):
    restored = jax.jit(run.model.outputs["predict"])(
        run.state, {"image": clean, "observed": observed, **({} if mask is None else {"visible": mask})})
  images = {"network": restored, "observed": degradation.guess(observed, mask)}
  settings = {}
  if degradation.task == "denoise":
    settings["total_variation_weight"] = best_weight(dataset, degradation)
    images["total_variation"] = total_variation(observed, settings["total_variation_weight"])
  elif degradation.task == "superres":
    images["bicubic"] = images.pop("observed")
  else:
    images["normalized_convolution"] = images.pop("observed")
    images |= {"linear": by_image(linear, observed, mask), "biharmonic": by_image(biharmonic, observed, mask)}
  rows = {}
  for name, values in images.items():
    each = np.asarray(psnr(clean, np.clip(values, 0, 1)))
    error = float(each.std() / len(each)**0.5)
    rows[name] = {"psnr": round(float(each.mean()), 3), "standard_error": round(error, 3)}
  others = max(row["psnr"] for name, row in rows.items() if name != "network")
  return {"summary": f"{degradation.task}: network {rows['network']['psnr']:.2f} dB, the best other "
                     f"{others:.2f} dB", "data": FLAGS.data, "num_images": len(clean), **options, **settings,
          "steps": run.step, "rows": rows}


def principal_components() -> dict:
  """Held-out PSNR of an autoencoder's run beside as many principal components of its training images.

  There are no more components than training images.
  """
  if not FLAGS.workdir:
    raise InputError("--workdir is missing: a run of the model 'autoencoder' with a validation split")
  run = load_run(FLAGS.workdir)
  config = ml_collections.ConfigDict(run.config)
  data = build.prepare(config, data_dir=FLAGS.data_dir, cache_dir=FLAGS.cache_dir)
  if "reconstruct" not in run.model.outputs or "validation" not in data.splits:
    raise InputError(f"--workdir={FLAGS.workdir}: needs a model that reconstructs, and a validation split")
  train, held_out = (all_images(data.splits[split]) for split in ("train", "validation"))
  flat = train.reshape(len(train), -1)
  mean = flat.mean(0)
  values, vectors = np.linalg.eigh((flat - mean) @ (flat - mean).T)
  number = min(config.model.dim, int((values > 1e-6 * values[-1]).sum()))
  basis = (flat - mean).T @ vectors[:, -number:] / np.sqrt(values[-number:])
  by_components = (mean + (held_out.reshape(len(held_out), -1) - mean) @ basis @ basis.T).reshape(held_out.shape)
  with jax.set_mesh(run.mesh):
    by_run = jax.jit(run.model.outputs["reconstruct"])(run.state, {"image": held_out})["reconstructed"]
  each = {name: float(psnr(held_out, np.clip(images, 0, 1)).mean())
          for name, images in (("autoencoder", by_run), ("principal_components", by_components),
                               ("mean", np.broadcast_to(mean.reshape(held_out.shape[1:]), held_out.shape)))}
  return {"summary": f"code of {config.model.dim}: {each['autoencoder']:.2f} dB, {number} principal components "
                     f"{each['principal_components']:.2f} dB, mean image {each['mean']:.2f} dB",
          "steps": run.step, "training_images": len(train), "held_out_images": len(held_out), **each}


def all_images(source: Source) -> np.ndarray:
  """Returns the images of one epoch in [0, 1]."""
  batches = [source.batch_at(step) for step in range(source.facts["steps_per_epoch"])]
  return np.concatenate([batch["image"][batch["mask"] > 0] for batch in batches]).astype(np.float32) / 255


def observations(dataset, split: str, degradation: Degradation) -> tuple[Array, Array, Array | None]:
  """Returns clean images of a split in [0, 1], their clipped observations and the masks of inpainting."""
  rows = np.asarray(dataset.split[split])
  rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), NUM_IMAGES)).astype(int)]
  clean = np.float32(dataset.items[rows]) / 255
  observed, mask = degradation.observe(jax.random.key(FLAGS.seed), clean)
  return clean, np.clip(observed, 0, 1), mask


def best_weight(dataset, degradation: Degradation) -> float:
  """Returns the weight of total variation with the highest PSNR on training images."""
  clean, observed, _ = observations(dataset, "train", degradation)
  return max(TV_WEIGHTS, key=lambda weight: float(psnr(clean, total_variation(observed, weight)).mean()))


def total_variation(observed: Array, weight: float) -> np.ndarray:
  from skimage.restoration import denoise_tv_chambolle

  return np.stack([denoise_tv_chambolle(image, weight=weight, channel_axis=-1) for image in np.asarray(observed)])


def by_image(method, observed: Array, mask: Array) -> np.ndarray:
  return np.stack([method(image, seen[..., 0] > 0) for image, seen in zip(np.asarray(observed), np.asarray(mask))])


def linear(image: np.ndarray, seen: np.ndarray) -> np.ndarray:
  """Interpolates linearly over a Delaunay triangulation of the seen pixels."""
  from scipy.interpolate import griddata

  points, hidden = np.argwhere(seen), np.argwhere(~seen)
  filled = griddata(points, image[seen], hidden, method="linear")
  outside = np.isnan(filled).any(1)
  filled[outside] = griddata(points, image[seen], hidden[outside], method="nearest")
  result = image.copy()
  result[~seen] = filled
  return result


def biharmonic(image: np.ndarray, seen: np.ndarray) -> np.ndarray:
  from skimage.restoration import inpaint_biharmonic

  return inpaint_biharmonic(image, ~seen, channel_axis=-1)
