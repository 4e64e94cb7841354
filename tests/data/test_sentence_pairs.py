"""Sentences, tokenized documents, and BERT's pairs of segments."""
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from embeddings_jax.data import sentences as sentences_module
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.documents import is_validation
from embeddings_jax.data.encoders.subwords import SubwordEncoder
from embeddings_jax.data.files.tokenizer import wordpiece
from embeddings_jax.data.sentence_pairs import draw_pairs, sentence_pairs
from embeddings_jax.data.sentences import TokenTexts, split_sentences, tokenize_documents
from embeddings_jax.data.tokenizer_training import train_bpe
from embeddings_jax.runs import build, inference
from embeddings_jax.types import InputError, Model

CLS, SEP = 100_000, 100_001
LETTERS = [*"abcdefghijklmnopqrstuvwxyz.ABC"]
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *("##" + x for x in LETTERS)]
ENCODER = SubwordEncoder(wordpiece(PIECES, False), 32)


def corpus(*documents):
  return Dataset("corpus", "text", documents, fingerprint=hashlib.sha256("\n".join(documents).encode()).hexdigest())


def numbered(num_documents=40, seed=0, longest=12):
  """Documents whose tokens are numbered through, so that a token tells where it stood."""
  rng = np.random.default_rng(seed)
  counts = rng.integers(1, 40, num_documents)
  documents = np.append(0, np.cumsum(counts))
  sentences = np.append(0, np.cumsum(rng.integers(1, longest, documents[-1])))
  return TokenTexts(np.arange(sentences[-1], dtype=np.int32), sentences, documents)


def segments_of(batch):
  """Tokens of A and of B, and `is_next`, of every valid row; checks what stands around them."""
  for row, segment, is_next, mask in zip(batch["tokens"], batch["segments"], batch["is_next"], batch["mask"]):
    if mask:
      length = (row >= 0).sum()
      first = int((row == SEP).argmax())
      assert row[0] == CLS and row[length - 1] == SEP and (row == SEP).sum() == 2 and (row[length:] == -1).all()
      assert segment.tolist() == [0] * (first + 1) + [1] * (length - first - 1) + [0] * (len(row) - length)
      yield row[1:first], row[first + 1:length - 1], is_next


def whole_pass(source, epoch=0):
  steps = source.facts["steps_per_epoch"]
  return [pair for step in range(epoch * steps, (epoch + 1) * steps) for pair in segments_of(source.feed_at(step))]


def test_sentences():
  text = ('He met Mr. Smith of the U.S. Army. "Really?" she asked. (It was.) In 3.5 years... 12 men came!\n'
          "History.\nA wrapped line that\n  goes on here\n\nand a paragraph\n\n* item one\n* two 東京。大阪！ \n")
  assert split_sentences(text) == [
      "He met Mr. Smith of the U.S. Army.", '"Really?" she asked.', "(It was.)", "In 3.5 years...", "12 men came!",
      "History.", "A wrapped line that\n  goes on here", "and a paragraph", "* item one", "* two 東京。", "大阪！"]
  assert split_sentences(" \n ") == []
  assert split_sentences("यह मकान है। वह घर। यह मकान. वह J. Smith है।") == [
      "यह मकान है।", "वह घर।", "यह मकान.", "वह J. Smith है।"]


def test_documents_on_the_disk(tmp_path, monkeypatch):
  names = [x + y + z for x in "abcdef" for y in "ghijkl" for z in "mnop"]
  texts = ["ab c. A b.", "", "C", "[SEP] a", *(f"doc {name} x." for name in names)]
  held_out = [text for text in texts if is_validation(text)]
  assert held_out
  actual = tokenize_documents(corpus(*texts), ENCODER, cache_dir=tmp_path)
  assert actual.train.tokens.dtype == np.uint16 and isinstance(actual.train.tokens, np.memmap)
  for part, expected in ((actual.train, [text for text in texts if text and not is_validation(text)]),
                         (actual.validation, held_out)):
    tokens, bounds, documents = part
    read = [[tokens[bounds[s]:bounds[s + 1]].tolist() for s in range(*documents[d:d + 2])]
            for d in range(len(documents) - 1)]
    assert read == [[ENCODER.tokenizer.encode(s, add_special_tokens=False).ids for s in split_sentences(text)]
                    if "[" not in text else [[1, 1, 1, ENCODER.vocabulary["a"]]] for text in expected]
  assert actual.num_raw_words == sum(len(text.split()) for text in texts if not is_validation(text))
  monkeypatch.setattr(sentences_module, "_build", None)  # Would fail if it were called.
  assert tokenize_documents(corpus(*texts), ENCODER, cache_dir=tmp_path).fingerprint == actual.fingerprint


def test_running_text_has_ends_of_documents(tmp_path):
  texts = ["two lines\nof text. More", "", "é"] * 3
  encoder = SubwordEncoder(train_bpe(texts, 260), 16)
  actual = tokenize_documents(corpus(*texts), encoder, unit="document", cache_dir=tmp_path)
  tokens = actual.train.tokens
  assert (tokens == 0).sum() == 6 and tokens[-1] == 0 and actual.validation is None
  assert encoder.decode(tokens[:actual.train.sentences[1] - 1]) == texts[0]


def test_only_the_training_part(tmp_path):
  dataset = corpus("a b.", "C c.", "B x.")._replace(split={"train": np.array([0, 2])})
  actual = tokenize_documents(dataset, ENCODER, cache_dir=tmp_path)
  assert actual.train.tokens.tolist() == [ENCODER.vocabulary[x] for x in "ab.Bx."]
  assert len(actual.train.documents) == 3


@pytest.fixture(scope="module")
def drawn():
  """All pairs of one epoch, uncut, with their documents."""
  texts = numbered(400, longest=9)
  source = sentence_pairs(texts, 64, max_length=64, cls_id=CLS, sep_id=SEP, order="sequential", short_fraction=0.0)
  return texts, whole_pass(source)


def test_true_next_follows_and_random_is_of_another_document(drawn):
  texts, pairs = drawn
  document = np.repeat(np.arange(len(texts.documents) - 1), np.diff(texts.sentences[texts.documents]))
  for a, b, is_next in pairs:
    assert (np.diff(a) == 1).all() and (np.diff(b) == 1).all() and len(a) + len(b) <= 61
    assert len(set(document[a])) == len(set(document[b])) == 1
    if is_next:
      assert document[a[0]] == document[b[0]]
      assert 0 < b[0] - a[-1] <= 9  # The back of A and the front of B may be cut by what is longer than the target.
    else:
      assert document[a[0]] != document[b[0]]
  # Chunks of one sentence have no next; the others have one half of the time.
  ends = texts.sentences[texts.documents[1:] - 1]
  last = np.array([a[0] >= ends[document[a[0]]] for a, _, _ in pairs])
  is_next = np.array([n for _, _, n in pairs])
  assert not is_next[last].any()
  share = is_next[~last].mean()
  assert abs(share - 0.5) < 3 * 0.5 / np.sqrt((~last).sum())


def test_whole_sentences_are_used_once_and_put_back(drawn):
  texts, pairs = drawn
  used = np.concatenate([np.concatenate([a, b]) if is_next else a for a, b, is_next in pairs])
  assert len(np.unique(used)) == len(used)
  # What is missing was cut from over-long pairs; a chunk ends with the sentence that reaches the length.
  assert 0.85 < len(used) / len(texts.tokens) < 1


def test_without_cutting_every_sentence_is_read_once():
  texts = numbered(50, longest=9)
  rng = np.random.default_rng(0)
  pairs = draw_pairs(texts, 10_000, 0.0, rng)  # A document is one chunk; what a random B left is the next one.
  ranges = [(a, a + n) for a, n in zip(pairs.a, pairs.a_length)]
  ranges += [(b, b + n) for b, n, is_next in zip(pairs.b, pairs.b_length, pairs.is_next) if is_next]
  ranges.sort()
  assert ranges[0][0] == 0 and ranges[-1][1] == len(texts.tokens)
  assert all(end == start for (_, end), (start, _) in zip(ranges, ranges[1:]))
  assert set(np.concatenate([pairs.a, pairs.b])) <= set(texts.sentences)


def reference(texts, room, rng):
  """A plain loop over one document, with the same choices in the same order as `draw_pairs` of two documents."""
  sentences, (first, last) = texts.sentences, texts.documents[:2]
  at, actual = first, []
  while at < last:
    chunk, length = [], 0
    for s in range(at, last):
      chunk.append(s)
      length += sentences[s + 1] - sentences[s]
      if length >= room:
        break
    a_end = 1 if len(chunk) == 1 else rng.integers(1, len(chunk))
    is_next = len(chunk) > 1 and rng.random() < 0.5
    actual.append((chunk[0], a_end, len(chunk), is_next))
    at += len(chunk) if is_next else a_end
  return actual


def test_distribution_equals_a_plain_loop():
  """Means over many draws of one document beside a second one that only gives random sentences."""
  rng = np.random.default_rng(1)
  texts = numbered(2, seed=4, longest=7)
  ours = [draw_pairs(texts, 30, 0.0, rng) for _ in range(2000)]
  plain = [reference(texts, 30, rng) for _ in range(2000)]
  border = texts.sentences[texts.documents[1]]
  mine = [pairs.a < border for pairs in ours]
  for f, g in ((lambda p, m: m.sum(), len),
               (lambda p, m: p.is_next[m].sum(), lambda actual: sum(x[3] for x in actual))):
    one, two = np.array([f(p, m) for p, m in zip(ours, mine)]), np.array([g(actual) for actual in plain])
    assert abs(one.mean() - two.mean()) < 4 * np.hypot(one.std(), two.std()) / np.sqrt(2000)


def test_cutting_takes_from_the_longer_and_from_both_ends():
  # Two documents of two sentences: A and B are whole sentences of 40 and 10, or 40 and 40, tokens.
  texts = TokenTexts(np.arange(170, dtype=np.int32), np.array([0, 40, 50, 90, 170]), np.array([0, 2, 4]))
  fronts, backs = [], []
  for seed in range(200):
    pairs = draw_pairs(texts, 30, 0.0, np.random.default_rng(seed))
    for a, la, b, lb, _ in zip(*pairs):
      assert la + lb == 30 or (la, lb) == (10, 10)
      lengths = {start: end - start for start, end in zip(texts.sentences, texts.sentences[1:])}
      a0, b0 = (texts.sentences[np.searchsorted(texts.sentences, x, "right") - 1] for x in (a, b))
      whole = lengths[a0], lengths[b0]
      if min(whole) > 15:
        assert (la, lb) == (15, 15)
      elif sum(whole) > 30:
        assert min(la, lb) == min(whole) == 10
      if lengths[a0] == 40:
        fronts.append(a - a0)
        backs.append(40 - la - (a - a0))
  fronts, backs = np.array(fronts), np.array(backs)
  error = (fronts - backs).std() / np.sqrt(len(fronts))
  assert abs(fronts.mean() - backs.mean()) < 4 * error and fronts.min() > 0 and fronts.std() > 1


def test_odd_rest_is_cut_from_b():
  texts = TokenTexts(np.arange(40, dtype=np.int32), np.array([0, 20, 40]), np.array([0, 1, 2]))
  for room, expected in ((30, [15, 15]), (31, [16, 15])):
    pairs = draw_pairs(texts, room, 0.0, np.random.default_rng(0))
    assert [pairs.a_length[0], pairs.b_length[0]] == expected and not pairs.is_next.any()


def test_short_share():
  texts = numbered(400, longest=4)
  lengths = {}
  for fraction in (0.0, 0.1):
    pairs = draw_pairs(texts, 61, fraction, np.random.default_rng(0))
    inner = pairs.is_next == 1  # Their length is the target's, to a sentence or the end of the document.
    lengths[fraction] = (pairs.a_length + pairs.b_length)[inner]
  at_the_end = (lengths[0.0] < 55).mean()  # At ends of documents sequences are short anyway.
  share = (lengths[0.1] < 55).mean()
  expected = at_the_end + 0.1 * 52 / 60 * (1 - at_the_end)
  assert abs(share - expected) < 0.03


def test_pure_function_of_seed_and_step():
  texts = numbered()
  make = lambda seed: sentence_pairs(texts, 8, max_length=48, cls_id=CLS, sep_id=SEP, seed=seed)
  one, two, other = make(3), make(3), make(4)
  steps = one.facts["steps_per_epoch"]
  assert two.facts == one.facts and steps >= 2
  for step in (2 * steps + 1, 0, steps - 1, steps):  # In any order.
    whole = one.batch_at(step)
    parts = [two.feed_at(step, rows) for rows in (slice(0, 4), slice(4, 8))]
    for key, value in whole.items():
      np.testing.assert_array_equal(np.concatenate([part[key] for part in parts]), value, strict=True)
      assert value.dtype == (np.float32 if key == "mask" else np.int32)
  assert (one.batch_at(0)["tokens"] != other.batch_at(0)["tokens"]).any()
  assert (one.batch_at(0)["tokens"] != one.batch_at(steps)["tokens"]).any()  # Another pass, other pairs.
  for epoch in range(3):
    pairs = whole_pass(one, epoch)
    used = np.concatenate([np.concatenate([a, b]) if is_next else a for a, b, is_next in pairs])
    assert len(np.unique(used)) == len(used) and len(pairs) == 8 * steps


def test_a_pass_with_too_few_pairs_is_filled_up_with_padding():
  texts = numbered(6)
  first = sentence_pairs(texts, 1, max_length=48, cls_id=CLS, sep_id=SEP).facts["num_rows"]
  source = sentence_pairs(texts, first, max_length=48, cls_id=CLS, sep_id=SEP)
  assert source.facts["steps_per_epoch"] == 1
  masks = np.array([source.feed_at(step)["mask"] for step in range(20)])
  assert masks[0].all() and 0 < masks.sum(1).min() < first and (np.diff(masks) <= 0).all()


def test_held_out_pairs_are_fixed_and_as_many_as_asked():
  texts = numbered(10)
  source = sentence_pairs(texts, 16, max_length=48, cls_id=CLS, sep_id=SEP, order="sequential", num_pairs=300)
  steps = source.facts["steps_per_epoch"]
  assert source.facts["num_rows"] == 300 and steps == 19
  assert sum(source.batch_at(step)["mask"].sum() for step in range(steps)) == 300
  np.testing.assert_array_equal(source.batch_at(2)["tokens"], source.batch_at(2 + steps)["tokens"])
  once = sentence_pairs(texts, 16, max_length=48, cls_id=CLS, sep_id=SEP, order="sequential")
  np.testing.assert_array_equal(once.batch_at(0)["tokens"], source.batch_at(0)["tokens"])
  assert once.facts["num_rows"] < 300


def test_padding_is_reported():
  texts = numbered()
  source = sentence_pairs(texts, 4, max_length=48, cls_id=CLS, sep_id=SEP, order="sequential")
  steps = source.facts["steps_per_epoch"]
  batches = [source.batch_at(step) for step in range(steps)]
  rows = np.concatenate([batch["tokens"][batch["mask"] > 0] for batch in batches])
  assert source.facts["padding_fraction"] == round(float((rows < 0).mean()), 4)
  assert source.facts["next_fraction"] == round(float(np.mean([n for *_, n in whole_pass(source)])), 4)


def test_from_a_config(tmp_path):
  """The sources of a config: both forms, held-out documents, and a tokenizer of the user's."""
  names = [x + y + z for x in "abcdefgh" for y in "ghijklmn" for z in "mnopqrst"]
  (tmp_path / "text.txt").write_text("".join(f"One {name}. Two {name}. Three {name} {name}.\n" for name in names))
  data = dict(name=str(tmp_path / "text.txt"), tokenizer="", vocab_size=140,
              max_length=16, lowercase=True, model="wordpiece", short_fraction=0.2, validation_pairs=9)

  def load(pipeline="subword_pairs", options=data, **changes):
    config = {"name": "bert", "pipeline": pipeline, "data": {**options, **changes}, "batch_size": 4, "seed": 0}
    return build.prepare(config, cache_dir=tmp_path / "cache")

  actual = load()
  assert actual.facts["vocab_size"] == len(actual.encoder.vocabulary) <= 140 and actual.encoder.max_length == 16
  assert actual.facts["mask_id"] == 4 and actual.facts["special_ids"] == [0, 1, 2, 3, 4]
  held_out = sum(map(is_validation, actual.dataset.items))
  assert actual.facts["num_documents"] == len(names) - held_out and held_out > 1
  held_out = actual.splits["validation"].facts
  assert held_out["num_rows"] == 9 and held_out["steps_per_epoch"] == 3
  actual = load("subword_windows", {"name": data["name"], "max_length": 16}, model="bpe",
                vocab_size=300, window_length=8)
  batch = actual.splits["train"].batch_at(0)
  assert batch["tokens"].dtype == np.int32 and batch["tokens"].shape == (4, 8)
  windows = np.concatenate([actual.splits["validation"].batch_at(step)["tokens"].ravel()
                            for step in range(actual.splits["validation"].facts["steps_per_epoch"])])
  text = [text for text in actual.dataset.items if is_validation(text)][0]
  assert windows[:len(actual.encoder.token_ids(text)) + 1].tolist() == [*actual.encoder.token_ids(text), 0]
  (tmp_path / "vocab.txt").write_text("[UNK]\n[CLS]\n[SEP]\na\n")
  with pytest.raises(InputError, match=r"vocab.txt: has no \[MASK\]; sentence pairs need"):
    load(tokenizer=str(tmp_path / "vocab.txt"))
  (tmp_path / "vocab.txt").write_text("[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n")
  one, other = load(tokenizer=str(tmp_path / "vocab.txt")), load()
  assert one.facts["vocab_size"] == 5 and one.dataset.fingerprint != other.dataset.fingerprint
  with pytest.raises(InputError, match="pipeline=subword_pears: unknown; did you mean subword_pairs"):
    load("subword_pears")


def test_rows_of_one_length_are_embedded_together(mesh_of):
  rng = np.random.default_rng(0)
  items = [" ".join(rng.choice(list("abc"), rng.integers(1, 40))) for _ in range(1300)]
  shapes = []

  def embed(state, batch):
    shapes.append(batch["tokens"].shape)
    return state + jnp.where(batch["tokens"] >= 0, batch["tokens"], 0).sum(1, keepdims=True)

  state = jax.device_put(jnp.zeros((), int), NamedSharding(mesh_of(), PartitionSpec()))
  actual = inference.embedder(Model(None, None, embed), state, ENCODER)(items)
  assert actual[:, 0].tolist() == [sum(ENCODER.encode([item])["tokens"].clip(0)[0]) for item in items]
  assert sorted(length for _, length in shapes) == [8, 16, 24, 32]


def test_bad_input(tmp_path):
  make = lambda texts=None, batch_size=4, **options: sentence_pairs(
      texts or numbered(), batch_size, **{"max_length": 48, "cls_id": CLS, "sep_id": SEP, **options})
  for call, message in (
      (lambda: make(numbered(1)), "need two documents or more"),
      (lambda: make(max_length=4), "max_length=4: .* needs at least 5"),
      (lambda: make(batch_size=10_000), r"batch_size=10000 exceeds the \d+ sentence pairs"),
      (lambda: make(batch_size=0), "batch_size=0: must be at least 1"),
      (lambda: make(order="random"), "must be 'shuffled' or 'sequential'"),
      (lambda: make(short_fraction=2.0), "short_fraction=2.0: must be between 0 and 1"),
      (lambda: tokenize_documents(corpus("", " "), ENCODER, cache_dir=tmp_path), "corpus: has no text to train on"),
      (lambda: tokenize_documents(corpus("a")._replace(kind="rows"), ENCODER, cache_dir=tmp_path), "holds rows"),
      (lambda: tokenize_documents(corpus("a"), ENCODER, unit="page", cache_dir=tmp_path), "unit='page'"),
  ):
    with pytest.raises(InputError, match=message):
      call()
