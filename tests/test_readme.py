"""What the README says is so."""
import pathlib
import re

import numpy as np

from experiments import baselines, command

TEXT = (pathlib.Path(__file__).parents[1] / "README.md").read_text()


def test_the_library_in_ten_lines_runs():
  (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
  assert len(code.strip().splitlines()) <= 10
  names = {}
  exec(code, names)
  resp = np.asarray(names["responsibilities"])
  assert resp.shape == (500, 2)
  assert (resp[:200].argmax(1) == resp[0].argmax()).mean() > 0.99


def test_the_tables_are_those_of_the_results():
  assert baselines.filled(TEXT) == TEXT


def test_every_model_is_named():
  assert all(f"| `{name}` |" in TEXT for name in command.model_names())
