"""Visualizations put to numbers: inputs against images that excite units, activation maps against boxes."""
import jax.numpy as jnp
import numpy as np
from absl import flags

from embeddings_jax.data import catalog
from embeddings_jax.errors import InputError
from embeddings_jax.eval import detection
from embeddings_jax.nets.pretext import pooled
from embeddings_jax.ops.activation_maps import enlarged
from embeddings_jax.runs import seeing, trunks

FLAGS = flags.FLAGS
STEPS = 128
NUM_PROBED = 2048


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
  told = ", ".join(f"{value['above']} of {value['units']} at equal {name} (median {value['ratio']} times)"
                   for name, value in results.items())
  return {"summary": f"{trunk.name}, {layer}: inputs above the best of {len(images)} images for {told}", **results}


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
  told = ", ".join(f"{name} {results[name]['trained']} (untrained {results[name]['untrained']})" for name in methods)
  return {"summary": f"{trunk.name}: the maximum lies on a digit: {told}; at random {results['area']}", **results}


def detected_digits() -> dict:
  """Average precision of R-CNN on means of a layer's map over 2 x 2 cells, of five trials, trained and untrained."""
  trunk, dataset = _subject()
  layer = trunk.layer(FLAGS.layer)
  images = trunk.images(dataset.items[:256])

  def metrics(one):
    maps = one.mapper(layer)
    cells = lambda images: np.asarray(pooled(jnp.asarray(maps(images)), 2))
    return detection.detection(cells, dataset, shape=one.shape, seed=FLAGS.seed)

  trained = metrics(trunk)
  without = [metrics(trunks.untrained(trunk, images, seed)) for seed in range(FLAGS.seeds)]
  means = {key: float(np.mean([result[key] for result in without])) for key in trained}
  rounded = lambda values: {key: round(value, 3) for key, value in values.items()}
  return {"summary": f"{trunk.name}, {layer}: AP50 {trained['test/ap50']:.3f} +- {trained['test/ap50_std']:.3f} over "
                     f"five trials, untrained {means['test/ap50']:.3f}; AP {trained['test/ap']:.3f} "
                     f"and {means['test/ap']:.3f}",
          "trained": rounded(trained), "untrained": rounded(means)}


def _subject():
  if not FLAGS.workdir:
    raise InputError("--workdir is missing: a run with a trunk of images")
  trunk = trunks.load_trunk(FLAGS.workdir)
  dataset = catalog.load(FLAGS.data, data_dir=FLAGS.data_dir, cache_dir=FLAGS.cache_dir)
  return trunk, trunk.encoder.adapt(dataset, FLAGS.cache_dir)
