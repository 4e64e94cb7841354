"""The command that shows the changes of images."""
import inspect

import jax.numpy as jnp
import numpy as np
import pytest
from commands import call
from PIL import Image
from sklearn.datasets import load_sample_images

from embeddings_jax.figures import pictures
from embeddings_jax.ops import augment
from experiments import augmentations


def test_the_photographs_are_their_middle_shrunk():
  actual = augmentations.photographs(96)
  for picture, photograph in zip(actual, load_sample_images().images, strict=True):
    middle = (106.5, 0, 533.5, 427)  # Of 640 x 427 pixels.
    expected = Image.fromarray(photograph).resize((96, 96), Image.Resampling.BICUBIC, middle)
    np.testing.assert_array_equal(picture, np.asarray(expected))


def test_every_op_is_shown():
  shown = inspect.getsource(augmentations.changes)
  made = [name for name, function in inspect.getmembers(augment, inspect.isfunction)
          if inspect.signature(function).return_annotation is augment.Op and not name.startswith("_")]
  assert len(made) == 14  # With `compose`.
  assert all(f"augment.{name}(" in shown for name in made if name != "compose")


@pytest.mark.parametrize("channels", [1, 3])
def test_blocks_hold_the_originals_and_what_became_of_them(channels):
  import matplotlib

  matplotlib.use("Agg")
  from matplotlib import pyplot as plt

  images = np.random.default_rng(0).integers(0, 256, (2, 6, 6, channels), np.uint8)
  ops = {"negative": lambda rng, image: 1 - image, "black": lambda rng, image: jnp.zeros_like(image)}
  figure = pictures.augmentations(plt, images, ops, 3, 0)
  blocks = {axes.get_title(): axes.images[0].get_array() for axes in figure.axes}
  plt.close(figure)
  assert list(blocks) == ["original", "negative", "black"]
  pixels = {name: block.reshape(2, 8, -1, 8, 3)[:, :6, :, :6] for name, block in blocks.items()}
  shown = np.broadcast_to(images / 255, (2, 6, 6, 3))
  np.testing.assert_allclose(pixels["original"][:, :, 0], shown, atol=1e-6)
  np.testing.assert_allclose(pixels["negative"], np.repeat(1 - shown[:, :, None], 3, 2), atol=1e-6)
  assert pixels["black"].shape == (2, 6, 3, 6, 3) and not pixels["black"].any()


def test_the_command_writes_a_picture(tmp_path):
  done = call("augmentations", "--data=digits", "--num_images=1", f"--figure={tmp_path / 'a.png'}")
  assert done.returncode == 0, done.stderr
  with Image.open(tmp_path / "a.png") as picture:
    assert picture.format == "PNG" and picture.width > 500


@pytest.mark.parametrize("arguments, message", [
    ([], "--figure is missing"),
    (["--figure=a.png", "--data=wine"], "--data=wine: holds rows, which are no images"),
])
def test_mistakes(arguments, message, tmp_path):
  done = call("augmentations", *arguments, cwd=tmp_path)
  assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
  assert not list(tmp_path.iterdir())
