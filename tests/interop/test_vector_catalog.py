"""Word vectors by name: found beside other data, downloaded once and checked; nothing half-done stays."""
import gzip
import hashlib

import numpy as np
import pytest

import embeddings_jax as ej
from embeddings_jax.interop import vector_catalog
from embeddings_jax.interop.vector_catalog import FOLDER, Published, located
from embeddings_jax.types import InputError

CONTENT = gzip.compress(b"2 3\nking 1 2 3\nqueen 4 5 6\n", mtime=0)


@pytest.fixture
def published(tmp_path, monkeypatch):
  """A publisher at a file address; returns the file."""
  monkeypatch.setenv("EMBEDDINGS_CACHE", str(tmp_path / "cache"))
  monkeypatch.delenv("EMBEDDINGS_DATA", raising=False)
  monkeypatch.setattr(vector_catalog, "ADDRESS", f"file://{tmp_path}/{{name}}.gz")
  monkeypatch.setitem(vector_catalog.CATALOG, "mine", Published(
      len(CONTENT), hashlib.md5(CONTENT).hexdigest(), "2 words", "none"))
  (tmp_path / "mine.gz").write_bytes(CONTENT)
  return tmp_path / "mine.gz"


def test_a_name_is_downloaded_once(published, tmp_path):
  path = located("mine")
  assert path == tmp_path / "cache" / FOLDER / "mine.gz" and path.read_bytes() == CONTENT
  published.unlink()
  np.testing.assert_array_equal(ej.load("mine").embed(["queen"]), [[4, 5, 6]])


def test_a_file_beside_other_data_is_taken(published, tmp_path):
  published.unlink()
  own = tmp_path / "data" / FOLDER / "mine.gz"
  own.parent.mkdir(parents=True)
  own.write_bytes(CONTENT)
  assert located("mine", data_dir=tmp_path / "data") == own
  assert located(tmp_path / "other.txt") == tmp_path / "other.txt"


@pytest.mark.parametrize("content, message", [
    (CONTENT[:-1] + b"x", "mine: .*mine.gz is not the published file .* or download it yourself"),
    (CONTENT + b"x", "is not the published file"),
    (None, "mine: file:.*mine.gz cannot be downloaded .*; try again"),
])
def test_another_file_is_refused(published, tmp_path, content, message):
  published.unlink() if content is None else published.write_bytes(content)
  with pytest.raises(InputError, match=message):
    located("mine")
  assert not [path for path in (tmp_path / "cache").rglob("*") if path.suffix == ".gz"]
