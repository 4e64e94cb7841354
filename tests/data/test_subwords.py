"""Subword encoders: training, existing files, encoding, offsets."""
import logging

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from embeddings_jax.data import tokenizer_training
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.documents import is_validation
from embeddings_jax.data.encoders import load_encoder
from embeddings_jax.data.encoders.subwords import END, SubwordEncoder
from embeddings_jax.data.files.tokenizer import SPECIAL, load_tokenizer, wordpiece
from embeddings_jax.data.tokenizer_training import train_bpe, train_wordpiece, trained_tokenizer
from embeddings_jax.types import InputError

WORDS = ["un", "##aff", "##able", "want", "##ed", "run", "##ning", ",", "low", "##er", "New", "new", "a", "b", "##b"]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
AWKWARD = ["Crème brûlée, naïve Ångström!", "東京 tower は 3.5倍", "😀 smile😀d", "tab\tzero\0wid\u200bth \ufffd x",
           "x" * 150, "don't—stop... (e.g. 1,000%)", "[MASK] is [SEP] here", "", "   ", "İstanbul ẞ ǅ",
           "e\u0301 \u0301"]


@pytest.fixture(scope="module")
def texts():
  rng = np.random.default_rng(0)
  stems = ["walk", "talk", "jump", "lift", "Crème", "naïve", "東京", "token"]
  ends = ["", "ing", "ed", "s", "er", "ers"]
  return [" ".join(str(rng.choice(stems)) + str(rng.choice(ends)) for _ in range(20)) + "." for _ in range(100)]


@pytest.fixture(scope="module")
def trained(texts):
  return train_wordpiece(texts, 110)


def greedy(word, vocabulary):
  """The longest piece first, as WordPiece is defined."""
  pieces, start = [], 0
  while start < len(word):
    for end in range(len(word), start, -1):
      piece = ("##" if start else "") + word[start:end]
      if piece in vocabulary:
        break
    else:
      return ["[UNK]"]
    pieces.append(piece)
    start = end
  return pieces


def test_wordpiece_ids_are_reproducible_and_ordered(texts, trained):
  again = train_wordpiece(texts, 110)
  assert trained.to_str() == again.to_str()
  vocabulary = trained.get_vocab()
  ordered = sorted(vocabulary, key=vocabulary.get)
  assert sorted(vocabulary.values()) == list(range(110)) and tuple(ordered[:5]) == SPECIAL
  alphabet = [token for token in ordered[5:] if len(token) == 1]
  assert alphabet == sorted(alphabet) == ordered[5:5 + len(alphabet)]
  assert ordered[5 + len(alphabet):5 + 2 * len(alphabet)] == ["##" + character for character in alphabet]
  assert {"walk", "##ing", "creme", "naive"} <= vocabulary.keys()


def test_trained_pieces_are_the_longest_and_the_alphabet_is_no_special_token(texts, trained):
  vocabulary = trained.get_vocab()
  for word in ("walking", "talkersed", "jumpx", "zzz", "liftliftlift"):
    assert trained.encode(word, add_special_tokens=False).tokens == greedy(word, vocabulary)
  assert SubwordEncoder(trained, 16).facts["special_ids"] == [0, 1, 2, 3, 4]
  assert [token.content for token in trained.get_added_tokens_decoder().values()] == list(SPECIAL)


def test_cased_and_byte_pairs(texts):
  cased = train_wordpiece(texts, 200, lowercase=False)
  assert "Crème" in cased.get_vocab() and "creme" not in cased.get_vocab()
  one, two = train_bpe(texts, 300), train_bpe(texts, 300)
  assert one.to_str() == two.to_str() and one.get_vocab_size() == 300 and one.token_to_id(END) == 0
  encoder = SubwordEncoder(one, 64)
  for text in AWKWARD + texts[:3]:  # No text is unknown, and each comes back.
    assert encoder.decode(encoder.token_ids(text)) == text.replace(END, "")
  assert encoder.facts == {"vocab_size": 300, "special_ids": [0], "num_segments": 1, "end_id": 0}
  assert not encoder.encode([("a", "b")])["segments"].any()


def test_training_leaves_out_what_is_held_out_and_is_cached(tmp_path, monkeypatch):
  documents = [f"walking number {i}" for i in range(300)]
  held_out = [text for text in documents if is_validation(text)]
  assert held_out
  documents += [text + " \u0416\u0416\u0416" for text in held_out if is_validation(text + " \u0416\u0416\u0416")]
  dataset = Dataset("d", "text", documents, fingerprint="d")
  assert set(tokenizer_training._Texts(dataset)) == {text for text in documents if not is_validation(text)}
  first = trained_tokenizer(dataset, vocab_size=100, cache_dir=tmp_path)
  monkeypatch.setattr(tokenizer_training, "train_wordpiece", None)  # Would fail if it were called.
  assert trained_tokenizer(dataset, vocab_size=100, cache_dir=tmp_path).to_str() == first.to_str()


def test_singles_pairs_and_buckets():
  encoder = SubwordEncoder(wordpiece(VOCABULARY, True), 32)
  ids = {token: i for i, token in enumerate(VOCABULARY)}
  batch = encoder.encode(["unaffable, WANTED", ("a", "b b")])
  rows = [["[CLS]", "un", "##aff", "##able", ",", "want", "##ed", "[SEP]"],
          ["[CLS]", "a", "[SEP]", "b", "b", "[SEP]"]]
  assert batch["tokens"].dtype == np.int32 and batch["tokens"].shape == (2, 8)
  assert batch["tokens"].tolist() == [[ids[token] for token in row] + [-1] * (8 - len(row)) for row in rows]
  assert batch["segments"].tolist() == [[0] * 8, [0, 0, 0, 1, 1, 1, 0, 0]] and batch["mask"].tolist() == [1, 1]
  assert encoder.lengths(batch).tolist() == [8, 6]
  assert [encoder.encode(["a " * n])["tokens"].shape[1] for n in (0, 2, 3, 7, 15, 40)] == [4, 4, 8, 16, 32, 32]
  assert [SubwordEncoder(wordpiece(VOCABULARY, True), 30).bucket(n) for n in (1, 4, 5, 9, 15, 16, 99)] == [
      4, 4, 8, 15, 15, 30, 30]
  assert encoder.facts == {"vocab_size": 20, "special_ids": [0, 1, 2, 3, 4], "num_segments": 2, "mask_id": 4,
                           "cls_id": 2, "sep_id": 3, "pad_id": 0, "unk_id": 1, "end_id": 3}


def test_what_continues_a_word(texts):
  continues = SubwordEncoder(wordpiece(VOCABULARY, True), 32).continues
  assert [token for token, goes_on in zip(VOCABULARY, continues) if goes_on] == [x for x in WORDS if "##" in x]
  encoder = SubwordEncoder(train_bpe(texts, 300), 32)
  tokens = encoder.token_ids("x walkingness, talk")
  pieces = [encoder.decode([token]) for token in tokens]
  assert [piece[0] != " " for piece in pieces] == encoder.continues[tokens].tolist() and not encoder.continues[0]


def test_other_templates_are_read_off():
  tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "a", "b"]
  tokenizer = Tokenizer(models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token="<unk>"))
  tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
  tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
  encoder = SubwordEncoder(tokenizer, 16)
  batch = encoder.encode([("a b", "b"), "a"])
  assert batch["tokens"].tolist() == [[0, 5, 6, 2, 2, 6, 2, -1], [0, 5, 2, -1, -1, -1, -1, -1]]
  assert not batch["segments"].any() and encoder.facts["num_segments"] == 1
  assert encoder.facts["special_ids"] == [0, 1, 2, 3, 4] and encoder.facts["mask_id"] == 4
  assert encoder.continues is None


@pytest.mark.parametrize("item", ["a " * 40, ("a " * 40, "b"), ("a", "b " * 40), ("a " * 9, "b " * 20),
                                  ("a " * 20, "b " * 9), ("a " * 12, "b " * 12)])
@pytest.mark.parametrize("length", [15, 16])
def test_truncation_equals_the_library(item, length):
  tokenizer = wordpiece(VOCABULARY, True)
  encoder = SubwordEncoder(tokenizer, length)
  tokenizer.enable_truncation(length, strategy="longest_first")
  expected = tokenizer.encode(*([item] if isinstance(item, str) else item))
  batch = encoder.encode([item])
  assert batch["tokens"][0].tolist() == expected.ids and batch["segments"][0].tolist() == expected.type_ids


def test_truncation_is_counted_and_told_once(caplog):
  encoder = SubwordEncoder(wordpiece(VOCABULARY, True), 8)
  with caplog.at_level(logging.WARNING):
    encoder.encode(["a " * 6, "a " * 7, "a " * 8])
    encoder.encode(["a " * 9])
  assert [record.getMessage() for record in caplog.records] == [
      "2 of 3 texts have more than 8 tokens and are cut there; later ones are not reported"]
  assert encoder.num_truncated == 3


def test_long_texts_are_not_read_to_their_end(monkeypatch):
  encoder = SubwordEncoder(wordpiece(VOCABULARY, True), 8)
  asked = []
  encoded = encoder._encoded
  monkeypatch.setattr(encoder, "_encoded", lambda texts, offsets: asked.append(max(map(len, texts))) or encoded(
      texts, offsets))
  assert encoder.encode(["a b " * 10_000])["tokens"].tolist() == [[2, 17, 18, 17, 18, 17, 18, 3]]
  assert asked == [125]
  spread = ("a" + " " * 100) * 5  # Few tokens at its head: read again, as a whole.
  assert encoder.encode([spread])["tokens"].tolist() == [[2, 17, 17, 17, 17, 17, 3, -1]]


def test_words_and_offsets():
  encoder = SubwordEncoder(wordpiece(VOCABULARY, True), 16)
  batch = encoder.encode_words([["unaffable", ",", "\x00", "wanted", "a"], ["b"], ["a"] * 20])
  assert batch["word_starts"][0].tolist() == [1, 4, -1, 5, 7] + [-1] * 15
  assert batch["word_starts"][1].tolist() == [1] + [-1] * 19
  assert batch["word_starts"][2].tolist() == list(range(1, 15)) + [-1] * 6
  assert sorted(batch) == ["mask", "segments", "tokens", "word_starts"]
  question, context = "New  a?", "é unaffable b"
  batch = encoder.encode([(question, context)], offsets=True)
  pieces = [(text, (question, context)[text][first:last]) for text, (first, last)
            in zip(batch["text"][0], batch["offsets"][0]) if text >= 0]
  assert pieces == [(0, "New"), (0, "a"), (0, "?"), (1, "é"), (1, "un"), (1, "aff"), (1, "able"), (1, "b")]
  assert batch["text"][0].tolist() == [-1, 0, 0, 0, -1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1]
  assert (batch["offsets"][0][batch["text"][0] < 0] == -1).all()


def test_words_of_byte_pairs(texts):
  encoder = SubwordEncoder(train_bpe(texts, 300), 64)
  words = ["walking", "naïve", "東京", "x"]
  batch = encoder.encode_words([words])
  starts = [*batch["word_starts"][0], encoder.lengths(batch)[0]]
  assert [encoder.decode(batch["tokens"][0, i:j]).strip() for i, j in zip(starts, starts[1:])] == words


def test_files_round_trip(tmp_path, trained):
  encoder = SubwordEncoder(trained, 16)
  encoder.save(tmp_path / "encoder")
  loaded = load_encoder(tmp_path / "encoder")
  assert isinstance(loaded, SubwordEncoder) and loaded.fingerprint == encoder.fingerprint
  for key, value in encoder.encode(AWKWARD).items():
    np.testing.assert_array_equal(loaded.encode(AWKWARD)[key], value, strict=True)
  same = SubwordEncoder(load_tokenizer(tmp_path / "encoder"), 16)
  assert same.fingerprint == encoder.fingerprint
  (tmp_path / "vocab.txt").write_text("".join(f"{token}\r\n" for token in VOCABULARY))
  for path in (tmp_path, tmp_path / "vocab.txt"):
    assert load_tokenizer(path).to_str() == wordpiece(VOCABULARY, True).to_str()
  assert load_tokenizer(tmp_path, lowercase=False).encode("New new").tokens == ["[CLS]", "New", "new", "[SEP]"]


def test_bad_input(tmp_path, texts):
  encoder = SubwordEncoder(wordpiece(VOCABULARY, True), 8)
  for items, message in (([], "no items"), (["a", 3], "item 1: is"), ([("a", "b", "c")], "item 0: is"),
                         ([("a", None)], "should be a text or a pair")):
    with pytest.raises(InputError, match=message):
      encoder.encode(items)
  assert encoder.encode(["a \ud800 b"])["tokens"][0, 1] == 17  # A lone surrogate.
  with pytest.raises(InputError, match="leaves no room"):
    SubwordEncoder(wordpiece(VOCABULARY, True), 5)
  with pytest.raises(InputError, match="vocab_size=24: too small for the characters of the text; at least 43"):
    train_wordpiece(texts, 24)
  with pytest.raises(InputError, match="vocab_size=256: too small for 256 bytes"):
    train_bpe(texts, 256)
  with pytest.raises(InputError, match="no text to train"):
    train_wordpiece(["", " \n"], 100)
  with pytest.raises(InputError, match="model=unigram: must be one of wordpiece, bpe"):
    trained_tokenizer(Dataset("d", "text", texts, fingerprint="d"), model="unigram", vocab_size=100)
  with pytest.raises(InputError, match="none.json: cannot be read as a tokenizer .No such file"):
    load_tokenizer(tmp_path / "none.json")
  for content in ("{", '{"version": "1.0"}', "\x80\x04pickle"):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(InputError, match="tokenizer.json: (not JSON|has no field .model|not UTF-8)"):
      load_tokenizer(tmp_path)
  for content, message in (("[UNK]\n[CLS]\n[CLS]\n", r"line 3: '\[CLS\]' repeats line 2"),
                           ("[UNK]\n[CLS]\na\n", r"has no \[SEP\]"), ("", r"has no \[UNK\]")):
    (tmp_path / "vocab.txt").write_text(content)
    with pytest.raises(InputError, match=message):
      load_tokenizer(tmp_path / "vocab.txt")
  (tmp_path / "vocab.txt").write_bytes(b"[UNK]\n\xff\n")
  with pytest.raises(InputError, match="is not UTF-8, byte 6"):
    load_tokenizer(tmp_path / "vocab.txt")
  encoder.save(tmp_path / "encoder")
  (tmp_path / "encoder" / "tokenizer.json").write_text("{")
  with pytest.raises(InputError, match="damaged encoder"):
    load_encoder(tmp_path / "encoder")


@pytest.mark.parity
@pytest.mark.parametrize("lowercase", [True, False])
def test_equals_bert_tokenizer(lowercase, tmp_path, texts):
  from transformers import BertTokenizer

  vocabulary = train_wordpiece(texts, 200, lowercase).get_vocab()
  (tmp_path / "vocab.txt").write_text("".join(f"{token}\n" for token in sorted(vocabulary, key=vocabulary.get)))
  theirs = BertTokenizer.from_pretrained(str(tmp_path), do_lower_case=lowercase)
  ours = SubwordEncoder(load_tokenizer(tmp_path / "vocab.txt", lowercase), 24)
  items = AWKWARD + texts[:5]
  batch = ours.encode(items)
  expected = theirs(items, truncation=True, max_length=24)["input_ids"]
  assert [row[row >= 0].tolist() for row in batch["tokens"]] == expected
  actual = ours.encode([(a, b) for a in items[:6] for b in items[::4]])
  expected = theirs([a for a in items[:6] for b in items[::4]], [b for a in items[:6] for b in items[::4]],
                    truncation=True, max_length=24)
  assert [row[row >= 0].tolist() for row in actual["tokens"]] == expected["input_ids"]
  assert [row[:len(ids)].tolist() for row, ids in zip(actual["segments"], expected["input_ids"])] == expected[
      "token_type_ids"]
