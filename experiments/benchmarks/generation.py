"""GANs on a ring of Gaussians: modes that are found, by loss and schedule."""
import time

import jax
import numpy as np
from absl import flags

from embeddings_jax.data.catalog import load
from embeddings_jax.runs.fit import fit
from embeddings_jax.train.mesh import make_mesh

FLAGS = flags.FLAGS

NUM_SAMPLES = 10_000
# Name -> what differs from the preset `demo`.
TRAININGS = {
    "non-saturating, alternating": {},
    "minimax, alternating": dict(loss="minimax"),
    "non-saturating, simultaneous": dict(schedule="simultaneous"),
    "non-saturating, 5 steps of D": dict(discriminator_steps=5),
    "non-saturating, to convergence": dict(schedule="to_convergence"),
    "minimax, to convergence": dict(schedule="to_convergence", loss="minimax"),
    "hinge": dict(loss="hinge"),
    "WGAN-GP, 5 steps of D": dict(loss="wasserstein", penalty="gradient", penalty_weight=0.1, discriminator_steps=5),
    "non-saturating, R1": dict(penalty="r1", penalty_weight=0.1),
    "non-saturating, spectral": dict(discriminator_norm="spectral"),
}
RINGS = {"ring": (1.0, 0.05), "ring-narrow": (2.0, 0.02)}


def gan_ring() -> dict:
  """Shares of modes, and of samples within three standard deviations of one, of every loss and schedule.

  Every training has the preset's number of updates of G; one that converges in turns has as many moves of G in all.
  """
  name = FLAGS.data if FLAGS.data in RINGS else "ring"
  rows = []
  for title, options in TRAININGS.items():
    found = [trained(name, options, seed) for seed in range(FLAGS.seed, FLAGS.seed + FLAGS.seeds)]
    rows.append({"training": title, **{key: [value[key] for value in found] for key in found[0]}})
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
