"""`experiments.walks`: a corpus of walks that a word model reads."""
import gzip
import lzma

import networkx as nx
import numpy as np
import pytest
from commands import call

from embeddings_jax.data.files.graphs import from_networkx, read_graph
from embeddings_jax.types import InputError
from experiments import command, walk_corpus

KARATE = nx.karate_club_graph()


def test_every_pass_starts_once_at_each_node_and_follows_edges(monkeypatch):
  table = from_networkx(KARATE)
  drawn = np.concatenate(list(walk_corpus.draw(table, num_walks=3, length=8, p=0.5, q=2.0)))
  assert drawn.shape == (3 * 34, 8)
  for start in np.split(drawn[:, 0], 3):
    assert sorted(start) == list(range(34))
  assert not np.array_equal(*np.split(drawn[:68, 0], 2))
  assert all(KARATE.has_edge(a, b) for walk in drawn for a, b in zip(walk, walk[1:]))
  monkeypatch.setattr(walk_corpus, "WALKERS", 40)  # The same walks, whatever number is drawn at a time.
  again = np.concatenate(list(walk_corpus.draw(table, num_walks=3, length=8, p=0.5, q=2.0)))
  np.testing.assert_array_equal(again, drawn)


def test_walks_become_lines_of_names(tmp_path):
  (tmp_path / "g.txt").write_text("anna bert\nbert carl\ncarl anna\ndora dora\n")
  table = read_graph(tmp_path / "g.txt", loops="drop")
  for name, opener in {"walks.txt": open, "walks.txt.gz": gzip.open, "walks.txt.xz": lzma.open}.items():
    assert walk_corpus.write_walks(table, tmp_path / name, num_walks=2, length=5) == 32
    with opener(tmp_path / name, "rt") as file:
      lines = [line.split() for line in file]
    assert sorted(line[0] for line in lines) == sorted(["anna", "bert", "carl", "dora"] * 2)
    assert all(len(line) == (1 if line[0] == "dora" else 5) for line in lines)


def test_more_walks_than_there_are_numbers_are_refused():
  with pytest.raises(InputError, match="num_walks=100000000: at most 63161283 walks from each of 34 nodes"):
    next(walk_corpus.draw(from_networkx(KARATE), num_walks=100_000_000, length=2))


def test_names_with_white_space_write_nothing(tmp_path):
  (tmp_path / "g.csv").write_text("a,b c\n")
  with pytest.raises(InputError, match="node 'b c' has white space"):
    walk_corpus.write_walks(read_graph(tmp_path / "g.csv"), tmp_path / "walks.txt", num_walks=1, length=2)
  assert [path.name for path in tmp_path.iterdir()] == ["g.csv"]


def test_what_would_be_no_corpus_is_not_written(tmp_path):
  (tmp_path / "g.csv").write_text("a,b\0c\n")
  table = read_graph(tmp_path / "g.csv")
  with pytest.raises(InputError, match="node 'b.x00c' has white space or a NUL"):
    walk_corpus.write_walks(table, tmp_path / "walks.txt", num_walks=1, length=2)
  with pytest.raises(InputError, match="plain or as .gz, .xz or .bz2, not as .zst"):
    walk_corpus.write_walks(table._replace(names=["a", "b"]), tmp_path / "walks.txt.zst", num_walks=1, length=2)
  assert [path.name for path in tmp_path.iterdir()] == ["g.csv"]


def test_outputs_are_checked_before_anything_is_computed(tmp_path):
  (tmp_path / "in").write_text("a b\n")
  (tmp_path / "link").symlink_to(tmp_path / "in")
  for name, message in {"": "is a directory", "absent/x": "there is no directory", "in": "is the file that is read",
                        "link": "is the file that is read"}.items():
    with pytest.raises(InputError, match=message):
      command.check_output(str(tmp_path / name), str(tmp_path / "in"))
  command.check_output(str(tmp_path / "new"), str(tmp_path / "in"), "")


def test_the_command(tmp_path):
  (tmp_path / "g.txt").write_text("anna bert\nbert carl\ncarl carl\n")
  files = f"--data={tmp_path}/g.txt", f"--output={tmp_path}/w.txt"
  done = call("walks", *files, "--num_walks=3", "--walk_length=4", "--p=.5")
  assert done.returncode == 0, done.stderr
  assert "3 nodes, 5 directed edges; 1 loops (keep), 0 repeated edges (largest), 0 isolated nodes" in done.stdout
  assert "9 walks, 36 nodes" in done.stdout
  done = call("walks", *files, "--q=-1")
  assert done.returncode == 2 and done.stderr == "error: --q=-1.0: must be a positive number\n"
