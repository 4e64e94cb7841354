"""Hugging Face directories of vision transformers, in and out: `config.json`, `preprocessor_config.json` and weights.

  `model_type`  ours                                   theirs
  vit_mae       mae                                    `ViTMAEForPreTraining`, `ViTMAEModel`
  vit           mae without a decoder, or a `pooler`   `ViTModel`, `ViTForImageClassification` without its classifier

Positions that are the sines and cosines of `nets/vit.py` are not parameters of ours: they are checked and written.
As in `huggingface.py`, a round trip is equal bit for bit. A classifier has no place here: it is named in a warning.
"""
import functools
import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from embeddings_jax.interop.leaves import (
    ACTIVATIONS,
    Leaf,
    Tensors,
    dense_leaves,
    norm_leaves,
    paths,
    put,
    read_json,
    read_leaf,
    take,
    warn_unused,
    write_leaf,
)
from embeddings_jax.nets.vit import sincos2d
from embeddings_jax.types import InputError

KNOWN = ("vit_mae", "vit")
NEAR = 1e-5  # As far as others' sines and cosines may be from ours.
PREPROCESSOR = "preprocessor_config.json"


def is_vision(directory: str | os.PathLike) -> bool:
  """Whether a directory's `config.json` says that it holds a vision transformer of a known kind."""
  path = Path(directory) / "config.json"
  config = read_json(path) if path.exists() else None
  return isinstance(config, dict) and config.get("model_type") in KNOWN


def read(directory: str | os.PathLike) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any], tuple[int, int, int]]:
  """The network of a directory: `(hyper, others, params, shape)`.

  Returns:
    hyper: the arguments of `models/mae.py: encoder(**hyper)`.
    others: further arguments of `mae`, of the decoder and the loss; of a `vit` there are none.
    params: nested dict of float32 arrays, `encoder` and those there are of `decoder` and `pooler`.
    shape: height, width and channels of its pictures.

  Raises:
    InputError: no config or weights, pickled weights, an unknown architecture or option, fixed positions that are not
      ours, a missing tensor or one whose shape is not the config's.
  """
  folder = Path(directory)
  path = folder / "config.json"
  config = read_json(path)
  kind = config.get("model_type")
  if kind not in KNOWN:
    raise InputError(f"{path}: the architecture {kind!r} (model_type) is unknown; known: {', '.join(KNOWN)}")
  hyper, others, shape = _hyper(config, kind, path)
  hyper |= _preprocessing(folder / PREPROCESSOR, shape)
  tensors = Tensors(folder)
  first = "embeddings.cls_token"
  prefix = next((prefix for prefix in ("vit.", "") if prefix + first in tensors.where), None)
  if prefix is None:
    raise InputError(f"{folder}: the weights have no tensor vit.{first}, which a {kind} has")
  positions = _positions(hyper["dim"], shape, hyper["patch_size"])
  name = prefix + "embeddings.position_embeddings"
  stored = tensors.get(name, positions.shape)
  exact = np.abs(stored - positions).max() <= (NEAR if kind == "vit_mae" else 0)
  if kind == "vit_mae" and not exact:
    raise InputError(f"{tensors.where[name]}: {name} are no sines and cosines of rows and columns; a vit_mae with "
                     "other positions is not supported")
  hyper["positions"] = "sincos2d" if exact else "learned"
  params: dict[str, Any] = {}
  for part, (num_layers, leaves) in _leaves(hyper | others, prefix, shape, _decoder_stack(tensors)).items():
    if part == "encoder" or any(tensor in tensors.where for leaf in leaves for tensor in leaf.names):
      for leaf in leaves:
        put(params, leaf.path, read_leaf(leaf, num_layers, tensors.get))
  if "decoder" in params:
    name = "decoder.decoder_pos_embed"
    positions = _positions(others["decoder_dim"], shape, hyper["patch_size"])
    if np.abs(tensors.get(name, positions.shape) - positions).max() > NEAR:
      raise InputError(f"{tensors.where[name]}: {name} are no sines and cosines of rows and columns")
  warn_unused(tensors)
  return hyper, others, params, shape


def write(directory: str | os.PathLike, hyper: Mapping[str, Any], others: Mapping[str, Any],
          params: Mapping[str, Any], shape: Sequence[int]) -> None:
  """Writes a network so that `transformers` loads it: with a decoder as `ViTMAEForPreTraining`, else as `ViTModel`.

  Args:
    directory: made if it is not there.
    hyper, others, params, shape: as `read` returns them; leaves that have no place there are named in a warning. Of
      `others` only `mask_ratio` and `norm_pix` are asked for: what `params` have says the rest.

  Raises:
    InputError: the architecture cannot be expressed, or an array is missing or of another shape.
  """
  hyper = {"positions": "sincos2d", "pixel_mean": 0.5, "pixel_std": 0.5, "activation": "gelu", **hyper}
  kind = "vit_mae" if "decoder" in params else "vit"
  if kind == "vit_mae" and hyper["positions"] != "sincos2d":
    raise InputError(f"a Hugging Face vit_mae cannot have positions={hyper['positions']!r}, only 'sincos2d'")
  if kind == "vit_mae":
    num_layers, dim, _, num_heads, _ = take(params, "decoder/layers/qkv/kernel").shape
    sizes = dict(decoder_dim=dim, decoder_layers=num_layers, decoder_heads=num_heads,
                 decoder_mlp_dim=take(params, "decoder/layers/up/kernel").shape[-1])
    others = {"mask_ratio": 0.75, "norm_pix": True, **others, **sizes}
  prefix = "vit." if kind == "vit_mae" else ""
  tensors, used = {}, set()
  for part, (num_layers, leaves) in _leaves(hyper | others, prefix, shape, "decoder_layers").items():
    if part == "encoder" or part in params and (part != "pooler" or kind == "vit"):
      for leaf in leaves:
        used.add(leaf.path)
        tensors |= write_leaf(leaf, num_layers, take(params, leaf.path))
  if hyper["positions"] == "sincos2d":
    tensors[prefix + "embeddings.position_embeddings"] = _positions(hyper["dim"], shape, hyper["patch_size"])
  if kind == "vit_mae":
    tensors["decoder.decoder_pos_embed"] = _positions(others["decoder_dim"], shape, hyper["patch_size"])
  left_out = sorted(path for path in paths(params) if path not in used)
  if left_out:
    logging.warning("%s: %s has no place in a Hugging Face %s and is left out", directory, ", ".join(left_out), kind)
  height, width, channels = shape
  config = {
      "architectures": ["ViTMAEForPreTraining" if kind == "vit_mae" else "ViTModel"], "model_type": kind,
      "dtype": "float32", "hidden_size": hyper["dim"], "num_hidden_layers": hyper["num_layers"],
      "num_attention_heads": hyper["num_heads"], "intermediate_size": hyper["mlp_dim"],
      "hidden_act": {"gelu": "gelu", "gelu_tanh": "gelu_new", "relu": "relu"}[hyper["activation"]],
      "layer_norm_eps": hyper["norm_epsilon"], "image_size": height if height == width else [height, width],
      "patch_size": hyper["patch_size"], "num_channels": channels, "qkv_bias": True, "hidden_dropout_prob": 0.0,
      "attention_probs_dropout_prob": 0.0}
  if kind == "vit_mae":
    config |= {"decoder_hidden_size": others["decoder_dim"], "decoder_num_hidden_layers": others["decoder_layers"],
               "decoder_num_attention_heads": others["decoder_heads"],
               "decoder_intermediate_size": others["decoder_mlp_dim"], "mask_ratio": others["mask_ratio"],
               "norm_pix_loss": others["norm_pix"]}
  each = lambda value: [float(x) for x in np.broadcast_to(value, channels)]
  preprocessor = {"image_processor_type": "ViTImageProcessor", "do_resize": True, "do_rescale": True,
                  "do_normalize": True, "rescale_factor": 1 / 255, "resample": 2,
                  "size": {"height": height, "width": width}, "image_mean": each(hyper["pixel_mean"]),
                  "image_std": each(hyper["pixel_std"])}
  folder = Path(directory)
  folder.mkdir(parents=True, exist_ok=True)
  for file, content in (("config.json", config), (PREPROCESSOR, preprocessor)):
    (folder / file).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
  save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _hyper(config: Mapping[str, Any], kind: str,
           path: Path) -> tuple[dict[str, Any], dict[str, Any], tuple[int, ...]]:
  """Arguments of our encoder, further ones of `mae`, and the pictures' shape."""
  def number(key: str, default: int) -> int:
    value = config.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
      raise InputError(f"{path}: {key} is {value!r}, should be a whole number from 1 up")
    return value

  for key, allowed in (("qkv_bias", (True,)), ("quantization_config", (None,)), ("pooler_act", ("tanh",)),
                       ("pooler_output_size", (None, config.get("hidden_size", 768)))):
    if key in config and config[key] not in allowed:
      raise InputError(f"{path}: {key}={config[key]!r} is not supported")
  activation = config.get("hidden_act", "gelu")
  if activation not in ACTIVATIONS:
    raise InputError(f"{path}: the activation {activation!r} is not supported; known: {', '.join(ACTIVATIONS)}")
  size = config.get("image_size", 224)
  size = size if isinstance(size, list) else [size, size]
  patch_size = number("patch_size", 16)
  if len(size) != 2 or any(not isinstance(n, int) or n < 1 or n % patch_size for n in size):
    raise InputError(f"{path}: image_size is {config.get('image_size')!r}, should be multiples of "
                     f"patch_size={patch_size}")
  hyper = dict(patch_size=patch_size, dim=number("hidden_size", 768), num_layers=number("num_hidden_layers", 12),
               num_heads=number("num_attention_heads", 12), mlp_dim=number("intermediate_size", 3072),
               activation=ACTIVATIONS[activation], norm_epsilon=float(config.get("layer_norm_eps", 1e-12)))
  others = {}
  if kind == "vit_mae":
    others = dict(decoder_dim=number("decoder_hidden_size", 512),
                  decoder_layers=number("decoder_num_hidden_layers", 8),
                  decoder_heads=number("decoder_num_attention_heads", 16),
                  decoder_mlp_dim=number("decoder_intermediate_size", 2048),
                  mask_ratio=float(config.get("mask_ratio", 0.75)), norm_pix=bool(config.get("norm_pix_loss", False)))
  for prefix, sizes in (("", hyper), ("decoder_", others)):
    if sizes and sizes[f"{prefix}dim"] % sizes["num_heads" if not prefix else "decoder_heads"]:
      raise InputError(f"{path}: the {prefix}heads do not divide {sizes[f'{prefix}dim']} dimensions")
  if kind == "vit_mae" and (hyper["dim"] % 4 or others["decoder_dim"] % 4):
    raise InputError(f"{path}: hidden_size and decoder_hidden_size must be multiples of 4, for the positions")
  return hyper, others, (*size, number("num_channels", 3))


def _preprocessing(path: Path, shape: Sequence[int]) -> dict[str, Any]:
  """`pixel_mean` and `pixel_std` as the processor says, .5 where there is none."""
  found = read_json(path) if path.exists() else {}
  scale = found.get("rescale_factor", 1 / 255)
  if not found.get("do_rescale", True) or abs(scale * 255 - 1) > 1e-6:
    raise InputError(f"{path}: pixels should be scaled by 1 / 255 (do_rescale, rescale_factor)")
  if not found.get("do_normalize", True):
    return {"pixel_mean": (0.0,) * shape[2], "pixel_std": (1.0,) * shape[2]}
  hyper = {}
  for key, name in (("pixel_mean", "image_mean"), ("pixel_std", "image_std")):
    values = found.get(name, [0.5] * shape[2])
    if not isinstance(values, list) or len(values) != shape[2]:
      raise InputError(f"{path}: {name} is {values!r}, should be {shape[2]} numbers, as num_channels says")
    hyper[key] = tuple(float(value) for value in values)
  return hyper


def _positions(dim: int, shape: Sequence[int], patch_size: int) -> np.ndarray:
  """Theirs, with that of the CLS token, which is 0: [1, 1 + N, dim]."""
  table = np.zeros((1, 1 + (shape[0] // patch_size) * (shape[1] // patch_size), dim), np.float32)
  if dim % 4 == 0:
    table[0, 1:] = sincos2d(shape[0] // patch_size, shape[1] // patch_size, dim)
  return table


def _decoder_stack(tensors: Tensors) -> str:
  """What the decoder's layers are called; `transformers` 5 renames them when it writes."""
  renamed = any(name.startswith("decoder.decoder_encoder.layer.") for name in tensors.where)
  return "decoder_encoder.layer" if renamed else "decoder_layers"


def _leaves(hyper: Mapping[str, Any], prefix: str, shape: Sequence[int],
            decoder_stack: str) -> dict[str, tuple[int, list[Leaf]]]:
  """Of each part of the network the number of layers, and every array of ours with the tensors that make it."""
  dim, size, channels = hyper["dim"], hyper["patch_size"], shape[2]
  pixels = size * size * channels
  embeddings = prefix + "embeddings."
  projection = embeddings + "patch_embeddings.projection"
  encoder = [Leaf("encoder/patch_embedding/kernel", (pixels, dim), (projection + ".weight",),
                  (size, size, channels, dim), (2, 3, 1, 0)),
             Leaf("encoder/patch_embedding/bias", (dim,), (projection + ".bias",), (dim,)),
             Leaf("encoder/cls", (dim,), (embeddings + "cls_token",), (1, 1, dim)),
             *norm_leaves("encoder/final_norm", prefix + "layernorm", dim),
             *_stack("encoder/layers", prefix + "encoder.layer", dim, hyper["num_heads"], hyper["mlp_dim"])]
  if hyper["positions"] == "learned":
    rows = 1 + (shape[0] // size) * (shape[1] // size)
    encoder.append(Leaf("encoder/position_embedding", (rows, dim), (embeddings + "position_embeddings",),
                        (1, rows, dim)))
  parts = {"encoder": (hyper["num_layers"], encoder),
           "pooler": (0, dense_leaves("pooler", [prefix + "pooler.dense"], (dim, dim)))}
  if "decoder_dim" in hyper:
    width = hyper["decoder_dim"]
    parts["decoder"] = (hyper["decoder_layers"], [
        *dense_leaves("decoder/embed", ["decoder.decoder_embed"], (dim, width)),
        Leaf("decoder/mask_token", (width,), ("decoder.mask_token",), (1, 1, width)),
        *norm_leaves("decoder/final_norm", "decoder.decoder_norm", width),
        *dense_leaves("decoder/predict", ["decoder.decoder_pred"], (width, pixels)),
        *_stack("decoder/layers", f"decoder.{decoder_stack}", width, hyper["decoder_heads"],
                hyper["decoder_mlp_dim"])])
  return parts


def _stack(path: str, name: str, dim: int, heads: int, mlp: int) -> list[Leaf]:
  """A stack of layers."""
  head, layer = (heads, dim // heads), name + ".{}."
  norm, dense = functools.partial(norm_leaves, dim=dim), dense_leaves
  names = [f"{layer}attention.attention.{part}" for part in ("query", "key", "value")]
  return [*norm(f"{path}/attention_norm", layer + "layernorm_before"),
          *norm(f"{path}/mlp_norm", layer + "layernorm_after"),
          *dense(f"{path}/qkv", names, (dim, dim), (dim, 3, *head), (3, *head)),
          *dense(f"{path}/out", [layer + "attention.output.dense"], (dim, dim), (*head, dim)),
          *dense(f"{path}/up", [layer + "intermediate.dense"], (dim, mlp)),
          *dense(f"{path}/down", [layer + "output.dense"], (mlp, dim))]
