"""Embeds a file with a trained model: `python -m experiments.embed --workdir=W --input=FILE --output=OUT.npy`.

With --init_from=DIR instead of --workdir the network of a Hugging Face (or sentence-transformers) directory is used,
or that of a work directory. A transformer's --pooling is one of `embeddings_jax/ops/pooling.py` (cls, mean, max,
last, first_last_mean, cls:K and mean:K of layer K); what a sentence-transformers directory says is the default.

Beside OUT.npy, OUT.rows.tsv says which item each row is: its file and line, its id or name, and its first words.

With a model of words, --pooling makes a line's vector from those of its words
(`embeddings_jax/ops/sentence_vectors.py`): mean; idf and sif, weighted means (idf's counts are of the input's lines,
sif's of the training text; of sif the input's first component is removed; both need several lines); concatenation of
the first --num_words vectors; the first --num_components principal components.
"""
from collections.abc import Sequence

from absl import flags

from embeddings_jax.errors import InputError
from experiments import command

FLAGS = flags.FLAGS

flags.DEFINE_string("workdir", "", "Work directory of the run.")
flags.DEFINE_string("input", "", "Words or lines of text; .npy or .csv rows; a wav, or a text file that lists them.")
flags.DEFINE_string("output", "", "File for the vectors, float32 [num_items, dim], as .npy.")
flags.DEFINE_enum("errors", "strict", ["strict", "replace"], "What to do with text that is not UTF-8.")
flags.DEFINE_string("init_from", "", "Directory of a pretrained network, or file of word vectors, instead of "
                    "--workdir.")
flags.DEFINE_string("extension", "", "Folder with models, encoders, ... of your own, which the run uses; code.")
flags.DEFINE_string("pooling", "", "Pooling of words or tokens into a line's vector (default: the model's).")
flags.DEFINE_bool("normalize", None, "Divide vectors by their lengths (default: as --init_from says, else not).")
flags.DEFINE_float("sif_a", 1e-3, "The a of --pooling=sif's a / (a + p(w)).")
flags.DEFINE_integer("num_words", 16, "Words of a line that --pooling=concatenation joins.", lower_bound=1)
flags.DEFINE_integer("num_components", 2, "Components that --pooling=components joins.", lower_bound=1)


def main(argv: Sequence[str]) -> int:
  command.parse(argv)
  if bool(FLAGS.workdir) == bool(FLAGS.init_from):
    raise InputError("--workdir and --init_from: give one of them" if FLAGS.workdir else
                     "--workdir is missing, or --init_from")
  for name in ("input", "output"):
    if not FLAGS[name].value:
      raise InputError(f"--{name} is missing")
  command.check_output(FLAGS.output, FLAGS.input)
  index = FLAGS.output.removesuffix(".npy") + ".rows.tsv"
  command.check_output(index, FLAGS.input)
  from etils import epath

  from embeddings_jax import extensions
  from embeddings_jax.runs import row_index, workdir
  from embeddings_jax.runs.load import load, load_run

  if FLAGS.extension:
    extensions.extend(FLAGS.extension)
  run = load(FLAGS.init_from) if FLAGS.init_from else load_run(FLAGS.workdir)
  encoder = run.encoder
  items, places = encoder.read_indexed(FLAGS.input, FLAGS.errors)
  of_words = {"sif_a": FLAGS.sif_a, "num_words": FLAGS.num_words, "num_components": FLAGS.num_components}
  vectors = run.embed(items, pooling=FLAGS.pooling, normalize=FLAGS.normalize,
                      **(of_words if FLAGS.pooling and encoder.names is not None else {}))
  workdir.write_array(epath.Path(FLAGS.output), vectors)
  row_index.write(index, row_index.of_items(items, places))
  origin = FLAGS.init_from or f"step {run.step} of {FLAGS.workdir}"
  print(f"{FLAGS.output}: {vectors.shape[0]} x {vectors.shape[1]} {vectors.dtype}, from {origin}")
  print(f"{index}: what the rows are")
  unknown = int((~vectors.any(axis=1)).sum())
  if unknown:
    print(f"{unknown} rows are 0: the encoder knows nothing of these items")
  return 0


if __name__ == "__main__":
  command.call(main)
