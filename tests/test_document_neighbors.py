"""`experiments.neighbors` on documents."""
from types import SimpleNamespace

import numpy as np
import pytest
from absl import flags

from embeddings_jax.data.files.names import format_names
from embeddings_jax.runs import build, inference
from embeddings_jax.types import InputError
from experiments import neighbors


def test_titles_with_rare_line_ends_name_their_documents(tmp_path, monkeypatch, capsys):
  """Also a title with a line feed, which becomes a space."""
  titles = ["first\u2028part", "second\x85", "third\nline"]
  np.save(tmp_path / "embeddings.npy", np.eye(3, dtype=np.float32))
  (tmp_path / "vocabulary.txt").write_text(format_names(titles), encoding="utf-8")
  run = SimpleNamespace(path=tmp_path, encoder=SimpleNamespace(kind="bags"), model=None, state=None)
  monkeypatch.setattr(build, "load_run", lambda path: run)
  monkeypatch.setattr(inference, "embedder", lambda *_: lambda texts: np.float32([[0.2, 0.9, 0.4]]))
  flags.FLAGS(["neighbors", f"--workdir={tmp_path}", "--query=cat", "--k=3"])
  assert neighbors.documents() == 0
  assert [line.split("  ")[-1] for line in capsys.readouterr().out.split("\n")[:3]] == [
      "second\x85", "third line", "first\u2028part"]
  (tmp_path / "vocabulary.txt").write_text("a\nb\n")
  with pytest.raises(InputError, match="vocabulary.txt: has 2 names for the 3 rows of embeddings.npy"):
    neighbors.documents()
