"""Evaluates a trained model: `python -m experiments.evaluate --workdir=W [--protocols=word_similarity:men]`.

--init_from=DIR evaluates the network of a Hugging Face directory, or of a work directory, and --vectors=FILE word
vectors in any format of `embeddings_jax/interop/word_vectors.py`; their metrics are only printed.

--features=pixels evaluates raw pixels as a baseline; no run is needed, but a dataset for each protocol, as
`--protocols=knn:cifar10-jpeg,few_shot:fashion-mnist`. With --output=FILE.json the metrics are written, too, in the
form of a run's `results.json`, for `experiments/baselines.py`.

Models of words answer protocols on sentences (`sts`, `transfer`, ...), too: a sentence is then the mean of its words'
vectors. --pooling, whose name stands before those of the metrics, replaces it, and a transformer's pooling of tokens.
"""
import math
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from embeddings_jax import extensions
from embeddings_jax.errors import InputError, check_choice
from embeddings_jax.runs import presets
from experiments import command, vectors

FLAGS = flags.FLAGS

vectors.define_flags()
flags.DEFINE_string("init_from", "", "Directory of a pretrained network, instead of --workdir.")
flags.DEFINE_string("features", "", "Features without learning, instead of --workdir: pixels.")
flags.DEFINE_string("output", "", "File for the results of --features, as .json.")
flags.DEFINE_string("pooling", "", "Pooling of tokens or words into a text's vector (default: the model's).")
flags.DEFINE_string("extension", "", "Folder with models, encoders, ... of your own, which the run uses; code.")
flags.DEFINE_string("data", None, "Replaces the run's dataset; code, FILE.py:FUNCTION, runs only if named here.")
flags.DEFINE_string("config_file", "", "Config file of the run; its dataset may be code (FILE.py:FUNCTION).")
flags.DEFINE_list("protocols", None, "protocol or protocol:dataset, separated by commas (default: the config's).")
flags.DEFINE_string("inception", "", "File of FID's Inception, .safetensors, whose features `generation` compares.")
flags.DEFINE_string("data_dir", None, "Directory of the catalog's files (default: $EMBEDDINGS_DATA).")
flags.DEFINE_string("cache_dir", None,
                    "Directory of derived data (default: $EMBEDDINGS_CACHE, ~/.cache/embeddings_jax).")


def main(argv: Sequence[str]) -> int:
  command.parse(argv)
  origins = [name for name in ("workdir", "init_from", "vectors", "features") if FLAGS[name].value]
  if FLAGS.output and not FLAGS.features:
    raise InputError("--output: is for --features alone; a run's metrics go to its results.json")
  if FLAGS.output:
    command.check_output(FLAGS.output)
  if len(origins) != 1:
    raise InputError("--workdir, --init_from, --vectors and --features: give one of them" if origins else
                     "--workdir is missing")
  if not FLAGS.workdir and not FLAGS.protocols:
    raise InputError("--protocols is missing, as --protocols=word_similarity,analogies")
  if FLAGS.extension or FLAGS.config_file:
    extensions.extend(FLAGS.extension or pathlib.Path(FLAGS.config_file).parent)
  if FLAGS.features:
    return evaluate_features()
  run = vectors.load()[0] if FLAGS.vectors else load(FLAGS.workdir or FLAGS.init_from)
  return evaluate_run(run)


def load(path: str) -> Any:
  from embeddings_jax.runs import load as loading

  return loading.load_run(path) if FLAGS.workdir else loading.load(path)


def evaluate_run(run: Any) -> int:
  """Prints the metrics of a run; those of a work directory are also written, and drawn."""
  from embeddings_jax import figures
  from embeddings_jax.runs import evaluation, workdir

  named = FLAGS.protocols is not None  # Else a stranger's config may name what cannot be answered, and code.
  names = FLAGS.protocols if named else run.config["evals"]
  evaluator = evaluation.of_run(
      run, names, pooling=FLAGS.pooling, data=dataset_name(run), data_dir=FLAGS.data_dir, cache_dir=FLAGS.cache_dir,
      allow_code=named, allow_data_code=bool(FLAGS.data or FLAGS.config_file),
      options={"inception": FLAGS.inception} if FLAGS.inception else None, report=say)
  metrics = evaluator.evaluate(names, lenient=not named)
  if FLAGS.pooling and FLAGS.workdir:
    metrics = {f"{FLAGS.pooling}/{key}": value for key, value in metrics.items()}
  show(metrics)
  if not FLAGS.workdir:
    return 0
  lock = workdir.Lock(run.path)
  try:
    lock.acquire(patience=0)
  except InputError as error:
    print(f"{error}; its results.json is left as it is")
    return 0
  try:
    add_results(run, metrics)
    prefix = f"{FLAGS.pooling}/" if FLAGS.pooling else ""
    drawing = figures.Drawing(evaluator, evals=names, suffix=FLAGS.pooling, metrics={
        key.removeprefix(prefix): value for key, value in metrics.items()})
    drawn = figures.draw(run.path, drawing, of_evaluations=True)
  finally:
    lock.release()
  for file in drawn:
    print(f"{run.path}: {file}")
  return 0


def dataset_name(run: Any) -> str:
  """Returns the dataset that this command line names instead of the run's, or ""."""
  if FLAGS.data or not FLAGS.config_file:
    return FLAGS.data or ""
  return presets.load_config(run.config["name"], run.record.get("preset") or "demo", FLAGS.config_file).data.name


def add_results(run: Any, metrics: Mapping[str, float]) -> None:
  """Adds metrics to the `results.json` of a run."""
  from embeddings_jax.runs import workdir

  config = run.config
  old = workdir.read_results(run.path) or {"model": config["name"], "seed": config["seed"]}
  step = {"best_step": run.step} if config["best_metric"] else {"steps": run.step}
  workdir.write_json(run.path / "results.json",
                     {"steps": run.step} | old | step | {"metrics": old.get("metrics", {}) | rounded(metrics)})


def evaluate_features() -> int:
  """Evaluates `--features`, which come without a dataset of their own."""
  from embeddings_jax import eval as protocols
  from embeddings_jax.data import features
  from embeddings_jax.data.images import as_images
  from embeddings_jax.runs.evaluation import Evaluator

  check_choice("--features", FLAGS.features, ("pixels",))
  start = time.monotonic()
  for name in FLAGS.protocols:
    if not protocols.find(name.partition(":")[0]).labels:
      labels = [known for known in protocols.protocol_names() if protocols.find(known).labels]
      raise InputError(f"--protocols={name}: --features={FLAGS.features} are of images, which are asked about their "
                       f"labels: {', '.join(f'{known}:SET' for known in labels)}")
  evaluator = Evaluator(None, None, None, embed=features.pixels, adapt=as_images, data_dir=FLAGS.data_dir,
                        cache_dir=FLAGS.cache_dir, allow_code=True, report=say)
  metrics = evaluator.evaluate(FLAGS.protocols)
  show(metrics)
  if FLAGS.output:
    write_features(FLAGS.protocols, metrics, time.monotonic() - start)
  return 0


def write_features(names: Sequence[str], metrics: Mapping[str, float], seconds: float) -> None:
  """Writes metrics of `--features` with the keys of a run's `results.json`."""
  import jax

  from embeddings_jax.runs import workdir

  sets = dict.fromkeys(name.partition(":")[2] for name in names)
  workdir.write_json(FLAGS.output, {
      "model": FLAGS.features, "preset": "", "data": ", ".join(sets), "metrics": rounded(metrics), "training": {},
      "seed": 0, "steps": 0, "wall_seconds": round(seconds, 1),
      "command": f"python -m experiments.evaluate --features={FLAGS.features} --protocols={','.join(names)}",
      "commit": workdir.commit(), "versions": workdir.versions(), "device": jax.devices()[0].device_kind,
  })


def rounded(metrics: Mapping[str, float]) -> dict[str, float]:
  """Returns metrics as they are written, without those that are not defined."""
  return {key: round(float(value), 6) for key, value in metrics.items() if math.isfinite(value)}


def show(metrics: Mapping[str, float]) -> None:
  for key, value in metrics.items():
    print(f"{key}: {value:.4f}")


def say(line: str) -> None:
  print(line, flush=True)


if __name__ == "__main__":
  command.call(main)
