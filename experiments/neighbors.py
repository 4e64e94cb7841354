"""Nearest words by cosine: `python -m experiments.neighbors --workdir=W --word=king`.

Several words: `--word=king,queen`. An analogy, man : king :: woman : ?, is `--positive=king,woman --negative=man`.
Documents: with a model of bags of words, --query='some text' names the documents of the run that are nearest to it.
With --vectors=FILE the words of a file are asked instead of a run's. A word is looked up as written, then in lower
case.
"""
from collections.abc import Sequence

from absl import flags

from embeddings_jax.errors import InputError
from experiments import command, vectors

FLAGS = flags.FLAGS

vectors.define_flags()
flags.DEFINE_list("word", [], "Words whose neighbors are listed, separated by commas.")
flags.DEFINE_list("positive", [], "Words to add, separated by commas.")
flags.DEFINE_list("negative", [], "Words to subtract, separated by commas.")
flags.DEFINE_string("query", "", "Text whose nearest documents are listed.")
flags.DEFINE_integer("k", 10, "Number of neighbors.", lower_bound=1)


def main(argv: Sequence[str]) -> int:
  command.parse(argv)
  if not (FLAGS.word or FLAGS.positive or FLAGS.negative or FLAGS.query):
    raise InputError("--word is missing, or --positive and --negative, or --query")
  if FLAGS.query and (FLAGS.word or FLAGS.positive or FLAGS.negative):
    raise InputError("--query and --word: give one of them")
  if FLAGS.query and not FLAGS.workdir:
    raise InputError("--query needs --workdir=W, the work directory of a run")
  run, _ = vectors.load()
  if FLAGS.query:
    if run.encoder.names is not None:
      raise InputError(f"--query: {run.config['name']} is a model of words; ask by --word")
    answers = run.neighbors([FLAGS.query], k=FLAGS.k)
  else:
    answers = run.neighbors(FLAGS.word, positive=FLAGS.positive, negative=FLAGS.negative, k=FLAGS.k)
  for title, near in answers.items():
    if not FLAGS.query:
      print(title)
    for name, cosine in near:
      print(f"  {cosine:6.3f}  {name}")
  return 0


if __name__ == "__main__":
  command.call(main)
