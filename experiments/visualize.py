"""Shows what a network looks for: `python -m experiments.visualize --workdir=W --output=FOLDER`.

  --workdir=W       a run with a trunk of images: a convolutional network, a ResNet or a vision transformer
  --init_from=DIR   a Hugging Face directory of a vision transformer
  --init_from=FILE  a .safetensors file of VGG16's weights, in the layout of torchvision or timm

  filters    the filters of the first layer
  maps       all maps of a layer, for one image
  crops      the nine images of the dataset that excite each unit most, by receptive field
  ascent     an input that excites each unit, by gradient ascent
  cam        where it looks: class activation maps, Grad-CAM and, of a transformer, attention rollout
  inversion  images that have the features of given ones
  pairs      pairs of images that are the same class or not, with the cosine of their embeddings

`maps`, `cam` and `inversion` show --image, else images of the dataset; `crops` and `pairs` need a dataset: that of
the run, or --data. Each figure is a file FOLDER/NAME.png.
"""
from collections.abc import Sequence

from absl import flags

from embeddings_jax.errors import InputError
from embeddings_jax.runs import presets
from experiments import command

FLAGS = flags.FLAGS
SHOWN = ("filters", "maps", "crops", "ascent", "cam", "inversion", "pairs")

flags.DEFINE_string("workdir", "", "Work directory of a run.")
flags.DEFINE_string("init_from", "", "Hugging Face directory, or .safetensors file of VGG16's weights.")
flags.DEFINE_list("show", [], "Figures by name, with commas between (default: all that can be drawn).")
flags.DEFINE_string("layer", "", "Layer, as block_3 or block3_conv1 (default: the last one).")
flags.DEFINE_list("units", [], "Units of the layer by number (default: the first 64).")
flags.DEFINE_list("image", [], "Image files, instead of images of the dataset.")
flags.DEFINE_string("data", "", "Dataset of images (default: the run's own).")
flags.DEFINE_string("data_dir", None, "Directory of the catalog's files (default: $EMBEDDINGS_DATA).")
flags.DEFINE_string("cache_dir", None,
                    "Directory of derived data (default: $EMBEDDINGS_CACHE, ~/.cache/embeddings_jax).")
flags.DEFINE_string("output", "", "Folder of the figures (default: figures/seen in the work directory).")
flags.DEFINE_integer("num_images", 4096, "Images that `crops` searches.", lower_bound=9)
flags.DEFINE_integer("size", 0, "Side of the images of a file of weights (0: 224 pixels).", lower_bound=0)
flags.DEFINE_integer("steps", 128, "Steps of gradient ascent.", lower_bound=1)
flags.DEFINE_enum("parameterization", "fourier", ["fourier", "pixels"], "Parameters of the images that are ascended.")
flags.DEFINE_integer("jitter", 2, "Pixels by which `ascent` rolls images at most.", lower_bound=0)
flags.DEFINE_float("blur", 0.5, "Standard deviation of the blur of `ascent`, in pixels.", lower_bound=0.0)
flags.DEFINE_float("penalty", 0.0, "Weight of the squared norm in `ascent`.", lower_bound=0.0)
flags.DEFINE_float("variation", 20.0, "Weight of the differences of neighboring pixels in `ascent`.", lower_bound=0.0)
flags.DEFINE_integer("seed", 0, "Random seed.", lower_bound=0, upper_bound=presets.MAX_SEED)


def main(argv: Sequence[str]) -> int:
  command.parse(argv)
  if bool(FLAGS.workdir) == bool(FLAGS.init_from):
    raise InputError("--workdir and --init_from: give one of them")
  if not FLAGS.output and not FLAGS.workdir:
    raise InputError("--output is missing: a folder for the figures")
  for name in FLAGS.show:
    if name not in SHOWN:
      raise InputError(f"--show={name}: must be one of {', '.join(SHOWN)}")
  if not all(unit.isdecimal() for unit in FLAGS.units):
    raise InputError(f"--units={','.join(FLAGS.units)}: must be numbers from 0, with commas between")
  import pathlib

  from embeddings_jax.runs import portraits
  from embeddings_jax.runs.trunks import load_trunk

  trunk = load_trunk(FLAGS.workdir or FLAGS.init_from, size=FLAGS.size)
  portrait = portraits.Portrait(
      trunk, layer=FLAGS.layer, units=[int(unit) for unit in FLAGS.units], files=FLAGS.image, data=FLAGS.data,
      data_dir=FLAGS.data_dir, cache_dir=FLAGS.cache_dir, num_images=FLAGS.num_images, seed=FLAGS.seed,
      ascent=dict(steps=FLAGS.steps, parameterization=FLAGS.parameterization, jitter=FLAGS.jitter, blur=FLAGS.blur,
                  penalty=FLAGS.penalty, variation=FLAGS.variation))
  folder = pathlib.Path(FLAGS.output or f"{FLAGS.workdir}/figures/seen")
  for name in FLAGS.show or SHOWN:
    reason = portrait.lacks(name)
    if reason and FLAGS.show:
      raise InputError(f"--show={name}: {reason}")
    print(f"{name} is left out: {reason}" if reason else portrait.draw(name, folder), flush=True)
  return 0


if __name__ == "__main__":
  command.call(main)
