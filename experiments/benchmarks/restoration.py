"""Restoration by networks beside the methods that people use without one; autoencoders beside their peers."""
import functools
import time

import jax
import ml_collections
import numpy as np
from absl import flags

from embeddings_jax.data.catalog import load
from embeddings_jax.data.images import as_images
from embeddings_jax.errors import InputError
from embeddings_jax.models.autoencoders.autoencoder import autoencoder
from embeddings_jax.ops.degradations import Degradation
from embeddings_jax.ops.image_quality import psnr
from embeddings_jax.runs import build, restoring
from embeddings_jax.runs.load import load_run
from embeddings_jax.types import Array, Source
from experiments.benchmarks.turns import by_turns, compared

FLAGS = flags.FLAGS

NUM_IMAGES = 200  # Evenly spaced over the split.
TV_WEIGHTS = (0.02, 0.04, 0.06, 0.08, 0.12, 0.16)
NUM_PIECES, SIDE, PIECE_STEPS = 3, 64, 1500
PRIOR = "deep_image_prior_"


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
  settings = {}
  if degradation.task == "denoise":
    train, noisy, _ = observations(dataset, "train", degradation)
    settings["total_variation_weight"] = best_weight(train, noisy)
  images = {"network": restored, **peers(degradation, observed, mask, *settings.values())}
  rows = {}
  for name, values in images.items():
    each = np.asarray(psnr(clean, np.clip(values, 0, 1)))
    error = float(each.std() / len(each)**0.5)
    rows[name] = {"psnr": round(float(each.mean()), 3), "standard_error": round(error, 3)}
  others = max(row["psnr"] for name, row in rows.items() if name != "network")
  return {"summary": f"{degradation.task}: network {rows['network']['psnr']:.2f} dB, the best other "
                     f"{others:.2f} dB", "data": FLAGS.data, "num_images": len(clean), **options, **settings,
          "steps": run.step, "rows": rows}


def single_image_table() -> dict:
  """PSNR of the deep image prior on pieces of photographs, each restored from its own degraded image alone.

  Denoising at 25/255, super-resolution by 2 and inpainting of half of the pixels, of `NUM_PIECES` central pieces of
  `--data`, evenly spaced, with one setting for all, that of `restore`. `held_out` and `variance` are the rules of
  stopping, `oracle` is the best step by the clean image, which nobody has. Beside them are the peers of
  `restoration_table`, and total variation as a prior (`runs/restoring.py: TV_WEIGHTS`); the weight of `denoise`'s
  `total_variation` is chosen on as many other pieces.
  """
  dataset = as_images(load(FLAGS.data, data_dir=FLAGS.data_dir, cache_dir=FLAGS.cache_dir))
  rows = np.linspace(0, len(dataset.items) - 1, 2 * NUM_PIECES).astype(int)
  clean, others = np.split(np.stack([piece(np.asarray(dataset.items[row])) for row in rows]), 2)
  tasks: dict[str, dict] = {}
  for degradation in (Degradation("denoise", 25 / 255), Degradation("superres"), Degradation("inpaint", visible=0.5)):
    task, (observed, mask) = degradation.task, degraded(degradation, clean)
    weight = best_weight(others, degraded(degradation, others)[0]) if task == "denoise" else 0.0
    masks = [None] * NUM_PIECES if mask is None else mask[..., 0]
    start = time.monotonic()
    priors = [restoring.restore(image, task, mask=seen, clean=true, steps=PIECE_STEPS, seed=FLAGS.seed)
              for image, seen, true in zip(observed, masks, clean)]
    seconds = time.monotonic() - start
    images = peers(degradation, observed, mask, weight)
    images |= {PRIOR + name.removeprefix("by_"): np.stack([one.others[name] for one in priors])
               for name in priors[0].others}
    if task != "denoise":
      images["total_variation"] = np.stack([restoring.restore(
          image, task, mask=seen, method="total_variation").image for image, seen in zip(observed, masks)])
    each = {name: np.asarray(psnr(clean, np.clip(values, 0, 1)), np.float64) for name, values in images.items()}
    tasks[task] = {"psnr": {name: round(values.mean(), 2) for name, values in each.items()},
                   "each": {name: values.round(2).tolist() for name, values in each.items()},
                   "steps": [one.steps for one in priors], "seconds": round(seconds),
                   **({"total_variation_weight": weight} if weight else {})}
  lines = []
  for task, result in tasks.items():
    values = result["psnr"]
    best = max((name for name in values if not name.startswith(PRIOR)), key=lambda name: values[name])
    lines.append(f"{task} {values[PRIOR + 'held_out']:.2f} dB (oracle {values[PRIOR + 'oracle']:.2f}), "
                 f"{best} {values[best]:.2f}")
  return {"summary": f"{NUM_PIECES} pieces of {SIDE} x {SIDE} pixels, deep image prior and the best other: "
                     f"{'; '.join(lines)}",
          "data": FLAGS.data, "rows": rows[:NUM_PIECES].tolist(), "side": SIDE, "most_steps": PIECE_STEPS,
          "tasks": tasks}


def piece(image: np.ndarray) -> np.ndarray:
  """Returns the central piece of a photograph, float32 [SIDE, SIDE, channels] in [0, 1]."""
  top, left = ((side - SIDE) // 2 for side in image.shape[:2])
  return image[top:top + SIDE, left:left + SIDE].astype(np.float32) / 255


def degraded(degradation: Degradation, clean: Array) -> tuple[np.ndarray, np.ndarray | None]:
  """Returns clipped observations of clean images, and the masks of inpainting."""
  observed, mask = degradation.observe(jax.random.key(FLAGS.seed), clean)
  return np.clip(np.asarray(observed), 0, 1), None if mask is None else np.asarray(mask)


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


def autoencoder_step(rows: int = 128, steps: int = 10) -> dict:
  """Seconds of a training step of the book's autoencoder (`autoencoder`, preset `paper`), ours against torch.

  The networks of `models/autoencoders/autoencoder.py` for images of 28 x 28 and codes of 2, 98,946 and 102,017
  parameters, squared error, Adam, float32; by turns of ten steps of 128 images, ours in one dispatch, torch's with
  the padding of its own that gives the same sizes (1, of transposed convolutions also `output_padding`). The mean of
  both losses after all turns shows that both train.
  """
  import torch

  model = autoencoder(height=28, width=28, channels=1)
  pixels = np.random.default_rng(FLAGS.seed).integers(0, 256, (rows, 28, 28, 1)).astype(np.uint8)
  batch = jax.device_put({"image": pixels})
  state = jax.jit(model.init)(jax.random.key(FLAGS.seed), batch)
  sizes = [sum(leaf.size for leaf in jax.tree.leaves(state.params[part])) for part in ("encoder", "decoder")]
  encoder, decoder = torch_autoencoder(torch)
  if sizes != [sum(p.numel() for p in net.parameters()) for net in (encoder, decoder)]:
    raise AssertionError("the networks differ in size")
  optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=5e-4)
  images, losses = torch.tensor(pixels).permute(0, 3, 1, 2).float() / 255, [0.0, 0.0]

  @functools.partial(jax.jit, donate_argnums=0)
  def update(state, batch, rngs):
    state, metrics = jax.lax.scan(lambda state, rng: model.update(state, batch, rng), state, rngs)
    return state, metrics["loss"][-1]

  def ours() -> None:
    nonlocal state
    state, loss = jax.block_until_ready(update(state, batch, jax.random.split(jax.random.key(FLAGS.seed), steps)))
    losses[0] = float(loss)

  def theirs() -> None:
    for _ in range(steps):
      optimizer.zero_grad()
      loss = ((torch.sigmoid(decoder(encoder(images))) - images) ** 2).mean()
      loss.backward()
      optimizer.step()
    losses[1] = loss.item()

  turns = [(own / steps, other / steps) for own, other in by_turns(ours, theirs, max(20, FLAGS.repeats))]
  result = compared(turns, f"{rows} images of 28 x 28", "torch", digits=4)
  return result | {"parameters": sizes, "losses": [round(loss, 5) for loss in losses],
                   "peer": f"torch {torch.__version__}, {torch.get_num_threads()} threads"}


def torch_autoencoder(torch) -> tuple:
  """Returns the encoder and the decoder, without its sigmoid, of the book's autoencoder in torch."""
  nn = torch.nn
  torch.manual_seed(FLAGS.seed)
  leaky = lambda: nn.LeakyReLU(0.3)
  down = [layer for a, b, stride in ((1, 32, 1), (32, 64, 2), (64, 64, 2), (64, 64, 1))
          for layer in (nn.Conv2d(a, b, 3, stride, 1), leaky())]
  up = [layer for a, b, stride in ((64, 64, 1), (64, 64, 2), (64, 32, 2), (32, 1, 1))
        for layer in (nn.ConvTranspose2d(a, b, 3, stride, 1, stride - 1), leaky())][:-1]
  return (nn.Sequential(*down, nn.Flatten(), nn.Linear(3136, 2)),
          nn.Sequential(nn.Linear(2, 3136), nn.Unflatten(1, (64, 7, 7)), *up))


def all_images(source: Source) -> np.ndarray:
  """Returns the images of one epoch in [0, 1]."""
  batches = [source.batch_at(step) for step in range(source.facts["steps_per_epoch"])]
  return np.concatenate([batch["image"][batch["mask"] > 0] for batch in batches]).astype(np.float32) / 255


def observations(dataset, split: str, degradation: Degradation) -> tuple[Array, Array, Array | None]:
  """Returns clean images of a split in [0, 1], their clipped observations and the masks of inpainting."""
  rows = np.asarray(dataset.split[split])
  rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), NUM_IMAGES)).astype(int)]
  clean = np.float32(dataset.items[rows]) / 255
  return clean, *degraded(degradation, clean)


def peers(degradation: Degradation, observed: Array, mask: Array | None, weight: float = 0.0) -> dict[str, Array]:
  """Returns images by the methods that people use without a network; `weight` is that of total variation."""
  start = degradation.guess(observed, mask)
  if degradation.task == "denoise":
    return {"observed": start, "total_variation": total_variation(observed, weight)}
  if degradation.task == "superres":
    return {"bicubic": start}
  return {"normalized_convolution": start, "linear": by_image(linear, observed, mask),
          "biharmonic": by_image(biharmonic, observed, mask)}


def best_weight(clean: Array, observed: Array) -> float:
  """Returns the weight of total variation with the highest PSNR."""
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
