"""Windows of sentences against a loop over the documents, and what is random about them."""
import numpy as np
import pytest

from embeddings_jax.data.sentence_windows import sentence_windows
from embeddings_jax.data.sentences import TokenTexts
from embeddings_jax.types import InputError

# Documents of 5, 1, 4 and 10 sentences; sentence i has tokens 100 i, 100 i + 1, ...
SIZES = (5, 1, 4, 10)
LENGTHS = np.random.default_rng(0).integers(1, 8, sum(SIZES))


def texts():
  tokens = np.concatenate([100 * i + np.arange(n) for i, n in enumerate(LENGTHS)]).astype(np.uint16)
  return TokenTexts(tokens, np.concatenate([[0], np.cumsum(LENGTHS)]), np.concatenate([[0], np.cumsum(SIZES)]))


def padded(sentence, length=5):
  actual = list(100 * sentence + np.arange(LENGTHS[sentence]))[:length]
  return actual + [-1] * (length - len(actual))


def test_each_document_is_divided_in_order():
  source = sentence_windows(texts(), 2, num_sentences=4, max_length=5, order="sequential", remainder="pad")
  firsts = [(0, 4), (6, 4), (10, 4), (14, 4), (18, 2)]  # What is left of the first document is one sentence.
  expected = [[padded(first + i) if i < size else [-1] * 5 for i in range(4)] for first, size in firsts]
  batches = [source.batch_at(step) for step in range(3)]
  actual = np.concatenate([batch["tokens"] for batch in batches])[:5]
  np.testing.assert_array_equal(actual, np.array(expected, np.int32), strict=True)
  assert np.concatenate([batch["mask"] for batch in batches]).tolist() == [1, 1, 1, 1, 1, 0]
  assert source.facts["num_rows"] == 5 and source.facts["steps_per_epoch"] == 3
  in_windows = np.concatenate([LENGTHS[first:first + size] for first, size in firsts])
  kept = np.minimum(in_windows, 5).sum()
  np.testing.assert_allclose(source.facts["padding_fraction"], 1 - kept / (5 * 4 * 5), atol=1e-4)
  np.testing.assert_allclose(source.facts["cut_fraction"], 1 - kept / in_windows.sum(), atol=1e-4)


def test_shuffled_windows_move_within_their_document_and_are_repeatable():
  source, firsts = sentence_windows(texts(), 5, num_sentences=4, max_length=5, seed=3), set()
  document = np.repeat(np.arange(4), SIZES)
  for step in range(60):
    tokens = source.batch_at(step)["tokens"]
    np.testing.assert_array_equal(tokens[2:4], source.feed_at(step, slice(2, 4))["tokens"])
    for window in tokens:
      sentences = [line[0] // 100 for line in window if line[0] >= 0]
      assert sentences == list(range(sentences[0], sentences[0] + len(sentences)))
      assert len(set(document[sentences])) == 1 and (len(sentences) == 4 or sentences == [18, 19])
      np.testing.assert_array_equal(window[:len(sentences)], [padded(i) for i in sentences])
      firsts.add(sentences[0])
  # All first sentences of a whole window, and the short window at the end.
  assert firsts == {0, 1, 6, *range(10, 17), 18}


def test_nothing_to_predict_is_refused():
  lonely = TokenTexts(np.arange(3, dtype=np.uint16), np.arange(4), np.arange(4))
  with pytest.raises(InputError, match="no document has two sentences"):
    sentence_windows(lonely, 1, num_sentences=4, max_length=5)
  with pytest.raises(InputError, match="num_sentences=1, max_length=5: must be at least 2 and 1"):
    sentence_windows(texts(), 1, num_sentences=1, max_length=5)
