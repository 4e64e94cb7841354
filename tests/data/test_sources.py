import numpy as np
import pytest

from embeddings_jax.data import sources
from embeddings_jax.data.sources import array_source, enciphered, reader_source, row_order, window_source
from embeddings_jax.types import InputError

ROWS = np.arange(46, dtype=np.float32).reshape(23, 2)


def rows_of_pass(source, epoch):
  steps = source.facts["steps_per_epoch"]
  batches = [source.batch_at(epoch * steps + step) for step in range(steps)]
  return np.concatenate([batch["x"][batch["mask"] > 0, 0] for batch in batches])


@pytest.mark.parametrize("order", ["shuffled", "sequential"])
def test_every_row_is_in_each_padded_pass_once(order):
  source = array_source({"x": ROWS}, 5, order=order, remainder="pad")
  assert source.facts["steps_per_epoch"] == 5
  first, second = rows_of_pass(source, 0), rows_of_pass(source, 1)
  np.testing.assert_array_equal(np.sort(first), ROWS[:, 0])
  np.testing.assert_array_equal(np.sort(second), ROWS[:, 0])
  assert (first == second).all() == (order == "sequential")
  assert source.batch_at(4)["mask"].tolist() == [1, 1, 1, 0, 0]


def test_dropping_leaves_out_the_partial_batch():
  source = array_source({"x": ROWS}, 5, order="sequential")
  assert source.facts == {"num_rows": 23, "num_features": 2, "steps_per_epoch": 4}
  assert source.batch_at(4)["x"][0, 0] == 0  # Step 4 opens the second pass.


def test_half_batches_by_rows_equal_the_whole():
  memory = array_source({"x": ROWS}, 6, remainder="pad", seed=3)
  for step in range(8):
    whole = memory.batch_at(step)
    halves = [memory.assemble(memory.resident, memory.feed_at(step, rows)) for rows in (slice(0, 3), slice(3, 6))]
    for key in whole:
      np.testing.assert_array_equal(np.concatenate([half[key] for half in halves]), whole[key])


def test_memory_mapped_rows_equal_resident_ones(tmp_path):
  np.save(tmp_path / "x.npy", ROWS)
  mapped = array_source({"x": np.load(tmp_path / "x.npy", mmap_mode="r")}, 4, seed=1, resident=False)
  resident = array_source({"x": ROWS}, 4, seed=1)
  assert not mapped.resident and set(resident.resident) == {"x"}
  for step in (0, 3, 17):
    np.testing.assert_array_equal(mapped.batch_at(step)["x"], resident.batch_at(step)["x"])


def test_seed_decides_the_order():
  first, same, other = (array_source({"x": ROWS}, 23, seed=s).batch_at(2)["x"][:, 0] for s in (1, 1, 2))
  np.testing.assert_array_equal(first, same)
  assert (first != other).any()


def test_whole_set_is_every_batch():
  source = array_source({"x": ROWS})
  assert source.whole and source.batch_size == 23 and source.facts["steps_per_epoch"] == 1
  for step in (0, 5):
    np.testing.assert_array_equal(source.batch_at(step)["x"], ROWS)
    np.testing.assert_array_equal(source.batch_at(step)["mask"], np.ones(23))


def test_windows_have_each_element_once_and_pad_the_last():
  source = window_source(np.arange(10), 4, 1, order="sequential")
  windows = [source.batch_at(step)["tokens"][0].tolist() for step in range(3)]
  assert windows == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, -1, -1]]


def test_jitter_is_reproducible_bounded_and_the_same_by_halves(tmp_path):
  np.save(tmp_path / "s.npy", np.arange(100))
  beside = {"group": np.arange(10) // 2}
  resident = window_source(np.arange(100), 10, 4, beside=beside, jitter=7, seed=2)
  mapped = window_source(np.load(tmp_path / "s.npy", mmap_mode="r"), 10, 4, beside=beside, jitter=7, seed=2,
                         resident=False)
  offsets = set()
  for step in range(12):
    whole = resident.batch_at(step)["tokens"]
    np.testing.assert_array_equal(whole, resident.batch_at(step)["tokens"])
    np.testing.assert_array_equal(whole, mapped.batch_at(step)["tokens"])
    half = resident.assemble(resident.resident, resident.feed_at(step, slice(2, 4)))
    np.testing.assert_array_equal(half["tokens"], whole[2:])
    np.testing.assert_array_equal(half["group"], whole[2:, 0] // 20)
    np.testing.assert_array_equal(mapped.batch_at(step)["group"], whole[:, 0] // 20)
    offsets |= set((whole[:, 0] % 10).tolist())
  assert offsets == set(range(7))


def test_reader_is_shuffled_anew_and_repeatable():
  reader = list(range(12))
  encode = lambda items: {"x": np.array(items), "mask": np.ones(len(items), np.float32)}
  source = reader_source(reader, encode, 4, seed=5)
  passes = [np.concatenate([source.batch_at(3 * e + s)["x"] for s in range(3)]) for e in range(2)]
  assert all(sorted(rows.tolist()) == reader for rows in passes) and (passes[0] != passes[1]).any()
  np.testing.assert_array_equal(source.feed_at(1, slice(1, 3))["x"], source.batch_at(1)["x"][1:3])


@pytest.mark.parametrize("build, message", [
    (lambda: array_source({"x": ROWS}, 24), "exceeds the 23 rows"),
    (lambda: array_source({"x": ROWS}, 0), "at least 1"),
    (lambda: array_source({"x": ROWS, "y": ROWS[:3]}, 2), "same number of rows"),
    (lambda: array_source({"x": ROWS[:0]}, 2), "0 rows"),
    (lambda: array_source({"x": ROWS}, 2, order="random"), "shuffled"),
    (lambda: array_source({"x": ROWS}, 2, remainder="keep"), "drop"),
    (lambda: window_source(np.arange(0), 4, 1), "no window"),
    (lambda: window_source(np.zeros(9, np.uint32), 4, 1), "pad=-1 does not fit a stream of uint32"),
])
def test_bad_input_is_one_line(build, message):
  with pytest.raises(InputError, match=message) as error:
    build()
  assert "\n" not in str(error.value)


@pytest.mark.parametrize("num_rows", [1, 2, 3, 1000, 4096, 70_001])
def test_a_cipher_permutes_any_number_of_rows(num_rows):
  position = np.arange(num_rows)
  first, second = (enciphered(position, num_rows, 0, epoch) for epoch in (0, 1))
  np.testing.assert_array_equal(np.sort(first), position)
  np.testing.assert_array_equal(enciphered(position[::3], num_rows, 0, 0), first[::3])
  if num_rows > 100:
    # As of random orders: one row stays in its place on average, and no place tells of the row.
    assert (first == position).sum() < 8 and (first == second).sum() < 8
    assert (enciphered(position, num_rows, 1, 0) == first).sum() < 8
    for other in (position, second, np.roll(first, 1)):
      assert abs(np.corrcoef(first, other)[0, 1]) < 4 / np.sqrt(num_rows)
    # The first tenth comes from everywhere alike.
    counts = np.histogram(first[:num_rows // 10], bins=10, range=(0, num_rows))[0]
    assert np.abs(counts - num_rows / 100).max() < 4.5 * np.sqrt(num_rows / 100)


def test_many_rows_are_ordered_without_drawing_a_permutation(monkeypatch):
  monkeypatch.setattr(sources, "MOST_DRAWN", 10)
  index_at, steps_per_epoch = row_order(103, 10, seed=0, order="shuffled", remainder="pad")
  passes = [np.concatenate([index_at(step)["row"][index_at(step)["mask"] > 0] for step in range(first, first + 11)])
            for first in (0, 11)]
  assert steps_per_epoch == 11 and (passes[0] != passes[1]).any()
  for rows in passes:
    np.testing.assert_array_equal(np.sort(rows), np.arange(103))
  np.testing.assert_array_equal(index_at(4, slice(3, 7))["row"], index_at(4)["row"][3:7])


def test_row_numbers_beyond_32_bits_do_not_wrap():
  index_at, _ = row_order((1 << 33) + 5, 1 << 10, seed=0, order="shuffled", remainder="drop")
  last = index_at((1 << 23) - 1)["row"]
  assert last.dtype == np.int64 and last.min() >= 0 and 1 << 32 < last.max() < (1 << 33) + 5
  sequential, _ = row_order((1 << 33) + 5, 1 << 10, seed=0, order="sequential", remainder="drop")
  assert sequential((1 << 23) - 1)["row"][-1] == (1 << 33) - 1
