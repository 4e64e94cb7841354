"""Nearest documents of a query."""
from types import SimpleNamespace

import numpy as np
import pytest

from embeddings_jax.data.files.names import format_names
from embeddings_jax.runs import inference
from embeddings_jax.runs.run import Run
from embeddings_jax.types import InputError


def test_titles_with_rare_line_ends_name_their_documents(tmp_path, monkeypatch):
  """Also a title with a line feed, which becomes a space."""
  titles = ["first\u2028part", "second\x85", "third\nline"]
  np.save(tmp_path / "embeddings.npy", np.eye(3, dtype=np.float32))
  (tmp_path / "vocabulary.txt").write_text(format_names(titles), encoding="utf-8")
  monkeypatch.setattr(inference, "embedder", lambda *_: lambda texts: np.float32([[0.2, 0.9, 0.4]]))
  run = Run(tmp_path, {"config": {"name": "lsa"}}, None, None, 3, SimpleNamespace(names=None), None)
  (near,) = run.neighbors(["cat"], k=3).values()
  assert [name for name, _ in near] == ["second\x85", "third line", "first\u2028part"]
  assert near[0][1] == pytest.approx(0.9 / np.sqrt(1.01))
  (tmp_path / "vocabulary.txt").write_text("a\nb\n")
  with pytest.raises(InputError, match="vocabulary.txt: has 2 names for the 3 rows of embeddings.npy"):
    run.neighbors(["cat"])
