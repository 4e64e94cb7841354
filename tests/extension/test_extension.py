"""A model, an evaluation, a figure and a modality from outside the package are new files only."""
import json
import pathlib

import networkx as nx
import numpy as np
import pytest
from commands import call
from PIL import Image

FOLDER = pathlib.Path(__file__).parent


def run(name, workdir, *flags):
  done = call("run", f"--config_file={FOLDER / name}.py", f"--workdir={workdir}", "--figures", *flags)
  assert done.returncode == 0, done.stderr
  return done.stdout, json.loads((workdir / "results.json").read_text())


def test_a_linear_vae(tmp_path):
  """Interrupted and resumed it is the uninterrupted one; it has a validation bound, samples and reconstructions."""
  _, whole = run("linear_vae", tmp_path / "whole")
  run("linear_vae", tmp_path / "w", "--steps=70", "--config.horizon=200")
  printed, actual = run("linear_vae", tmp_path / "w")
  assert "going on from step 70" in printed and actual["metrics"] == whole["metrics"]
  vectors = [np.load(tmp_path / name / "embeddings.npy") for name in ("whole", "w")]
  np.testing.assert_array_equal(*vectors)
  assert actual["metrics"]["validation/elbo_loss"] < 5 and actual["metrics"]["class/test/accuracy"] > 0.6
  for figure in ("samples", "reconstructions", "loss"):
    assert Image.open(tmp_path / "w" / "figures" / f"{figure}.png").width > 200
  np.save(tmp_path / "in.npy", np.zeros((3, 8, 8, 1), np.uint8))
  arguments = f"--workdir={tmp_path / 'w'}", f"--input={tmp_path / 'in.npy'}", f"--output={tmp_path / 'o.npy'}"
  done = call("embed", *arguments, f"--extension={FOLDER}")
  assert done.returncode == 0 and np.load(tmp_path / "o.npy").shape == (3, 4), done.stderr
  done = call("embed", *arguments)  # A run directory alone brings no code.
  assert done.returncode == 2 and "there is no model of that name" in done.stderr


def test_the_spectral_embedding_of_an_edge_list(tmp_path):
  club = nx.karate_club_graph()
  (tmp_path / "edges.txt").write_text("".join(f"n{a} n{b}\n" for a, b in club.edges))
  (tmp_path / "labels.txt").write_text("".join(f"n{i} {data['club'].split()[0]}\n" for i, data in club.nodes(True)))
  data = f"--data={tmp_path / 'edges.txt'}", f"--config.data.labels={tmp_path / 'labels.txt'}"
  _, actual = run("spectral", tmp_path / "w", *data)
  assert actual["metrics"]["test/node_accuracy"] >= 6 / 7
  assert (tmp_path / "w" / "figures" / "plane.png").exists()
  (tmp_path / "in.txt").write_text("n33\nn0\n")
  arguments = f"--workdir={tmp_path / 'w'}", f"--input={tmp_path / 'in.txt'}", f"--output={tmp_path / 'o.npy'}"
  done = call("embed", *arguments, f"--extension={FOLDER}")
  assert done.returncode == 0, done.stderr
  laplacian = nx.normalized_laplacian_matrix(club, weight=None).toarray()
  vector = np.linalg.eigh(laplacian)[1][:, 1] / np.sqrt([degree for _, degree in club.degree()])
  first = np.load(tmp_path / "o.npy")[:, 0]
  assert abs(first) @ [1, 1] == pytest.approx(abs(vector[[33, 0]]).sum(), rel=1e-4) and first[0] * first[1] < 0
  done = call("evaluate", f"--workdir={tmp_path / 'w'}", f"--extension={FOLDER}", "--protocols=node_probe")
  assert done.returncode == 0 and "test/node_accuracy" in done.stdout, done.stderr
