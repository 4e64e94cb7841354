"""VGG16's weights from a safetensors file, in torchvision's layout or timm's, without torch.

  ours                   torchvision                    timm
  block1_conv1 ...       features.0 ... features.28     the same
  fc1, fc2, predictions  classifier.0, .3, .6           pre_logits.fc1, pre_logits.fc2, head.fc

A convolution of theirs is [out, in, row, column], a dense layer [out, in]; timm writes all dense layers but the last
as convolutions. The classifier may be missing.
"""
import os
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from embeddings_jax.interop.leaves import DTYPES
from embeddings_jax.nets.vgg import CELLS, LAYERS
from embeddings_jax.types import InputError

# Numbers of the convolutions in torchvision's sequence, in which a ReLU follows each and a pooling each block.
NUMBERS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
HEADS = (("classifier.0", "classifier.3", "classifier.6"), ("pre_logits.fc1", "pre_logits.fc2", "head.fc"))
DENSE = ("fc1", "fc2", "predictions")


def read(path: str | os.PathLike) -> tuple[dict[str, Any], dict[str, Any]]:
  """Reads a file: `(hyper, params)`.

  Returns:
    hyper: Arguments of `nets/vgg.py: encoder(**hyper)`; `width` and `hidden` are those of the file.
    params: Nested dict of float32 arrays.

  Raises:
    InputError: No such file, a damaged one, or the weights of another network.
  """
  path = Path(path)
  if not path.is_file():
    raise InputError(f"{path}: there is no such file")
  try:
    with safe_open(path, framework="numpy") as file:
      names = set(file.keys())
      head = _check(path, names)
      shapes = {name: tuple(file.get_slice(name).get_shape()) for name in names}
      hyper, wanted = _sizes(path, shapes, head)
      params: dict[str, Any] = {}
      for ours, theirs, shape in wanted:
        if shapes[f"{theirs}.weight"] not in shape or shapes.get(f"{theirs}.bias") != shape[0][:1]:
          raise InputError(f"{path}: {theirs}.weight has shape {shapes[f'{theirs}.weight']}, of VGG16 it is "
                           f"{shape[0]}; these are the weights of another network")
        kinds = {file.get_slice(f"{theirs}.{part}").get_dtype() for part in ("weight", "bias")}
        if not kinds <= set(DTYPES):
          raise InputError(f"{path}: {theirs} is of type {', '.join(sorted(kinds))}, should be "
                           f"{', '.join(DTYPES.values())}")
        weight, bias = (file.get_tensor(f"{theirs}.{part}").astype(np.float32) for part in ("weight", "bias"))
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
          raise InputError(f"{path}: {theirs} holds a number that is not finite")
        kernel = weight.transpose(2, 3, 1, 0) if ours in LAYERS else weight.reshape(len(weight), -1).T
        params[ours] = {"kernel": np.ascontiguousarray(kernel), "bias": bias}
  except (SafetensorError, OSError, ValueError) as error:
    if isinstance(error, InputError):
      raise
    raise InputError(f"{path}: not a sound safetensors file ({' '.join(str(error).split())[:200]}); get it again"
                     ) from error
  return hyper, params


def _check(path: Path, names: set[str]) -> tuple[str, ...]:
  """Returns the names of the classifier's layers, () without one; raises unless a VGG16 has these tensors."""
  convolutions = {f"features.{number}.{part}" for number in NUMBERS for part in ("weight", "bias")}
  others = {name for name in names if name.startswith("features.")} - convolutions
  missing = sorted(convolutions - names)
  if missing or others:
    reason = f"lacks {missing[0]}" if missing else f"has {sorted(others)[0]}"
    raise InputError(f"{path}: {reason}; these are not the weights of a VGG16 of torchvision or timm")
  for head in HEADS:
    if all(f"{name}.{part}" in names for name in head for part in ("weight", "bias")):
      return head
  rest = sorted(name for name in names if not name.startswith("features."))
  if rest:
    raise InputError(f"{path}: {rest[0]} is no part of a VGG16 of torchvision or timm")
  return ()


def _sizes(path: Path, shapes: dict[str, tuple[int, ...]], head: tuple[str, ...]) -> tuple[dict[str, Any], list]:
  """Returns the hyperparameters, and (ours, theirs, shapes that its weight may have) of each layer."""
  width = shapes["features.0.weight"][0] if shapes["features.0.weight"] else 0
  wanted, channels = [], 3
  for (name, times), number in zip(LAYERS.items(), NUMBERS):
    wanted.append((name, f"features.{number}", [(times * width, channels, 3, 3)]))
    channels = times * width
  if not head:
    return {"width": width}, wanted
  first, last = (shapes[f"{name}.weight"] for name in (head[0], head[2]))
  hidden, num_classes = (shape[0] if shape else 0 for shape in (first, last))
  for name, theirs, rows, columns, size in zip(DENSE, head, (hidden, hidden, num_classes),
                                               (channels, hidden, hidden), (CELLS, 1, 1)):
    wanted.append((name, theirs, [(rows, columns * size**2), (rows, columns, size, size)]))
  return {"width": width, "num_classes": num_classes, "hidden": hidden}, wanted
