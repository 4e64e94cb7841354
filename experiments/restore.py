"""Restores an image: `python -m experiments.restore --single --task=denoise --input=FILE --output=OUT.png`.

  --workdir=W    by the network of a run of the model `restoration`
  --single       by the deep image prior, which sees this image alone (minutes)
  --method=M     by total_variation, or guess (as it is, enlarged by bicubic interpolation, or its holes filled)

With --degrade the input is a clean image: it is degraded as the task says (--noise, --scale, --visible), restored,
and the PSNR of the guess, of total variation and of the result is printed, of the deep image prior by both rules of
stopping and by the oracle. Several inputs have a comma between; all are restored by one setting.
"""
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import flags

from embeddings_jax.errors import InputError
from embeddings_jax.runs import presets
from experiments import command

FLAGS = flags.FLAGS

flags.DEFINE_string("workdir", "", "Work directory of a run of restoration.")
flags.DEFINE_bool("single", False, "Use the deep image prior.")
flags.DEFINE_enum("method", "", ["", "total_variation", "guess"], "Another method.")
flags.DEFINE_enum("task", "denoise", ["denoise", "superres", "inpaint"], "Task.")
flags.DEFINE_list("input", [], "Image files.")
flags.DEFINE_string("mask", "", "Image file: non-zero pixels are kept, for inpaint.")
flags.DEFINE_string("output", "", "PNG file; of several inputs, side by side.")
flags.DEFINE_bool("degrade", False, "Degrade the input first.")
flags.DEFINE_float("noise", 25 / 255, "Standard deviation of the noise of --degrade --task=denoise.", lower_bound=0.0)
flags.DEFINE_integer("scale", 2, "Of superres: pixels, each way, for one of the input.", lower_bound=2)
flags.DEFINE_float("visible", 0.5, "Of --degrade --task=inpaint: fraction of the pixels that are seen.")
flags.DEFINE_integer("size", 0, "Fit inputs to squares of this size; 0: as they are.", lower_bound=0)
flags.DEFINE_integer("steps", 2000, "Most updates of --single.", lower_bound=1)
flags.DEFINE_integer("seed", 0, "Random seed.", lower_bound=0, upper_bound=presets.MAX_SEED)


def main(argv: Sequence[str]) -> int:
  command.parse(argv)
  if (bool(FLAGS.workdir), FLAGS.single, bool(FLAGS.method)).count(True) != 1:
    raise InputError("--workdir, --single and --method: give one of them")
  if not FLAGS.input:
    raise InputError("--input is missing: image files")
  if FLAGS.task == "inpaint" and not FLAGS.degrade and not FLAGS.mask:
    raise InputError("--mask is missing: an image file, or --degrade to draw one")
  if FLAGS.output:
    command.check_output(FLAGS.output, *FLAGS.input)
    if not FLAGS.output.endswith(".png"):
      raise InputError(f"--output={FLAGS.output}: must end in .png")
  elif not FLAGS.degrade:
    raise InputError("--output is missing: a .png file")
  from embeddings_jax.runs import sampling
  from embeddings_jax.runs.load import load_run

  run = load_run(FLAGS.workdir) if FLAGS.workdir else None
  results = [one(run, file) for file in FLAGS.input]
  if FLAGS.output:
    if len({image.shape for image in results}) > 1:
      raise InputError("--input: images of several sizes are not written side by side; give --size")
    sampling.write_images(FLAGS.output, np.stack(results))
    print(f"{FLAGS.output}: {len(results)} restored")
  return 0


def one(run: Any, file: str) -> np.ndarray:
  """Restores one file, and prints what is known of it."""
  from embeddings_jax.runs.restoring import restore

  image, mask = read(file, FLAGS.size), read(FLAGS.mask, FLAGS.size).any(-1) if FLAGS.mask else None
  method = FLAGS.method or ("network" if run else "deep_image_prior")
  options = {"run": run, "scale": FLAGS.scale, "steps": FLAGS.steps, "seed": FLAGS.seed}
  if not FLAGS.degrade:
    return restore(image, FLAGS.task, method=method, mask=mask, **options).image
  clean, (observed, mask) = image / np.float32(255), degraded(image)
  images = {name: restore(observed, FLAGS.task, method=name, mask=mask, **options).image
           for name in ("guess", "total_variation")}
  begun = time.monotonic()
  result = restore(observed, FLAGS.task, method=method, mask=mask, clean=clean, **options)
  seconds = time.monotonic() - begun
  images |= {method: result.image, **{f"{method} {name}": value for name, value in result.others.items()}}
  print(f"{file}: {FLAGS.task}, {result.steps} steps, {seconds:.0f} s")
  for name, value in images.items():
    print(f"  {name:32} {peak(clean, value):6.2f} dB")
  return result.image


def read(file: str, size: int) -> np.ndarray:
  """Returns uint8 [height, width, channels]."""
  from etils import epath

  from embeddings_jax.data.images import read_picture

  if not epath.Path(file).is_file():
    raise InputError(f"{file}: there is no such file")
  return read_picture(epath.Path(file).read_bytes(), file, 0, (size, size) if size else None)


def degraded(image: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
  """Returns the observation of a clean image, clipped to [0, 1], and the mask of inpainting."""
  import jax
  import jax.numpy as jnp

  from embeddings_jax.ops.degradations import Degradation

  noise = FLAGS.noise if FLAGS.task == "denoise" else 0.0
  degradation = Degradation(FLAGS.task, noise, FLAGS.scale, visible=FLAGS.visible).check(*image.shape[:2])
  clean = jnp.asarray(image[None], jnp.float32) / 255
  observed, mask = degradation.observe(jax.random.key(FLAGS.seed), clean)
  return np.clip(np.asarray(observed)[0], 0, 1), None if mask is None else np.asarray(mask)[0, ..., 0]


def peak(clean: np.ndarray, image: np.ndarray) -> float:
  """Returns the PSNR, dB."""
  return float(-10 * np.log10(max(np.square(clean - image).mean(), 1e-12)))


if __name__ == "__main__":
  command.call(main)
