"""Pretext tasks beside each other: what the layers of equally expensive trainings of one trunk know."""
import collections
import json
import pathlib
import statistics
from collections.abc import Callable

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import flags

from embeddings_jax.data import catalog
from embeddings_jax.errors import InputError
from embeddings_jax.eval.layer_probes import layer_probes
from embeddings_jax.models.pretext.arrow_of_time import segments
from embeddings_jax.models.pretext.video_colorization import gray_frames, lab_of, nearest_colors
from embeddings_jax.nets.pretext import side_by_side
from embeddings_jax.ops import color
from embeddings_jax.ops.feature_maps import cell_means
from embeddings_jax.ops.pixels import to_float
from embeddings_jax.runs import build, presets
from embeddings_jax.runs.trunks import load_trunk
from experiments.benchmarks import turns as turning
from experiments.spread import mean_and_std

FLAGS = flags.FLAGS

# Name -> preset whose step is measured.
TASKS = {"relative_patch": "small", "jigsaw": "small", "colorization": "small", "exemplar": "small",
         "rotation": "small", "context_encoder": "small", "deepcluster": "small", "order_verification": "demo",
         "arrow_of_time": "demo", "video_colorization": "demo", "dynamics": "demo"}
MAKERS = {
    "colorization": lambda images: color.soft_targets(cell_means(
        color.rgb_to_lab(to_float(images))[..., 1:], 8, 8), jnp.asarray(color.ab_bins(10))),
    "video_colorization": lambda clips: (gray_frames(clips), nearest_colors(
        lab_of(clips)[..., 1:], jnp.linspace(-60.0, 60.0, 32).reshape(16, 2), 16, 16)),
    "arrow_of_time": lambda clips: segments(side_by_side(jnp.stack([to_float(clips), to_float(clips)[:, ::-1]], 1)),
                                            "differences", 4, 2)}
PIXEL_CELLS = 8
SMALLEST = {"embed_grid": 1, "grid": 1, "projector_dims": (1,), "predictor_dims": (1,), "decoder_channels": (1,) * 6,
            "width": 1, "feature_dim": 1}


def pretext_table() -> dict:
  """Accuracies by layer of all runs in a folder, the best headline first, mean and standard deviation over seeds.

  Runs of a model differ in their seeds only. Those that were not evaluated by `layer_probes`, as with labels, are
  here. A run with baselines gives the row `untrained`; the row `pixels` is of the images, averaged over
  `PIXEL_CELLS` x `PIXEL_CELLS` cells.
  """
  folder = pathlib.Path(FLAGS.workdir)
  records = {path.parent: json.loads(path.read_text()) for path in sorted(folder.glob("*/results.json"))}
  if not FLAGS.workdir or not records:
    raise InputError(f"--workdir={FLAGS.workdir}: a folder with work directories of runs is needed")
  names = {record["data"] for record in records.values()}
  if len(names) > 1:
    raise InputError(f"--workdir={FLAGS.workdir}: runs on different datasets, {', '.join(sorted(names))}")
  dataset = catalog.load(*names, data_dir=FLAGS.data_dir, cache_dir=FLAGS.cache_dir)
  runs = collections.defaultdict(list)
  pixels = layer_probes(None, dataset, maps=lambda images: {"pixels": images / 255}, cells=PIXEL_CELLS)
  runs["pixels"].append(({"steps": 0, "wall_seconds": 0}, pixels))
  for path, record in records.items():
    metrics = record["metrics"]
    if not any(key.endswith("headline/accuracy") for key in metrics):
      trunk = load_trunk(path)
      mappers = {layer: trunk.mapper(layer) for layer in trunk.grids}
      metrics = metrics | layer_probes(None, dataset, seed=record["seed"], maps=lambda images, mappers=mappers: {
          layer: mapper(images) for layer, mapper in mappers.items()})
    trained = {key: value for key, value in metrics.items() if not key.startswith(("untrained/", "pixels/"))}
    runs[record["model"]].append((record, trained))
    untrained = {key.removeprefix("untrained/"): value for key, value in metrics.items()
                 if key.startswith("untrained/") and ("/block_" in key or "/headline/" in key)}
    if untrained:
      runs["untrained"].append(({**record, "steps": 0, "wall_seconds": 0}, untrained))
  rows = [row(name, each) for name, each in runs.items()]
  rows.sort(key=lambda row: -row["headline_accuracy"][0])
  return {"summary": ", ".join(f"{row['model']} {row['headline_accuracy'][0]:.3f}" for row in rows), "rows": rows}


def building() -> dict:
  """Share of a training step that making its examples takes, by task.

  The examples' time is that of the same step with networks of one channel and maps of one place, an upper bound:
  patches, puzzles, distortions and triples are still made. Where targets depend on the map, in the two
  colorizations, and for `arrow_of_time` it is the time of the functions that make them.
  """
  rows = []
  for name, preset in TASKS.items():
    config = presets.load_config(name, preset)
    whole, batch = _step(config)
    if name in MAKERS:
      make, images = jax.jit(MAKERS[name]), batch["image" if "image" in batch else "clip"]
      alone = lambda make=make, images=images: jax.block_until_ready(make(images))
    else:
      encoder = config.model.encoder
      encoder.channels, encoder.strides = (1,) * len(encoder.channels), (32, *encoder.strides[1:])
      for key, value in SMALLEST.items():
        if key in config.model:
          config.model[key] = value
      alone, _ = _step(config)
    turns = turning.by_turns(alone, whole, FLAGS.repeats)
    rows.append({"model": name, "preset": preset,
                 "share": round(statistics.median(part / all_of_it for part, all_of_it in turns), 4),
                 "seconds_step": round(statistics.median(seconds for _, seconds in turns), 3)})
  return {"summary": ", ".join(f"{row['model']} {row['share']:.3f}" for row in rows), "rows": rows}


def _step(config: ml_collections.ConfigDict) -> tuple[Callable[[], None], dict]:
  """Returns a function that makes one training step on random images, and the batch."""
  facts, shapes = build.stand_in(config)
  model = build.make_model(config, facts, 1000)
  rng = np.random.default_rng(FLAGS.seed)
  batch = jax.tree.map(lambda x: jnp.asarray(
      rng.integers(0, 256, x.shape) if x.dtype == np.uint8 else np.ones(x.shape), x.dtype), dict(shapes))
  batch = {name: jnp.arange(len(value), dtype=value.dtype) if name == "number" else value
           for name, value in batch.items()}
  state = jax.jit(model.init)(jax.random.key(0), batch)
  update = jax.jit(model.update, donate_argnums=0)

  def one() -> None:
    nonlocal state
    state, _ = jax.block_until_ready(update(state, batch, jax.random.key(1)))

  return one, batch


def row(model: str, runs: list[tuple[dict, dict[str, float]]]) -> dict:
  """Returns one model's row; each metric as [mean, standard deviation]."""
  names = {"headline_accuracy": "headline/accuracy", "headline_knn": "headline/knn_accuracy"}
  over_seeds = lambda ending: [round(value, 4) for value in mean_and_std(
      [next(value for key, value in metrics.items() if key.endswith(ending)) for _, metrics in runs])]
  first = runs[0][1]
  layers = [key.split("/")[-2] for key in first if "/test/" in key and key.endswith("knn_accuracy")]
  pretext = {key: round(value, 4) for key, value in first.items() if not key.startswith("class/")}
  return {"model": model, "seeds": len(runs), "steps": runs[0][0]["steps"],
          "seconds": round(max(record["wall_seconds"] for record, _ in runs)),
          **{name: over_seeds(ending) for name, ending in names.items()},
          "knn_by_layer": {layer: over_seeds(f"test/{layer}/knn_accuracy") for layer in layers}, "pretext": pretext,
          "commands": [record["command"] for record, _ in runs] if runs[0][0]["steps"] else []}
