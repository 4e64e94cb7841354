"""Writes what was learnt for other programs: `python -m experiments.export --workdir=W --format=glove --output=FILE`.

Transformers: huggingface, with the directory --output=DIR, which `transformers` loads with its tokenizer, or for
images with its preprocessor, and sentence-transformers with its pooling, where that gives the run's vectors.
Word vectors: word2vec (text), word2vec-binary, glove (text without its first line), npy (with FILE's
.vocabulary.txt). A name that ends in .gz is compressed. With --vectors=FILE instead of --workdir one format is turned
into another.
"""
from collections.abc import Sequence
from typing import Any

from absl import flags

from embeddings_jax.errors import check_choice
from embeddings_jax.interop import word_vectors
from embeddings_jax.types import InputError
from experiments import command, vectors

FLAGS = flags.FLAGS
FORMATS = (*word_vectors.FORMATS, "huggingface")

vectors.define_flags()
flags.DEFINE_string("format", "", f"One of {', '.join(FORMATS)}.")
flags.DEFINE_string("output", "", "File to write; of huggingface a directory.")


def main(argv: Sequence[str]) -> int:
  command.parse(argv)
  for name in ("format", "output"):
    if not FLAGS[name].value:
      raise InputError(f"--{name} is missing")
  check_choice("--format", FLAGS.format, FORMATS)
  if FLAGS.format == "huggingface":
    return export_network()
  command.check_output(FLAGS.output, FLAGS.vectors)
  found, origin = vectors.load()
  word_vectors.write(FLAGS.output, found.words, found.vectors, FLAGS.format)
  print(f"{FLAGS.output}: {found.vectors.shape[0]} words x {found.vectors.shape[1]}, {FLAGS.format}, from {origin}")
  return 0


def export_network() -> int:
  """Writes the run's network and tokenizer, or preprocessor, as a Hugging Face directory."""
  import pathlib

  from embeddings_jax.interop import huggingface, huggingface_vision
  from embeddings_jax.runs import pretrained

  if not FLAGS.workdir:
    raise InputError("--workdir is missing")
  output = pathlib.Path(FLAGS.output)
  if output.is_file() or (output.is_dir() and any(output.iterdir())):
    raise InputError(f"--output={FLAGS.output}: is there already; give a new directory")
  found = pretrained.load(FLAGS.workdir)
  if found.name == "mae":
    huggingface_vision.write(output, found.hyper, found.others, found.params, found.encoder.shape)
  elif found.encoder.kind == "subwords":
    files = huggingface.tokenizer_files(found.encoder.files()["tokenizer.json"], found.encoder.max_length)
    files |= sentence_files(found)
    huggingface.write(output, found.name, found.hyper, found.params, files)
  else:
    raise InputError(f"--format=huggingface: a {found.name} of {found.encoder.kind} has no place there; bert, gpt "
                     "and mae have")
  print(f"{FLAGS.output}: {found.name}, {FLAGS.format}, from step {found.step} of {FLAGS.workdir}")
  return 0


def sentence_files(found: Any) -> dict[str, bytes]:
  """Returns the files by which sentence-transformers gives the run's vectors; none, and a line, if it cannot.

  Args:
    found: A `Pretrained` of a work directory.
  """
  import numpy as np

  from embeddings_jax.interop import huggingface
  from embeddings_jax.runs import build, inference, pretrained

  texts = [found.encoder.decode([i]) or "a" for i in range(min(found.encoder.facts["vocab_size"], 64))] + ["a b c d"]
  try:
    files = huggingface.sentence_files(found.pooling or "mean", found.hyper["dim"], found.encoder.max_length,
                                       found.normalize)
    runs = build.load_run(FLAGS.workdir), pretrained.as_run(found)
    ours, theirs = (inference.embedder(run.model, run.state, run.encoder)(texts) for run in runs)
    if ours.shape != theirs.shape or not np.allclose(ours, theirs, atol=1e-4 * np.abs(ours).max()):
      raise InputError("the run's vectors are more than the pooled ones of its network")
  except InputError as error:
    print(f"{FLAGS.output}: modules.json and 1_Pooling are left out: {error}")
    return {}
  return files


if __name__ == "__main__":
  command.call(main)
