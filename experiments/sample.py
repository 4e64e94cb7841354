"""Draws samples from a trained model, as text or as images.

  text     python -m experiments.sample --workdir=W --prompt='Return the'
  images   python -m experiments.sample --workdir=W --num=64 --output=FILE.png
           python -m experiments.sample --workdir=W --interpolate=3,17 --steps=12 --output=FILE.png
  texts    python -m experiments.sample --workdir=W --reconstruct='A sentence.'
           python -m experiments.sample --workdir=W --interpolate='A sentence.|Another one.'

A language model continues a prompt; without one a document is begun. With --init_from=DIR the network of a Hugging
Face directory is used. Models of images draw codes (--codes) and decode them: of a VAE from its prior, of an
autoencoder from a density fitted to the codes of its training images. --interpolate names two of these images by
their number, or two image files. Autoencoders of text write a text anew, or the texts between two.
"""
from collections.abc import Sequence
from typing import Any

from absl import flags

from embeddings_jax.errors import InputError
from embeddings_jax.runs import presets
from experiments import command

FLAGS = flags.FLAGS

flags.DEFINE_string("workdir", "", "Work directory of a run.")
flags.DEFINE_string("init_from", "", "Directory of a pretrained network, instead of --workdir.")
flags.DEFINE_string("prompt", "", "Text to continue.")
flags.DEFINE_float("temperature", 1.0, "Divides the scores; 0 takes the likeliest token.", lower_bound=0.0)
flags.DEFINE_integer("top_k", 0, "Draws from this many of the likeliest tokens; 0: from all.", lower_bound=0)
flags.DEFINE_float("top_p", 1.0, "Draws from the likeliest tokens with this total probability.")
flags.DEFINE_integer("length", 100, "Largest number of tokens to add.", lower_bound=1)
flags.DEFINE_integer("num_samples", 1, "Number of continuations.", lower_bound=1)
flags.DEFINE_integer("num", 64, "Number of images.", lower_bound=1)
flags.DEFINE_string("output", "", "File for images: .png, side by side, or .npy, float32.")
flags.DEFINE_string("codes", "", "Distribution of the codes: prior, uniform, gaussian or mixture (default: the prior "
                    "where the model has one, else gaussian).")
flags.DEFINE_integer("num_components", 10, "Gaussians of --codes=mixture.", lower_bound=1)
flags.DEFINE_string("interpolate", "", "Two training images by number, or two image files, with a comma between; or "
                    "two texts with a | between.")
flags.DEFINE_string("reconstruct", "", "Text to encode and write again, by an autoencoder of text.")
flags.DEFINE_integer("steps", 12, "Images of --interpolate.", lower_bound=2)
flags.DEFINE_string("data_dir", None, "Directory of the catalog's files (default: $EMBEDDINGS_DATA).")
flags.DEFINE_string("cache_dir", None,
                    "Directory of derived data (default: $EMBEDDINGS_CACHE, ~/.cache/embeddings_jax).")
flags.DEFINE_integer("seed", 0, "Random seed.", lower_bound=0, upper_bound=presets.MAX_SEED)


def main(argv: Sequence[str]) -> int:
  command.parse(argv)
  origin = FLAGS.init_from or FLAGS.workdir
  if not origin or (FLAGS.init_from and FLAGS.workdir):
    raise InputError("--workdir or --init_from is missing" if not origin else
                     "--workdir and --init_from: give one of them")
  if FLAGS.output:
    command.check_output(FLAGS.output)
  from embeddings_jax.runs.load import load, load_run

  run = load(FLAGS.init_from) if FLAGS.init_from else load_run(FLAGS.workdir)
  if hasattr(run.encoder, "token_ids") and "sample" in run.model.outputs:
    return continue_text(run)
  if not {"sample", "decode"} & run.model.outputs.keys():
    raise InputError(f"{origin}: holds a {run.config['name']}, which draws no samples; gpt continues a text, "
                     "autoencoders and vae draw images")
  return draw_images(run)


def continue_text(run: Any) -> int:
  """Prints continuations of the prompt."""
  if FLAGS.reconstruct or FLAGS.interpolate:
    return rewrite(run)
  options = {name: FLAGS[name].value for name in ("temperature", "top_k", "top_p")}
  for text in run.sample(FLAGS.num_samples, prompt=FLAGS.prompt, length=FLAGS.length, seed=FLAGS.seed, **options):
    print(text, flush=True)
    if FLAGS.num_samples > 1:
      print("-" * 20)
  return 0


def rewrite(run: Any) -> int:
  """Prints a text written anew, or the texts between two."""
  from embeddings_jax.runs import sampling

  if "reconstruct" not in run.model.outputs:
    raise InputError(f"--reconstruct, --interpolate: {run.config['name']} is no autoencoder of text")
  if FLAGS.reconstruct:
    texts = sampling.reconstruct_texts(run, [FLAGS.reconstruct])
  else:
    ends = [end.strip() for end in FLAGS.interpolate.split("|")]
    if len(ends) != 2 or not all(ends):
      raise InputError(f"--interpolate={FLAGS.interpolate}: must be two texts with a | between")
    texts = sampling.interpolate(run, *ends, FLAGS.steps)
  print("\n".join(texts))
  return 0


def draw_images(run: Any) -> int:
  """Writes samples, or a walk between two images."""
  from embeddings_jax.runs import build, sampling

  if not FLAGS.output:
    raise InputError("--output is missing: a .png or .npy file")
  dirs = {"data_dir": FLAGS.data_dir, "cache_dir": FLAGS.cache_dir}
  if FLAGS.interpolate:
    ends = [end.strip() for end in FLAGS.interpolate.split(",")]
    if len(ends) != 2:
      raise InputError(f"--interpolate={FLAGS.interpolate}: must be two numbers or files with a comma between")
    if all(end.isdecimal() for end in ends):
      items = build.read_dataset(run.config, encoder=run.encoder, **dirs).items
      if max(map(int, ends)) >= len(items):
        raise InputError(f"--interpolate={FLAGS.interpolate}: the data has {len(items)} images, numbered from 0")
      ends = [items[int(end)] for end in ends]
    images = sampling.interpolate(run, *ends, FLAGS.steps)
    columns = FLAGS.steps
  else:
    images = sampling.sample(run, FLAGS.num, codes=FLAGS.codes, num_components=FLAGS.num_components, seed=FLAGS.seed,
                             **dirs)
    columns = 0
  sampling.write_images(FLAGS.output, images, columns)
  print(f"{FLAGS.output}: {' x '.join(map(str, images.shape))}, from step {run.step} of "
        f"{FLAGS.workdir or FLAGS.init_from}")
  return 0


if __name__ == "__main__":
  command.call(main)
