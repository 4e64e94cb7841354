"""GANs on a ring of Gaussians, by loss and schedule; and all generative runs of a dataset in one table."""
import json
import pathlib
import time

import jax
import numpy as np
from absl import flags

from embeddings_jax.data.catalog import load
from embeddings_jax.data.images import as_images
from embeddings_jax.errors import InputError
from embeddings_jax.figures import canvas
from embeddings_jax.figures.codes import NUM_IMAGES, rows_of_images
from embeddings_jax.runs import evaluation
from embeddings_jax.runs.fit import fit
from embeddings_jax.runs.generators import generators
from embeddings_jax.runs.load import load_run
from embeddings_jax.train.mesh import make_mesh

FLAGS = flags.FLAGS

NUM_SAMPLES = 10_000
# Name -> what differs from the preset `demo`.
TRAININGS = {
    "non-saturating, alternating": {},
    "minimax, alternating": dict(loss="minimax"),
    "non-saturating, simultaneous": dict(schedule="simultaneous"),
    "non-saturating, 2 steps of D": dict(discriminator_steps=2),
    "non-saturating, to convergence": dict(schedule="to_convergence"),
    "minimax, to convergence": dict(schedule="to_convergence", loss="minimax"),
    "hinge": dict(loss="hinge"),
    "WGAN-GP, 2 steps of D": dict(loss="wasserstein", penalty="gradient", penalty_weight=0.1, discriminator_steps=2),
    "non-saturating, R1": dict(penalty="r1", penalty_weight=0.1),
    "non-saturating, spectral": dict(discriminator_norm="spectral"),
}
RINGS = {"ring": (1.0, 0.05), "ring-narrow": (2.0, 0.02)}


def gan_ring() -> dict:
  """Shares of modes, and of samples within three standard deviations of one, of every loss and schedule.

  Every training has 5,000 moves of G; the first one has all seeds, the others that they are compared with the first.
  """
  name = FLAGS.data if FLAGS.data in RINGS else "ring"
  rows = []
  for title, options in TRAININGS.items():
    seeds = range(FLAGS.seed, FLAGS.seed + (1 if options else FLAGS.seeds))
    results = [trained(name, options, seed) for seed in seeds]
    rows.append({"training": title, **{key: [value[key] for value in results] for key in results[0]}})
  first = rows[0]
  return {"summary": f"{rows[0]['training']}: least share of a mode {min(first['least_mode']):.3f}, within 3 sigma "
                     f"{min(first['near']):.3f}, over {FLAGS.seeds} seeds", "data": name, "rows": rows}


def trained(name: str, options: dict, seed: int) -> dict[str, float]:
  """Returns modes found (2 % of the samples and more), the least share of a mode, and the share near one."""
  options = dict(options)
  steps, batch_size = 5_000, 256
  if options.get("schedule") == "to_convergence":
    steps //= 20
  batch_size *= options.get("discriminator_steps", 1)
  start = time.perf_counter()
  run = fit("gan", name, steps=steps, batch_size=batch_size, seed=seed, mesh=make_mesh("data:1", jax.devices()[:1]),
            **options)
  seconds = time.perf_counter() - start
  return measured(np.asarray(run.sample(NUM_SAMPLES, seed=1)), name) | {"seconds": round(seconds, 1)}


def measured(samples: np.ndarray, name: str) -> dict[str, float]:
  """Returns the measures of samples [n, 2]."""
  radius, sigma = RINGS[name]
  dataset = load(name)
  modes = len(np.unique(dataset.labels["mode"]))
  angle = 2 * np.pi * np.arange(modes) / modes
  centers = radius * np.stack([np.cos(angle), np.sin(angle)], 1)
  distance = np.linalg.norm(samples[:, None] - centers, axis=2)
  shares = np.bincount(distance.argmin(1), minlength=modes) / len(samples)
  near = distance.min(1) <= 3 * sigma
  of_near = np.bincount(distance.argmin(1)[near], minlength=modes) / len(samples)
  return {"modes": int((of_near >= 0.02).sum()), "least_mode": round(float(shares.min()), 4),
          "near": round(float(near.mean()), 4)}


def generation_table() -> dict:
  """Distances of every source of samples of the runs in a folder, from their results, the nearest first.

  The runs were evaluated by `experiments.evaluate --protocols=generation` (of a prior over codes
  `--protocols=generation:SET`). `--figure` draws samples beside uniformly random and real images.
  """
  folder = pathlib.Path(FLAGS.workdir)
  paths = sorted(path.parent for path in folder.glob("*/results.json"))
  if not FLAGS.workdir or not paths:
    raise InputError(f"--workdir={FLAGS.workdir}: a folder with work directories of runs is needed")
  rows, floor = [], {}
  for path in paths:
    results = json.loads((path / "results.json").read_text())
    for key, value in results["metrics"].items():
      *_, source, encoder, name = key.split("/") if key.count("/") > 2 else ("", "", "", "")
      if name in ("frechet_floor", "kernel_floor", "classifier_accuracy"):
        floor |= {name: value, "encoder": encoder}
      elif name == "kernel":
        beside = {other: results["metrics"][f"{key.rpartition('/')[0]}/{other}"]
                  for other in ("frechet", "smallest_class", "spread")}
        rows.append({"run": path.name, "model": results["model"], "source": source, "steps": results["steps"],
                     "seconds": results.get("wall_seconds"), "kernel": value, "encoder": encoder, **beside})
  rows.sort(key=lambda row: row["kernel"])
  if len({row["encoder"].rpartition("_n")[0] for row in rows}) > 1:
    raise InputError(f"--workdir={FLAGS.workdir}: the runs were evaluated by different encoders")
  if FLAGS.figure:
    draw_samples(paths, {(row["run"], row["source"]) for row in rows})
  best = rows[0]
  return {"summary": f"least kernel distance {best['kernel']:.2f} by {best['model']} ({best['source']}), Fréchet "
                     f"{best['frechet']:.2f}; floor {floor['frechet_floor']:.2f}", "floor": floor, "rows": rows}


def draw_samples(paths: list[pathlib.Path], listed: set[tuple[str, str]]) -> None:
  """Draws samples of every run and source into `--figure`, below real and uniformly random images."""
  images = as_images(load(FLAGS.data, data_dir=FLAGS.data_dir, cache_dir=FLAGS.cache_dir)).items
  rng = np.random.default_rng(FLAGS.seed)
  rows = {"real": images[rng.integers(0, len(images), NUM_IMAGES)] / 255,
          "uniform pixels": rng.random((NUM_IMAGES, *images.shape[1:]))}
  for path in paths:
    subject = evaluation.of_run(load_run(str(path)), (), data_dir=FLAGS.data_dir, cache_dir=FLAGS.cache_dir)
    for source, draw in generators(subject).items():
      if (path.name, source) in listed:
        rows[f"{path.name}, {source}"] = draw(NUM_IMAGES, FLAGS.seed)
  plt = canvas.pyplot()
  canvas.save(plt, rows_of_images(plt, list(rows.values()), list(rows), "Samples"), FLAGS.figure)
