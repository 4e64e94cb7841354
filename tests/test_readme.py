"""Claims and commands of the README hold."""
import json
import os
import pathlib
import re

import numpy as np
import pytest

from experiments import baselines, hardware

TEXT = (pathlib.Path(__file__).parents[1] / "README.md").read_text()


def test_the_library_in_ten_lines_runs():
  code, own_loss = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
  assert len(code.strip().splitlines()) <= 10
  names = {}
  exec(code, names)
  resp = np.asarray(names["responsibilities"])
  assert resp.shape == (500, 2)
  assert (resp[:200].argmax(1) == resp[0].argmax()).mean() > 0.99
  exec(own_loss, names)
  state, x = names["state"], names["x"]
  best = np.linalg.eigvalsh(x.T @ x / len(x))[0] / 2  # What one dimension leaves over.
  value, _ = names["loss"](state.params, {}, {"x": x}, None)
  assert float(value) == pytest.approx(best, rel=0.05)


HEAD = ("| model | data | result (untrained) | steps | seeds | minutes | command | notes |\n" + "|---" * 8 + "|\n")


def write_result(folder, seed, metrics, **fields):
  results = {"model": "m", "data": "d", "command": f"run --model=m --seed={seed} --workdir=w", "device": "cpu",
             "steps": 5, "wall_seconds": 180, "training": {}, "metrics": metrics, "commit": "0123456789ab"} | fields
  (folder / f"{seed}.json").write_text(json.dumps(results))


def test_a_row_is_the_mean_over_seeds_beside_the_untrained_network(tmp_path, monkeypatch):
  monkeypatch.setattr(baselines, "FOLDER", tmp_path)
  for seed, (accuracy, untrained, minutes) in enumerate([(0.8, 0.3, 3), (0.9, 0.5, 9), (0.7, 0.4, 4)]):
    write_result(tmp_path, seed, {"x/test/accuracy": accuracy, "x/dev/accuracy": 1.0, "pairs": 3,
                                  "untrained/x/test/accuracy": untrained, "untrained/y/test/accuracy": 0.25},
                 wall_seconds=60 * minutes, training={"loss": 1.0, "bound_2": 2.0, "bound_10": 1.0})
  row = "| `m` | d | {} | 5 | 3 | 4.0 | `run --model=m` |  |\n".format
  first = "x accuracy 0.800 ± 0.100 (0.400 ± 0.100)"
  assert baselines.baseline_table() == HEAD + row(f"{first}; x dev accuracy 1.000 ± 0.000")
  assert baselines.baseline_table(baselines.DETAILS) == HEAD + row(first)
  lines = baselines.complete().splitlines()
  assert lines[1] == "m,d,5,x/test/accuracy,0.800 ± 0.100,0.400 ± 0.100,3,4.0,run --model=m,"
  assert [line.split(",")[3:5] for line in lines[2:]] == [
      ["x/dev/accuracy", "1.000 ± 0.000"], ["untrained/y/test/accuracy", "0.250 ± 0.000"],
      ["training/bound_2", "2.000 ± 0.000"], ["training/bound_10", "1.000 ± 0.000"]]


def test_a_row_says_how_it_differs_from_what_its_columns_suggest(tmp_path, monkeypatch):
  monkeypatch.setattr(baselines, "FOLDER", tmp_path)
  write_result(tmp_path, 0, {"ws353/spearman": 0.5, "y": 0.25}, best_step=3, commit="0123456789ab+",
               note="beside other work")
  write_result(tmp_path, 1, {"ws353/spearman": 0.7}, best_step=4)
  notes = "best checkpoint by dev: step 3–4; code changed since its commit (1 of 2 seeds); beside other work"
  result = "WordSim-353 Spearman 0.600 ± 0.141; y 0.250 (1 of 2 seeds)"
  assert baselines.baseline_table() == HEAD + f"| `m` | d | {result} | 5 | 2 | 3.0 | `run --model=m` | {notes} |\n"


def test_a_benchmark_keeps_its_ratios_on_other_processors(tmp_path, monkeypatch):
  monkeypatch.setattr(baselines, "FOLDER", tmp_path)
  path = tmp_path / "benchmark-b.json"
  for device, ratio in [("A", 3.1), ("B", 2.2), ("A", 2.9)]:
    actual = {"command": "benchmark b", "summary": f"{ratio} x", "ratio": ratio, "device": device, "commit": "0"}
    actual |= hardware.measured_elsewhere(path, actual)
    path.write_text(json.dumps(actual))
  assert [entry["ratio"] for entry in actual["elsewhere"]] == [2.2]
  assert baselines.benchmark_table().splitlines()[-1] == "| `benchmark b` | 2.9 x; on other processors 2.20 x (B) |"


def test_processors_are_described_by_their_widest_units():
  cpuinfo = "processor: 0\nmodel name\t: AMD EPYC\nflags\t\t: fpu avx avx2 avx512f avx512_bf16\n\nprocessor: 1\n"
  assert hardware.processor(cpuinfo) == f"AMD EPYC, {os.cpu_count()} cores, AVX-512, AVX-512 bfloat16"
  assert hardware.processor("model name: Xeon\nflags: avx avx2\n").endswith(" cores, AVX2")
