"""Features of FID's own Inception, from a file of the user's, for distances between sets of images.

Images of 8 bits are resized to 299 x 299 as floats, bilinearly and without smoothing, and not rounded again, as
pytorch-fid does. The name holds the first 8 digits of the file's SHA-256, the images' size and that of the network.
"""
import hashlib

import jax
import jax.numpy as jnp
import numpy as np

from embeddings_jax.errors import InputError
from embeddings_jax.eval import image_features
from embeddings_jax.eval.image_features import ImageFeatures
from embeddings_jax.interop import inception as weights
from embeddings_jax.nets import inception

AT_ONCE = 50  # Images.


def inception_features(path: str, shape: tuple[int, ...]) -> ImageFeatures:
  """Returns the encoder for images of a shape.

  Args:
    path: Safetensors file, see `interop/inception.py`.
    shape: Height, width and channels of the images.

  Raises:
    InputError: The file is not what it should be, or these are no images.
  """
  if len(shape) != 3 or shape[2] not in (1, 3):
    raise InputError(f"inception: items of shape {list(shape)}; it reads gray or color images")
  params = weights.read(path)
  content = hashlib.sha256()
  with open(path, "rb") as file:
    while block := file.read(1 << 24):
      content.update(block)

  @jax.jit
  def forward(images):
    return inception.Inception().apply({"params": params}, inception.resized(images.astype(jnp.float32) / 255))

  def encode(images: np.ndarray) -> np.ndarray:
    pieces = [images[first:first + AT_ONCE] for first in range(0, len(images), AT_ONCE)]
    padded = [np.pad(piece, [(0, AT_ONCE - len(piece))] + [(0, 0)] * 3) for piece in pieces]
    return np.concatenate([np.asarray(forward(piece), np.float64)[:len(own)] for piece, own in zip(padded, pieces)])

  name = f"inception_{content.hexdigest()[:8]}_{image_features.size_name(shape)}_bilinear{inception.SIZE}"
  return ImageFeatures(name, encode)
