import numpy as np
import pytest
from scipy import sparse

from embeddings_jax.data import catalog
from embeddings_jax.data.matrix import encoder, read_sparse
from embeddings_jax.types import InputError


def save(folder, table, name="m.npz"):
  folder.mkdir(exist_ok=True)
  sparse.save_npz(folder / name, sparse.csr_array(table))
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
  fails(str(tmp_path / "cut.npz"), "not a .npz file")
  np.savez(tmp_path / "other.npz", x=np.array([{"a": 1}], object), allow_pickle=True)
  fails(str(tmp_path / "other.npz"), "it holds Python objects, which are never unpickled")
  np.savez(tmp_path / "plain.npz", x=np.eye(2))
  fails(str(tmp_path / "plain.npz"), "not a matrix of scipy.sparse.save_npz")


TABLE = np.array([[1.0, 0, 2, 0], [0, 0, 0, 0], [3, 0, 0, 4], [0, 5, 0, 0], [0, 6, 0, 0], [7, 0, 0, 8]])


@pytest.mark.parametrize("form", ["csr", "csc", "coo", "dia", "bsr"])
@pytest.mark.parametrize("kind", ["matrix", "array"])
def test_matrices_and_arrays_of_every_format_are_read(tmp_path, form, kind):
  sparse.save_npz(tmp_path / "m.npz", getattr(sparse, f"{form}_{kind}")(TABLE))
  dataset = catalog.load(str(tmp_path / "m.npz"), cache_dir=tmp_path)
  assert dataset.kind == "bags" and dataset.items[2] == {"0": 3, "3": 4} and len(dataset.items) == 6
  table = read_sparse(tmp_path / "m.npz")
  np.testing.assert_array_equal(table.toarray(), TABLE)


@pytest.mark.parametrize("change, message", [
    ({"indices": [0, 2, 0, 3, 1, 1, 0, 1 << 30]}, "value in column 1073741824 of 4"),
    ({"indices": [0, 2, 0, 3, 1, 1, 0, -5]}, "value in column -5 of 4"),
    ({"indptr": [0, 2, 2, 4, 5, 6, 9]}, "'indptr' does not fit 8 values"),
    ({"indptr": [0, 2, 1, 4, 5, 6, 8]}, "'indptr' does not fit 8 values"),
    ({"indptr": [1, 2, 2, 4, 5, 6, 8]}, "'indptr' does not fit 8 values"),
    ({"shape": [6, 1 << 40]}, "damaged, it has the shape"),
    ({"shape": [1 << 62, 4]}, "damaged, it has the shape"),
    ({"shape": [6, 4, 1]}, "must have two axes"),
    ({"indices": [0.0] * 8}, "the array 'indices' is float64"),
    ({"format": "nonsense"}, "format 'nonsense'"),
])
def test_indices_are_checked_before_compiled_code_uses_them(tmp_path, change, message):
  table = sparse.csr_array(TABLE)
  parts = dict(data=table.data, indices=table.indices, indptr=table.indptr, shape=table.shape, format="csr")
  np.savez(tmp_path / "m.npz", **{key: np.asarray(value) for key, value in (parts | change).items()})
  with pytest.raises(InputError, match=message):
    catalog.load(str(tmp_path / "m.npz"), cache_dir=tmp_path)


def test_lists_of_names_lose_byte_order_marks_and_carriage_returns(tmp_path):
  path = save(tmp_path, np.eye(2))
  (tmp_path / "vocabulary.txt").write_bytes(b"\xef\xbb\xbfx\r\ny\r\n")
  assert list(catalog.load(path, cache_dir=tmp_path).names) == ["x", "y"]
