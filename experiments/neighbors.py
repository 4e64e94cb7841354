"""Nearest words by cosine: `python -m experiments.neighbors --workdir=W --word=king`.

Several words: `--word=king,queen`. An analogy, man : king :: woman : ?, is `--positive=king,woman --negative=man`.
Documents: with a model of bags of words, --query='some text' names the documents of the run that are nearest to it.
With --vectors=FILE the words of a file are asked instead of a run's. A word is looked up as written, then in lower
case.
"""
from collections.abc import Sequence

from absl import flags

from embeddings_jax.types import InputError
from experiments import command, vectors

FLAGS = flags.FLAGS

vectors.define_flags()
flags.DEFINE_list("word", [], "Words whose neighbours are wanted, separated by commas.")
flags.DEFINE_list("positive", [], "Words to add up, separated by commas.")
flags.DEFINE_list("negative", [], "Words to take away from them.")
flags.DEFINE_string("query", "", "A text, whose nearest documents are wanted.")
flags.DEFINE_integer("k", 10, "Number of neighbours.", lower_bound=1)


def main(argv: Sequence[str]) -> int:
  command.parse(argv)
  if FLAGS.query:
    return documents()
  if not (FLAGS.word or FLAGS.positive or FLAGS.negative):
    raise InputError("--word is missing, or --positive and --negative, or --query")
  from embeddings_jax.eval.neighbors import combination, neighbors
  from embeddings_jax.eval.word_similarity import known_form

  found, _ = vectors.load()
  vocabulary = dict.fromkeys(found.words)
  known = lambda words: [known_form(word.strip(), vocabulary) or word.strip() for word in words]
  answers = neighbors(found.vectors, found.words, known(FLAGS.word), k=FLAGS.k) if FLAGS.word else {}
  if FLAGS.positive or FLAGS.negative:
    positive, negative = known(FLAGS.positive), known(FLAGS.negative)
    title = " + ".join(positive) + "".join(f" - {word}" for word in negative)
    answers[title.strip()] = combination(found.vectors, found.words, positive=positive, negative=negative, k=FLAGS.k)
  for title, near in answers.items():
    print(title)
    for name, cosine in near:
      print(f"  {cosine:6.3f}  {name}")
  return 0


def documents() -> int:
  """Answers `--query` from the run's `embeddings.npy`, whose rows `vocabulary.txt` names."""
  import numpy as np

  from embeddings_jax.data import formats
  from embeddings_jax.data.files.names import read_names
  from embeddings_jax.eval.neighbors import combination
  from embeddings_jax.runs import build, inference

  if not FLAGS.workdir or FLAGS.vectors:
    raise InputError("--query needs --workdir=W of a model of bags of words")
  run = build.load_run(FLAGS.workdir)
  if run.encoder.kind != "bags":
    raise InputError(f"--query: --workdir={FLAGS.workdir} holds a model of {run.encoder.kind}, not of bags")
  vectors, listed = formats.read_npy(run.path / "embeddings.npy"), run.path / "vocabulary.txt"
  names = read_names(listed) if listed.exists() else [f"document {i}" for i in range(len(vectors))]
  if len(names) != len(vectors):
    raise InputError(f"{listed}: has {len(names)} names for the {len(vectors)} rows of embeddings.npy; evaluate the "
                     "run again to write both")
  query = inference.embedder(run.model, run.state, run.encoder)([FLAGS.query])
  if not query.any():
    raise InputError(f"--query={FLAGS.query!r}: none of its words is in the vocabulary")
  asked = "\0"  # Is no name of a document.
  for name, cosine in combination(np.concatenate([vectors, query]), [*names, asked], positive=[asked], k=FLAGS.k):
    print(f"  {cosine:6.3f}  {name}")
  return 0


if __name__ == "__main__":
  command.call(main)
