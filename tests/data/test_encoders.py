import json
import unicodedata
import wave

import numpy as np
import pytest

from embeddings_jax.data.audio import join_clips
from embeddings_jax.data.encoders import load_encoder
from embeddings_jax.data.encoders.bags import BagEncoder
from embeddings_jax.data.encoders.base import Encoder, bucket
from embeddings_jax.data.encoders.bytes import ByteEncoder
from embeddings_jax.data.encoders.characters import split_words_and_marks
from embeddings_jax.data.encoders.rows import RowEncoder
from embeddings_jax.data.encoders.subwords import SubwordEncoder
from embeddings_jax.data.encoders.waveforms import WaveformEncoder
from embeddings_jax.data.encoders.words import WordEncoder
from embeddings_jax.data.words import Vocabulary, split_words
from embeddings_jax.eval.word_similarity import known_form
from embeddings_jax.types import InputError

VOCABULARY = Vocabulary.from_counts({"the": 9, "cat": 3, "ant": 3, "rare": 1, "New_York": 2}, min_count=2)
EXAMPLES = {
    "rows": (RowEncoder(2), [[1, 2], [3, 4]]),
    "standardized": (RowEncoder.standardizing(np.array([[1., 5], [3, 5]])), [[1, 5], [5, 6]]),
    "words": (WordEncoder(VOCABULARY, "lower"), ["the cat, the!", "ant", "nothing", "New_York"]),
    "bags": (BagEncoder(VOCABULARY, "lower"), ["the cat, the!", {"ant": 1.5, "New_York": 2, "no": 1}, "nothing"]),
    "waveforms": (WaveformEncoder(8000), [np.array([1, 2, 3], np.int16), np.array([4], np.int16)]),
    "bytes": (ByteEncoder(6), ["abc", "é"]),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_saved_encoder_is_the_same(name, tmp_path):
  encoder, items = EXAMPLES[name]
  encoder.save(tmp_path / "encoder")
  for loaded in (load_encoder(tmp_path / "encoder"), type(encoder).load(tmp_path / "encoder"),
                 Encoder.load(str(tmp_path / "encoder"))):
    assert type(loaded) is type(encoder) and loaded.fingerprint == encoder.fingerprint
    first, second = encoder.encode(items), loaded.encode(items)
    assert first.keys() == second.keys()
    for key in first:
      np.testing.assert_array_equal(first[key], second[key], strict=True)
    assert first["mask"].tolist() == [1] * len(items) and first["mask"].dtype == np.float32


def test_fingerprint_follows_the_files():
  assert RowEncoder(2).fingerprint != RowEncoder(3).fingerprint
  counts = VOCABULARY.counts + 1
  assert WordEncoder(VOCABULARY, "lower").fingerprint != WordEncoder(VOCABULARY, "cased").fingerprint
  assert (WordEncoder(VOCABULARY, "lower").fingerprint
          != WordEncoder(Vocabulary(VOCABULARY.words, counts), "lower").fingerprint)


def test_rows():
  x = RowEncoder(2).encode(np.array([[1, 2], [3, 4]]))["x"]
  np.testing.assert_array_equal(x, np.array([[1, 2], [3, 4]], np.float32), strict=True)
  encoder, rows = EXAMPLES["standardized"]  # Means 2 and 5, deviation 1; the constant feature keeps its scale.
  np.testing.assert_array_equal(encoder.encode(rows)["x"], np.array([[-1, 0], [3, 1]], np.float32), strict=True)


def test_bags():
  batch = EXAMPLES["bags"][0].encode(EXAMPLES["bags"][1])
  assert batch["words"].tolist() == [[0, 2], [1, 3], [-1, -1]]
  assert batch["counts"].tolist() == [[2, 1], [1.5, 2], [0, 0]]
  assert EXAMPLES["bags"][0].encode(["cat! the the"])["counts"].tolist() == [[2, 1]]  # The order counts for nothing.


def test_words():
  assert VOCABULARY.words == ["the", "ant", "cat", "New_York"] and VOCABULARY.counts.tolist() == [9, 3, 3, 2]
  encoder, items = EXAMPLES["words"]
  expected = [[0, 2, 0, -1], [1, -1, -1, -1], [-1] * 4, [3, -1, -1, -1]]
  np.testing.assert_array_equal(encoder.encode(items)["tokens"], np.array(expected, np.int32), strict=True)
  assert list(encoder.names) == VOCABULARY.words


def test_vocabulary_file_has_a_word_a_line(tmp_path):
  WordEncoder(Vocabulary(["a\u2028b", "é", "c"], [3, 2, 1]), "cased").save(tmp_path)
  assert (tmp_path / "vocabulary.txt").read_bytes() == "a\u2028b\né\nc\n".encode()
  assert np.load(tmp_path / "counts.npy").tolist() == [3, 2, 1]
  assert json.loads((tmp_path / "preprocess.json").read_text()) == {"kind": "words", "normalize": "cased"}
  assert load_encoder(tmp_path).names == ["a\u2028b", "é", "c"]


def test_waveforms(tmp_path):
  encoder, items = EXAMPLES["waveforms"]
  batch = encoder.encode(items)
  np.testing.assert_array_equal(batch["signal"], np.array([[1, 2, 3, 0], [4, 0, 0, 0]], np.int16), strict=True)
  np.testing.assert_array_equal(batch["length"], np.array([3, 1], np.int32), strict=True)

  time = np.arange(1600) / 16000
  with wave.open(str(tmp_path / "a.wav"), "wb") as clip:
    clip.setparams((1, 2, 16000, 0, "NONE", None))
    clip.writeframes((10000 * np.sin(2 * np.pi * 440 * time)).astype("<i2").tobytes())
  batch = encoder.encode([tmp_path / "a.wav"])
  assert batch["signal"].shape == (1, 1024) and batch["length"].tolist() == [800]
  expected = 10000 * np.sin(2 * np.pi * 440 * np.arange(800) / 8000)
  np.testing.assert_allclose(batch["signal"][0, 50:750], expected[50:750], atol=100)


def test_bytes():
  batch = ByteEncoder(6).encode(["abc", "é"])
  assert batch["signal"].tolist() == [[97, 98, 99, 0], [195, 169, 0, 0]] and batch["signal"].dtype == np.uint8
  assert batch["length"].tolist() == [3, 2]
  batch = ByteEncoder(6).encode(["abcdefgh", "ééééé"])
  assert batch["signal"].shape == (2, 6) and batch["length"].tolist() == [6, 6]
  assert bytes(batch["signal"][1]) == "ééé".encode()


def test_buckets():
  assert [bucket(n) for n in (0, 1, 2, 3, 4, 5, 1000)] == [1, 1, 2, 4, 4, 8, 1024]


@pytest.mark.parametrize("call, message", [
    (lambda: RowEncoder(2).encode([[1, 2, 3]]), "row 0: has shape .3,., should have 2 features"),
    (lambda: RowEncoder(2).encode(np.array([[1, 2], [np.nan, 3]])), "row 1, column 0 .*not a finite number"),
    (lambda: RowEncoder(2).encode([]), "no items"),
    (lambda: WordEncoder(VOCABULARY, "lower").encode([]), "no items"),
    (lambda: WordEncoder(VOCABULARY, "upper").encode(["unheard"]), "must be 'a-z', 'lower', 'cased' or 'spaces'"),
    (lambda: WaveformEncoder(8000).encode([np.ones(3)]), r"clip 0: is float64 \[3\], should be int16"),
    (lambda: WaveformEncoder(8000).encode([np.ones(0, np.int16)]), "not empty"),
    (lambda: Vocabulary(["a", "a"], [1, 1]), "listed twice"),
    (lambda: Vocabulary(["a"], [1, 1]), "1 words and 2 counts"),
])
def test_bad_items(call, message):
  with pytest.raises(InputError, match=message):
    call()


def test_bad_folders(tmp_path):
  with pytest.raises(InputError, match="preprocess.json is missing"):
    load_encoder(tmp_path)
  RowEncoder(2).save(tmp_path)
  with pytest.raises(InputError, match="holds an encoder of rows, not of words"):
    WordEncoder.load(tmp_path)
  WordEncoder(VOCABULARY, "lower").save(tmp_path / "w")
  (tmp_path / "w" / "vocabulary.txt").write_text("the\n")
  for text, message in (
      ("{", "preprocess.json: not JSON"), ('{"kind": "smells"}', "encoder=smells: unknown; one of bags, bytes"),
      ('{"kind": "rows"}', "damaged encoder .*num_features"), ("[]", "holds a list, expected an object"),
      ('{"kind": "rows", "num_features": 2, "std": [1, 0]}', "damaged encoder .std: expected numbers above 0"),
      ('{"kind": "rows", "num_features": 1e9}', "num_features=1000000000.0: expected an integer"),
      ('{"kind": "bytes", "max_length": -3}', "max_length=-3: expected an integer from 1"),
      ('{"kind": "bytes", "max_length": 3, "rate": 8}', "bytes has no option 'rate'"),
      ('{"kind": "words", "normalize": "lower"}', "counts.npy: does not hold the counts of 1 words")):
    (tmp_path / "w" / "preprocess.json").write_text(text)
    with pytest.raises(InputError, match=message):
      load_encoder(tmp_path / "w")


def test_words_with_rare_line_ends_survive_their_folder(tmp_path):
  words = ["a\u2028b", "c\x85", "\x0c", "d e"]
  WordEncoder(Vocabulary(words, [4, 3, 2, 1]), "lower").save(tmp_path)
  data = (tmp_path / "vocabulary.txt").read_bytes()
  for content in (data, b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n")):  # As some editors save it.
    (tmp_path / "vocabulary.txt").write_bytes(content)
    assert WordEncoder.load(tmp_path).vocabulary.words == words


def test_split_words():
  assert split_words("Don't: 2 É-cats\n42", "a-z") == ["don", "t", "two", "cats", "four", "two"]
  assert split_words("Don\u2019t: 2 É-cats_x 'tis\n42", "lower") == ["don't", "2", "é", "cats", "x", "tis", "42"]
  assert split_words("Don't Stop", "cased") == ["Don't", "Stop"]


@pytest.mark.parametrize("text, words", [
    ("मैं हिन्दी पढ़ता हूँ।", ["मैं", "हिन्दी", "पढ़ता", "हूँ"]),
    ("தமிழ் மொழி, বাংলা", ["தமிழ்", "மொழி", "বাংলা"]),
    ("cafe\u0301 café re\u0301sume\u0301s", ["café", "café", "résumés"]),
    ("Tie\u0302\u0301ng Vie\u0323\u0302t", ["Tiếng", "Việt"]),
    ("מִלָּה كِتَاب", ["מִלָּה", "كِتَاب"]),
    ("می\u200cخواهم می\u200c رفت", ["می\u200cخواهم", "می", "رفت"]),
    ("ക്\u200dഷ അവന്\u200d വന്നു", ["ക്\u200dഷ", "അവന്\u200d", "വന്നു"]),
    ("x\u200d-\u0301y \u0301 \U0001f468\u200d\U0001f469 Donau\u00addampf", ["x", "y", "Donaudampf"]),
    ("e\u0301's l\u2019e\u0301te\u0301 𑀓𑁆𑀓", ["é's", "l'été", "𑀓𑁆𑀓"]),
])
def test_words_have_their_combining_marks_and_joiners(text, words):
  words = [unicodedata.normalize("NFC", word) for word in words]
  assert split_words(text, "cased") == words
  assert split_words(text + "\0", "lower") == [word.lower() for word in words] + ["\0"]
  assert [word for word in split_words_and_marks(text) if len(word) > 1 or word.isalnum()] == [
      word.replace("l'", "l\u2019") for word in words]


def test_a_query_may_be_decomposed(tmp_path):
  encoder = WordEncoder(Vocabulary(["café", "हिन्दी"], np.array([2, 1])), "lower")
  assert encoder.encode(["CAFE\u0301", "हिन्दी"])["tokens"].tolist() == [[0], [1]]
  assert known_form("Cafe\u0301", encoder.vocabulary) == "café" and known_form("cafe", encoder.vocabulary) is None


def test_windows_of_joined_clips_stay_in_their_group():
  rng = np.random.default_rng(0)
  groups = rng.integers(0, 3, 40)
  clips = [np.full(rng.integers(1, 9), group * 100 + i % 100, np.int16) for i, group in enumerate(groups)]
  stream, starts, numbers = join_clips(clips, groups, 5, 16, jitter=4)
  assert len(stream) == sum(map(len, clips)) and stream.dtype == np.int16 and starts.dtype == np.int64
  assert np.bincount(stream, minlength=300).tolist() == np.bincount(np.concatenate(clips), minlength=300).tolist()
  owner = stream // 100
  assert numbers.dtype == np.int32
  for start, number in zip(starts, numbers, strict=True):
    assert set(owner[start:start + 16 + 4].tolist()) == {number}
  assert np.diff(starts).min() >= 16
  again, other = join_clips(clips, groups, 5, 16)[0], join_clips(clips, groups, 6, 16)[0]
  np.testing.assert_array_equal(stream, again)
  assert (stream != other).any()
  with pytest.raises(InputError, match="no group"):
    join_clips(clips, groups, 5, 1000)


def test_a_tokenizer_that_writes_what_cannot_be_read_is_refused():
  class Broken:
    def to_str(self):
      return "{"

  with pytest.raises(InputError, match="tokenizer.json: not a tokenizer"):
    SubwordEncoder(Broken(), 16)
