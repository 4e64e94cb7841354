"""What the README says is so."""
import json
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
  for readme in baselines.READMES:
    text = readme.read_text()
    assert baselines.filled(text) == text


def test_a_row_is_the_mean_over_seeds_beside_the_untrained_network(tmp_path, monkeypatch):
  monkeypatch.setattr(baselines, "FOLDER", tmp_path)
  for seed, (accuracy, untrained, minutes) in enumerate([(0.8, 0.3, 3), (0.9, 0.5, 9), (0.7, 0.4, 4)]):
    (tmp_path / f"{seed}.json").write_text(json.dumps({
        "model": "m", "data": "d", "command": f"run --model=m --seed={seed} --workdir=w", "device": "cpu", "steps": 5,
        "wall_seconds": 60 * minutes, "training": {"loss": 1.0, "bound_2": 2.0, "bound_10": 1.0},
        "metrics": {"x/test/accuracy": accuracy, "x/dev/accuracy": 1.0, "pairs": 3,
                    "untrained/x/test/accuracy": untrained, "untrained/y/test/accuracy": 0.25}}))
  head = "| model | data | steps | metric | value | untrained | seeds | minutes | command |\n" + "|---" * 9 + "|\n"
  first = "| `m` | d | 5 | x/test/accuracy | 0.800 ± 0.100 | 0.400 ± 0.100 | 3 | 4.0 | `run --model=m` |\n"
  row = "|  |  |  | {} | {} ± 0.000 |  |  |  |  |\n".format
  assert baselines.baseline_table() == head + first + row("x/dev/accuracy", "1.000") + row(
      "untrained/y/test/accuracy", "0.250") + row("training/bound_2", "2.000") + row("training/bound_10", "1.000")
  assert baselines.baseline_table(baselines.DETAILS) == head + first + row("untrained/y/test/accuracy", "0.250")


def test_every_model_is_named():
  assert all(f"| `{name}` |" in TEXT for name in command.model_names())
