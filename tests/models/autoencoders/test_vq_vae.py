"""VQ-VAE: gradients of a plain loop, averages on eight devices, decoding of every form of code, usage."""
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from embeddings_jax.eval.codebook import codebook
from embeddings_jax.models.autoencoders.vq_vae import vq_vae
from embeddings_jax.types import InputError

SMALL = dict(height=4, width=4, channels=1, widths=(3,), num_blocks=1, dim=2, num_codes=5, variance=0.5,
             optimizer=optax.sgd(0.1))


def batch(number=6):
  images = np.random.default_rng(0).integers(0, 256, (number, 4, 4, 1)).astype(np.uint8)
  return {"image": jnp.asarray(images), "mask": jnp.asarray((np.arange(number) < number - 1).astype(np.float32))}


def test_gradients_and_codebook_equal_a_plain_loop():
  """The loop finds codes and averages one by one; its objective has q(z) - z as numbers that were found before."""
  model = vq_vae(**SMALL, revival=0.0)
  state = model.init(jax.random.key(0), batch())
  images = np.asarray(batch()["image"], np.float32)[:5] / 255
  z = np.asarray(jax.jit(_networks(SMALL)[0].apply)({"params": state.params["encoder"]}, jnp.asarray(images)))
  book = z.reshape(-1, 2)[::4] + 0.01
  state = state._replace(extra={**state.extra, "codebook": jnp.asarray(book)})
  new, metrics = jax.jit(model.update)(state, batch(), jax.random.key(1))
  codes = np.zeros((5, 2, 2), int)
  counts, sums = np.zeros(5), np.zeros((5, 2))
  for n, i, j in np.ndindex(5, 2, 2):
    codes[n, i, j] = min(range(5), key=lambda k: np.square(z[n, i, j] - book[k]).sum())
    counts[codes[n, i, j]] += 0.01
    sums[codes[n, i, j]] += 0.01 * z[n, i, j]
  np.testing.assert_array_equal(np.asarray(jax.jit(model.outputs["codes"])(state, batch()))[:5], codes)
  assert len(np.unique(codes)) > 2
  np.testing.assert_allclose(np.asarray(new.extra["counts"]), counts, atol=1e-6)
  for k in range(5):
    expected = sums[k] / counts[k] if counts[k] else book[k]
    np.testing.assert_allclose(np.asarray(new.extra["codebook"])[k], expected, atol=1e-5)
  vectors = book[codes]

  def objective(params):
    encoder, decoder = _networks(SMALL)
    actual = encoder.apply({"params": params["encoder"]}, jnp.asarray(images))
    back = decoder.apply({"params": params["decoder"]}, actual + (vectors - z))
    return jnp.square(images - back).mean() / 0.5 + 0.25 * jnp.square(actual - vectors).mean()

  value, slopes = jax.jit(jax.value_and_grad(objective))(state.params)
  assert metrics["loss"] == pytest.approx(float(value), rel=1e-5)
  jax.tree.map(lambda old, moved, slope: np.testing.assert_allclose(
      np.asarray(moved), np.asarray(old) - 0.1 * np.asarray(slope), atol=1e-6), state.params, new.params, slopes)


def _networks(options):
  from embeddings_jax.nets.quantized import MapDecoder, MapEncoder

  return (MapEncoder(options["dim"], options["widths"], options["num_blocks"]),
          MapDecoder(options["channels"], options["widths"], options["num_blocks"]))


@pytest.mark.parametrize("levels", [(), (3, 4)])
def test_every_form_of_code_is_decoded_alike(levels):
  model = vq_vae(**SMALL | dict(widths=(8,)), levels=levels)
  state = model.init(jax.random.key(0), batch())

  @jax.jit
  def everything(state):
    state, metrics = model.update(state, batch(), jax.random.key(0))
    codes, vectors = model.outputs["codes"](state, batch()), model.embed(state, batch())
    forms = (codes, codes.reshape(6, 4), vectors, vectors + 0.1 * bool(levels))
    return (metrics, codes, vectors, [model.outputs["decode"](state, form) for form in forms],
            model.outputs["reconstruct"](state, batch())["reconstructed"])

  metrics, codes, vectors, decoded, expected = everything(state)
  assert codes.shape == (6, 2, 2) and codes.dtype == jnp.int32 and 0 <= codes.min() <= codes.max() < 12
  assert vectors.shape == (6, 8) and metrics["gradient_norm"] > 0
  for actual in decoded:
    np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_scalars_have_a_gradient_from_the_start():
  """Where all rounded numbers are 0, as in small networks at first, the encoder learns all the same."""
  model = vq_vae(**SMALL, levels=(3, 4))
  state = model.init(jax.random.key(0), batch())
  slopes = jax.jit(jax.grad(lambda params: model.outputs["training_loss"](
      state._replace(params=params), batch(), jax.random.key(0))))(state.params)
  assert np.abs(slopes["encoder"]["code"]["bias"]).min() > 0


def test_planted_patterns_are_learned():
  """Images of four quadrants, each with one of 4 patterns, by a codebook of 8; the mean image has an error of .25."""
  rng = np.random.default_rng(2)
  patterns = np.array([[[0, 0], [0, 0]], [[1, 1], [1, 1]], [[1, 0], [1, 0]], [[0, 1], [0, 1]]]) * 255
  chosen = rng.integers(0, 4, (64, 2, 2))
  images = patterns[chosen].transpose(0, 1, 3, 2, 4).reshape(64, 4, 4, 1).astype(np.uint8)
  model = vq_vae(**SMALL | dict(num_codes=8, dim=4, widths=(16,), optimizer=optax.adam(1e-2)), decay=0.9)
  data = {"image": jnp.asarray(images), "mask": jnp.ones(64)}
  state = model.init(jax.random.key(0), data)
  step = lambda state, rng: model.update(state, data, rng)
  state, metrics = jax.jit(lambda state: jax.lax.scan(step, state, jax.random.split(jax.random.key(1), 300)))(state)
  assert metrics["reconstruction_loss"][-1] < 0.01
  assert metrics["perplexity"][-1] > 3.5
  assert metrics["usage"][-1] == 1


def test_usage_by_hand():
  """Four images of two codes: 0 three times as often as 3, of 8 codes."""
  codes = np.array([[0, 0], [0, 3], [0, 0], [0, 3]])
  data = type("Data", (), {"items": np.zeros((4, 1)), "split": {"test": np.arange(4)}})
  actual = codebook(None, data, codes=lambda batch: np.pad(codes, ((0, 252), (0, 0)), constant_values=7), num_codes=8,
                    encode=lambda items: {"x": np.asarray(items), "mask": np.ones(len(items))})
  entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
  assert actual == {"test/usage": 0.25, "test/code_perplexity": pytest.approx(np.exp(entropy)),
                    "test/bits_per_image": pytest.approx(2 * entropy / np.log(2))}


@pytest.mark.parametrize("options, message", [
    (dict(height=6, widths=(3, 3)), "do not divide images of 6 x 4 pixels"),
    (dict(levels=(8, 1)), r"levels=\(8, 1\): must be at least 2 each"),
    (dict(num_codes=1), "num_codes=1"),
    (dict(revival=1.0), "revival=1.0"),
])
def test_mistakes(options, message):
  with pytest.raises(InputError, match=message):
    vq_vae(**SMALL | options)
