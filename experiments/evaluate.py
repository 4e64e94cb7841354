"""Evaluates a trained model: `python -m experiments.evaluate --workdir=W [--protocols=word_similarity:men]`.

A file of word vectors, in any format of `embeddings_jax/interop/word_vectors.py`, is evaluated with --vectors=FILE
instead; what is found is then printed only.
"""
from collections.abc import Sequence

from absl import flags

from embeddings_jax.types import InputError
from experiments import command, vectors

FLAGS = flags.FLAGS

vectors.define_flags()
flags.DEFINE_list("protocols", None, "protocol or protocol:dataset, separated by commas (default: the config's).")
flags.DEFINE_string("data_dir", None, "Directory of the catalog's files (default: $EMBEDDINGS_DATA).")
flags.DEFINE_string("cache_dir", None, "Derived data (default: $EMBEDDINGS_CACHE, ~/.cache/embeddings_jax).")


def main(argv: Sequence[str]) -> int:
  command.parse(argv)
  if FLAGS.vectors:
    return evaluate_file()
  if not FLAGS.workdir:
    raise InputError("--workdir is missing")
  from embeddings_jax.data import catalog
  from experiments import pipeline, protocols, results, workdir

  run = pipeline.load_run(FLAGS.workdir)
  config = run.record["config"]
  names = FLAGS.protocols if FLAGS.protocols is not None else config["evals"]

  def dataset():
    return catalog.load(config["data"]["name"], data_dir=FLAGS.data_dir, cache_dir=FLAGS.cache_dir,
                        errors=config["data"]["errors"])

  embed = results.remembering(pipeline.embedder(run.model, run.state, run.encoder))
  metrics = protocols.evaluate(
      names, embed, dataset=dataset, vocabulary=run.encoder.names,
      topics=pipeline.topics_of(run.model, run.state, run.encoder), seed=config["seed"],
      max_items=config["eval_items"], data_dir=FLAGS.data_dir, cache_dir=FLAGS.cache_dir)
  for key, value in metrics.items():
    print(f"{key}: {value:.4f}")
  path = run.path / "results.json"
  old = workdir.read_json(path) if path.exists() else {"model": config["name"], "metrics": {}, "seed": config["seed"]}
  old["metrics"] |= {key: round(float(value), 6) for key, value in metrics.items()}
  workdir.write_json(path, old | {"steps": run.step})
  return 0


def evaluate_file() -> int:
  """Evaluates `--vectors`, which come without a data set of their own."""
  from experiments import protocols, results

  names = FLAGS.protocols or []
  if not names:
    raise InputError("--protocols is missing, as --protocols=word_similarity,analogies")
  for name in names:
    protocols.check(name)
    if name in (*protocols.LABELLED, "text_classification"):
      raise InputError(f"--protocols={name}: --vectors has no data set of its own; name one, as {name}:sst2")
  found, _ = vectors.load()
  metrics = protocols.evaluate(
      names, results.remembering(vectors.embedder(found)), dataset=None, vocabulary=found.words,
      data_dir=FLAGS.data_dir, cache_dir=FLAGS.cache_dir)
  for key, value in metrics.items():
    print(f"{key}: {value:.4f}")
  return 0


if __name__ == "__main__":
  command.call(main)
