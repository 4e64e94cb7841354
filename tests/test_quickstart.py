"""The quickstart notebook runs, and its kept outputs are what it says."""
import json
import pathlib
import re

import pytest

NOTEBOOK = pathlib.Path(__file__).parents[1] / "experiments" / "quickstart.ipynb"


def printed(notebook):
  """Returns the text of all outputs."""
  outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
  texts = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs]
  return "\n".join("".join(text) for text in texts)


def check(text):
  """Asserts what a reader learns from the outputs."""
  assert text.count("'variance'") == 1 and text.count("'tuple'") == 1  # Neighbors of "mean" and of "list".
  assert float(re.search(r"'class/test/accuracy': ([0-9.]+)", text)[1]) > 0.85
  for line in ("average of the elements -> Return the mean of an array.",
               "distance of two vertices in a graph -> Return the shortest path between two nodes.",
               "How do I read from a file? -> Open a file for reading.",
               "random numbers -> Draw random samples from a distribution."):
    assert line in text
  losses, best = re.search(r"loss of batches \[(.*)\] best possible on all rows ([0-9.]+)", text).groups()
  assert float(losses.split(",")[-1]) == pytest.approx(float(best), rel=0.2)


def test_kept_outputs():
  check(printed(json.loads(NOTEBOOK.read_text())))


@pytest.mark.long
def test_it_runs(tmp_path):
  import nbformat
  from nbclient import NotebookClient

  notebook = nbformat.read(NOTEBOOK, 4)
  NotebookClient(notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
  check(printed(notebook))
