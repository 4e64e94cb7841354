"""Gradient ascent on images: the input that excites a unit most, and the image of given features.

Erhan et al. 2009; Yosinski et al. 2015, arXiv:1506.06579; Olah et al. 2017, "Feature Visualization"; for features
Mahendran & Vedaldi 2015, arXiv:1412.0035.

  x(z) = sigmoid(a(z)),   z <- z + Adam(dJ / dz),   J = f(jitter(x)) - λ mean (x - center)² - μ mean |gradient x|²

  symbol  name              meaning
  f       objective         what is made large, one number for each image
  a       parameterization  `pixels` a = z; `fourier` a = irfft(z / frequency) mixed into colors by their covariance
  λ       penalty           weight of the norm
  μ       variation         weight of the differences of neighboring pixels
          blur              standard deviation of a Gaussian that smooths x before f, pixels
          norm              |x - center|, exactly: x(z) = clip(center + s (sigmoid(a / rms(a)) - center), 0, 1)

Images lie in [0, 1] whatever z is. In Fourier space low frequencies move first, so that no high-frequency noise
appears, and z = 0 is gray; colors are decorrelated by the square root of their covariance.
"""
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from embeddings_jax.ops.augment import blurred
from embeddings_jax.types import InputError

PARAMETERIZATIONS = ("fourier", "pixels")
# Lightness, red against blue, green against both, by their standard deviations in photographs.
OPPONENT = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]).T / np.sqrt([3, 2, 6]) * np.array([0.42, 0.1, 0.05])
_DOUBLINGS, _BISECTIONS = 20, 40
_LOUDEST = 4.0  # |a| in units of a sigmoid's argument that the start has at most.


class Ascended(NamedTuple):
  """Images after the ascent.

  Attributes:
    images: float32 [n, height, width, channels] in [0, 1].
    objective: [n], f of the images as they are, without jitter and blur.
    trace: [steps, n], f as it was ascended.
  """

  images: Array
  objective: Array
  trace: Array


def ascend(
    objective: Callable[[Array], Array],
    shape: tuple[int, int, int, int],
    rng: Array,
    *,
    steps: int = 256,
    learning_rate: float = 0.05,
    parameterization: str = "fourier",
    basis: np.ndarray | None = None,
    jitter: int = 0,
    blur: float = 0.0,
    penalty: float = 0.0,
    variation: float = 0.0,
    norm: Float[Array, " n"] | None = None,
    center: float = 0.5,
) -> Ascended:
  """Ascends; can be compiled.

  Args:
    objective: Images [n, height, width, channels] -> [n]; row i depends on image i alone.
    shape: n, height, width and channels.
    rng: Key of the start and the jitter.
    steps: Number of updates.
    learning_rate: Adam's.
    parameterization: One of `PARAMETERIZATIONS`.
    basis: Colors of the Fourier parameterization, see `color_basis`; None: `OPPONENT` for three channels.
    jitter: Pixels by which images are rolled at most, drawn anew in each step.
    blur: Standard deviation in pixels; 0: none.
    penalty: λ.
    variation: μ.
    norm: [n], distance of each image from `center` that is kept exactly; None: free.
    center: Gray value from which norms are measured.
  """
  if parameterization not in PARAMETERIZATIONS:
    raise InputError(f"parameterization={parameterization!r}: must be one of {', '.join(PARAMETERIZATIONS)}")
  if steps < 1 or not learning_rate > 0 or jitter < 0 or blur < 0 or min(penalty, variation) < 0:
    raise InputError(f"steps={steps}, learning_rate={learning_rate}, jitter={jitter}, blur={blur}, "
                     f"penalty={penalty}, variation={variation}: must be at least 1, above 0, and at least 0")
  start, draw = parameterized(parameterization, shape, basis)
  optimizer = optax.adam(learning_rate)
  rng, rng_start = jax.random.split(rng)
  z = start(rng_start)

  def image(z):
    a = draw(z)
    if norm is None:
      return jax.nn.sigmoid(a)
    # Its scale is given by the norm; a large one would leave black and white alone.
    a = a / jax.lax.stop_gradient(jnp.sqrt(jnp.square(a).mean((1, 2, 3), keepdims=True)) + 1e-6)
    return with_norm(jax.nn.sigmoid(a), norm, center)

  def loss(z, rng):
    x = image(z)
    shown = x
    if jitter:
      shifts = jax.random.randint(rng, (2,), -jitter, jitter + 1)
      shown = jnp.roll(shown, shifts, (1, 2))
    if blur:
      shown = smoothed(shown, blur)
    values = objective(shown)
    total = values - penalty * jnp.square(x - center).mean((1, 2, 3)) - variation * roughness(x)
    return -total.sum(), values

  def step(carry, key):
    z, state = carry
    slopes, values = jax.grad(loss, has_aux=True)(z, key)
    updates, state = optimizer.update(slopes, state, z)
    return (optax.apply_updates(z, updates), state), values

  (z, _), trace = jax.lax.scan(step, (z, optimizer.init(z)), jax.random.split(rng, steps))
  images = image(z)
  return Ascended(images, objective(images), trace)


def parameterized(
    name: str, shape: tuple[int, int, int, int], basis: np.ndarray | None = None,
) -> tuple[Callable[[Array], Array], Callable[[Array], Array]]:
  """Returns `rng -> z`, a start near gray, and `z -> a`, linear, [n, height, width, channels]."""
  number, height, width, channels = shape
  if name == "pixels":
    return lambda rng: 0.1 * jax.random.normal(rng, shape), lambda z: z
  if basis is None:
    basis = OPPONENT if channels == 3 else np.eye(channels)
  mix = jnp.asarray(basis / np.sqrt(np.square(basis).sum(1)).max(), jnp.float32)
  frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
  scale = 1 / np.maximum(frequency, 1 / max(height, width))
  # Of a spectrum of ones the image then has about the deviation _LOUDEST: z is of the order of 1.
  scale = jnp.asarray(_LOUDEST * scale / np.sqrt(np.square(scale).mean()) * np.sqrt(height * width))[..., None, None]
  spectrum = (number, height, width // 2 + 1, channels, 2)

  def draw(z):
    z = scale * z
    a = jnp.fft.irfft2(jax.lax.complex(z[..., 0], z[..., 1]), (height, width), (1, 2), "backward")
    return jnp.einsum("nhwc,dc->nhwd", a, mix)

  return lambda rng: 0.05 * jax.random.normal(rng, spectrum), draw


def with_norm(x: Float[Array, "n height width channels"], norm: Float[Array, " n"], center: float = 0.5) -> Float[
    Array, "n height width channels"]:
  """Returns clip(center + s (x - center), 0, 1) with the s > 0 of each image for which |x - center| is `norm`.

  Where a norm is more than images of [0, 1] along this direction can have, the result is the nearest there is. The
  gradient knows that s depends on x, or ascent would follow the sign of a gradient that no longer gains anything.
  """
  away = x - center
  scaled = lambda s: jnp.clip(center + s[:, None, None, None] * away, 0, 1)
  length = lambda s: jnp.sqrt(jnp.square(scaled(s) - center).sum((1, 2, 3)))

  def bisected(_, bounds):
    low, high = bounds
    middle = jnp.sqrt(low * high)
    short = length(middle) < norm
    return jnp.where(short, middle, low), jnp.where(short, high, middle)

  bounds = jnp.full(len(x), 2.0**-_DOUBLINGS), jnp.full(len(x), 2.0**_DOUBLINGS)
  low, high = jax.lax.fori_loop(0, _BISECTIONS, bisected, bounds)
  s = jax.lax.stop_gradient(jnp.sqrt(low * high))
  # The rest of the norm is shared by the pixels that are not clipped: a factor of 1 with the derivative of s.
  moved = s[:, None, None, None] * away
  free = (center + moved > 0) & (center + moved < 1)
  total = lambda x: jnp.square(x).sum((1, 2, 3))
  part = total(jnp.where(free, moved, 0))
  rest = jax.lax.stop_gradient(part)
  factor = jnp.sqrt(jnp.maximum(rest, 1e-12) / jnp.maximum(part, 1e-12))
  return scaled(s * factor)


def roughness(images: Float[Array, "n height width channels"]) -> Float[Array, " n"]:
  """Returns the mean squared difference of neighboring pixels, down and to the right, added up."""
  down, right = (jnp.square(jnp.diff(images, axis=axis)).mean((1, 2, 3)) for axis in (1, 2))
  return down + right


def smoothed(images: Float[Array, "n height width channels"], sigma: float) -> Float[
    Array, "n height width channels"]:
  """Returns images smoothed by a Gaussian."""
  side = min(images.shape[1:3])
  size = min(2 * int(np.ceil(2 * sigma)) + 1, 2 * ((side - 1) // 2) + 1)
  return jax.vmap(functools.partial(blurred, sigma=sigma, kernel_size=size))(images)


def color_basis(images: Float[np.ndarray, "n height width channels"]) -> Float[np.ndarray, "channels channels"]:
  """Returns the square root of the covariance of the colors of images, axes times standard deviations."""
  pixels = np.asarray(images, np.float64).reshape(-1, images.shape[-1])
  values, axes = np.linalg.eigh(np.cov(pixels.T).reshape(images.shape[-1], -1))
  return axes * np.sqrt(np.maximum(values, 1e-6))


def feature_distance(features: Float[Array, "n dim"], target: Float[Array, "n dim"]) -> Float[Array, " n"]:
  """Returns |features - target|² / |target|², the loss of inversion; ascend its negative."""
  return jnp.square(features - target).sum(-1) / jnp.maximum(jnp.square(target).sum(-1), 1e-12)
