"""Shows what the random changes of images do: `python -m experiments.augmentations --figure=FILE.png`.

Of two photographs, or with --data=cifar10-jpeg of any set of images. Each change is made for certain here, while
SimCLR's and BYOL's whole augmentations have the probabilities of their papers.
"""
from collections.abc import Mapping, Sequence

from absl import flags

from embeddings_jax.errors import InputError
from embeddings_jax.runs import presets
from experiments import command

FLAGS = flags.FLAGS

flags.DEFINE_string("data", "", "Image dataset: a name of the catalog, or your files; default: two photographs.")
flags.DEFINE_string("data_dir", "", "Directory of the catalog's files (default: $EMBEDDINGS_DATA).")
flags.DEFINE_string("cache_dir", "",
                    "Directory of derived data (default: $EMBEDDINGS_CACHE, ~/.cache/embeddings_jax).")
flags.DEFINE_string("figure", "", "File to write, a PNG.")
flags.DEFINE_integer("num_images", 2, "Number of images to show, drawn by --seed.", lower_bound=1)
flags.DEFINE_integer("size", 96, "Height of the photographs, in pixels.", lower_bound=16, upper_bound=427)
flags.DEFINE_integer("seed", 0, "Random seed.", lower_bound=0, upper_bound=presets.MAX_SEED)


def main(argv: Sequence[str]) -> int:
  command.parse(argv)
  if not FLAGS.figure:
    raise InputError("--figure is missing: the file to write, a PNG")
  import numpy as np

  from embeddings_jax.data import catalog
  from embeddings_jax.data.images import as_images
  from embeddings_jax.figures import pictures

  if FLAGS.data:
    items = as_images(catalog.load(FLAGS.data, data_dir=FLAGS.data_dir or None,
                                   cache_dir=FLAGS.cache_dir or None)).items
    if items.shape[1] != items.shape[2]:
      raise InputError(f"--data={FLAGS.data}: images of {items.shape[1]} x {items.shape[2]} pixels; must be square")
    chosen = np.random.default_rng(FLAGS.seed).permutation(len(items))[:FLAGS.num_images]
    images = np.asarray(items[np.sort(chosen)])
  else:
    images = photographs(FLAGS.size)[:FLAGS.num_images]
  pictures.draw_augmentations(FLAGS.figure, images, changes(images.shape[1]), seed=FLAGS.seed)
  print(FLAGS.figure, flush=True)
  return 0


def photographs(size: int):
  """scikit-learn's two photographs (CC BY): the square in their middle, uint8 [2, size, size, 3]."""
  import numpy as np
  from sklearn import datasets

  from embeddings_jax.data.images import from_pixels

  images = datasets.load_sample_images()
  return np.stack([from_pixels(*picture, 3, (size, size)) for picture in zip(images.images, images.filenames)])


def changes(size: int) -> Mapping:
  """The changes of `ops/augment.py` for square images of `size` pixels, by what they are called."""
  from embeddings_jax.ops import augment

  return {
      "crop and resize": augment.random_resized_crop(size),
      "shift": augment.random_shift(size // 8),
      "flip": augment.horizontal_flip(1.0),
      "rotation": augment.rotation(1.0),
      "cutout": augment.cutout(size // 2, 1.0),
      "color drop": augment.color_drop(1.0),
      "color jitter": augment.color_jitter(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2),
      "solarization": augment.solarize(0.5),
      "Gaussian noise": augment.gaussian_noise(0.1, 1.0),
      "Gaussian blur": augment.gaussian_blur(2 * (size // 20) + 1, sigma=(1.0, 2.0)),
      "Sobel filter": augment.sobel(1.0),
      "SimCLR": augment.simclr_augmentation(size),
      "BYOL, first view": augment.byol_augmentation(size, view=0),
      "BYOL, second view": augment.byol_augmentation(size, view=1),
  }


if __name__ == "__main__":
  command.call(main)
