"""Arrays of ours and the tensors of Hugging Face directories that make them: a table that serves both directions."""
import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from embeddings_jax.data.files.json import json_field, read_json
from embeddings_jax.types import InputError

DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}  # The halves become float32 without loss.
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
ACTIVATIONS = {"gelu": "gelu", "gelu_python": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh",
               "gelu_fast": "gelu_tanh", "relu": "relu"}


class Fields(NamedTuple):
  """Checked access to a configuration in JSON.

  Attributes:
    values: The object.
    path: Its file, for error messages.
  """

  values: Mapping[str, Any]
  path: Path

  @classmethod
  def of(cls, path: Path) -> "Fields":
    """Reads a file."""
    return cls(read_json(path), path)

  def integer(self, key: str, default: int | None = None) -> int:
    """Returns an integer from 1 to 2^31."""
    value = self.values.get(key, default)
    if type(value) is not int or not 1 <= value <= 1 << 31:
      raise InputError(f"{self.path}: {key} is {repr(value)[:40]}; expected an integer from 1 up")
    return value

  def number(self, key: str, default: float, least: float = 0.0, most: float = math.inf) -> float:
    """Returns a finite number within bounds."""
    value = json_field(self.values, key, float, self.path, default)
    if not least <= value <= most or value >= 1e300:
      raise InputError(f"{self.path}: {key} is {str(value)[:40]}; expected a number from {least:g} to {most:g}")
    return float(value)

  def flag(self, key: str, default: bool) -> bool:
    return json_field(self.values, key, bool, self.path, default)

  def text(self, key: str, default: str) -> str:
    return json_field(self.values, key, str, self.path, default)

  def refuse(self, key: str, *allowed: Any) -> None:
    """Raises if a field is there and has none of the allowed values."""
    if key in self.values and self.values[key] not in allowed:
      raise InputError(f"{self.path}: {key}={repr(self.values[key])[:60]} is not supported")

  def activation(self, key: str, default: str) -> str:
    """Returns our name of an activation."""
    name = self.text(key, default)
    if name not in ACTIVATIONS:
      raise InputError(f"{self.path}: the activation {name[:60]!r} is not supported; known: {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


class Leaf(NamedTuple):
  """One array of ours and the tensors that make it.

  Attributes:
    path: `encoder/layers/qkv/kernel`.
    shape: ours, of one layer.
    names: Names of the tensors that are joined, with {} for the number of the layer.
    matrix: each tensor's shape, [in, out] or [size], once its axes are in our order.
    axes: the file's axes in that order; (): they are.
  """

  path: str
  shape: tuple[int, ...]
  names: tuple[str, ...]
  matrix: tuple[int, ...]
  axes: tuple[int, ...] = ()

  @property
  def stacked(self) -> bool:
    return "{}" in self.names[0]

  @property
  def stored(self) -> tuple[int, ...]:
    return tuple(self.matrix[axis] for axis in self.turned) if self.axes else self.matrix

  @property
  def turned(self) -> tuple[int, ...]:
    """The way back from `axes`."""
    return tuple(int(axis) for axis in np.argsort(self.axes))


def norm_leaves(path: str, name: str, dim: int) -> list[Leaf]:
  """LayerNorm's two."""
  return [Leaf(f"{path}/scale", (dim,), (f"{name}.weight",), (dim,)),
          Leaf(f"{path}/bias", (dim,), (f"{name}.bias",), (dim,))]


def dense_leaves(path: str, names: Sequence[str], size: tuple[int, int], kernel: tuple[int, ...] = (),
                 bias: tuple[int, ...] = (), axes: tuple[int, ...] = (1, 0)) -> list[Leaf]:
  """Kernel and bias of `size` (in, out); `kernel` and `bias`: our shapes, if others, of the `names` joined."""
  return [Leaf(f"{path}/kernel", kernel or size, tuple(f"{name}.weight" for name in names), size, axes),
          Leaf(f"{path}/bias", bias or size[1:], tuple(f"{name}.bias" for name in names), size[1:])]


def read_leaf(leaf: Leaf, num_layers: int, get: Callable[[str, tuple[int, ...]], np.ndarray]) -> np.ndarray:
  """Our array, all layers of it, by `get(name, shape)`."""
  def one(i: int | str) -> np.ndarray:
    parts = [get(name.format(i), leaf.stored) for name in leaf.names]
    parts = [part.transpose(leaf.axes) if leaf.axes else part for part in parts]
    return (np.stack(parts, axis=-2) if len(parts) > 1 else parts[0]).reshape(leaf.shape)

  return np.stack([one(i) for i in range(num_layers)]) if leaf.stacked else np.ascontiguousarray(one(""))


def write_leaf(leaf: Leaf, num_layers: int, value: np.ndarray) -> dict[str, np.ndarray]:
  """The tensors of our array, by name."""
  shape = (num_layers, *leaf.shape) if leaf.stacked else leaf.shape
  if value.shape != shape:
    raise InputError(f"params/{leaf.path} has shape {value.shape}, the hyperparameters say {shape}")
  tensors = {}
  for i, layer in enumerate(value if leaf.stacked else value[None]):
    joined = layer.reshape(*leaf.matrix[:-1], len(leaf.names), leaf.matrix[-1])
    for j, name in enumerate(leaf.names):
      part = joined[..., j, :]
      tensors[name.format(i)] = np.ascontiguousarray(part.transpose(leaf.turned) if leaf.axes else part)
  return tensors


class Tensors:
  """The tensors of a directory's safetensors files, read one by one as they are asked for.

  Attributes:
    where: name -> file.
    used: names that were asked for.
  """

  def __init__(self, folder: Path):
    self.folder, self.used, self._files = folder, set(), {}
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").exists():
      files = [folder / "model.safetensors"]
    elif index.exists():
      shards = json_field(read_json(index), "weight_map", dict, index)
      if any(os.path.basename(str(file)) != file or "\0" in file or not file.endswith(".safetensors")
             for file in shards.values()):
        raise InputError(f"{index}: weight_map must name .safetensors files of this directory")
      files = [folder / file for file in sorted(set(shards.values()))]
    else:
      pickle = next((name for name in PICKLES if (folder / name).exists()), None)
      if pickle:
        raise InputError(f"{folder / pickle}: is a pickle, which runs code when it is loaded, and is refused; save "
                         "the model as safetensors (transformers: model.save_pretrained(DIR))")
      raise InputError(f"{folder}: has no weights; model.safetensors is missing")
    self.where: dict[str, Path] = {}
    self._stored: dict[str, str] = {}
    for file in files:
      try:
        self._files[file] = safe_open(file, framework="numpy")
        names = list(self._files[file].keys())
      except FileNotFoundError as error:
        raise InputError(f"{file}: is missing, though the index names it") from error
      except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{file}: not a sound safetensors file ({' '.join(str(error).split())[:200]}); get it again"
                         ) from error
      for stored in names:
        # Models that came from TensorFlow call a LayerNorm's scale and bias so.
        name = stored.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
        self.where[name], self._stored[name] = file, stored

  def get(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Returns a tensor as float32; its shape must be the one given."""
    if name not in self.where:
      raise InputError(f"{self.folder}: the weights lack the tensor {name}, which config.json asks for")
    file = self.where[name]
    stored = self._files[file].get_slice(self._stored[name])
    stored_shape = tuple(stored.get_shape())
    if stored_shape != shape:
      raise InputError(f"{file}: {name} has shape {stored_shape}, config.json says {shape}")
    if stored.get_dtype() not in DTYPES:
      raise InputError(f"{file}: {name} is of type {stored.get_dtype()}, should be {', '.join(DTYPES.values())}")
    self.used.add(name)
    value = self._files[file].get_tensor(self._stored[name]).astype(np.float32)
    if not np.isfinite(value).all():
      raise InputError(f"{file}: {name} holds a number that is not finite")
    return value


def warn_unused(tensors: Tensors) -> None:
  """Names the tensors that nobody asked for."""
  unused = sorted(set(tensors.where) - tensors.used)
  if unused:
    more = f" and {len(unused) - 20} more" if len(unused) > 20 else ""
    logging.warning("%s: has no use here for %s%s", tensors.folder, ", ".join(unused[:20]), more)


def put(tree: dict[str, Any], path: str, value: np.ndarray) -> None:
  """Puts a leaf into nested dicts."""
  *parents, last = path.split("/")
  for parent in parents:
    tree = tree.setdefault(parent, {})
  tree[last] = value


def take(tree: Mapping[str, Any], path: str) -> np.ndarray:
  """A leaf of nested dicts, float32."""
  for key in path.split("/"):
    if key not in tree:
      raise InputError(f"params/{path} is missing")
    tree = tree[key]
  return np.asarray(tree, np.float32)


def paths(tree: Mapping[str, Any], prefix: str = "") -> list[str]:
  """The paths of all leaves."""
  return [path for key, value in tree.items() for path in (
      paths(value, f"{prefix}{key}/") if isinstance(value, Mapping) else [f"{prefix}{key}"])]
