"""Tokenizers of Hugging Face directories: as `transformers` builds them, or refused by name."""
import itertools
import json

import pytest
from tokenizers import Tokenizer, models

from embeddings_jax.data.encoders.subwords import SubwordEncoder
from embeddings_jax.data.files.tokenizer import (
  SPECIAL,
  load_tokenizer,
  max_tokens,
  parse_tokenizer,
  with_text_options,
  wordpiece,
)
from embeddings_jax.data.tokenizer_training import train_bpe, train_wordpiece
from embeddings_jax.types import InputError

TEXTS = ["Müder Hund, naïve Katze!", "MÜDE\u0301 京都 cafe\u0301", "the [MASK] sat [SEP] on", " leading, trailing  ",
         "straße ΣΑΣ İstanbul", "<s> a <mask> b </s>", ""]
PIECES = [*SPECIAL, *"abcdefghijklmnopqrstuvwxyzMKHüßé京都", *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyzüßé京都"),
          "mude", "müde", "hund", "京都"]


def write(folder, config=None, tokenizer="vocab.txt", kind="bert", **files):
  folder.mkdir(exist_ok=True)
  (folder / "config.json").write_text(json.dumps({"model_type": kind}))
  if tokenizer == "vocab.txt":
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in PIECES))
  elif tokenizer:
    (folder / "tokenizer.json").write_text(tokenizer.to_str())
  if config is not None:
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
  for name, content in files.items():
    (folder / f"{name}.json").write_text(json.dumps(content))
  return folder


def tokens(folder, text):
  return load_tokenizer(folder).encode(text).tokens


@pytest.mark.parametrize("config,text,expected", [
    ({"do_lower_case": True, "strip_accents": False}, "Müde", ["müde"]),
    ({"do_lower_case": True}, "Müde", ["mude"]),
    ({}, "Müde", ["mude"]),
    ({"do_lower_case": False}, "Mü", ["M", "##ü"]),
    ({"do_lower_case": False, "strip_accents": True}, "Mü", ["M", "##u"]),
    ({"tokenize_chinese_chars": False}, "京都", ["京都"]),
    ({}, "京都", ["京", "都"]),
    ({"cls_token": "[MASK]", "sep_token": {"content": "[PAD]"}}, "a", ["a"]),
])
def test_fields_that_change_the_input_are_obeyed(config, text, expected, tmp_path):
  """Returns whether the vocabulary is in `vocab.txt` or in a `tokenizer.json` of other options."""
  for name, tokenizer in (("text", "vocab.txt"), ("json", wordpiece(PIECES, lowercase=False))):
    folder = write(tmp_path / name, {"tokenizer_class": "BertTokenizer", **config}, tokenizer)
    first, last = ("[MASK]", "[PAD]") if "cls_token" in config else ("[CLS]", "[SEP]")
    assert tokens(folder, text) == [first, *expected, last]


@pytest.mark.parametrize("key", ["additional_special_tokens", "extra_special_tokens"])
@pytest.mark.parametrize("value", [["hund"], [{"content": "hund"}], {"role": "hund"}])
def test_further_special_tokens_are_whole(key, value, tmp_path):
  """`hund` is no piece of a word then, nor is its case folded."""
  assert tokens(write(tmp_path / "d", {key: value}), "xhund HUND") == [
      "[CLS]", "x", "hund", "hund", "[SEP]"] != tokens(write(tmp_path / "e"), "xhund HUND")
  with pytest.raises(InputError, match=f"{key} holds 7; expected tokens"):
    load_tokenizer(write(tmp_path / "f", {key: [7]}))


def test_names_that_a_directory_replaces_are_text(tmp_path):
  folder = write(tmp_path / "d", {"mask_token": "hund"})
  assert tokens(folder, "[SEP] [MASK]") == ["[CLS]", "[SEP]", "[UNK]", "m", "##a", "##s", "##k", "[UNK]", "[SEP]"]


def test_a_tokenizer_file_of_the_general_class_is_taken_as_it_is(tmp_path):
  config = {"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": True}
  folder = write(tmp_path / "d", config, wordpiece(PIECES, lowercase=False))
  assert tokens(folder, "Mü") == ["[CLS]", "M", "##ü", "[SEP]"]


@pytest.mark.parametrize("kind,name", [("gpt2", "GPT2Tokenizer"), ("roberta", "RobertaTokenizerFast")])
def test_byte_pairs_may_begin_with_a_space(kind, name, tmp_path):
  bpe = train_bpe(["x a b"] * 9, 259)
  bpe.add_special_tokens(["<s>", "</s>"])
  for spaced, expected in ((True, ["Ġa", "Ġb"]), (False, ["a", "Ġb"])):
    folder = write(tmp_path / name, {"tokenizer_class": name, "add_prefix_space": spaced}, bpe, kind)
    actual = tokens(folder, "a b")
    assert actual == (expected if kind == "gpt2" else ["<s>", *expected, "</s>"])


def test_byte_order_marks_and_carriage_returns_are_no_tokens(tmp_path):
  folder = write(tmp_path / "d")
  data = (folder / "vocab.txt").read_bytes()
  (folder / "vocab.txt").write_bytes(b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n"))
  assert load_tokenizer(folder).get_vocab() == {piece: i for i, piece in enumerate(PIECES)}


def test_white_space_and_case_of_sentence_models():
  tokenizer = with_text_options(train_bpe(["ab"] * 9, 258), strip=True, lowercase=True)
  assert tokenizer.encode(" \t AB ").tokens == ["ab"]


@pytest.mark.parametrize("config,message", [
    ({"additional_special_tokens": ["\ud800"]}, r"the token '\\ud800' is not Unicode"),
    ({"unk_token": "\ud800"}, r"the token '\\ud800' is not Unicode"),
    ({"truncation_side": "left"}, "truncation_side='left' is not supported"),
    ({"split_special_tokens": True}, "split_special_tokens=True is not supported"),
    ({"auto_map": {"AutoTokenizer": ["x.py", None]}}, "auto_map=.* is not supported"),
    ({"tokenizer_class": "BertJapaneseTokenizer"}, "tokenizer_class='BertJapaneseTokenizer' is not supported"),
    ({"tokenizer_class": 3}, "'tokenizer_class' holds an integer, expected a string"),
    ({"do_lower_case": "yes"}, "'do_lower_case' holds a string, expected a boolean"),
    ({"cls_token": 5}, "cls_token is 5; expected a token"),
    ({"cls_token": "<cls>"}, r"vocab.txt: has no <cls> \(cls_token\)"),
    ({"added_tokens_decoder": {"7": {"content": "[NEW]"}}}, r"'\[NEW\]' has the id 7, but 74 follows"),
    ({"added_tokens_decoder": {"x": {}}}, "added_tokens_decoder has the entry 'x'"),
    ({"added_tokens_decoder": []}, "'added_tokens_decoder' holds a list, expected an object"),
])
def test_what_is_not_supported_is_named(config, message, tmp_path):
  with pytest.raises(InputError, match=message):
    load_tokenizer(write(tmp_path / "d", {"tokenizer_class": "BertTokenizer", **config}))


@pytest.mark.parametrize("value,expected", [(12, 12), (1e30, None), (None, None)])
def test_the_limit_of_tokens(value, expected, tmp_path):
  assert max_tokens(write(tmp_path / "d", {"model_max_length": value})) == expected
  for bad in (-1, "long"):
    with pytest.raises(InputError, match="model_max_length"):
      max_tokens(write(tmp_path / "d", {"model_max_length": bad}))


def changed(change):
  described = json.loads(wordpiece(PIECES, True).to_str())
  change(described)
  return json.dumps(described).encode()


@pytest.mark.parametrize("data,message", [
    (changed(lambda d: d["model"]["vocab"].update(a=1 << 40)), "a token has the id 1099511627776; expected"),
    (changed(lambda d: d["model"]["vocab"].update(a=-1)), "the id -1; expected"),
    (changed(lambda d: d["added_tokens"][0].update(id=4_000_000_000)), "the id 4000000000; expected"),
    (changed(lambda d: d["model"].update(dropout=0.1)), "model.dropout=0.1 makes tokens random"),
    (changed(lambda d: d["model"].update(vocab=None)), "model.vocab holds no vocabulary"),
    (changed(lambda d: d["post_processor"].update(single=3)), "not a tokenizer that the library"),
    (b"[" * 100_000, "nested too deeply"),
    (b"\x80\x04pickle", "not UTF-8 at byte 0"),
])
def test_hostile_files_are_refused_in_one_line(data, message):
  with pytest.raises(InputError, match=message) as error:
    parse_tokenizer(data, "tokenizer.json")
  assert "\n" not in str(error.value)


def test_a_fixed_padding_is_not_kept():
  data = changed(lambda d: d.update(padding={"strategy": {"Fixed": 1 << 40}, "direction": "Right", "pad_id": 0,
                                             "pad_to_multiple_of": None, "pad_type_id": 0, "pad_token": "[PAD]"}))
  assert len(parse_tokenizer(data, "x").encode("a").ids) == 3


def test_a_panic_in_the_library_is_a_message():
  """A vocabulary without the unknown token, and a template without its tokens."""
  tokenizer = Tokenizer(models.WordPiece({"a": 0}, unk_token="[UNK]"))
  with pytest.raises(InputError, match="tokenizer.json: not a tokenizer that .*UNK"):
    SubwordEncoder(tokenizer, 8).encode(["b"])
  tokenizer = parse_tokenizer(changed(lambda d: d["post_processor"].update(special_tokens={})), "x")
  with pytest.raises(InputError, match="tokenizer.json: not a tokenizer that"):
    SubwordEncoder(tokenizer, 8)


def test_wordpieces_of_thousands_of_characters():
  """Chinese characters are words of their own; vocabularies of a size that holds them are trained at that size."""
  characters = [chr(0x4E00 + i) for i in range(2500)]
  texts = ["".join(characters[i:i + 50]) for i in range(0, 2500, 50)] * 4
  for size in (2600, 4000):
    tokenizer = train_wordpiece(texts, size)
    vocabulary = tokenizer.get_vocab()
    assert set(characters[:-1]) <= set(vocabulary) and len(vocabulary) == 2504  # 99.95 % of the text.
    assert not any(token.startswith("##") for token in vocabulary)
    assert tokenizer.encode(texts[1], add_special_tokens=False).tokens == list(texts[1])
  with pytest.raises(InputError, match="vocab_size=2000: too small for the characters of the text; at least 2380"):
    train_wordpiece(texts, 2000)


@pytest.mark.parity
@pytest.mark.parametrize("options", list(itertools.product((None, True, False), (None, True, False), (None, False))))
def test_wordpiece_tokens_are_transformers(options, tmp_path):
  import transformers
  names = ("do_lower_case", "strip_accents", "tokenize_chinese_chars")
  config = {name: value for name, value in zip(names, options) if value is not None}
  for name in ("BertTokenizer", "PreTrainedTokenizerFast"):
    for source in ("vocab.txt", wordpiece(PIECES, lowercase=False)):
      if source == "vocab.txt" and name != "BertTokenizer":
        continue
      folder = write(tmp_path / f"{name}{source == 'vocab.txt'}", {"tokenizer_class": name, **config}, source)
      theirs = transformers.AutoTokenizer.from_pretrained(folder)
      ours = SubwordEncoder(load_tokenizer(folder), 64)
      for text in TEXTS:
        actual = ours.encode([text])["tokens"][0]
        assert actual[actual >= 0].tolist() == theirs(text)["input_ids"], (config, text)


@pytest.mark.parity
@pytest.mark.parametrize("kind, config", [("gpt2", {}), ("gpt2", {"tokenizer_class": "GPT2Tokenizer",
                                                                 "add_prefix_space": True}),
                                          ("roberta", {"tokenizer_class": "RobertaTokenizer"})])
def test_vocabulary_and_merges_are_transformers(kind, config, tmp_path):
  import transformers
  bpe = train_bpe(TEXTS * 9, 300)
  described = json.loads(bpe.to_str())["model"]
  special = {"gpt2": ["<|endoftext|>"], "roberta": ["<s>", "</s>", "<mask>", "<pad>", "<unk>"]}[kind]
  tokens = [*described["vocab"], *(token for token in special if token not in described["vocab"])]
  (tmp_path / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
  (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in described["merges"]))
  (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
  if config:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
  theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
  ours = SubwordEncoder(load_tokenizer(tmp_path), 200)
  for text in TEXTS:
    actual = ours.encode([text])["tokens"][0]
    assert actual[actual >= 0].tolist() == theirs(text)["input_ids"], text
  (tmp_path / "merges.txt").write_text("a b c\n")
  with pytest.raises(InputError, match="merges.txt: line 1: 'a b c' should be two tokens of vocab.json whose join"):
    load_tokenizer(tmp_path)


@pytest.mark.parity
@pytest.mark.parametrize("kind,name", [("gpt2", "GPT2Tokenizer"), ("roberta", "RobertaTokenizer"), ("gpt2", None),
                                       ("gpt2", "PreTrainedTokenizerFast")])
@pytest.mark.parametrize("spaced", [None, True, False])
def test_byte_pair_tokens_are_transformers(kind, name, spaced, tmp_path):
  import transformers
  bpe = train_bpe(TEXTS * 9, 300)
  bpe.add_special_tokens(["<s>", "</s>", "<mask>", "<pad>", "<unk>"])
  config = {"tokenizer_class": name, "add_prefix_space": spaced, "mask_token": {
      "content": "<mask>", "lstrip": True, "__type": "AddedToken"}}
  folder = write(tmp_path / "d", {key: value for key, value in config.items() if value is not None}, bpe, kind)
  theirs = transformers.AutoTokenizer.from_pretrained(folder)
  ours = SubwordEncoder(load_tokenizer(folder), 200)
  for text in TEXTS:
    actual = ours.encode([text])["tokens"][0]
    assert actual[actual >= 0].tolist() == theirs(text)["input_ids"], text
