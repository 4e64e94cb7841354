import numpy as np
import pytest
import scipy.sparse

from embeddings_jax.data import catalog
from embeddings_jax.data.matrix import encoder
from embeddings_jax.types import InputError


def save(folder, table, name="m.npz"):
  folder.mkdir(exist_ok=True)
  scipy.sparse.save_npz(folder / name, scipy.sparse.csr_array(table))
  return str(folder / name)


def test_rows_are_named_by_number_or_by_the_file_beside(tmp_path):
  table = np.array([[0, 2.5, 0], [1, 0, 0], [0, 0, -3]])
  dataset = catalog.load(save(tmp_path / "a", table), cache_dir=tmp_path)
  assert dataset.kind == "matrix" and list(dataset.items) == ["0", "1", "2"]
  cells = dataset.items.cells
  assert [x.tolist() for x in (cells.row, cells.col, cells.count)] == [[0, 1, 2], [1, 0, 2], [2.5, 1, -3]]
  assert cells.indptr.tolist() == [0, 1, 2, 3] and not cells.facts["symmetric"]
  assert cells.facts["marginals"].tolist() == [2.5, 1, -3]
  assert cells.facts["context_marginals"].tolist() == [1, 2.5, -3]
  (tmp_path / "a" / "vocabulary.txt").write_text("x\nNew York\nz\n")
  named = catalog.load(str(tmp_path / "a" / "m.npz"), cache_dir=tmp_path)
  assert encoder(named.items).encode(["New York"])["tokens"].tolist() == [[1]]
  assert named.fingerprint != dataset.fingerprint


def test_bad_matrices_are_named(tmp_path):
  def fails(path, words):
    with pytest.raises(InputError, match=words) as error:
      catalog.load(path, cache_dir=tmp_path)
    assert "\n" not in str(error.value)

  fails(save(tmp_path, np.ones((2, 2)) * 1j), r"complex128 \[2, 2\]; it must have two axes and real numbers")
  fails(save(tmp_path, np.array([[1, 0], [np.nan, 1]])), "row 1, column 0 .* nan is not a finite")
  fails(save(tmp_path, np.zeros((2, 2))), "no cell that is not 0")
  path = save(tmp_path / "b", np.eye(2))
  (tmp_path / "b" / "vocabulary.txt").write_text("a\na\n")
  fails(path, "1 different names for 2 columns")
  data = open(path, "rb").read()
  (tmp_path / "cut.npz").write_bytes(data[:len(data) // 2])
  fails(str(tmp_path / "cut.npz"), "not a matrix of scipy.sparse.save_npz")
  np.savez(tmp_path / "other.npz", x=np.array([{"a": 1}], object), allow_pickle=True)
  fails(str(tmp_path / "other.npz"), "not a matrix of scipy.sparse.save_npz")
