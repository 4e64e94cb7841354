"""Weights of FID's Inception from a safetensors file, without torch; keys as in pytorch-fid's state dict.

  ours                                 theirs
  Mixed_5b/branch1x1: kernel, bias     Mixed_5b.branch1x1.conv.weight [out, in, row, column]
                                       Mixed_5b.branch1x1.bn.weight, .bias, .running_mean, .running_var [out]

The batch normalization, with epsilon 1e-3, is multiplied into kernel and bias. The classifier `fc` and counters are
not read. Of a file `pt_inception-2015-12-05-*.pth` one is made where torch is: `safetensors.torch.save_file(
torch.load(PTH, weights_only=True), FILE)`.
"""
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError, safe_open

from embeddings_jax.interop.leaves import DTYPES
from embeddings_jax.nets import inception
from embeddings_jax.types import InputError

EPSILON = 1e-3
_PARTS = ("conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")


def read(path: str | os.PathLike) -> dict[str, Any]:
  """Reads the parameters of `nets/inception.py: Inception`, float32.

  Raises:
    InputError: No such file, a damaged one, or a tensor that is missing, of another shape, or not finite.
  """
  path = Path(path)
  if not path.is_file():
    raise InputError(f"{path}: there is no such file")
  try:
    with safe_open(path, framework="numpy") as file:
      names = set(file.keys())
      is_layer = lambda tree: "kernel" in tree
      return jax.tree_util.tree_map_with_path(
          lambda place, layer: _layer(path, file, names, ".".join(key.key for key in place), layer["kernel"].shape),
          inception.shapes(), is_leaf=is_layer)
  except (SafetensorError, OSError, ValueError) as error:
    if isinstance(error, InputError):
      raise
    raise InputError(f"{path}: not a sound safetensors file ({' '.join(str(error).split())[:200]}); get it again"
                     ) from error


def _layer(path: Path, file: Any, names: set[str], name: str, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
  """Returns kernel and bias of one layer, whose kernel has this shape."""
  tensors = []
  for part in _PARTS:
    key, wanted = f"{name}.{part}", (shape[3], shape[2], *shape[:2]) if part == "conv.weight" else shape[3:]
    if key not in names:
      raise InputError(f"{path}: lacks {key}; these are not the weights of FID's Inception by pytorch-fid's names")
    tensor = file.get_slice(key)
    if tuple(tensor.get_shape()) != wanted or tensor.get_dtype() not in DTYPES:
      raise InputError(f"{path}: {key} is {tensor.get_dtype()} {list(tensor.get_shape())}, should be of shape "
                       f"{list(wanted)} and {', '.join(DTYPES.values())}")
    tensors.append(file.get_tensor(key).astype(np.float64))
    if not np.isfinite(tensors[-1]).all():
      raise InputError(f"{path}: {key} holds a number that is not finite")
  weight, scale, bias, mean, variance = tensors
  scale = scale / np.sqrt(np.maximum(variance, 0) + EPSILON)
  kernel = np.ascontiguousarray((weight * scale[:, None, None, None]).transpose(2, 3, 1, 0), np.float32)
  return {"kernel": kernel, "bias": (bias - mean * scale).astype(np.float32)}
