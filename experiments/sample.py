"""Lets a language model go on from a text: `python -m experiments.sample --workdir=W --prompt='Return the'`.

With --init_from=DIR the network of a Hugging Face directory is used. Without a prompt a document is begun.
"""
from collections.abc import Sequence

from absl import flags

from embeddings_jax.errors import InputError
from embeddings_jax.runs import presets
from experiments import command

FLAGS = flags.FLAGS

flags.DEFINE_string("workdir", "", "Work directory of a run.")
flags.DEFINE_string("init_from", "", "Directory of a pretrained network, instead of --workdir.")
flags.DEFINE_string("prompt", "", "Text to go on from.")
flags.DEFINE_float("temperature", 1.0, "Divides the scores; 0 takes the likeliest token.", lower_bound=0.0)
flags.DEFINE_integer("top_k", 0, "Draw from these many tokens only; 0: from all.", lower_bound=0)
flags.DEFINE_float("top_p", 1.0, "Draw from the likeliest tokens that have this probability together.")
flags.DEFINE_integer("length", 100, "Tokens to add, at most.", lower_bound=1)
flags.DEFINE_integer("num_samples", 1, "Continuations.", lower_bound=1)
flags.DEFINE_integer("seed", 0, "Seed.", lower_bound=0, upper_bound=presets.MAX_SEED)


def main(argv: Sequence[str]) -> int:
  command.parse(argv)
  origin = FLAGS.init_from or FLAGS.workdir
  if not origin or (FLAGS.init_from and FLAGS.workdir):
    raise InputError("--workdir or --init_from is missing" if not origin else
                     "--workdir and --init_from: give one of them")
  from embeddings_jax.runs.load import load, load_run

  run = load(FLAGS.init_from) if FLAGS.init_from else load_run(FLAGS.workdir)
  if not hasattr(run.encoder, "token_ids") or "sample" not in run.model.outputs:
    raise InputError(f"{origin}: holds a {run.config['name']}; only gpt continues a text")
  options = {name: FLAGS[name].value for name in ("temperature", "top_k", "top_p")}
  for text in run.sample(FLAGS.num_samples, prompt=FLAGS.prompt, length=FLAGS.length, seed=FLAGS.seed, **options):
    print(text, flush=True)
    if FLAGS.num_samples > 1:
      print("-" * 20)
  return 0


if __name__ == "__main__":
  command.call(main)
