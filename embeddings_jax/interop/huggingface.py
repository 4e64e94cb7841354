"""Hugging Face directories of text transformers, in and out: `config.json` and `model.safetensors`, without torch.

  `model_type`                        ours    what it is
  bert                                bert    post-norm encoder (also MiniLM and most sentence encoders)
  roberta, xlm-roberta, camembert     bert    the same with `position_offset` 2 and another masked-LM head
  openai-gpt                          gpt     post-norm decoder (GPT-1)
  gpt2                                gpt     pre-norm decoder

A linear layer of theirs is [out, in] (`Linear`) or [in, out] (`Conv1D`); ours are [in, out] with heads unfolded and
all layers stacked: a table of leaves (`_leaves`) says which tensors make which array, and serves both directions, so
that a round trip is equal bit for bit. Pickled weights (`pytorch_model.bin`) are never opened: loading a pickle runs
whatever code it holds.
"""
import functools
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from safetensors.numpy import save

from embeddings_jax.data.files.atomic import write_atomically
from embeddings_jax.data.files.json import json_field, parse_json, read_json
from embeddings_jax.interop.dense import Dense, read_dense
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

if TYPE_CHECKING:
  from embeddings_jax.data.encoders.subwords import SubwordEncoder

ROBERTA = ("roberta", "xlm-roberta", "camembert")
KNOWN = ("bert", *ROBERTA, "openai-gpt", "gpt2")
POOLINGS = {"cls_token": "cls", "cls": "cls", "mean_tokens": "mean", "mean": "mean", "max_tokens": "max",
            "max": "max", "lasttoken": "last", "mean_sqrt_len_tokens": "mean_sqrt_len",
            "mean_sqrt_len": "mean_sqrt_len"}


class SentenceModel(NamedTuple):
  """Options of a sentence-transformers directory.

  Attributes:
    folder: Directory of `config.json`, weights and tokenizer; without `modules.json` the directory itself.
    pooling: `cls`, `mean`, `max`, `last` or `mean_sqrt_len`; "" without `modules.json`.
    normalize: Divide vectors by their lengths.
    max_length: Texts are truncated to so many tokens; None for no limit beside the network's.
    strip: Strip white space around texts, as sentence-transformers does.
    lowercase: Fold the case of texts before tokenization.
    dense: Layers behind the pooling, see `interop/dense.py`.
  """

  folder: Path
  pooling: str = ""
  normalize: bool = False
  max_length: int | None = None
  strip: bool = False
  lowercase: bool = False
  dense: tuple[Dense, ...] = ()


def read(directory: str | os.PathLike) -> tuple[str, dict[str, Any], dict[str, Any]]:
  """The network of a directory: `(name, hyper, params)`.

  Args:
    directory: holds `config.json` and `model.safetensors` (or its shards), or is a sentence-transformers directory.

  Returns:
    name: Name of our model, `bert` or `gpt`.
    hyper: the arguments of that model's `encoder(**hyper)`.
    params: nested dict of float32 arrays: `encoder`, and of `pooler`, `masked` and `next_sentence` those there are.
      Tensors without a place among them are named in a warning.

  Raises:
    InputError: no config or weights, pickled weights, an unknown architecture or option, a missing tensor or one
      whose shape is not the config's.
  """
  folder = sentence_model(directory).folder
  config, kind = _read_config(folder)
  name, hyper = _hyper(config, kind)
  tensors = Tensors(folder)
  prefix = _prefix(kind, tensors)
  params: dict[str, Any] = {}
  for part, leaves in _leaves(kind, hyper, prefix).items():
    if part == "encoder" or any(tensor in tensors.where for leaf in leaves for tensor in leaf.names):
      for leaf in leaves:
        put(params, leaf.path, read_leaf(leaf, hyper["num_layers"], tensors.get))
  for tied in _tied(kind):
    if tied in tensors.where:
      table = params["encoder"]["token_embedding"] if tied.endswith("weight") else params["masked"]["bias"]
      if not np.array_equal(tensors.get(tied, table.shape), table):
        raise InputError(f"{tensors.where[tied]}: {tied} is not the table of the input tokens; decoders with weights "
                         "of their own are not supported")
  warn_unused(tensors)
  return name, hyper, params


def write(directory: str | os.PathLike, name: str, hyper: Mapping[str, Any], params: Mapping[str, Any],
          tokenizer_files: Mapping[str, bytes] | None = None) -> None:
  """Writes a network so that `transformers` loads it, as `BertForPreTraining`, `BertForMaskedLM`, `BertModel`,
  `RobertaForMaskedLM`, `RobertaModel`, `GPT2LMHeadModel` or `OpenAIGPTLMHeadModel`.

  Args:
    directory: made if it is not there.
    name, hyper, params: as `read` returns them; leaves that have no place there are named in a warning.
    tokenizer_files: name -> content; see `tokenizer_files`.

  Raises:
    InputError: the architecture cannot be expressed, or an array is missing or of another shape.
  """
  hyper = {"position_offset": 0, "num_segments": 0, "embedding_norm": False, "causal": False, "dropout": 0.0,
           "attention_dropout": 0.0, "positions": "learned", **hyper}
  kind = _kind(name, hyper)
  heads = [part for part in ("pooler", "masked", "next_sentence") if part in params]
  # Without a language model's head the base model is written, whose names have no prefix.
  prefix = {"bert": "bert.", "roberta": "roberta."}.get(kind, "transformer.")
  if kind in ("bert", "roberta") and "masked" not in heads:
    prefix = ""
  tensors, used = {}, set()
  for part, leaves in _leaves(kind, hyper, prefix).items():
    if part != "encoder" and part not in params:
      continue
    if kind == "bert" and part == "next_sentence" and "masked" not in heads:
      continue
    for leaf in leaves:
      used.add(leaf.path)
      tensors |= write_leaf(leaf, hyper["num_layers"], take(params, leaf.path))
  left_out = sorted(path for path in paths(params) if path not in used)
  if left_out:
    logging.warning("%s: %s has no place in a Hugging Face %s and is left out", directory, ", ".join(left_out), kind)
  if kind in ("gpt2", "openai-gpt"):
    architecture = {"gpt2": "GPT2LMHeadModel", "openai-gpt": "OpenAIGPTLMHeadModel"}[kind]
  else:
    base = {"bert": "Bert", "roberta": "Roberta"}[kind]
    head = ("Model" if not prefix else "ForPreTraining" if kind == "bert" and "next_sentence" in heads else
            "ForMaskedLM")
    architecture = base + head
  files = dict(tokenizer_files or {})
  config = _config(kind, hyper) | {"architectures": [architecture], "model_type": kind, "dtype": "float32",
                                   "tie_word_embeddings": True}
  config |= _special_ids(files.get("tokenizer.json"), kind)
  folder = Path(directory)
  folder.mkdir(parents=True, exist_ok=True)
  files["config.json"] = (json.dumps(config, indent=2, sort_keys=True) + "\n").encode()
  files["model.safetensors"] = save(tensors, metadata={"format": "pt"})
  for file, data in files.items():
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / file, data)


def sentence_model(directory: str | os.PathLike) -> SentenceModel:
  """Reads the modules of a sentence-transformers directory, if it has a `modules.json`.

  Raises:
    InputError: A module, a kind of pooling, or an option that is not supported.
  """
  folder = Path(directory)
  if not folder.is_dir():
    raise InputError(f"{folder}: no such directory; give a work directory of ours or a Hugging Face directory")
  path = folder / "modules.json"
  if not path.exists():
    return SentenceModel(folder)
  _refuse_prompt(folder / "config_sentence_transformers.json")
  sentence = SentenceModel(folder, strip=True)
  for i, module in enumerate(read_json(path, list)):
    if not isinstance(module, dict):
      raise InputError(f"{path}: module {i} is no object")
    kind = json_field(module, "type", str, path).rpartition(".")[2]
    folder_of_module = _inside(folder, json_field(module, "path", str, path, ""), f"{path}: module {i}")
    if kind == "Transformer" and i == 0:
      sentence = _with_transformer(sentence, folder_of_module)
    elif kind == "Pooling" and not sentence.pooling and i > 0:
      sentence = sentence._replace(pooling=_pooling(folder_of_module / "config.json"))
    elif kind == "Dense" and sentence.pooling and not sentence.normalize:
      sentence = sentence._replace(dense=(*sentence.dense, read_dense(folder_of_module)))
    elif kind == "Normalize" and sentence.pooling:
      sentence = sentence._replace(normalize=True)
    else:
      raise InputError(f"{path}: module {i} is of type {kind[:60]!r}; supported are a Transformer, then Pooling, "
                       "then Dense, then Normalize")
  if not sentence.pooling:
    raise InputError(f"{path}: names no Pooling; sentence-transformers needs one")
  return sentence


def text_encoder(sentence: SentenceModel, hyper: Mapping[str, Any]) -> "SubwordEncoder":
  """Builds the encoder of a directory: its tokenizer, with the limits and text options of `sentence`.

  Args:
    sentence: As `sentence_model` returns it.
    hyper: As `read` returns it.

  Raises:
    InputError: A damaged tokenizer, an option that is not supported, or more tokens than the network has.
  """
  # Here, as tokenizers take a while to import.
  from embeddings_jax.data.encoders.subwords import SubwordEncoder
  from embeddings_jax.data.files.tokenizer import load_tokenizer, max_tokens, with_text_options

  tokenizer = load_tokenizer(sentence.folder)
  if sentence.strip or sentence.lowercase:
    tokenizer = with_text_options(tokenizer, strip=sentence.strip, lowercase=sentence.lowercase)
  limits = [hyper["max_length"], sentence.max_length, max_tokens(sentence.folder)]
  encoder = SubwordEncoder(tokenizer, min(limit for limit in limits if limit))
  if encoder.facts["vocab_size"] > hyper["vocab_size"]:
    raise InputError(f"{sentence.folder}: the tokenizer has {encoder.facts['vocab_size']} tokens, the network "
                     f"{hyper['vocab_size']}; they are not of one model")
  return encoder


def sentence_files(pooling: str, dim: int, max_length: int, normalize: bool) -> dict[str, bytes]:
  """Returns the files of a sentence-transformers directory beside those of the network: name -> content.

  Args:
    pooling: `cls`, `mean`, `max`, `last` or `mean_sqrt_len`.
    dim: Dimensions of the vectors.
    max_length: Texts are truncated to so many tokens.
    normalize: Divide vectors by their lengths.

  Raises:
    InputError: A pooling that sentence-transformers lacks.
  """
  if pooling not in POOLINGS.values():
    raise InputError(f"pooling={pooling!r} has no place in sentence-transformers, only "
                     f"{', '.join(dict.fromkeys(POOLINGS.values()))}")
  names = ["Transformer", "Pooling"] + ["Normalize"] * normalize
  modules = [{"idx": i, "name": str(i), "path": f"{i}_{name}" if i else "",
              "type": f"sentence_transformers.models.{name}"} for i, name in enumerate(names)]
  flags = {f"pooling_mode_{mode}": POOLINGS[mode] == pooling
           for mode in ("cls_token", "mean_tokens", "max_tokens", "lasttoken", "mean_sqrt_len_tokens")}
  flags |= {"pooling_mode_weightedmean_tokens": False}
  contents = {
      "modules.json": modules,
      "sentence_bert_config.json": {"max_seq_length": max_length, "do_lower_case": False},
      "1_Pooling/config.json": {"word_embedding_dimension": dim, **flags, "include_prompt": True}}
  return {name: (json.dumps(content, indent=2) + "\n").encode() for name, content in contents.items()}


def _inside(folder: Path, name: str, where: str) -> Path:
  """Returns a path below a directory; raises an `InputError` for one outside of it, or longer than paths are."""
  if len(name.encode(errors="replace")) > 255:
    raise InputError(f"{where}: {name[:40]!r}... is longer than a path can be")
  path = folder / name
  if "\0" in name or not path.resolve().is_relative_to(folder.resolve()):
    raise InputError(f"{where} lies outside of the directory: {name[:80]!r}")
  return path


def _with_transformer(sentence: SentenceModel, folder: Path) -> SentenceModel:
  """The options of a Transformer module; its file is named after the architecture in older directories."""
  sentence = sentence._replace(folder=folder)
  path = next((folder / name for name in _TRANSFORMER_CONFIGS if (folder / name).exists()), None)
  if path is None:
    return sentence
  options = Fields.of(path)
  for key in ("model_args", "tokenizer_args", "config_args", "processing_kwargs", "method_output_name"):
    options.refuse(key, None, {})
  options.refuse("transformer_task", None, "feature-extraction")
  length = options.integer("max_seq_length") if options.values.get("max_seq_length") is not None else None
  return sentence._replace(max_length=length, lowercase=options.flag("do_lower_case", False))


_TRANSFORMER_CONFIGS = ("sentence_bert_config.json", *(f"sentence_{kind}_config.json" for kind in (
    "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")))


def _refuse_prompt(path: Path) -> None:
  """Raises if texts get a prompt by default."""
  if path.exists():
    options = read_json(path)
    name = json_field(options, "default_prompt_name", str, path, "")
    if name and json_field(options, "prompts", dict, path, {}).get(name):
      raise InputError(f"{path}: default_prompt_name={name[:60]!r} puts a prompt before every text, which is not "
                       "supported; set it to null and write the prompt into the input")


def _pooling(path: Path) -> str:
  options = read_json(path)
  named = json_field(options, "pooling_mode", str, path, "") if not isinstance(
      options.get("pooling_mode"), list) else "+".join(map(str, options["pooling_mode"]))
  flag = "pooling_mode_"
  modes = [named] if named else [key.removeprefix(flag) for key, value in options.items()
                                 if key.startswith(flag) and value]
  if len(modes) != 1 or modes[0] not in POOLINGS:
    raise InputError(f"{path}: pooling {'+'.join(modes)[:80] or 'of no kind'} is not supported; known: cls_token, "
                     "mean_tokens, max_tokens, lasttoken, mean_sqrt_len_tokens")
  return POOLINGS[modes[0]]


def tokenizer_files(tokenizer: bytes, max_length: int) -> dict[str, bytes]:
  """Returns the files that `AutoTokenizer` needs beside the weights, from a `tokenizer.json`.

  Args:
    tokenizer: content of `tokenizer.json`.
    max_length: longest text, in tokens.

  Returns:
    `tokenizer.json`, `tokenizer_config.json`, and of a WordPiece `vocab.txt`, of a BPE `vocab.json` and `merges.txt`.
  """
  described = parse_json(tokenizer, "tokenizer.json")
  model, added = described["model"], {item["content"] for item in described.get("added_tokens", [])}
  vocabulary = model.get("vocab", {})
  known = added | set(vocabulary if isinstance(vocabulary, dict) else ())
  tokens = {role: next((form for form in forms if form in known), None) for role, forms in _ROLES.items()}
  if model.get("type") == "BPE":  # Of GPT: one token begins, ends, pads and stands for what is unknown.
    tokens |= {role: tokens["eos_token"] for role in ("bos_token", "unk_token", "pad_token") if not tokens[role]}
  # Our file is the tokenizer: a class made for one model would build it anew from the vocabulary.
  config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": max_length,
            "clean_up_tokenization_spaces": False, **{role: token for role, token in tokens.items() if token}}
  files = {"tokenizer.json": tokenizer, "tokenizer_config.json": (json.dumps(config, indent=2) + "\n").encode()}
  if model.get("type") == "WordPiece":
    words = sorted(vocabulary, key=vocabulary.get)
    files["vocab.txt"] = "".join(f"{word}\n" for word in words).encode()
  elif model.get("type") == "BPE":
    pairs = (pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"])
    files["vocab.json"] = json.dumps(vocabulary, ensure_ascii=False).encode()
    files["merges.txt"] = ("#version: 0.2\n" + "".join(f"{pair}\n" for pair in pairs)).encode()
  return files


_ROLES = {"pad_token": ("[PAD]", "<pad>"), "unk_token": ("[UNK]", "<unk>"), "cls_token": ("[CLS]", "<s>"),
          "sep_token": ("[SEP]", "</s>"), "mask_token": ("[MASK]", "<mask>"), "bos_token": ("<s>",),
          "eos_token": ("</s>", "<|endoftext|>")}


def _special_ids(tokenizer: bytes | None, kind: str) -> dict[str, Any]:
  """Ids of special tokens that `config.json` names: of the tokenizer where there is one, else none."""
  if tokenizer is None:
    return {"bos_token_id": None, "eos_token_id": None, "pad_token_id": 1 if kind == "roberta" else None}
  described = parse_json(tokenizer, "tokenizer.json")
  vocabulary = described["model"].get("vocab", {})
  ids = dict(vocabulary) if isinstance(vocabulary, dict) else {}
  ids |= {item["content"]: item["id"] for item in described.get("added_tokens", [])}
  special_ids = {f"{role}_id": next((ids[form] for form in _ROLES[role] if form in ids), None)
                 for role in ("pad_token", "bos_token", "eos_token")}
  if kind in ("gpt2", "openai-gpt"):
    special_ids["bos_token_id"] = special_ids["eos_token_id"]
  if kind == "roberta":  # Positions are counted from the padding's id on.
    special_ids["pad_token_id"] = 1
  return special_ids


def _hyper(config: Fields, kind: str) -> tuple[str, dict[str, Any]]:
  """Our model's name and the arguments of its encoder."""
  config.refuse("is_decoder", False)
  config.refuse("add_cross_attention", False)
  config.refuse("position_embedding_type", "absolute", None)
  config.refuse("quantization_config", None)
  config.refuse("pruned_heads", None, {})
  rate = functools.partial(config.number, most=1.0)
  if kind in ("openai-gpt", "gpt2"):
    config.refuse("scale_attn_weights", True)
    config.refuse("scale_attn_by_inverse_layer_idx", False)
    dim = config.integer("n_embd", 768)
    # OpenAI's first model calls the approximation gelu.
    key, default = ("afn", "gelu") if kind == "openai-gpt" else ("activation_function", "gelu_new")
    activation = "gelu_tanh" if kind == "openai-gpt" and config.text(key, default) == "gelu" else (
        config.activation(key, default))
    hyper = dict(
        vocab_size=config.integer("vocab_size", 40478 if kind == "openai-gpt" else 50257), dim=dim,
        num_layers=config.integer("n_layer", 12), num_heads=config.integer("n_head", 12),
        mlp_dim=4 * dim if kind == "openai-gpt" or not config.values.get("n_inner") else config.integer("n_inner"),
        max_length=config.integer("n_positions", config.values.get("n_ctx", 512 if kind == "openai-gpt" else 1024)),
        num_segments=0, positions="learned", position_offset=0, embedding_norm=False,
        norm="post" if kind == "openai-gpt" else "pre", causal=True,
        norm_epsilon=config.number("layer_norm_epsilon", 1e-5), dropout=rate("resid_pdrop", 0.1),
        attention_dropout=rate("attn_pdrop", 0.1))
  else:
    offset = 0
    if kind in ROBERTA:
      offset = json_field(config.values, "pad_token_id", int, config.path, 1) + 1
    activation = config.activation("hidden_act", "gelu")
    positions = config.integer("max_position_embeddings", 512)
    if not 0 <= offset < positions:
      raise InputError(f"{config.path}: pad_token_id={offset - 1} leaves no position of {positions}")
    hyper = dict(
        vocab_size=config.integer("vocab_size", 30522), dim=config.integer("hidden_size", 768),
        num_layers=config.integer("num_hidden_layers", 12), num_heads=config.integer("num_attention_heads", 12),
        mlp_dim=config.integer("intermediate_size", 3072), max_length=positions - offset,
        num_segments=config.integer("type_vocab_size", 2), positions="learned", position_offset=offset,
        embedding_norm=True, norm="post", causal=False, norm_epsilon=config.number("layer_norm_eps", 1e-12),
        dropout=rate("hidden_dropout_prob", 0.1), attention_dropout=rate("attention_probs_dropout_prob", 0.1))
  if hyper["dim"] % hyper["num_heads"]:
    raise InputError(f"{config.path}: {hyper['num_heads']} heads do not divide {hyper['dim']} dimensions")
  hyper["activation"] = activation
  return "gpt" if hyper["causal"] else "bert", hyper


def _kind(name: str, hyper: Mapping[str, Any]) -> str:
  """The `model_type` that can express our network.

  Raises:
    InputError: there is none, with what is in the way.
  """
  def need(key: str, *allowed: Any) -> None:
    if hyper[key] not in allowed:
      raise InputError(f"a Hugging Face {name} cannot have {key}={hyper[key]!r}, only "
                       f"{' or '.join(map(repr, allowed))}")

  need("positions", "learned")
  if name == "gpt":
    need("causal", True)
    need("embedding_norm", False)
    need("num_segments", 0)
    need("position_offset", 0)
    if hyper["norm"] == "post":
      need("mlp_dim", 4 * hyper["dim"])
      need("activation", "gelu_tanh", "relu")
      return "openai-gpt"
    return "gpt2"
  if name == "bert":
    need("causal", False)
    need("embedding_norm", True)
    need("norm", "post")
    need("position_offset", 0, 2)
    if not hyper["num_segments"]:
      raise InputError("a Hugging Face bert cannot have num_segments=0, only 1 or more")
    return "roberta" if hyper["position_offset"] else "bert"
  raise InputError(f"format=huggingface: a model {name!r} has no place there; bert and gpt have")


def _config(kind: str, hyper: Mapping[str, Any]) -> dict[str, Any]:
  """`config.json` of a network."""
  theirs = {"gelu": "gelu", "gelu_tanh": "gelu_new", "relu": "relu"}[hyper["activation"]]
  if kind in ("gpt2", "openai-gpt"):
    config = {"vocab_size": hyper["vocab_size"], "n_embd": hyper["dim"], "n_layer": hyper["num_layers"],
              "n_head": hyper["num_heads"], "n_positions": hyper["max_length"],
              "layer_norm_epsilon": hyper["norm_epsilon"], "resid_pdrop": hyper["dropout"],
              "embd_pdrop": hyper["dropout"], "attn_pdrop": hyper["attention_dropout"]}
    if kind == "gpt2":
      return config | {"n_inner": hyper["mlp_dim"], "activation_function": theirs}
    return config | {"afn": "gelu" if theirs == "gelu_new" else theirs}
  return {"vocab_size": hyper["vocab_size"], "hidden_size": hyper["dim"], "num_hidden_layers": hyper["num_layers"],
          "num_attention_heads": hyper["num_heads"], "intermediate_size": hyper["mlp_dim"],
          "max_position_embeddings": hyper["max_length"] + hyper["position_offset"],
          "type_vocab_size": hyper["num_segments"], "hidden_act": theirs, "layer_norm_eps": hyper["norm_epsilon"],
          "hidden_dropout_prob": hyper["dropout"], "attention_probs_dropout_prob": hyper["attention_dropout"]}


def _leaves(kind: str, hyper: Mapping[str, Any], prefix: str) -> dict[str, list[Leaf]]:
  """Every array of ours with the tensors that make it, by the part of the network."""
  dim, heads, mlp = hyper["dim"], hyper["num_heads"], hyper["mlp_dim"]
  head = (heads, dim // heads)
  positions = hyper["max_length"] + hyper["position_offset"]
  conv = kind in ("gpt2", "openai-gpt")

  norm = functools.partial(norm_leaves, dim=dim)
  dense = functools.partial(dense_leaves, axes=() if conv else (1, 0))

  def table(path: str, name: str, rows: int) -> Leaf:
    return Leaf(path, (rows, dim), (f"{name}.weight",), (rows, dim))

  if conv:
    names = ("tokens_embed", "positions_embed") if kind == "openai-gpt" else ("wte", "wpe")
    layer = f"{prefix}h.{{}}."
    trunk = [table("encoder/token_embedding", prefix + names[0], hyper["vocab_size"]),
             table("encoder/position_embedding", prefix + names[1], positions),
             *norm("encoder/layers/attention_norm", layer + "ln_1"), *norm("encoder/layers/mlp_norm", layer + "ln_2"),
             *dense("encoder/layers/qkv", [layer + "attn.c_attn"], (dim, 3 * dim), (dim, 3, *head), (3, *head)),
             *dense("encoder/layers/out", [layer + "attn.c_proj"], (dim, dim), (*head, dim)),
             *dense("encoder/layers/up", [layer + "mlp.c_fc"], (dim, mlp)),
             *dense("encoder/layers/down", [layer + "mlp.c_proj"], (mlp, dim))]
    if kind == "gpt2":
      trunk += norm("encoder/final_norm", prefix + "ln_f")
    return {"encoder": trunk}
  layer = f"{prefix}encoder.layer.{{}}."
  names = [f"{layer}attention.self.{part}" for part in ("query", "key", "value")]
  embeddings = prefix + "embeddings."
  trunk = [table("encoder/token_embedding", embeddings + "word_embeddings", hyper["vocab_size"]),
           table("encoder/position_embedding", embeddings + "position_embeddings", positions),
           table("encoder/segment_embedding", embeddings + "token_type_embeddings", hyper["num_segments"]),
           *norm("encoder/embedding_norm", embeddings + "LayerNorm"),
           *norm("encoder/layers/attention_norm", layer + "attention.output.LayerNorm"),
           *norm("encoder/layers/mlp_norm", layer + "output.LayerNorm"),
           *dense("encoder/layers/qkv", names, (dim, dim), (dim, 3, *head), (3, *head)),
           *dense("encoder/layers/out", [layer + "attention.output.dense"], (dim, dim), (*head, dim)),
           *dense("encoder/layers/up", [layer + "intermediate.dense"], (dim, mlp)),
           *dense("encoder/layers/down", [layer + "output.dense"], (mlp, dim))]
  lm = "cls.predictions.transform." if kind == "bert" else "lm_head."
  bias = "cls.predictions.bias" if kind == "bert" else "lm_head.bias"
  parts = {
      "encoder": trunk,
      "pooler": dense("pooler", [prefix + "pooler.dense"], (dim, dim)),
      "masked": [*dense("masked/dense", [lm + "dense"], (dim, dim)),
                 *norm("masked/norm", lm + ("LayerNorm" if kind == "bert" else "layer_norm")),
                 Leaf("masked/bias", (hyper["vocab_size"],), (bias,), (hyper["vocab_size"],))]}
  if kind == "bert":
    parts["next_sentence"] = dense("next_sentence", ["cls.seq_relationship"], (dim, 2))
  return parts


def _tied(kind: str) -> tuple[str, ...]:
  """Tensors that some writers add although they are other tensors."""
  if kind == "bert":
    return "cls.predictions.decoder.weight", "cls.predictions.decoder.bias"
  if kind in ROBERTA:
    return "lm_head.decoder.weight", "lm_head.decoder.bias"
  return ("lm_head.weight",)


def _prefix(kind: str, tensors: "Tensors") -> str:
  """Returns the prefix of the encoder's names: `bert.`, or "" where the base model was saved."""
  base, first = {"openai-gpt": ("transformer.", "tokens_embed.weight"), "gpt2": ("transformer.", "wte.weight"),
                 "bert": ("bert.", "embeddings.word_embeddings.weight")}.get(
                     kind, ("roberta.", "embeddings.word_embeddings.weight"))
  for prefix in (base, ""):
    if prefix + first in tensors.where:
      return prefix
  raise InputError(f"{tensors.folder}: the weights have no tensor {base}{first}, which a {kind} has")


def _read_config(folder: Path) -> tuple[Fields, str]:
  path = folder / "config.json"
  if not path.exists():
    raise InputError(f"{folder}: is no Hugging Face directory, config.json is missing")
  config = Fields.of(path)
  kind = config.values.get("model_type")
  if kind not in KNOWN:
    raise InputError(f"{path}: the architecture {str(kind)[:40]!r} (model_type) is unknown; known: "
                     f"{', '.join(KNOWN)}")
  return config, kind
