"""Dense layers that sentence-transformers puts behind the pooling, applied on the host."""
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from embeddings_jax.interop.leaves import Fields, Tensors
from embeddings_jax.types import InputError

_ACTIVATIONS = {"torch.nn.modules.activation.Tanh": "tanh", "torch.nn.modules.linear.Identity": "identity",
                "torch.nn.modules.activation.ReLU": "relu"}


class Dense(NamedTuple):
  """A layer `activation(x kernel + bias)`.

  Attributes:
    kernel: float32 `[in, out]`.
    bias: float32 `[out]`.
    activation: `tanh`, `relu` or `identity`.
  """

  kernel: np.ndarray
  bias: np.ndarray
  activation: str


def read_dense(folder: str | os.PathLike) -> Dense:
  """Reads the folder of a module: `config.json` and `model.safetensors`.

  Raises:
    InputError: A file is missing or damaged, or the activation is unknown.
  """
  folder = Path(folder)
  options = Fields.of(folder / "config.json")
  size = options.integer("in_features"), options.integer("out_features")
  name = options.text("activation_function", "torch.nn.modules.activation.Tanh")
  if name not in _ACTIVATIONS:
    raise InputError(f"{options.path}: the activation {name[:60]!r} is not supported; known: "
                     f"{', '.join(_ACTIVATIONS)}")
  tensors = Tensors(folder)
  kernel = tensors.get("linear.weight", size[::-1]).T
  bias = tensors.get("linear.bias", size[1:]) if options.flag("bias", True) else np.zeros(size[1], np.float32)
  return Dense(np.ascontiguousarray(kernel), bias, _ACTIVATIONS[name])


def apply_dense(layers: Sequence[Dense], vectors: np.ndarray) -> np.ndarray:
  """Returns vectors `[n, dim]` behind layers; vectors of 0, of which nothing is known, stay 0."""
  known = vectors.any(axis=1, keepdims=True)
  for layer in layers:
    vectors = vectors @ layer.kernel + layer.bias
    if layer.activation != "identity":
      vectors = np.tanh(vectors) if layer.activation == "tanh" else np.maximum(vectors, 0)
  return np.where(known, vectors, 0).astype(np.float32) if layers else vectors
