import numpy as np
import pytest

from embeddings_jax.data import tiles
from embeddings_jax.data.cooccurrence import Cooccurrence
from embeddings_jax.data.tiles import tile_source
from embeddings_jax.types import InputError

VOCAB = 101


@pytest.fixture(scope="module")
def cells():
  noise = np.random.default_rng(0)
  pairs = np.unique(noise.zipf(1.3, (6000, 2)) % VOCAB, axis=0)
  row, col = pairs.T.astype(np.int32)
  return Cooccurrence(row, col, noise.uniform(0.1, 9, len(row)).astype(np.float32), np.zeros(0),
                      {"vocab_size": VOCAB}, "test")


def unpacked(batch, num_groups):
  """(row, col, count) of every cell of a batch, from the definition."""
  for b in range(len(batch["mask"])):
    there = batch["count"][b] > 0
    row = batch["row"][b][there].astype(int) * num_groups + batch["row_group"][b]
    col = batch["col"][b][there].astype(int) * num_groups + batch["col_group"][b]
    yield from zip(row.tolist(), col.tolist(), batch["count"][b][there].tolist())


def test_a_pass_has_every_cell_once_and_batches_share_no_word(cells, tmp_path):
  source = tile_source(cells, 4, cache_dir=tmp_path, seed=5)
  n = source.facts["num_groups"]
  assert n == 8 and source.facts["steps_per_epoch"] == 16 and source.facts["num_cells"] == len(cells.row)
  expected = sorted(zip(cells.row.tolist(), cells.col.tolist(), cells.count.tolist()))
  orders = []
  for epoch in range(2):
    batches = [source.batch_at(step) for step in range(16 * epoch, 16 * (epoch + 1))]
    actual = [cell for batch in batches for cell in unpacked(batch, n)]
    assert sorted(actual) == expected
    for batch in batches:
      assert len(set(batch["row_group"])) == len(set(batch["col_group"])) == 4
    orders.append([tuple(batch["row_group"]) + tuple(batch["col_group"]) for batch in batches])
  assert orders[0] != orders[1]
  part = source.assemble(source.resident, source.feed_at(3, slice(1, 3)))
  np.testing.assert_array_equal(part["col"], source.batch_at(3)["col"][1:3])


def test_rows_and_turned_columns_are_sorted_and_found_by_their_starts(cells, tmp_path):
  source = tile_source(cells, 8, cache_dir=tmp_path)
  batch = source.batch_at(0)
  size = tiles.group_size(VOCAB, 8)
  assert size == 16 and batch["row_start"].shape == (8, size + 1)
  for b in range(8):
    row, col = batch["row"][b], batch["col"][b][batch["turned"][b]]
    assert sorted(batch["turned"][b].tolist()) == list(range(len(row)))
    for values, starts in ((row, batch["row_start"][b]), (col, batch["col_start"][b])):
      assert starts[0] == 0 and starts[-1] == (batch["count"][b] > 0).sum()
      for place in range(size):
        assert (values[starts[place]:starts[place + 1]] == place).all()


def test_tiles_have_few_cells_each_and_about_as_many(cells, tmp_path):
  source = tile_source(cells, 1, cache_dir=tmp_path, cells_per_tile=4)
  n = source.facts["num_groups"]
  assert n == 8 * round((len(cells.row) / 4) ** 0.5 / 8) > 8
  assert source.facts["steps_per_epoch"] == n * n


def test_what_a_kill_interrupts_is_gone_on_from(cells, tmp_path, monkeypatch):
  monkeypatch.setattr(tiles, "_BYTES_PER_CELL", 1)  # Chunks of 1,024 cells.
  whole = tile_source(cells, 8, cache_dir=tmp_path / "whole", memory=1024)

  class Killed(Exception):
    pass

  reports = []

  def report(done, total):
    reports.append(done)
    assert total == 2 * len(cells.row)
    if len(reports) in (1, 3):
      raise Killed

  for _ in range(2):
    with pytest.raises(Killed):
      tile_source(cells, 8, cache_dir=tmp_path / "parts", memory=1024, report=report)
  source = tile_source(cells, 8, cache_dir=tmp_path / "parts", memory=1024, report=report)
  assert reports == sorted(set(reports)) and reports[-1] == 2 * len(cells.row)  # Nothing was done twice.
  for name, table in whole.resident.items():
    np.testing.assert_array_equal(table, source.resident[name])
  assert not list((tmp_path / "parts").glob("*.work"))


def test_tiles_beyond_the_device_are_read_batch_by_batch(cells, tmp_path):
  resident = tile_source(cells, 2, cache_dir=tmp_path)
  read = tile_source(cells, 2, cache_dir=tmp_path, resident=False)
  assert not read.resident
  for name, value in resident.batch_at(7).items():
    np.testing.assert_array_equal(read.feed_at(7)[name], value)
    assert read.feed_at(7)[name].dtype == value.dtype


def test_wrong_batch_size_and_too_little_memory(cells, tmp_path):
  with pytest.raises(InputError, match=r"batch_size=3: must divide the 8 groups of words; one of \[1, 2, 4, 8\]"):
    tile_source(cells, 3, cache_dir=tmp_path)
  with pytest.raises(InputError, match="0.0009537 MiB of memory are too little to deal out cells: give at least 1"):
    tile_source(cells, 1, cache_dir=tmp_path, memory=1000)
