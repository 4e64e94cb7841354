"""Joins frequent phrases of a corpus into words, as word2phrase does.

  python -m experiments.phrases --input=corpus.txt --output=phrases.txt.gz [--passes=2]
  python -m experiments.run --model=sgns --data=phrases.txt.gz --config.data.normalize=spaces

Words are split as `--normalize` says; a line of the input is a line of the output, and no phrase crosses it.
"""
from collections.abc import Iterator, Sequence

from absl import flags

from embeddings_jax.errors import InputError
from experiments import command

FLAGS = flags.FLAGS

flags.DEFINE_string("input", "", "Text file, perhaps compressed by gz, xz, bz2 or zst.")
flags.DEFINE_string("output", "", "Text file to write; compressed by .gz, .xz or .bz2.")
flags.DEFINE_enum("normalize", "lower", ["a-z", "lower", "cased", "spaces"], "How text is split into words.")
flags.DEFINE_integer("passes", 1, "Passes over the corpus; two join phrases of up to four words.", lower_bound=1)
flags.DEFINE_integer("min_count", 5, "Occurrences below which a pair is no phrase.", lower_bound=1)
flags.DEFINE_float("threshold", 100.0, "Score that a phrase exceeds; the higher, the fewer phrases.")


def main(argv: Sequence[str]) -> int:
  command.parse(argv)
  for name in ("input", "output"):
    if not FLAGS[name].value:
      raise InputError(f"--{name} is missing")
  command.check_output(FLAGS.output, FLAGS.input)
  from embeddings_jax.data.files.atomic import replacing_compressed
  from embeddings_jax.data.files.streams import read_lines
  from embeddings_jax.data.phrases import JOINER, join_phrases
  from embeddings_jax.data.words import split_words

  def lines() -> Iterator[list[str]]:
    return (split_words(line, FLAGS.normalize) for line in read_lines(FLAGS.input))

  number = phrases = 0
  with replacing_compressed(FLAGS.output) as out:
    for line in join_phrases(lines, passes=FLAGS.passes, min_count=FLAGS.min_count, threshold=FLAGS.threshold):
      number += len(line)
      phrases += sum(JOINER in word for word in line)
      out.write((" ".join(line) + "\n").encode())
  print(f"{FLAGS.output}: {number:,} words, {phrases:,} of them phrases")
  return 0


if __name__ == "__main__":
  command.call(main)
