"""Hugging Face directories of BART, in and out: `BartForConditionalGeneration` and `BartModel`.

Ours is a `sequence_autoencoder` with `memory=tokens`, `tie=embeddings`, `start=end`. As in `huggingface.py`, a
table of leaves serves both directions, so that a round trip is equal bit for bit. Their bias of the scores is a
buffer of zeros that is not trained; ours is trained, and written there.
"""
import functools
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from embeddings_jax.data.files.atomic import write_atomically
from embeddings_jax.data.files.json import read_json
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
from embeddings_jax.types import InputError

OFFSET = 2  # The row of the position embedding that the first token has.
OTHERS = {"memory": "tokens", "tie": "embeddings", "start": "end", "code_dim": 0, "variational": False}
TIED = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight")


def is_bart(directory: str | os.PathLike) -> bool:
  """Returns whether a directory's `config.json` says that it holds a BART."""
  path = Path(directory) / "config.json"
  return path.exists() and read_json(path).get("model_type") == "bart"


def read(directory: str | os.PathLike) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
  """The network of a directory: `(hyper, others, params)`.

  Returns:
    hyper: The arguments of `models/language/bert.py: encoder(**hyper)`.
    others: Further arguments of `sequence_autoencoder`.
    params: Nested dict of float32 arrays: `encoder`, `decoder` and `output`.

  Raises:
    InputError: No config or weights, pickled weights, an option that is not supported, a missing tensor or one whose
      shape is not the config's.
  """
  folder = Path(directory)
  config = Fields.of(folder / "config.json")
  hyper, others = _hyper(config)
  tensors = Tensors(folder)
  prefix = next((prefix for prefix in ("model.", "") if prefix + "shared.weight" in tensors.where), None)
  if prefix is None:  # Some writers keep one of the equal tables alone.
    prefix = "model." if any(name.startswith("model.") for name in tensors.where) else ""
  names = [prefix + "shared.weight", *(name.removeprefix("model.") if not prefix else name for name in TIED)]
  shared = next((name for name in names if name in tensors.where), names[0])
  params: dict[str, Any] = {"output": {"bias": np.zeros(hyper["vocab_size"], np.float32)}}
  for num_layers, leaves in _leaves(hyper, others, prefix, shared):
    for leaf in leaves:
      if leaf.path == "output/bias":
        if leaf.names[0] in tensors.where:
          put(params, leaf.path, tensors.get(leaf.names[0], (1, hyper["vocab_size"]))[0])
      else:
        put(params, leaf.path, read_leaf(leaf, num_layers, tensors.get))
  table = params["encoder"]["token_embedding"]
  for name in names:
    if name in tensors.where and not np.array_equal(tensors.get(name, table.shape), table):
      raise InputError(f"{tensors.where[name]}: {name} is not {shared}; a BART whose embeddings differ is not "
                       "supported")
  warn_unused(tensors)
  return hyper, others, params


def write(directory: str | os.PathLike, hyper: Mapping[str, Any], others: Mapping[str, Any],
          params: Mapping[str, Any], files: Mapping[str, bytes] | None = None,
          special_ids: Mapping[str, Any] | None = None) -> None:
  """Writes a network so that `transformers` loads it as `BartForConditionalGeneration`.

  Args:
    directory: Made if it is not there.
    hyper, others, params: As `read` returns them.
    files: Name -> content, of the tokenizer.
    special_ids: `bos_token_id`, `eos_token_id`, `pad_token_id` of `config.json`.

  Raises:
    InputError: BART cannot express the network, or an array is missing or of another shape.
  """
  hyper = {"dropout": 0.0, "attention_dropout": 0.0, **hyper}
  reason = cannot(hyper, others)
  if reason:
    raise InputError(f"a Hugging Face bart cannot have {reason}")
  sizes = decoder_sizes(hyper, others)
  tensors, used = {}, set()
  for num_layers, leaves in _leaves(hyper, others, "model.", "model.shared.weight"):
    for leaf in leaves:
      used.add(leaf.path)
      value = take(params, leaf.path)
      if leaf.path == "output/bias":
        tensors[leaf.names[0]] = np.ascontiguousarray(value[None])
      else:
        tensors |= write_leaf(leaf, num_layers, value)
  left_out = sorted(path for path in paths(params) if path not in used)
  if left_out:
    logging.warning("%s: %s has no place in a Hugging Face bart and is left out", directory, ", ".join(left_out))
  ids = {key: value for key, value in (special_ids or {}).items() if value is not None}
  config = {
      "architectures": ["BartForConditionalGeneration"], "model_type": "bart", "dtype": "float32",
      "is_encoder_decoder": True, "tie_word_embeddings": True, "scale_embedding": False,
      "vocab_size": hyper["vocab_size"], "d_model": hyper["dim"], "max_position_embeddings": hyper["max_length"],
      "encoder_layers": hyper["num_layers"], "encoder_attention_heads": hyper["num_heads"],
      "encoder_ffn_dim": hyper["mlp_dim"], "decoder_layers": sizes["num_layers"],
      "decoder_attention_heads": sizes["num_heads"], "decoder_ffn_dim": sizes["mlp_dim"],
      "activation_function": {"gelu": "gelu", "gelu_tanh": "gelu_new", "relu": "relu"}[hyper["activation"]],
      "dropout": hyper["dropout"], "attention_dropout": hyper["attention_dropout"], "activation_dropout": 0.0,
      "decoder_start_token_id": ids.get("eos_token_id", 2), **ids}
  config["forced_eos_token_id"] = config["decoder_start_token_id"]
  folder = Path(directory)
  folder.mkdir(parents=True, exist_ok=True)
  contents = dict(files or {})
  contents["config.json"] = (json.dumps(config, indent=2, sort_keys=True) + "\n").encode()
  contents["model.safetensors"] = save(tensors, metadata={"format": "pt"})
  for name, data in contents.items():
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / name, data)


def cannot(hyper: Mapping[str, Any], others: Mapping[str, Any]) -> str:
  """Returns what BART has no place for, or ""."""
  required = {"norm": "post", "embedding_norm": True, "num_segments": 0, "position_offset": OFFSET, "causal": False,
              "positions": "learned"}
  for key, value in required.items():
    if hyper.get(key, value) != value:
      return f"{key}={hyper[key]!r}, only {value!r}"
  if hyper["norm_epsilon"] != 1e-5:
    return f"norm_epsilon={hyper['norm_epsilon']!r}, only 1e-05"
  return next((f"{key}={others.get(key)!r}, only {value!r}" for key, value in OTHERS.items()
               if others.get(key, value) != value), "")


def decoder_sizes(hyper: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, int]:
  """Returns the decoder's number of layers, of heads, and the width of its MLP."""
  return {name: others.get(f"decoder_{name.removeprefix('num_')}") or hyper[name]
          for name in ("num_layers", "num_heads", "mlp_dim")}


def _hyper(config: Fields) -> tuple[dict[str, Any], dict[str, Any]]:
  """Arguments of the encoder and of the model."""
  config.refuse("scale_embedding", False)
  config.refuse("add_cross_attention", False)
  config.refuse("normalize_before", False)
  config.refuse("add_final_layer_norm", False)
  config.refuse("tie_word_embeddings", True)
  config.refuse("quantization_config", None)
  rate = functools.partial(config.number, most=1.0)
  hyper = dict(
      vocab_size=config.integer("vocab_size", 50265), dim=config.integer("d_model", 1024),
      num_layers=config.integer("encoder_layers", 12), num_heads=config.integer("encoder_attention_heads", 16),
      mlp_dim=config.integer("encoder_ffn_dim", 4096), max_length=config.integer("max_position_embeddings", 1024),
      num_segments=0, positions="learned", position_offset=OFFSET, embedding_norm=True, norm="post", causal=False,
      norm_epsilon=1e-5, dropout=rate("dropout", 0.1), attention_dropout=rate("attention_dropout", 0.0),
      activation=config.activation("activation_function", "gelu"))
  others = OTHERS | dict(
      decoder_layers=config.integer("decoder_layers", 12),
      decoder_heads=config.integer("decoder_attention_heads", 16),
      decoder_mlp_dim=config.integer("decoder_ffn_dim", 4096))
  for heads in (hyper["num_heads"], others["decoder_heads"]):
    if hyper["dim"] % heads:
      raise InputError(f"{config.path}: {heads} heads do not divide {hyper['dim']} dimensions")
  return hyper, others


def _leaves(hyper: Mapping[str, Any], others: Mapping[str, Any], prefix: str,
            shared: str) -> list[tuple[int, list[Leaf]]]:
  """Every array of ours with the tensors that make it: the number of layers and leaves of encoder and decoder."""
  dim, vocab_size, rows = hyper["dim"], hyper["vocab_size"], hyper["max_length"] + OFFSET
  sizes = decoder_sizes(hyper, others)
  encoder = _stack("encoder", prefix, dim, hyper["num_heads"], hyper["mlp_dim"], rows)
  decoder = _stack("decoder", prefix, dim, sizes["num_heads"], sizes["mlp_dim"], rows)
  head = (sizes["num_heads"], dim // sizes["num_heads"])
  layer = f"{prefix}decoder.layers.{{}}.encoder_attn"
  cross, pair = "decoder/layers/cross_", [f"{layer}.k_proj", f"{layer}.v_proj"]
  decoder += [
      *norm_leaves(f"{cross}norm", f"{layer}_layer_norm", dim),
      *dense_leaves(f"{cross}query", [f"{layer}.q_proj"], (dim, dim), (dim, *head), head),
      *dense_leaves(f"{cross}memory", pair, (dim, dim), (dim, 2, *head), (2, *head)),
      *dense_leaves(f"{cross}out", [f"{layer}.out_proj"], (dim, dim), (*head, dim)),
      Leaf("output/bias", (vocab_size,), ("final_logits_bias",), (vocab_size,))]
  table = Leaf("encoder/token_embedding", (vocab_size, dim), (shared,), (vocab_size, dim))
  return [(hyper["num_layers"], [table, *encoder]), (sizes["num_layers"], decoder)]


def _stack(part: str, prefix: str, dim: int, heads: int, mlp: int, rows: int) -> list[Leaf]:
  """Leaves that encoder and decoder share."""
  head, layer = (heads, dim // heads), f"{prefix}{part}.layers.{{}}."
  names = [f"{layer}self_attn.{name}_proj" for name in "qkv"]
  return [
      Leaf(f"{part}/position_embedding", (rows, dim), (f"{prefix}{part}.embed_positions.weight",), (rows, dim)),
      *norm_leaves(f"{part}/embedding_norm", f"{prefix}{part}.layernorm_embedding", dim),
      *norm_leaves(f"{part}/layers/attention_norm", f"{layer}self_attn_layer_norm", dim),
      *norm_leaves(f"{part}/layers/mlp_norm", f"{layer}final_layer_norm", dim),
      *dense_leaves(f"{part}/layers/qkv", names, (dim, dim), (dim, 3, *head), (3, *head)),
      *dense_leaves(f"{part}/layers/out", [f"{layer}self_attn.out_proj"], (dim, dim), (*head, dim)),
      *dense_leaves(f"{part}/layers/up", [f"{layer}fc1"], (dim, mlp)),
      *dense_leaves(f"{part}/layers/down", [f"{layer}fc2"], (mlp, dim))]
