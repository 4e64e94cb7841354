"""Indices of faiss: they find the neighbors that we do."""
import sys

import numpy as np
import pytest

from embeddings_jax.eval.neighbors import neighbors
from embeddings_jax.interop import word_vectors
from embeddings_jax.interop.faiss_index import write_index
from embeddings_jax.runs.export import export
from embeddings_jax.runs.load import load
from embeddings_jax.types import InputError

WORDS = [f"w{i}" for i in range(40)]
VECTORS = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)


@pytest.mark.parity
def test_an_index_has_the_neighbors_by_cosine(tmp_path):
  import faiss

  word_vectors.write(tmp_path / "v.txt", WORDS, VECTORS, "glove")
  assert export(load(tmp_path / "v.txt"), tmp_path / "v.faiss", "faiss") == "40 rows x 6"
  index = faiss.read_index(str(tmp_path / "v.faiss"))
  names = (tmp_path / "v.vocabulary.txt").read_text().splitlines()
  cosine, found = index.search(VECTORS[:3] / np.linalg.norm(VECTORS[:3], axis=1, keepdims=True), 5)
  for row, near in enumerate(neighbors(VECTORS, WORDS, WORDS[:3], k=4).values()):
    assert [names[i] for i in found[row]] == [WORDS[row], *(name for name, _ in near)]
    np.testing.assert_allclose(cosine[row], [1, *(value for _, value in near)], atol=1e-5)


@pytest.mark.parity
def test_what_cannot_be_indexed_is_named(tmp_path, monkeypatch):
  with pytest.raises(InputError, match="v: 2 names for vectors of shape"):
    write_index(tmp_path / "v", WORDS[:2], VECTORS)
  with pytest.raises(InputError, match="the vector of 'w1' is not finite"):
    write_index(tmp_path / "v", WORDS[:2], np.array([[1, 2], [np.nan, 1]]))
  monkeypatch.setitem(sys.modules, "faiss", None)
  with pytest.raises(InputError, match=r"the package faiss is missing.*embeddings_jax\[faiss\]"):
    write_index(tmp_path / "v", WORDS, VECTORS)
