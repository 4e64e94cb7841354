"""Passages: rows by hand, windows that cover the text, units of a text, bad input."""
import numpy as np
import pytest

from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.passages import passage_source
from embeddings_jax.data.pipelines.passages import passages, stop_ids
from embeddings_jax.data.sentences import TokenTexts, split_paragraphs
from embeddings_jax.types import InputError

TEXTS = TokenTexts(np.arange(10, 31, dtype=np.uint16), np.array([0, 3, 10, 11, 21]), np.array([0, 2, 4]))
OPTIONS = dict(cls_id=1, sep_id=2, max_length=6, order="sequential", remainder="pad")


def rows(source):
  batches = [source.batch_at(step) for step in range(source.facts["steps_per_epoch"])]
  return [[int(i) for i in row if i >= 0] for batch in batches
          for row, mask in zip(batch["tokens"], batch["mask"]) if mask]


def test_a_row_is_a_sentence_between_special_tokens():
  source = passage_source(TEXTS, 3, **OPTIONS)
  assert rows(source) == [[1, 10, 11, 12, 2], [1, 13, 14, 15, 16, 2], [1, 20, 2], [1, 21, 22, 23, 24, 2]]
  assert source.facts["num_rows"] == 4 and source.facts["padding_fraction"] == pytest.approx(1 - 20 / 24, abs=1e-4)
  assert rows(passage_source(TEXTS, 3, min_tokens=4, **OPTIONS)) == rows(source)[1::2]
  few = passage_source(TEXTS, 2, number=2, **OPTIONS)
  assert few.facts["num_rows"] == 2 and all(row in rows(source) for row in rows(few))
  np.testing.assert_array_equal(source.batch_at(0)["tokens"][1:2], source.feed_at(0, slice(1, 2))["tokens"])


def test_windows_cover_each_document_once():
  actual = [row[1:-1] for row in rows(passage_source(TEXTS, 2, window=True, **OPTIONS))]
  assert sum(actual, []) == list(range(10, 31)) and max(map(len, actual)) == 4
  bounds = set(TEXTS.sentences.tolist())
  assert {row[0] - 10 for row in actual} >= bounds - {21}  # None goes on into the next one.


def test_units_of_a_text(tmp_path):
  items = ["the red cat sat. the old dog ran.\n\na big bird flew. it was red.", "one two three four five six."] * 20
  sizes = {}
  for unit in ("sentence", "paragraph", "window", "document"):
    data = passages(Dataset("x", "text", items, fingerprint="f"), batch_size=4, seed=0, cache_dir=str(tmp_path),
                    vocab_size=60, max_length=12, unit=unit, min_tokens=1)
    sizes[unit] = data.facts["num_rows"]
    assert {data.encoder.tokenizer.id_to_token(i) for i in data.facts["stop_ids"]} <= {".", "##."}
  # A sentence begins with a capital, of which there is none here.
  assert sizes["paragraph"] == 60 and sizes["document"] == 40 and sizes["window"] > 40 and sizes["sentence"] == 60
  with pytest.raises(InputError, match="unit=page: unknown; one of sentence"):
    passages(Dataset("x", "text", items), batch_size=4, seed=0, unit="page")


def test_what_does_not_fit_is_refused():
  with pytest.raises(InputError, match="no passage has min_tokens=30 tokens or more; the longest of 4 has 10"):
    passage_source(TEXTS, 2, **{**OPTIONS, "min_tokens": 30})
  with pytest.raises(InputError, match="max_length=2"):
    passage_source(TEXTS, 2, **{**OPTIONS, "max_length": 2})
  assert split_paragraphs("a\nb\n\n \n c \n\n") == ["a\nb", "c"] and stop_ids({"a": 0, "!": 7, "##.": 3}) == [3, 7]
