"""Visualizations put to numbers: inputs against images that excite units, activation maps against boxes."""
import pathlib
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from absl import flags

from embeddings_jax.data import catalog
from embeddings_jax.errors import InputError
from embeddings_jax.eval import detection
from embeddings_jax.ops.activation_maps import enlarged
from embeddings_jax.runs import box_tuning, build, seeing, trunks
from experiments.spread import mean_and_std

FLAGS = flags.FLAGS
STEPS = 128
NUM_PROBED = 2048
NUM_CHOOSING = 96  # Images that choose a layer, and as many that train for it.


def exciting_inputs() -> dict:
  """For how many units an input found by ascent, of equal norm, excites above the best training image."""
  trunk, dataset = _subject()
  rows = np.asarray(dataset.split.get("train", np.arange(len(dataset.items))))
  images = trunk.images([dataset.items[i] for i in rows])
  layer = trunk.layer(FLAGS.layer)
  units = seeing.chosen_units(trunk, layer)
  best = seeing.exciting_images(trunk, images, layer, units, k=1)
  results = {}
  for name, center in (("distance from gray", 0.5), ("norm of the pixels", 0.0)):
    shown = images[best.images[:, 0]] / np.float32(255)
    norms = np.sqrt(np.square(shown - center).sum((1, 2, 3)))
    inputs, values = seeing.exciting_inputs(trunk, layer, units, norms=norms, center=center, steps=STEPS,
                                            seed=FLAGS.seed)
    if inputs.min() < 0 or inputs.max() > 1:
      raise AssertionError("an input leaves [0, 1]")
    away = np.sqrt(np.square(inputs - center).sum((1, 2, 3)))
    results[name] = {"above": int((values > best.values[:, 0]).sum()), "units": len(units),
                     "ratio": round(float(np.median(values / np.maximum(best.values[:, 0], 1e-6))), 2),
                     "norm": round(float(np.median(norms)), 2),
                     "largest_error_of_norm": float(f"{np.abs(away / norms - 1).max():.1e}")}
  lines = ", ".join(f"{value['above']} of {value['units']} at equal {name} (median {value['ratio']} times)"
                   for name, value in results.items())
  return {"summary": f"{trunk.name}, {layer}: inputs above the best of {len(images)} images for {lines}", **results}


def pointing() -> dict:
  """Measures the fraction of maps whose maximum lies in the box of a digit, trained and untrained."""
  trunk, dataset = _subject()
  if dataset.boxes is None:
    raise InputError(f"--data={dataset.name}: has no boxes; pasted-digits has")
  train, test = (np.asarray(dataset.split[part]) for part in ("train", "test"))
  images = trunk.images(dataset.items)
  height, width = images.shape[1:3]
  inside = np.zeros((len(images), height, width), bool)
  for (top, left, bottom, right), image in zip(dataset.boxes.corners.astype(int), dataset.boxes.image):
    inside[image, top:bottom, left:right] = True
  methods = [name for name in seeing.MAPS if name != "rollout" or hasattr(trunk.network, "attention")]
  layer = trunk.layer(FLAGS.layer)
  results: dict = {"area": round(float(inside[test].mean()), 3)}
  of_seeds = [trunks.untrained(trunk, images[train[:256]], seed) for seed in range(max(FLAGS.seeds, 1))]
  if FLAGS.label and FLAGS.label not in dataset.labels:
    raise InputError(f"--label={FLAGS.label}: {dataset.name} has {', '.join(dataset.labels)}")

  def weights(one):
    """Weights of each test image's class, of a linear classifier of the training images' means."""
    labels = np.asarray(dataset.labels[FLAGS.label])
    vectors = one.maps(images[train[:NUM_PROBED]], one.layer()).mean((1, 2))
    return seeing.class_weights(vectors, labels[train[:NUM_PROBED]])[0].T[labels[test]]

  for method in methods:
    def hits(one, method=method):
      of_class = weights(one) if FLAGS.label and method != "rollout" else None
      maps = seeing.looked_at(one, images[test], method, layer=layer if method == "gradcam" else "",
                              weights=of_class)
      flat = np.asarray(enlarged(jnp.asarray(maps), height, width)).reshape(len(test), -1)
      return float(inside[test].reshape(len(test), -1)[np.arange(len(test)), flat.argmax(1)].mean())

    without = [hits(one) for one in of_seeds]
    results[method] = {"trained": round(hits(trunk), 3), "untrained": round(float(np.mean(without)), 3),
                       "untrained_std": round(float(np.std(without)), 3)}
  lines = ", ".join(f"{name} {results[name]['trained']} (untrained {results[name]['untrained']})" for name in methods)
  return {"summary": f"{trunk.name}: the maximum lies on a digit: {lines}; at random {results['area']}", **results}


def detected_digits() -> dict:
  """Average precision of R-CNN on means of a layer's map over 2 x 2 cells, of five trials, trained and untrained.

  With `--finetune_steps` the trunk is fine-tuned on the training boxes before (`runs/box_tuning.py`).
  """
  trunk, dataset = _subject()
  layer, images = trunk.layer(FLAGS.layer), trunk.images(dataset.items[:256])
  trained = _detected(trunk, layer, dataset)
  without = [_detected(trunks.untrained(trunk, images, seed), layer, dataset) for seed in range(FLAGS.seeds)]
  means = {key: float(np.mean([result[key] for result in without])) for key in trained}
  rounded = lambda values: {key: round(value, 3) for key, value in values.items()}
  how = f"fine-tuned by {FLAGS.finetune_steps} updates, " if FLAGS.finetune_steps else ""
  return {"summary": f"{trunk.name}, {layer}: {how}AP50 {trained['test/ap50']:.3f} +- {trained['test/ap50_std']:.3f} "
                     f"over five trials, untrained {means['test/ap50']:.3f}; AP {trained['test/ap']:.3f} "
                     f"and {means['test/ap']:.3f}",
          "trained": rounded(trained), "untrained": rounded(means)}


def detection_table() -> dict:
  """Average precision of R-CNN with the trunks of all runs in a folder, and with untrained ones, the best first.

  Metrics are mean and standard deviation of five trials, as in `detected_digits`; `untrained` is the first trunk with
  `--seeds` seeds, its deviation that over the seeds. All trunks have the layer `--layer`; without it each has the one
  with the highest AP50 of a trial on the last training images, which the table does not use.
  Runs without a trunk that has maps of color images are listed as skipped. The family of each trunk is that of its
  model. Trunks that were trained on photographs see other images here, digits pasted over pieces of photographs.
  """
  subjects, skipped = _trunks_of(FLAGS.workdir)
  first = subjects[0][2]
  dataset = catalog.load(FLAGS.data, data_dir=FLAGS.data_dir, cache_dir=FLAGS.cache_dir)
  images = first.images(first.encoder.adapt(dataset, FLAGS.cache_dir).items[:256])
  subjects += [("untrained", "untrained", trunks.untrained(first, images, seed)) for seed in range(FLAGS.seeds)]
  rows: list[dict] = []
  for name, family, trunk in subjects:
    adapted = trunk.encoder.adapt(dataset, FLAGS.cache_dir)
    layer = trunk.layer(FLAGS.layer) if FLAGS.layer else chosen_layer(trunk, adapted)
    metrics = _detected(trunk, layer, adapted)
    rows.append({"trunk": name, "family": family, "layer": layer, **{
        key: (metrics[f"test/{key}"], metrics[f"test/{key}_std"]) for key in detection.AP_NAMES}})
  untrained = [rows.pop() for _ in range(FLAGS.seeds)]
  layers = ", ".join(sorted({row["layer"] for row in untrained}))
  rows.append({"trunk": "untrained", "family": "untrained", "layer": layers, "seeds": FLAGS.seeds, **{
      key: mean_and_std([row[key][0] for row in untrained]) for key in detection.AP_NAMES}})
  rows.sort(key=lambda row: -row["ap"][0])
  above, below, number = against(rows, "pretext", ("contrastive", "supervised"))
  verdict = "confirmed" if len(above) == number > 0 else "not confirmed"
  table = ", ".join(f"{row['trunk']} {row['ap'][0]:.3f} ({row['ap50'][0]:.3f})" for row in rows)
  for row in rows:
    row |= {key: [round(value, 4) for value in row[key]] for key in detection.AP_NAMES}
  return {"summary": f"AP (AP50) of R-CNN on {FLAGS.data}: {table}; pretext above contrastive and supervised trunks: "
                     f"{verdict}, clearly above in {len(above)} of {number} pairs, clearly below in {len(below)}",
          "finetune_steps": FLAGS.finetune_steps, "rows": rows, "clearly_above": above, "clearly_below": below,
          "skipped": skipped}


def against(rows: list[dict], family: str, others: Sequence[str]) -> tuple[list[str], list[str], int]:
  """Compares the APs of one family's trunks with those of other families.

  Returns:
    The pairs of trunks whose first is above the second by more than two standard deviations of the difference, those
    whose first is as much below, and the number of all pairs.
  """
  pairs = [(one, other) for one in rows if one["family"] == family for other in rows if other["family"] in others]
  gaps = [(one["ap"][0] - other["ap"][0]) / (2 * np.hypot(one["ap"][1], other["ap"][1])) for one, other in pairs]
  above = [f"{one['trunk']} above {other['trunk']}" for gap, (one, other) in zip(gaps, pairs) if gap > 1]
  below = [f"{one['trunk']} below {other['trunk']}" for gap, (one, other) in zip(gaps, pairs) if gap < -1]
  return above, below, len(pairs)


def chosen_layer(trunk: trunks.Trunk, dataset) -> str:
  """Returns the layer with the highest AP50 of one trial, trained and tested on training images."""
  train = np.asarray(dataset.split["train"])[::-1]  # The last ones; `detection` trains on the first.
  inner = dataset._replace(split={"train": train[:NUM_CHOOSING], "test": train[NUM_CHOOSING:2 * NUM_CHOOSING]})
  scores = {layer: detection.detection(box_tuning.vectors(trunk, layer), inner, shape=trunk.shape, trials=1,
                                       max_train=NUM_CHOOSING, max_test=NUM_CHOOSING, seed=FLAGS.seed)["test/ap50"]
            for layer in trunk.grids if min(trunk.grids[layer][:2]) >= box_tuning.CELLS}
  return max(scores, key=lambda layer: scores[layer])


def _detected(trunk, layer, dataset):
  steps = FLAGS.finetune_steps
  finetune = box_tuning.finetuner(trunk, layer, steps=steps, seed=FLAGS.seed) if steps else None
  return detection.detection(box_tuning.vectors(trunk, layer), dataset, shape=trunk.shape, seed=FLAGS.seed,
                             finetune=finetune)


def _trunks_of(folder):
  """Returns name, family and trunk of all finished runs in a folder that have one, and the names of the others."""
  paths = sorted(pathlib.Path(folder).glob("*/results.json")) if folder else []
  subjects, skipped = [], []
  for path in paths:
    try:
      trunk = trunks.load_trunk(path.parent)
    except InputError:
      skipped.append(path.parent.name)
      continue
    if trunk.network.first_filters(trunk.variables["params"]).shape[-1] != trunk.shape[2]:
      skipped.append(path.parent.name)  # A trunk of gray images, as that of `colorization`.
      continue
    family = build.find_factory(trunk.run.config).__module__.split(".")[-2]
    subjects.append((path.parent.name, family, trunk))
  if not subjects:
    raise InputError(f"--workdir={folder}: a folder with work directories of runs with trunks of images is needed")
  return subjects, skipped


def _subject():
  if not FLAGS.workdir:
    raise InputError("--workdir is missing: a run with a trunk of images")
  trunk = trunks.load_trunk(FLAGS.workdir)
  dataset = catalog.load(FLAGS.data, data_dir=FLAGS.data_dir, cache_dir=FLAGS.cache_dir)
  return trunk, trunk.encoder.adapt(dataset, FLAGS.cache_dir)
