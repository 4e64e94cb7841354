"""Hugging Face directories of vision transformers, in and out: `config.json`, `preprocessor_config.json` and weights.

  `model_type`  ours                                   theirs
  vit_mae       mae                                    `ViTMAEForPreTraining`, `ViTMAEModel`
  vit           mae without a decoder, or a `pooler`   `ViTModel`, `ViTForImageClassification` without its classifier

Positions that are the sines and cosines of `nets/vit.py` are not parameters of ours: they are checked and written.
As in `huggingface.py`, a round trip is equal bit for bit. A classifier has no place here: it is named in a warning.

Of `preprocessor_config.json` the geometry becomes the encoder's `Processor`; rescaling and normalization become the
network's `pixel_mean` and `pixel_std`. Processors of the types in `PROCESSORS` are supported, with their defaults.
Written is the nearest equivalent of `data/images.py`'s fitting: shorter side and center crop, which rounds to whole
pixels where ours does not.
"""
import functools
import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from embeddings_jax.data.files.atomic import write_atomically
from embeddings_jax.data.files.json import read_json
from embeddings_jax.data.processor import Processor
from embeddings_jax.interop.leaves import (
    Fields,
    Leaf,
    Tensors,
    dense_leaves,
    norm_leaves,
    paths,
    put,
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
_CLIP = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711],
         "size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}, "resample": 3,
         "do_center_crop": True}
_DEIT = {"size": {"height": 256, "width": 256}, "crop_size": {"height": 224, "width": 224}, "resample": 3,
         "do_center_crop": True}
# Defaults of the types of processors beside bilinear resizing to 224 x 224 and normalization by .5.
PROCESSORS = {"ViTImageProcessor": {}, "CLIPImageProcessor": _CLIP, "BitImageProcessor": _CLIP,
              "DeiTImageProcessor": _DEIT}


def is_vision(directory: str | os.PathLike) -> bool:
  """Returns whether a directory's `config.json` says that it holds a vision transformer of a known kind."""
  path = Path(directory) / "config.json"
  return path.exists() and read_json(path).get("model_type") in KNOWN


def read(directory: str | os.PathLike) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any], tuple[int, int, int]]:
  """The network of a directory: `(hyper, others, params, shape)`.

  Returns:
    hyper: the arguments of `models/autoencoders/mae.py: encoder(**hyper)`.
    others: further arguments of `mae`, of the decoder and the loss; of a `vit` there are none.
    params: nested dict of float32 arrays, `encoder` and those there are of `decoder` and `pooler`.
    shape: height, width and channels of its images.

  Raises:
    InputError: no config or weights, pickled weights, an unknown architecture or option, fixed positions that are not
      ours, a missing tensor or one whose shape is not the config's.
  """
  folder = Path(directory)
  path = folder / "config.json"
  config = Fields.of(path)
  kind = config.values.get("model_type")
  if kind not in KNOWN:
    raise InputError(f"{path}: the architecture {str(kind)[:40]!r} (model_type) is unknown; known: "
                     f"{', '.join(KNOWN)}")
  hyper, others, shape = _hyper(config, kind)
  hyper |= _pixels(folder / PREPROCESSOR, shape[2])
  tensors = Tensors(folder)
  first = "embeddings.cls_token"
  prefix = next((prefix for prefix in ("vit.", "") if prefix + first in tensors.where), None)
  if prefix is None:
    raise InputError(f"{folder}: the weights have no tensor vit.{first}, which a {kind} has")
  name = prefix + "embeddings.position_embeddings"
  # First the tensor, whose shape is checked: config.json alone must not decide what is allocated.
  stored = tensors.get(name, (1, 1 + _num_patches(shape, hyper["patch_size"]), hyper["dim"]))
  positions = _positions(hyper["dim"], shape, hyper["patch_size"])
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
    stored = tensors.get(name, (1, 1 + _num_patches(shape, hyper["patch_size"]), others["decoder_dim"]))
    if np.abs(stored - _positions(others["decoder_dim"], shape, hyper["patch_size"])).max() > NEAR:
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
  crop = {"height": height, "width": width}
  geometry = {"size": crop} if height != width else {
      "size": {"shortest_edge": height}, "do_center_crop": True, "crop_size": crop}
  preprocessor = {"image_processor_type": "BitImageProcessor", "do_convert_rgb": channels == 3, "do_resize": True,
                  "do_center_crop": False, "do_rescale": True, "do_normalize": True, "rescale_factor": 1 / 255,
                  "resample": 3, **geometry, "image_mean": each(hyper["pixel_mean"]),
                  "image_std": each(hyper["pixel_std"])}
  folder = Path(directory)
  folder.mkdir(parents=True, exist_ok=True)
  for file, content in (("config.json", config), (PREPROCESSOR, preprocessor)):
    write_atomically(folder / file, json.dumps(content, indent=2, sort_keys=True) + "\n")
  write_atomically(folder / "model.safetensors", save(tensors, metadata={"format": "pt"}))


def processor(directory: str | os.PathLike, shape: Sequence[int]) -> Processor | None:
  """Reads how a directory's `preprocessor_config.json` resizes and crops.

  Args:
    directory: A Hugging Face directory.
    shape: Height, width and channels of the network's images.

  Returns:
    None where there is no such file.

  Raises:
    InputError: A type or option that is not supported, or a result of another size than the network's.
  """
  path = Path(directory) / PREPROCESSOR
  if not path.exists():
    return None
  options = _processor_options(path)
  options.refuse("do_pad", None, False)
  options.refuse("do_flip_channel_order", None, False)
  resize = crop = None
  if options.flag("do_resize", True):
    resize = _size(options, "size", {"height": 224, "width": 224})
  if options.flag("do_center_crop", False):
    crop = _size(options, "crop_size", {"height": 224, "width": 224})
    crop = crop if isinstance(crop, tuple) else (crop, crop)
  resample = options.values.get("resample")
  try:
    settings = Processor(resize, 2 if resample is None else resample, crop).checked()
  except InputError as error:
    raise InputError(f"{path}: {error}") from error
  if (size := settings.size(*shape[:2])) != tuple(shape[:2]):
    raise InputError(f"{path}: makes images of {size[0]} x {size[1]} pixels, config.json's image_size is "
                     f"{shape[0]} x {shape[1]}; interpolated positions are not supported")
  return settings


def _processor_options(path: Path) -> Fields:
  """The fields of a processor over the defaults of its type."""
  options = Fields.of(path)
  name = options.text("image_processor_type", options.text("feature_extractor_type", "ViTImageProcessor"))
  kind = name.replace("FeatureExtractor", "ImageProcessor").removesuffix("Pil").removesuffix("Fast")
  if kind not in PROCESSORS:
    raise InputError(f"{path}: image_processor_type={name[:60]!r} is not supported; known: {', '.join(PROCESSORS)}")
  return Fields(PROCESSORS[kind] | {key: value for key, value in options.values.items() if value is not None}, path)


def _size(options: Fields, key: str, default: Mapping[str, int]) -> tuple[int, int] | int:
  """A height and width, or the length of the shorter side."""
  size = options.values.get(key, default)
  if type(size) is int:
    short = key == "size" and "shortest_edge" in PROCESSORS.get(
        str(options.values.get("image_processor_type", "")).removesuffix("Fast"), {}).get("size", {})
    if key == "size":
      short = not options.flag("default_to_square", not short)
    return size if short else (size, size)
  if isinstance(size, list) and len(size) == 2:
    return tuple(size)
  if isinstance(size, dict):
    sides = {name: value for name, value in size.items() if value is not None}
    if set(sides) == {"height", "width"}:
      return sides["height"], sides["width"]
    if set(sides) == {"shortest_edge"}:
      return sides["shortest_edge"]
  raise InputError(f"{options.path}: {key}={str(size)[:80]} is not supported; expected height and width, or "
                   "shortest_edge")


def _hyper(config: Fields, kind: str) -> tuple[dict[str, Any], dict[str, Any], tuple[int, ...]]:
  """Arguments of our encoder, further ones of `mae`, and the shape of an image."""
  dim = config.integer("hidden_size", 768)
  config.refuse("qkv_bias", True)
  config.refuse("quantization_config", None)
  config.refuse("pruned_heads", None, {})
  config.refuse("pooler_act", "tanh")
  config.refuse("pooler_output_size", None, dim)
  patch_size = config.integer("patch_size", 16)
  size = config.values.get("image_size", 224)
  size = size if isinstance(size, list) else [size, size]
  if len(size) != 2 or any(type(n) is not int or not 1 <= n <= 1 << 16 or n % patch_size for n in size):
    raise InputError(f"{config.path}: image_size is {str(size)[:40]}, expected multiples of patch_size={patch_size}")
  hyper = dict(patch_size=patch_size, dim=dim, num_layers=config.integer("num_hidden_layers", 12),
               num_heads=config.integer("num_attention_heads", 12), mlp_dim=config.integer("intermediate_size", 3072),
               activation=config.activation("hidden_act", "gelu"),
               norm_epsilon=config.number("layer_norm_eps", 1e-12))
  others = {}
  if kind == "vit_mae":
    others = dict(decoder_dim=config.integer("decoder_hidden_size", 512),
                  decoder_layers=config.integer("decoder_num_hidden_layers", 8),
                  decoder_heads=config.integer("decoder_num_attention_heads", 16),
                  decoder_mlp_dim=config.integer("decoder_intermediate_size", 2048),
                  mask_ratio=config.number("mask_ratio", 0.75, 0, 1), norm_pix=config.flag("norm_pix_loss", False))
  for prefix, sizes in (("", hyper), ("decoder_", others)):
    if sizes and sizes[f"{prefix}dim"] % sizes["num_heads" if not prefix else "decoder_heads"]:
      raise InputError(f"{config.path}: the {prefix}heads do not divide {sizes[f'{prefix}dim']} dimensions")
  if kind == "vit_mae" and (dim % 4 or others["decoder_dim"] % 4):
    raise InputError(f"{config.path}: hidden_size and decoder_hidden_size must be multiples of 4, for the positions")
  channels = config.integer("num_channels", 3)
  if channels not in (1, 3):
    raise InputError(f"{config.path}: num_channels is {channels}; supported are 1 and 3")
  return hyper, others, (*size, channels)


def _pixels(path: Path, channels: int) -> dict[str, Any]:
  """`pixel_mean` and `pixel_std` of pixels / 255, by the processor's rescaling and normalization; .5 without one."""
  if not path.exists():
    return {"pixel_mean": (0.5,) * channels, "pixel_std": (0.5,) * channels}
  options = _processor_options(path)
  scale = options.number("rescale_factor", 1 / 255) if options.flag("do_rescale", True) else 1.0
  if not scale > 0:
    raise InputError(f"{path}: rescale_factor is {scale}; it must be above 0")
  scale = 1.0 if abs(scale * 255 - 1) < 1e-9 else 255 * scale
  if not options.flag("do_normalize", True):
    return {"pixel_mean": (0.0,) * channels, "pixel_std": (1 / scale,) * channels}
  hyper = {}
  for key, name in (("pixel_mean", "image_mean"), ("pixel_std", "image_std")):
    values = options.values.get(name, 0.5)
    values = values if isinstance(values, list) else [values] * channels
    if len(values) != channels or any(type(value) not in (int, float) or not abs(value) < 1e30 for value in values):
      raise InputError(f"{path}: {name} is {str(values)[:60]}, expected {channels} numbers, as num_channels says")
    if key == "pixel_std" and not all(value > 0 for value in values):
      raise InputError(f"{path}: image_std is {str(values)[:60]}; it must be above 0")
    hyper[key] = tuple(float(value) / scale for value in values)
  return hyper


def _num_patches(shape: Sequence[int], patch_size: int) -> int:
  return (shape[0] // patch_size) * (shape[1] // patch_size)


def _positions(dim: int, shape: Sequence[int], patch_size: int) -> np.ndarray:
  """Theirs, with that of the CLS token, which is 0: [1, 1 + N, dim]."""
  table = np.zeros((1, 1 + _num_patches(shape, patch_size), dim), np.float32)
  if dim % 4 == 0:
    table[0, 1:] = sincos2d(shape[0] // patch_size, shape[1] // patch_size, dim)
  return table


def _decoder_stack(tensors: Tensors) -> str:
  """Returns the name of the decoder's layers; `transformers` 5 renames them when it writes."""
  renamed = any(name.startswith("decoder.decoder_encoder.layer.") for name in tensors.where)
  return "decoder_encoder.layer" if renamed else "decoder_layers"


def _leaves(hyper: Mapping[str, Any], prefix: str, shape: Sequence[int],
            decoder_stack: str) -> dict[str, tuple[int, list[Leaf]]]:
  """Returns each part's number of layers, and every array of ours with the tensors that make it."""
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
    rows = 1 + _num_patches(shape, size)
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
