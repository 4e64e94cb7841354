import numpy as np
import pytest

from embeddings_jax.data.packing import pack, packed, row_widths


def batch_of(lengths, random):
  tokens = np.full((len(lengths), max(lengths)), -1, np.int32)
  segments = np.zeros_like(tokens)
  for row, length in enumerate(lengths):
    tokens[row, :length] = random.integers(0, 1000, length)
    segments[row, length // 2:length] = 1
  return {"tokens": tokens, "segments": segments, "mask": np.ones(len(lengths), np.float32)}


@pytest.mark.parametrize("slots", [16, 2])
def test_every_text_is_somewhere_whole_and_once(slots):
  random = np.random.default_rng(0)
  lengths = [*random.integers(0, 40, 200), 0, 100, 65, 128]
  batch = batch_of(lengths, random)
  seen = []
  for rows in packed(batch, [64, 128], slots):
    assert rows["slots"].shape[1] == slots and rows["tokens"].shape[1] in (64, 128)
    np.testing.assert_array_equal(rows["parts"] < 0, rows["tokens"] < 0)
    for row in range(len(rows["tokens"])):
      for slot, item in enumerate(rows["slots"][row]):
        mine = rows["parts"][row] == slot
        assert mine.any() == (item >= 0)
        if item >= 0:
          assert (np.diff(np.flatnonzero(mine)) == 1).all()  # In one piece.
          for key in ("tokens", "segments"):
            np.testing.assert_array_equal(rows[key][row, mine], batch[key][item, :lengths[item]])
          seen.append(item)
  assert sorted(seen) == [i for i, length in enumerate(lengths) if length]


def test_little_is_padding():
  """Lengths as of sentences: the packed rows are within 3 % of the tokens."""
  lengths = np.minimum(1 + np.random.default_rng(0).poisson(np.random.default_rng(1).gamma(3, 9, 5000)), 256)
  _, _, widths = pack(lengths, row_widths(256))
  assert set(widths) <= {64, 128, 256} and sum(widths) < 1.03 * lengths.sum()


def test_widths_end_with_the_longest_text():
  assert row_widths(512) == [64, 128, 256, 512] and row_widths(20) == [20] and row_widths(128) == [64, 128]
