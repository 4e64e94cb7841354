"""Camera motion: whole-pixel shifts of successive frames, found by phase correlation and undone.

Kuglin & Hines 1975: with F and G the Fourier transforms of two frames, the inverse transform of F conj(G) / |F G| has
its peak where the second is shifted to. Small moving objects do not move the peak of a large background.
"""
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


def shifts(clip: Float[Array, "frames height width channels"]) -> Int[Array, "steps 2"]:
  """Returns by how many rows and columns each frame's background has moved in the next."""
  gray = clip.mean(-1)
  gray = gray - gray.mean((1, 2), keepdims=True)
  height, width = gray.shape[1:]
  # As matrix products: XLA's transforms on CPUs want layouts that a larger program need not have.
  transform = lambda x, sign: jnp.einsum("ab,nbd,cd->nac", _fourier(height, sign), x, _fourier(width, sign),
                                         precision="highest")
  spectrum = transform(gray.astype(jnp.complex64), -1)
  product = spectrum[1:] * jnp.conj(spectrum[:-1])
  peaks = transform(product / jnp.maximum(jnp.abs(product), 1e-6), 1).real
  place = peaks.reshape(len(peaks), -1).argmax(1)
  rows, columns = jnp.divmod(place, width)
  signed = lambda value, length: jnp.where(value > length // 2, value - length, value)
  return jnp.stack([signed(rows, height), signed(columns, width)], 1).astype(jnp.int32)


def _fourier(length: int, sign: int) -> np.ndarray:
  """The matrix of the discrete Fourier transform; sign 1: of its inverse, times the length."""
  place = np.arange(length)
  return np.exp(sign * 2j * np.pi * (np.outer(place, place) % length) / length).astype(np.complex64)


def stabilized(clip: Float[Array, "frames height width channels"]) -> Float[Array, "frames height width channels"]:
  """Returns the clip with its background at rest, in the middle of where it was; what lies beyond repeats the border.

  A reversed clip becomes the reversed result: nothing here tells the direction of time.
  """
  place = jnp.concatenate([jnp.zeros((1, 2), jnp.int32), jnp.cumsum(shifts(clip), 0)])
  place = place - jnp.round(place.astype(jnp.float32).mean(0)).astype(jnp.int32)
  height, width = clip.shape[1:3]
  rows = jnp.clip(jnp.arange(height) + place[:, :1], 0, height - 1)
  columns = jnp.clip(jnp.arange(width) + place[:, 1:], 0, width - 1)
  return clip[jnp.arange(len(clip))[:, None, None], rows[:, :, None], columns[:, None, :]]
