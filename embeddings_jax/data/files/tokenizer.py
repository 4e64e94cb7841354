"""Guarded reading of tokenizers: `tokenizer.json`, WordPiece `vocab.txt`, byte pairs in `vocab.json` with
`merges.txt`, and Hugging Face directories.

A directory's `tokenizer_config.json` decides how `transformers` builds its tokenizer, and is obeyed here:

  `tokenizer_class`                       built from
  BertTokenizer and its aliases           vocabulary, `do_lower_case`, `strip_accents`, `tokenize_chinese_chars` and
                                          special tokens; the normalizer in `tokenizer.json` is ignored
  GPT2Tokenizer, RobertaTokenizer         vocabulary, merges and `add_prefix_space`
  OpenAIGPTTokenizer                      vocabulary and merges, lower case
  PreTrainedTokenizerFast, ... (`PLAIN`)  `tokenizer.json` as it is

Other classes, and fields that change the input in a way that is not implemented, are refused by name.
"""
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from embeddings_jax.data.files.json import json_field, parse_json, read_json
from embeddings_jax.types import InputError

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # The first ids of a WordPiece vocabulary of ours.
MAX_ID = 1 << 22  # Larger ids are taken for damage: tables of that many rows would be allocated for them.
MAX_BYTES = 1 << 28
WORDPIECE = ("BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer", "MobileBertTokenizer", "RetriBertTokenizer")
BYTE_LEVEL = ("GPT2Tokenizer", "RobertaTokenizer")
PLAIN = ("PreTrainedTokenizer", "TokenizersBackend", "XLMRobertaTokenizer", "CamembertTokenizer")
_CLASS_OF = {"bert": "BertTokenizer", "roberta": "RobertaTokenizer", "xlm-roberta": "XLMRobertaTokenizer",
             "camembert": "CamembertTokenizer", "openai-gpt": "OpenAIGPTTokenizer", "gpt2": "GPT2Tokenizer"}
# Special tokens of classes, where no file names them.
_BYTE_PAIR_ROLES: Mapping[str, Mapping[str, str]] = {
    "GPT2Tokenizer": dict.fromkeys(("unk", "bos", "eos"), "<|endoftext|>"), "OpenAIGPTTokenizer": {"unk": "<unk>"},
    "RobertaTokenizer": {"unk": "<unk>", "cls": "<s>", "bos": "<s>", "sep": "</s>", "eos": "</s>", "pad": "<pad>",
                         "mask": "<mask>"}}
_ROLES = ("unk", "cls", "sep", "pad", "mask", "bos", "eos")


def load_tokenizer(path: str | os.PathLike, lowercase: bool = True) -> Tokenizer:
  """Loads a tokenizer from a file or directory.

  Args:
    path: A `tokenizer.json`, a WordPiece `vocab.txt` (one token a line), or a directory with either of them, or with
      `vocab.json` and `merges.txt`; see the head of this file.
    lowercase: Default of `do_lower_case` where no `tokenizer_config.json` states it; also removes accents.

  Raises:
    InputError: No such file, a damaged one, or a directory with an option that is not supported.
  """
  path = Path(path).expanduser()
  if path.is_dir():
    return _from_directory(path, lowercase)
  if path.suffix == ".txt":
    return wordpiece(read_vocabulary(path), lowercase, where=path)
  return parse_tokenizer(_bytes(path), path)


def parse_tokenizer(data: bytes, where: object) -> Tokenizer:
  """Parses the content of a `tokenizer.json`; padding and truncation in it are dropped.

  Raises:
    InputError: Not a tokenizer, ids out of bounds, or random tokens (BPE dropout).
  """
  return _tokenizer(_checked(parse_json(data, where), where), where)


def read_vocabulary(path: Path) -> list[str]:
  """Reads a WordPiece `vocab.txt`: tokens in the order of their ids; a byte order mark and `\\r` are dropped.

  Raises:
    InputError: Unreadable, not UTF-8, or a token listed twice.
  """
  try:
    vocabulary = [line.removesuffix("\r") for line in _bytes(path).decode("utf-8-sig").split("\n")]
  except UnicodeDecodeError as error:
    raise InputError(f"{path}: is not UTF-8, byte {error.start}; a WordPiece vocabulary has one token a line"
                     ) from error
  while vocabulary and not vocabulary[-1]:
    vocabulary.pop()
  if len(vocabulary) > MAX_ID:
    raise InputError(f"{path}: {len(vocabulary)} tokens; at most {MAX_ID} are supported")
  first: dict[str, int] = {}
  for number, token in enumerate(vocabulary, 1):
    if token in first:
      raise InputError(f"{path}, line {number}: {token[:60]!r} repeats line {first[token]}")
    first[token] = number
  return vocabulary


def wordpiece(vocabulary: Sequence[str] | Mapping[str, int], lowercase: bool, *, strip_accents: bool | None = None,
              chinese_words: bool = True, unk: str = "[UNK]", cls: str = "[CLS]", sep: str = "[SEP]",
              pad: str = "[PAD]", mask: str = "[MASK]", where: object = "vocabulary") -> Tokenizer:
  """Builds BERT's tokenizer (Devlin et al. 2019).

  Control characters are removed; words are split at white space and punctuation, and then into the longest pieces in
  the vocabulary; a word of more than 100 characters is the unknown token.

  Args:
    vocabulary: Tokens in the order of their ids, or token -> id.
    lowercase: Fold case.
    strip_accents: Remove accents; by default as `lowercase`.
    chinese_words: Treat each Chinese character as a word.
    unk, cls, sep, pad, mask: Names of the special tokens; `pad` and `mask` may be missing from the vocabulary.
    where: Name of the file for error messages.
  """
  ids = vocabulary if isinstance(vocabulary, Mapping) else {token: i for i, token in enumerate(vocabulary)}
  for role, token in (("unk_token", unk), ("cls_token", cls), ("sep_token", sep)):
    if token not in ids:
      raise InputError(f"{where}: has no {token[:60]} ({role}); a WordPiece vocabulary has one token a line, among "
                       "them [UNK], [CLS] and [SEP]")
  tokenizer = Tokenizer(models.WordPiece(dict(ids), unk_token=unk, max_input_chars_per_word=100))
  tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=strip_accents,
                                                    handle_chinese_chars=chinese_words)
  tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
  tokenizer.add_special_tokens([token for token in dict.fromkeys((pad, unk, cls, sep, mask)) if token in ids])
  tokenizer.post_processor = processors.TemplateProcessing(
      single=f"{cls}:0 $A:0 {sep}:0", pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
      special_tokens=[(token, ids[token]) for token in (cls, sep)])
  tokenizer.decoder = decoders.WordPiece(prefix="##")
  return tokenizer


def max_tokens(folder: Path) -> int | None:
  """Returns `model_max_length` of a directory's `tokenizer_config.json`; None without one or without a limit."""
  path = folder / "tokenizer_config.json"
  length = json_field(read_json(path), "model_max_length", float, path, 0) if path.exists() else 0
  if not 0 <= length < float("inf"):
    raise InputError(f"{path}: model_max_length is {str(length)[:40]}; it must be positive")
  return int(length) if 0 < length < MAX_ID else None  # Some write 1e30 for no limit.


def byte_pairs(vocabulary: Path, merges: Path, kind: str, unk: str = "") -> dict[str, Any]:
  """Returns the content of a `tokenizer.json` for a vocabulary of byte pairs and its merges, a pair a line.

  Args:
    vocabulary: JSON, token -> id.
    merges: Text; a first line that begins with `#version` is skipped.
    kind: Class of `transformers`, of which `OpenAIGPTTokenizer` marks the ends of words.
    unk: Token of what is unknown, if the vocabulary has it.

  Raises:
    InputError: A file cannot be read, or a merge is no pair of tokens whose join is a token.
  """
  tokens = parse_json(_bytes(vocabulary), vocabulary)
  try:
    lines = _bytes(merges).decode("utf-8-sig").split("\n")
  except UnicodeDecodeError as error:
    raise InputError(f"{merges}: is not UTF-8, byte {error.start}; merges have two tokens a line") from error
  pairs = []
  for number, line in enumerate(lines, 1):
    line = line.removesuffix("\r")
    if not line.strip() or number == 1 and line.startswith("#version"):
      continue
    pair = line.split(" ")
    if len(pair) != 2 or not all(token in tokens for token in (*pair, "".join(pair))):
      raise InputError(f"{merges}: line {number}: {line[:60]!r} should be two tokens of {vocabulary.name} whose join "
                       "is one too")
    pairs.append(pair)
  of_words = kind == "OpenAIGPTTokenizer"
  model = {"type": "BPE", "vocab": tokens, "merges": pairs, "unk_token": unk if of_words and unk in tokens else None,
           "end_of_word_suffix": "</w>" if of_words else None, "dropout": None, "fuse_unk": False,
           "continuing_subword_prefix": None, "byte_fallback": False, "ignore_merges": False}
  decoder = {"type": "BPEDecoder", "suffix": "</w>"} if of_words else {
      "type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
  return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
          "pre_tokenizer": None, "post_processor": None, "decoder": decoder, "model": model}


def with_text_options(tokenizer: Tokenizer, *, strip: bool, lowercase: bool) -> Tokenizer:
  """Returns a copy that first strips white space around texts and folds their case, as sentence-transformers does."""
  steps = ([normalizers.Strip()] if strip else []) + ([normalizers.Lowercase()] if lowercase else [])
  tokenizer = Tokenizer.from_str(tokenizer.to_str())
  if steps:
    tokenizer.normalizer = normalizers.Sequence(steps + ([tokenizer.normalizer] if tokenizer.normalizer else []))
  return tokenizer


def guarded(call: Callable[[], Any], where: object) -> Any:
  """Calls into the `tokenizers` library and turns whatever it raises, panics too, into an `InputError`."""
  try:
    return call()
  except (InputError, KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError):
    raise
  except BaseException as error:  # A panic in Rust is no Exception.
    raise InputError(f"{where}: not a tokenizer that the library `tokenizers` can read "
                     f"({' '.join(str(error).split())[:80]})") from error


def _from_directory(folder: Path, lowercase: bool) -> Tokenizer:
  path = folder / "tokenizer_config.json"
  options = read_json(path) if path.exists() else {}
  kind = _tokenizer_class(folder, path, options)
  _refuse(path, options)
  if "added_tokens_decoder" not in options:  # Older writers have files of their own for these.
    for name in ("special_tokens_map.json", "added_tokens.json"):
      if (folder / name).exists():
        extra = read_json(folder / name)
        options |= extra if name == "special_tokens_map.json" else {"added_tokens": extra}
  names = {role: _content(path, role, options) for role in _ROLES}
  file, vocabulary = folder / "tokenizer.json", folder / "vocab.txt"
  described, pairs = None, folder / "merges.txt"
  if not file.is_file() and kind not in WORDPIECE and (folder / "vocab.json").is_file() and pairs.is_file():
    kind = kind or "GPT2Tokenizer"
    if kind not in (*BYTE_LEVEL, "OpenAIGPTTokenizer"):
      raise InputError(f"{path}: {kind} is read from tokenizer.json, which is missing")
    names = {role: name or _BYTE_PAIR_ROLES[kind].get(role, "") for role, name in names.items()}
    described = _checked(byte_pairs(folder / "vocab.json", pairs, kind, names["unk"]), pairs)
  elif file.is_file() or not vocabulary.is_file():
    described = _checked(parse_json(_bytes(file), file), file)
  if kind in WORDPIECE or described is None:
    tokenizer = _wordpiece_of(path, options, names, lowercase, described, file if described else vocabulary)
  else:
    tokenizer = _tokenizer(described, file)
    if kind in BYTE_LEVEL or kind == "OpenAIGPTTokenizer":
      _rebuild(tokenizer, kind, path, options, names, described)
    elif not json_field(options, "add_prefix_space", bool, path, True) and kind not in PLAIN[:2]:
      raise InputError(f"{path}: add_prefix_space=false is not supported for {kind}")
  _add_tokens(tokenizer, path, options, names)
  return tokenizer


def _tokenizer_class(folder: Path, path: Path, options: Mapping[str, Any]) -> str:
  """Name of the class that `transformers` takes, without `Fast`; "" where the directory does not tell."""
  name = json_field(options, "tokenizer_class", str, path, "")
  config = folder / "config.json"
  if not name and config.exists():
    described = read_json(config)
    name = json_field(described, "tokenizer_class", str, config, "") or _CLASS_OF.get(
        json_field(described, "model_type", str, config, ""), "")
  name = name.removesuffix("Fast")
  if name and name not in (*WORDPIECE, *BYTE_LEVEL, "OpenAIGPTTokenizer", *PLAIN):
    raise InputError(f"{path}: tokenizer_class={name[:60]!r} is not supported; known: "
                     f"{', '.join((*WORDPIECE, *BYTE_LEVEL, 'OpenAIGPTTokenizer', *PLAIN))}")
  return name


def _refuse(path: Path, options: Mapping[str, Any]) -> None:
  """Raises for fields that change the input in a way that is not implemented."""
  for key, allowed in (("truncation_side", ("right",)), ("split_special_tokens", (False,)),
                       ("backend", ("tokenizers",)), ("auto_map", ())):
    value = options.get(key)
    if value is not None and value not in allowed:
      raise InputError(f"{path}: {key}={repr(value)[:60]} is not supported")


def _wordpiece_of(path: Path, options: Mapping[str, Any], names: Mapping[str, str], lowercase: bool,
                  described: Mapping[str, Any] | None, file: Path) -> Tokenizer:
  vocabulary = described["model"]["vocab"] if described else read_vocabulary(file)
  if described and described["model"].get("type", "WordPiece") != "WordPiece":
    raise InputError(f"{file}: holds a {str(described['model']['type'])[:40]} model, but {path.name} asks for a "
                     "WordPiece tokenizer")
  tokenizer = guarded(lambda: wordpiece(
      vocabulary, json_field(options, "do_lower_case", bool, path, lowercase),
      strip_accents=json_field(options, "strip_accents", bool, path, None),
      chinese_words=json_field(options, "tokenize_chinese_chars", bool, path, True), where=file,
      **{role: names[role] or f"[{role.upper()}]" for role in ("unk", "cls", "sep", "pad", "mask")}), file)
  for entry in described["added_tokens"] if described else ():
    _add(tokenizer, file, entry, entry["id"])
  return tokenizer


def _rebuild(tokenizer: Tokenizer, kind: str, path: Path, options: Mapping[str, Any], names: Mapping[str, str],
             described: Mapping[str, Any]) -> None:
  """Sets the steps that a class fixes whatever `tokenizer.json` says."""
  if described["model"].get("type", "BPE") != "BPE":
    raise InputError(f"{path}: {kind} needs a BPE model, tokenizer.json holds a "
                     f"{str(described['model']['type'])[:40]}")
  if kind == "OpenAIGPTTokenizer":
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return
  spaced = json_field(options, "add_prefix_space", bool, path, False)
  tokenizer.normalizer = None
  tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=spaced)
  if kind == "RobertaTokenizer":
    pair = [(name, tokenizer.token_to_id(name)) for name in (names["sep"] or "</s>", names["cls"] or "<s>")]
    for name, number in pair:
      if number is None:
        raise InputError(f"{path}: the vocabulary has no {name[:60]}, which stands around texts of a {kind}")
    tokenizer.post_processor = processors.RobertaProcessing(
        *pair, json_field(options, "trim_offsets", bool, path, True), spaced)


def _add_tokens(tokenizer: Tokenizer, path: Path, options: Mapping[str, Any], names: Mapping[str, str]) -> None:
  """Adds the tokens that `tokenizer_config.json` lists beside the vocabulary."""
  listed = json_field(options, "added_tokens_decoder", dict, path, {})
  entries = []
  for number, entry in listed.items():
    if not number.isdecimal() or not isinstance(entry, dict):
      raise InputError(f"{path}: added_tokens_decoder has the entry {number[:40]!r}: {str(entry)[:40]}; expected an "
                       "id and an object")
    entries.append((int(number), entry))
  for token, number in json_field(options, "added_tokens", dict, path, {}).items():
    special = token in names.values()
    entries.append((number, {"content": token, "special": special, "normalized": not special}))
  for number, entry in sorted(entries, key=lambda pair: pair[0] if type(pair[0]) is int else -1):
    _add(tokenizer, path, entry, number)
  known = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
  for token in names.values():  # One that the vocabulary lacks would get an id that the network has no row for.
    if token and token not in known and tokenizer.token_to_id(token) is not None:
      tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False)])
  for key in ("additional_special_tokens", "extra_special_tokens"):
    extra = options.get(key) or []
    for entry in extra.values() if isinstance(extra, dict) else extra if isinstance(extra, list) else [extra]:
      entry = {"content": entry} if isinstance(entry, str) else entry
      if not isinstance(entry, dict) or not isinstance(entry.get("content"), str):
        raise InputError(f"{path}: {key} holds {str(entry)[:40]}; expected tokens")
      if entry["content"] not in known:
        _add(tokenizer, path, {"normalized": False, **entry, "special": True}, None)


def _add(tokenizer: Tokenizer, where: object, entry: Mapping[str, Any], number: Any) -> None:
  """Adds a token; its id must be `number`, unless that is None."""
  if not isinstance(entry, dict) or number is not None and not (type(number) is int and 0 <= number < MAX_ID):
    raise InputError(f"{where}: the added token {str(entry)[:60]} has the id {number!r}; expected 0 to {MAX_ID - 1}")
  content = _encodable(json_field(entry, "content", str, where), where)
  flags = {key: json_field(entry, key, bool, where, False) for key in ("single_word", "lstrip", "rstrip", "special")}
  token = AddedToken(content, normalized=json_field(entry, "normalized", bool, where, not flags["special"]), **flags)
  guarded(lambda: (tokenizer.add_special_tokens if flags["special"] else tokenizer.add_tokens)([token]), where)
  if number is not None and (derived := tokenizer.token_to_id(content)) != number:
    raise InputError(f"{where}: the added token {content[:60]!r} has the id {number}, but {derived} follows from the "
                     "vocabulary")


def _content(path: Path, role: str, options: Mapping[str, Any]) -> str:
  """Text of the special token of a role, "" if it is not named."""
  value = options.get(f"{role}_token")
  value = value.get("content") if isinstance(value, dict) else value
  if value is not None and not isinstance(value, str):
    raise InputError(f"{path}: {role}_token is {str(value)[:40]}; expected a token")
  return _encodable(value or "", path)


def _encodable(token: str, where: object) -> str:
  """Returns a token unless it holds half a surrogate pair, which JSON can write and UTF-8 cannot."""
  try:
    token.encode()
  except UnicodeEncodeError as error:
    raise InputError(f"{where}: the token {ascii(token)[:60]} is not Unicode") from error
  return token


def _checked(described: dict[str, Any], where: object) -> dict[str, Any]:
  """A parsed `tokenizer.json` whose ids are within bounds, without padding and truncation."""
  described = described | {"padding": None, "truncation": None}
  model = json_field(described, "model", dict, where)
  if model.get("dropout"):
    raise InputError(f"{where}: model.dropout={repr(model['dropout'])[:40]} makes tokens random; set it to null")
  vocabulary = model.get("vocab")
  if not isinstance(vocabulary, (dict, list)):
    raise InputError(f"{where}: model.vocab holds no vocabulary")
  added = json_field(described, "added_tokens", list, where, [])
  described["added_tokens"] = added
  ids = list(vocabulary.values()) if isinstance(vocabulary, dict) else [len(vocabulary)]
  ids += [entry.get("id") if isinstance(entry, dict) else None for entry in added]
  for number in ids:
    if type(number) is not int or not 0 <= number < MAX_ID:
      raise InputError(f"{where}: a token has the id {str(number)[:40]}; expected integers from 0 to {MAX_ID - 1}")
  return described


def _tokenizer(described: Mapping[str, Any], where: object) -> Tokenizer:
  return guarded(lambda: Tokenizer.from_str(json.dumps(described)), where)


def _bytes(path: Path) -> bytes:
  try:
    if path.exists() and not path.is_file():
      raise InputError(f"{path}: not a regular file")
    if path.stat().st_size > MAX_BYTES:
      raise InputError(f"{path}: {path.stat().st_size >> 20} MiB; no tokenizer is larger than {MAX_BYTES >> 20} MiB")
    return path.read_bytes()
  except (OSError, ValueError) as error:
    if isinstance(error, InputError):
      raise
    raise InputError(f"{path}: cannot be read as a tokenizer ({getattr(error, 'strerror', None) or error}); give a "
                     "tokenizer.json, a WordPiece vocab.txt, or a directory with either of them") from error
