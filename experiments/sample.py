"""Lets a language model go on from a text: `python -m experiments.sample --workdir=W --prompt='Return the'`.

With --init_from=DIR the network of a Hugging Face directory is used. Without a prompt a document is begun.
"""
from collections.abc import Sequence

from absl import flags

from embeddings_jax.runs import presets
from embeddings_jax.types import InputError
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
  import jax
  import numpy as np

  from embeddings_jax.runs import pretrained

  found = pretrained.load(origin)
  if found.name != "gpt":
    raise InputError(f"{origin}: holds a {found.name}; only gpt goes on from a text")
  prompt, end = found.encoder.token_ids(FLAGS.prompt), found.encoder.facts.get("end_id")
  if end is not None:  # What begins a document follows the end of one.
    prompt = np.concatenate([[end], prompt])
  if not len(prompt):
    raise InputError("--prompt is missing: the tokenizer has no token that begins a text")
  longest = found.hyper["max_length"]
  length = min(FLAGS.length, longest)
  prompt = prompt[-(longest + 1 - length):]  # Of a long text the end counts.
  options = {name: FLAGS[name].value for name in ("temperature", "top_k", "top_p")}
  run = pretrained.as_run(found, sample_length=length, **options)
  tokens = np.tile(prompt.astype(np.int32), (FLAGS.num_samples, 1))
  with jax.set_mesh(jax.tree.leaves(run.state)[0].sharding.mesh):
    sampled = jax.jit(run.model.outputs["sample"])(run.state, {"tokens": tokens}, jax.random.key(FLAGS.seed))
  for row in np.asarray(sampled):
    print(FLAGS.prompt + found.encoder.decode(row[row != end] if end is not None else row), flush=True)
    if FLAGS.num_samples > 1:
      print("-" * 20)
  return 0


if __name__ == "__main__":
  command.call(main)
