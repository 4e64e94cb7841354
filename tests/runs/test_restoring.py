"""Restoration of single images: by interpolation, total variation, a network and the deep image prior."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import call
from PIL import Image

import embeddings_jax as ej
from embeddings_jax.ops.degradations import Degradation
from embeddings_jax.train.mesh import make_mesh


def disk(size=24):
  rows, columns = np.mgrid[:size, :size] - size / 2 + 0.5
  return np.where(np.hypot(rows, columns) < size / 3, 0.8, 0.2).astype(np.float32)[..., None]


def error(x, y):
  return float(np.square(x - y).mean())


@pytest.fixture(scope="module")
def run():
  images = np.rint(255 * np.stack([disk(8) * scale for scale in np.linspace(0.5, 1, 64)])).astype(np.uint8)
  return ej.fit("restoration", images, preset="tiny", steps=10, mesh=make_mesh("data:1", jax.devices()[:1]),
                data_options={"validation_fraction": 0.0})


def test_guesses_and_total_variation():
  clean, rng = disk(), np.random.default_rng(0)
  noisy = np.clip(clean + 0.1 * rng.normal(size=clean.shape), 0, 1)
  actual = ej.restore(noisy, "denoise", method="total_variation", weight=0.1).image
  assert error(clean, actual) < 0.2 * error(clean, noisy)
  mask = rng.random((24, 24)) < 0.5
  actual = ej.restore(clean * mask[..., None], "inpaint", method="total_variation", mask=mask).image
  assert actual.shape == clean.shape and error(clean, actual) < 0.01
  small = np.asarray(Degradation("superres").forward(jnp.asarray(clean[None])))[0]
  actual = ej.restore(np.clip(small, 0, 1), "superres", method="guess").image
  expected = Image.fromarray(np.clip(small, 0, 1)[..., 0]).resize((24, 24), Image.Resampling.BICUBIC)
  np.testing.assert_allclose(actual[..., 0], np.clip(expected, 0, 1), atol=1e-5)


def test_a_network_restores_images_of_other_sizes(run):
  """Sides are padded to what its strides divide, and cropped again; inside, the padding changes nothing."""
  image = disk(24)[:21, :19]
  actual = ej.restore(image, "denoise", run=run).image
  assert actual.shape == image.shape
  whole = ej.restore(np.pad(image, ((0, 1), (0, 1), (0, 0)), mode="edge"), "denoise", run=run).image
  np.testing.assert_allclose(actual, whole[:21, :19], atol=1e-6)
  with pytest.raises(ej.InputError, match="trained for 'denoise'"):
    ej.restore(image, "superres", run=run)
  with pytest.raises(ej.InputError, match="needs a run of the model 'restoration'"):
    ej.restore(image, "denoise", method="network")
  with pytest.raises(ej.InputError, match="image: has 3 channels"):
    ej.restore(np.repeat(image, 3, -1), "denoise", run=run)


def test_the_deep_image_prior_of_an_odd_size():
  clean = disk(16)[:13, :15]
  noisy = np.clip(clean + 0.2 * np.random.default_rng(0).normal(size=clean.shape), 0, 1)
  actual = ej.restore(noisy, "denoise", clean=clean, steps=100, widths=(8, 8), code_channels=4, burn_in=20, decay=0.9,
                      held_out=0.1)
  assert actual.steps == 100 and set(actual.others) == {"by_variance", "by_held_out", "latest", "oracle"}
  np.testing.assert_array_equal(actual.image, actual.others["by_held_out"])
  assert actual.image.shape == clean.shape
  oracle = error(clean, actual.others["oracle"])
  assert oracle <= error(clean, actual.image) and oracle < 0.7 * error(clean, noisy)


@pytest.mark.parametrize("image,task,options,message", [
    (disk(), "inpaint", {}, "needs a mask"), (disk(), "inpaint", dict(mask=np.ones((3, 3))), "they must be equal"),
    (disk(), "inpaint", dict(mask=np.zeros((24, 24))), "nothing is visible"), (disk() * 3, "denoise", {}, "floats"),
    (disk(), "deblur", {}, "task='deblur'"), (disk(), "denoise", dict(method="magic"), "magic"),
])
def test_bad_input_is_one_line(image, task, options, message):
  with pytest.raises(ej.InputError, match=message):
    ej.restore(image, task, **options)


def test_the_command_degrades_restores_and_measures(tmp_path):
  file, output = tmp_path / "disk.png", tmp_path / "o.png"
  Image.fromarray(np.rint(255 * disk()[..., 0]).astype(np.uint8)).save(file)
  done = call("restore", "--method=total_variation", "--task=denoise", f"--input={file}", "--degrade",
              f"--output={output}")
  assert done.returncode == 0, done.stderr
  values = {line.split()[0]: float(line.split()[-2]) for line in done.stdout.splitlines() if line.endswith("dB")}
  assert values["guess"] == pytest.approx(20.5, abs=0.7) and values["total_variation"] > values["guess"] + 3
  assert Image.open(output).size == (24, 24)
