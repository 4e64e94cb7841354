"""Evaluates a trained model: `python -m experiments.evaluate --workdir=W [--protocols=word_similarity:men]`.

The network of a Hugging Face directory, or of a work directory, is evaluated with --init_from=DIR and --pooling (see
`experiments/embed.py`), a file of word vectors, in any format of `embeddings_jax/interop/word_vectors.py`, with
--vectors=FILE. What is found is then printed only.

Features without learning need no run: `--features=pixels --protocols=knn:cifar10-jpeg,few_shot:fashion-mnist`, which
are the pictures as they are; with --output=FILE.json what is found is written, too, in the form of a run's
`report.json`, for `experiments/baselines.py`.

Protocols on sentences (`sts`, `transfer`, ...) are asked of models of words, too: a sentence is then the mean of its
words' vectors, or what --pooling says, whose name then stands before those of the metrics.
"""
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from embeddings_jax.errors import InputError, check_choice
from embeddings_jax.ops.pooling import check_pooling
from embeddings_jax.runs import presets
from experiments import command, vectors

FLAGS = flags.FLAGS

vectors.define_flags()
flags.DEFINE_string("init_from", "", "Directory of a pretrained network, instead of --workdir.")
flags.DEFINE_string("features", "", "Features without learning, instead of --workdir: pixels.")
flags.DEFINE_string("output", "", "Where to write what --features gives, as .json.")
flags.DEFINE_string("pooling", "", "How a text's vector is made from those of its tokens, or of its words.")
flags.DEFINE_string("data", None, "Replaces the run's dataset; code, FILE.py:FUNCTION, runs only if named here.")
flags.DEFINE_string("config_file", "", "Config file of the run; its dataset may be code (FILE.py:FUNCTION).")
flags.DEFINE_list("protocols", None, "protocol or protocol:dataset, separated by commas (default: the config's).")
flags.DEFINE_string("data_dir", None, "Directory of the catalog's files (default: $EMBEDDINGS_DATA).")
flags.DEFINE_string("cache_dir", None, "Derived data (default: $EMBEDDINGS_CACHE, ~/.cache/embeddings_jax).")


def main(argv: Sequence[str]) -> int:
  command.parse(argv)
  if FLAGS.output and not FLAGS.features:
    raise InputError("--output: is for --features alone; a run's figures go to its report.json")
  if FLAGS.output:
    command.check_output(FLAGS.output)
  if FLAGS.vectors or FLAGS.init_from or FLAGS.features:
    return evaluate_file()
  if not FLAGS.workdir:
    raise InputError("--workdir is missing")
  import jax
  import numpy as np

  from embeddings_jax import figures
  from embeddings_jax.runs import build, inference, loading, protocols, reports, workdir
  from embeddings_jax.runs.load import load_run

  run = load_run(FLAGS.workdir)
  if FLAGS.pooling and run.encoder.kind == "subwords":
    check_pooling(FLAGS.pooling)
    run = load_run(FLAGS.workdir, pooling=FLAGS.pooling)
  elif FLAGS.pooling and run.encoder.kind != "words":
    raise InputError(f"--pooling={FLAGS.pooling}: needs a model of words or subwords, and this one is of "
                     f"{run.encoder.kind}")
  config = run.record["config"]
  names = FLAGS.protocols if FLAGS.protocols is not None else config["evals"]
  dirs = {"data_dir": FLAGS.data_dir, "cache_dir": FLAGS.cache_dir}
  allow_code = name_data(config, run.record.get("preset"))

  data = None  # What protocols on the run's own task or held-out part need.
  if config["data"].get("form") == "task":
    data = loading.load_task(config, encoder=run.encoder, allow_code=allow_code, **dirs)
  elif "held_out" in names:
    # The run's own tokenizer: the directory that it came from may be gone.
    data = loading.load_data(config, encoder=run.encoder, allow_code=allow_code, **dirs)

  def dataset():
    own = data.dataset if data else loading.load_dataset(config["data"], allow_code=allow_code, **dirs)[0]
    if own.note:
      print(own.note, flush=True)
    return own

  def untrained():
    batch = {key: np.zeros(shape, dtype) for key, (shape, dtype) in run.record["batch"].items()}
    return build.first_state(run.model, batch, jax.tree.leaves(run.state)[0].sharding.mesh, config["seed"])

  embed = reports.remembering(inference.embedder(run.model, run.state, run.encoder))
  sentences = pooled(embed, run.encoder) if run.encoder.kind == "words" else None
  metrics = protocols.evaluate(
      names, embed, dataset=dataset, vocabulary=run.encoder.names, sentences=sentences,
      topics=inference.topics_of(run.model, run.state, run.encoder),
      asked=inference.asked_of(run.model, run.state, run.encoder, data=data, untrained=untrained),
      seed=config["seed"], max_items=config["eval_items"],
      # The config of a stranger's run may name other code than its dataset, and protocols that cannot be answered.
      allow_code=FLAGS.protocols is not None, lenient=FLAGS.protocols is None,
      view=protocols.view_for(run.encoder, FLAGS.cache_dir), **dirs)
  if FLAGS.pooling:
    metrics = {f"{FLAGS.pooling}/{key}": value for key, value in metrics.items()}
  for key, value in metrics.items():
    print(f"{key}: {value:.4f}")
  lock = workdir.Lock(run.path)
  try:
    lock.acquire(patience=0)
  except InputError as error:
    print(f"{error}; its report.json is left as it is")
    return 0
  try:
    add_results(run, metrics)
    drawn = figures.draw_probing(run.path, metrics) + figures.draw_sts(
        run.path, sentences or embed, names, prefix=FLAGS.pooling, **dirs)
  finally:
    lock.release()
  for file in drawn:
    print(f"{run.path}: {file}")
  return 0


def name_data(config: dict[str, Any], preset: str | None) -> bool:
  """Puts the dataset that this command line names into a recorded config; returns whether it names one."""
  if FLAGS.config_file:
    chosen = presets.load_config(config["name"], preset or "demo", FLAGS.config_file)
    config["data"]["name"] = chosen.data.name
  if FLAGS.data:
    config["data"]["name"] = FLAGS.data
  return bool(FLAGS.data or FLAGS.config_file)


def add_results(run: Any, metrics: Mapping[str, float]) -> None:
  """Adds metrics to the `report.json` of a `build.Run`."""
  from embeddings_jax.runs import workdir

  config = run.record["config"]
  old = workdir.read_results(run.path) or {"model": config["name"], "seed": config["seed"]}
  new = {key: round(float(value), 6) for key, value in metrics.items() if math.isfinite(value)}
  step = {"best_step": run.step} if config["best_metric"] else {"steps": run.step}
  workdir.write_json(run.path / "results.json",
                     {"steps": run.step} | old | step | {"metrics": old.get("metrics", {}) | new})


def evaluate_file() -> int:
  """Evaluates `--vectors`, `--init_from` or `--features`, which come without a data set of their own."""
  from embeddings_jax.data.images import as_images
  from embeddings_jax.eval import baselines
  from embeddings_jax.runs import protocols, reports

  given = [name for name in ("vectors", "init_from", "features", "workdir") if FLAGS[name].value]
  if len(given) > 1:
    raise InputError("--workdir, --init_from, --vectors and --features: give one of them")
  origin, start = given[0], time.monotonic()
  names = FLAGS.protocols or []
  if not names:
    raise InputError("--protocols is missing, as --protocols=word_similarity,analogies")
  for name in names:
    protocols.check(name)
    if name in (*protocols.LABELLED, "probing", "text_classification"):
      raise InputError(f"--protocols={name}: --{origin} has no data set of its own; name one, as {name}:sst2")
  from embeddings_jax.interop import word_vectors as files
  from embeddings_jax.runs import vectors as word_vectors

  words, sentences, asked, view = None, None, None, None
  if FLAGS.vectors:
    found = files.read(FLAGS.vectors, FLAGS.vectors_format, FLAGS.errors)
    embed, words = word_vectors.embedder(found), found.words
    sentences = pooled(embed, word_vectors.encoder(found))
  elif FLAGS.features:
    check_choice("--features", FLAGS.features, ("pixels",))
    for name in names:
      if name.partition(":")[0] not in protocols.LABELLED:
        raise InputError(f"--protocols={name}: --features={FLAGS.features} are of pictures, which are asked about "
                         f"their labels: {', '.join(f'{known}:SET' for known in protocols.LABELLED)}")
    embed, view = baselines.pixels, as_images
  else:
    embed, asked, view = pretrained_network()
  metrics = protocols.evaluate(names, reports.remembering(embed), dataset=None, vocabulary=words, asked=asked,
                               sentences=sentences, view=view, data_dir=FLAGS.data_dir, cache_dir=FLAGS.cache_dir,
                               allow_code=True)
  for key, value in metrics.items():
    print(f"{key}: {value:.4f}")
  if FLAGS.output:
    write_features(names, metrics, time.monotonic() - start)
  return 0


def write_features(names, metrics, seconds):
  """What `--features` gives, with the keys of a run's `report.json`."""
  import jax

  from embeddings_jax.runs import workdir

  sets = dict.fromkeys(name.partition(":")[2] for name in names)
  found = {
      "model": FLAGS.features, "preset": "", "data": ", ".join(sets),
      "metrics": {key: round(float(value), 6) for key, value in metrics.items() if math.isfinite(value)},
      "training": {}, "seed": 0,
      "steps": 0, "wall_seconds": round(seconds, 1),
      "command": f"python -m experiments.evaluate --features={FLAGS.features} --protocols={','.join(names)}",
      "commit": workdir.commit(), "versions": workdir.versions(), "device": jax.devices()[0].device_kind,
  }
  workdir.write_json(FLAGS.output, found)


def pooled(embed, encoder):
  """Of a model of words: sentences -> [num_sentences, dim], as --pooling says."""
  from embeddings_jax.runs import inference

  pooling = FLAGS.pooling or "mean"
  check_choice("--pooling", pooling, inference.WORD_POOLINGS)
  return inference.sentence_embedder(embed, encoder, pooling)


def pretrained_network():
  """Of `--init_from`: items -> [num_items, dim], what protocols may ask beside, and how others' items are viewed."""
  import jax

  from embeddings_jax.runs import build, inference, pretrained, protocols

  found = pretrained.load(FLAGS.init_from)
  run = pretrained.as_run(found, FLAGS.pooling)
  embed = inference.embedder(run.model, run.state, run.encoder)
  mesh, batch = jax.tree.leaves(run.state)[0].sharding.mesh, pretrained.example(run.encoder)
  asked = inference.asked_of(run.model, run.state, run.encoder,
                            untrained=lambda: build.first_state(run.model, batch, mesh, seed=0))
  view = protocols.view_for(run.encoder, FLAGS.cache_dir)
  return (lambda texts: pretrained.unit(embed(texts))) if found.normalize else embed, asked, view


if __name__ == "__main__":
  command.call(main)
