"""`experiments.walks`: a corpus of walks that a word model reads."""
import gzip

import networkx as nx
import numpy as np
import pytest

from embeddings_jax.data.files.graphs import from_networkx
from embeddings_jax.types import InputError
from experiments import walks

KARATE = nx.karate_club_graph()


def test_every_pass_starts_once_at_each_node_and_follows_edges(monkeypatch):
  table = from_networkx(KARATE)
  drawn = np.concatenate(list(walks.draw(table, num_walks=3, length=8, p=0.5, q=2.0)))
  assert drawn.shape == (3 * 34, 8)
  for start in np.split(drawn[:, 0], 3):
    assert sorted(start) == list(range(34))
  assert not np.array_equal(*np.split(drawn[:68, 0], 2))
  assert all(KARATE.has_edge(a, b) for walk in drawn for a, b in zip(walk, walk[1:]))
  monkeypatch.setattr(walks, "WALKERS", 40)  # The same walks, whatever number is drawn at a time.
  np.testing.assert_array_equal(np.concatenate(list(walks.draw(table, num_walks=3, length=8, p=0.5, q=2.0))), drawn)


def run(tmp_path, *flags):
  walks.FLAGS.unparse_flags()
  for flag in ("data", "output", "num_walks", "walk_length", "p", "q", "directed", "loops", "variable"):
    walks.FLAGS[flag].unparse()
  return walks.main(["walks", *flags])


def test_the_command_writes_a_corpus(tmp_path, capsys):
  (tmp_path / "g.txt").write_text("anna bert\nbert carl\ncarl anna\ndora dora\n")
  output = tmp_path / "walks.txt.gz"
  assert run(tmp_path, f"--data={tmp_path}/g.txt", f"--output={output}", "--num_walks=2", "--walk_length=5",
             "--loops=drop") == 0
  with gzip.open(output, "rt") as file:
    lines = [line.split() for line in file]
  assert sorted(line[0] for line in lines) == sorted(["anna", "bert", "carl", "dora"] * 2)
  assert all(len(line) == (1 if line[0] == "dora" else 5) for line in lines)
  said = capsys.readouterr().out
  assert "4 nodes, 6 directed edges; 1 loops (drop), 0 repeated edges (largest), 1 isolated nodes" in said
  assert "8 walks, 32 nodes" in said


@pytest.mark.parametrize("content, flags, message", [
    ("a b\n", ["--p=0"], "p=0.0: must be a positive number"),
    ("a,b c\n", [], "node 'b c' has white space in its name"),
    ("a\n", [], "line 1: 1 columns")])
def test_bad_input_writes_nothing(tmp_path, content, flags, message):
  (tmp_path / "g.txt").write_text(content)
  with pytest.raises(InputError, match=message):
    run(tmp_path, f"--data={tmp_path}/g.txt", f"--output={tmp_path}/walks.txt", *flags)
  assert [path.name for path in tmp_path.iterdir()] == ["g.txt"]
