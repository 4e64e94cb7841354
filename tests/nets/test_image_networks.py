"""Encoders and decoders of images: the table of Foster's book, torch's values, adjoints, checkerboards."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from embeddings_jax.nets.images import autoencoder_networks
from embeddings_jax.ops.image_quality import checkerboard
from embeddings_jax.ops.kernels import convolution, reference
from embeddings_jax.types import InputError

BOOK = dict(widths=(32, 64, 64, 64), strides=(1, 2, 2, 1))


def array(*shape, seed=0):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.mark.parametrize("size,stride,features", [
    (3, 1, 5), (3, 1, 2), (4, 1, 2), (3, 2, 5), (5, 2, 2), (4, 2, 5), (2, 3, 5), (3, 3, 5)])
def test_convolutions_equal_the_plain_form_and_are_adjoint(size, stride, features):
  x, kernel = array(2, 2 * stride, 3 * stride, 3), array(size, size, 3, features, seed=1)
  y = array(2, 2, 3, features, seed=2)

  @jax.jit
  def values_and_slopes(x, y, kernel):
    actual = []
    for form in (convolution, reference):
      for fn, argument, direction in ((form.convolve, x, y), (form.convolve_transposed, y, x)):
        value, pull = jax.vjp(lambda a, k, fn=fn: fn(a, k, stride), argument, kernel)
        actual.append((value, *pull(direction)))
    return actual

  found = values_and_slopes(x, y, kernel)
  for fast, plain in zip(found[:2], found[2:]):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), fast, plain)
  forward, back = (np.asarray(found[i][0], np.float64) for i in (0, 1))
  np.testing.assert_allclose((forward * y).sum(), (back * x).sum(), rtol=1e-6, atol=1e-6 * np.abs(forward * y).sum())


def test_shapes_and_parameters_are_the_table_s():
  encoder, decoder = autoencoder_networks((28, 28, 1), 2, **BOOK)
  image, code = jax.ShapeDtypeStruct((1, 28, 28, 1), jnp.float32), jax.ShapeDtypeStruct((1, 2), jnp.float32)
  (codes, actual), (images, back) = (
      jax.eval_shape(net.init_with_output, jax.random.key(0), x) for net, x in ((encoder, image), (decoder, code)))
  count = lambda tree: sum(x.size for x in jax.tree.leaves(tree))
  assert (count(actual), count(back)) == (98_946, 102_017)
  assert codes.shape == (1, 2) and images.shape == (1, 28, 28, 1)
  kernels = lambda params: [params["params"][f"conv_{i}"]["kernel"].shape[2:] for i in range(4)]
  assert kernels(actual) == [(1, 32), (32, 64), (64, 64), (64, 64)]
  assert kernels(back) == [(64, 64), (64, 64), (32, 64), (1, 32)]  # Channels out, channels in.


def torch_networks(torch, seed=0):
  """The table's networks in torch; strided convolutions have the (0, 1) padding of "same"."""
  nn = torch.nn
  torch.manual_seed(seed)
  leaky = lambda: nn.LeakyReLU(0.3)
  down = lambda a, b: (nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(a, b, 3, 2))

  class Up(nn.ConvTranspose2d):  # The adjoint of `down`: the last row and column are cut off.
    def forward(self, x):
      return super().forward(x)[:, :, :-1, :-1]

  encoder = nn.Sequential(
      nn.Conv2d(1, 32, 3, 1, 1), leaky(), *down(32, 64), leaky(), *down(64, 64), leaky(), nn.Conv2d(64, 64, 3, 1, 1),
      leaky(), nn.Flatten(), nn.Linear(3136, 2))
  decoder = nn.Sequential(
      nn.Linear(2, 3136), nn.Unflatten(1, (64, 7, 7)), nn.ConvTranspose2d(64, 64, 3, 1, 1), leaky(),
      Up(64, 64, 3, 2), leaky(), Up(64, 32, 3, 2), leaky(), nn.ConvTranspose2d(32, 1, 3, 1, 1))
  return encoder, decoder


def from_torch(encoder, decoder, value=lambda p: p):
  """Our parameters of the table's networks; theirs flatten channels first."""
  get = lambda p: jnp.asarray(value(p).detach().numpy())
  actual = {"encoder": {}, "decoder": {}}
  for name, net in (("encoder", encoder), ("decoder", decoder)):
    layers = [m for m in net if hasattr(m, "weight")]
    convs = [m for m in layers if m.weight.ndim == 4]
    for i, m in enumerate(convs):  # [out, in, h, w], of a transposed one [in, out, h, w].
      actual[name][f"conv_{i}"] = {"kernel": get(m.weight).transpose(2, 3, 1, 0), "bias": get(m.bias)}
    line, = [m for m in layers if m.weight.ndim == 2]
    kernel = get(line.weight).T
    if name == "encoder":
      kernel, bias = kernel.reshape(64, 7, 7, 2).transpose(1, 2, 0, 3).reshape(-1, 2), get(line.bias)
    else:
      kernel = kernel.reshape(2, 64, 7, 7).transpose(0, 2, 3, 1).reshape(2, -1)
      bias = get(line.bias).reshape(64, 7, 7).transpose(1, 2, 0).reshape(-1)
    actual[name]["code"] = {"kernel": kernel, "bias": bias}
  return actual


@pytest.mark.parity
def test_output_loss_and_gradients_are_torch_s():
  import torch

  theirs = torch_networks(torch)
  params = from_torch(*theirs)
  ours = dict(zip(("encoder", "decoder"), autoencoder_networks((28, 28, 1), 2, **BOOK)))
  x = jnp.asarray(np.random.default_rng(0).random((5, 28, 28, 1)), jnp.float32)

  def run(params, x):
    codes = ours["encoder"].apply({"params": params["encoder"]}, x)
    return codes, jax.nn.sigmoid(ours["decoder"].apply({"params": params["decoder"]}, codes))

  images = torch.tensor(np.asarray(x).transpose(0, 3, 1, 2))
  their_codes = theirs[0](images)
  output = torch.sigmoid(theirs[1](their_codes))
  loss = ((output - images) ** 2).mean()
  loss.backward()
  codes, actual = jax.jit(run)(params, x)
  np.testing.assert_allclose(codes, their_codes.detach().numpy(), atol=1e-5)
  np.testing.assert_allclose(actual.transpose(0, 3, 1, 2), output.detach().numpy(), atol=1e-5)
  value, slopes = jax.jit(jax.value_and_grad(lambda params: jnp.square(run(params, x)[1] - x).mean()))(params)
  assert abs(float(value) - loss.item()) < 1e-5
  expected = from_torch(*theirs, value=lambda p: p.grad)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * float(jnp.abs(b).max())), slopes, expected)


def test_transposed_convolutions_leave_a_checkerboard_and_resizing_does_not():
  """With equal taps on a constant map 1, 2 or 4 reach a pixel; resized, all pixels within the border are equal."""
  ones, kernel = jnp.ones((1, 8, 8, 1)), jnp.ones((3, 3, 1, 1))
  inner = lambda x: x[:, 2:-2, 2:-2]
  actual = inner(convolution.convolve_transposed(ones, kernel, 2))
  assert set(np.unique(actual)) == {1, 2, 4} and float(checkerboard(actual, 2)[0]) == pytest.approx(1)
  resized = jnp.repeat(jnp.repeat(ones, 2, 1), 2, 2)
  assert np.ptp(inner(convolution.convolve(resized, kernel))) == 0
  sizes = {}
  for upsampling in ("transposed", "resize"):
    _, decoder = autoencoder_networks((16, 16, 1), 4, widths=(8, 8), strides=(2, 2), upsampling=upsampling)
    images, _ = decoder.init_with_output(jax.random.key(0), array(200, 4))
    sizes[upsampling] = float(checkerboard(images, 2).mean())
  assert sizes["resize"] < 0.25 * sizes["transposed"], sizes


def test_checkerboard_is_the_spectrum_s_share():
  """By the discrete Fourier transform; white noise has (s^2 - 1) / (H W - 1)."""
  x = np.random.default_rng(0).normal(size=(400, 12, 6, 1)).astype(np.float32)
  power = np.abs(np.fft.fft2(x[..., 0])) ** 2
  power[:, 0, 0] = 0
  expected = power[:, ::4, ::2].sum((1, 2)) / power.sum((1, 2))  # Multiples of 12 / 3 and 6 / 3.
  actual = np.asarray(checkerboard(jnp.asarray(x), 3))
  np.testing.assert_allclose(actual, expected, rtol=1e-3)
  assert actual.mean() == pytest.approx(8 / 71, rel=0.1)


@pytest.mark.parametrize("options,message", [
    (dict(widths=(4, 4), strides=(2, 3)), "do not divide images of 28 x 28"),
    (dict(widths=(4,), strides=(2, 2)), "must be equally many"),
    (dict(widths=(0,), strides=(2,)), "at least 1"),
    (dict(widths=(4,), strides=(2,), upsampling="bilinear"), "one of transposed, resize"),
])
def test_bad_hyperparameters_are_one_line(options, message):
  with pytest.raises(InputError, match=message):
    autoencoder_networks((28, 28, 1), 2, **options)
