"""Comparison of runs: what they have in common, in what their configs differ, and their metrics side by side."""
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from embeddings_jax.errors import InputError
from embeddings_jax.eval import metric
from embeddings_jax.runs import metrics_log, workdir
from embeddings_jax.runs.summary import shown

_RATES = ("step", "seconds", "steps_per_second", "examples_per_second", "data_wait_fraction", "converged")


class Compared(NamedTuple):
  """A run as far as files tell.

  Attributes:
    name: Its directory, as short as it can be told from the others.
    config: Completed config, keys with dots.
    results: `results.json`, {} where the run has not ended.
    log: Records of the training log.
  """

  name: str
  config: Mapping[str, Any]
  results: Mapping[str, Any]
  log: Sequence[Mapping[str, float]]


def read(paths: Sequence[str]) -> list[Compared]:
  """Reads the files of work directories.

  Raises:
    InputError: Fewer than two, one twice, or one that is no work directory.
  """
  folders = [epath.Path(path) for path in paths]
  if len(folders) < 2:
    raise InputError("compare: give two or more work directories")
  if len(set(map(str, folders))) < len(folders):
    raise InputError("compare: a work directory is given twice")
  names = _short([str(folder).rstrip("/") for folder in folders])
  return [Compared(name, _flat(workdir.read_record(folder)["config"]), workdir.read_results(folder) or {},
                   metrics_log.read_metrics(folder)) for name, folder in zip(names, folders)]


def tables(runs: Sequence[Compared]) -> list[str]:
  """Returns lines: keys of the configs that differ, then metrics of which two runs or more have some."""
  keys = sorted({key for run in runs for key in run.config})
  missing = object()
  differing = [key for key in keys if len({repr(run.config.get(key, missing)) for run in runs}) > 1]
  rows = [["config", *(run.name for run in runs), ""]]
  rows += [[key, *(str(run.config[key])[:40] if key in run.config else "-" for run in runs), ""] for key in differing]
  measured = dict.fromkeys(key for run in runs for key in run.results.get("metrics", {}))
  rows += [["metric", *(run.name for run in runs), ""]]
  for name in ("steps", "wall_seconds"):
    rows.append([name, *(f"{run.results[name]:,}" if name in run.results else "-" for run in runs), ""])
  if any("loss" in run.results.get("training", {}) for run in runs):
    rows.append(["training loss", *(_value(run.results.get("training", {}), "loss") for run in runs), ""])
  for name in measured:
    values = [run.results.get("metrics", {}).get(name) for run in runs]
    declared = metric(name)
    better = declared.higher_is_better if declared else None
    known = [value for value in values if value is not None]
    best = None if better is None or len(known) < 2 else (max if better else min)(known)
    rows.append([name, *("-" if value is None else shown(value, declared and declared.unit)
                         + ("*" if value == best else " ") for value in values), ""])
  widths = [max(map(len, column)) for column in zip(*rows)]
  lines = []
  for first, *cells in rows:
    aligned = [cell.rjust(width) for cell, width in zip(cells, widths[1:])]
    lines.append("  ".join([first.ljust(widths[0]), *aligned]).rstrip())
  lines.insert(1 + len(differing), "" if differing else "(the configs are equal)")
  return [*lines, "* is the best of the runs"]


def curves(runs: Sequence[Compared]) -> tuple[dict[str, Sequence[Mapping[str, float]]], list[str]]:
  """Returns the logs by name, and the metrics that two runs or more have logged, the loss first."""
  counts: dict[str, int] = {}
  for run in runs:
    for key in {key for record in run.log for key in record}:
      counts[key] = counts.get(key, 0) + 1
  metrics = sorted((key for key, number in counts.items() if number > 1 and key not in _RATES),
                   key=lambda key: (key != "loss", key))
  return {run.name: run.log for run in runs}, metrics


def planes(runs: Sequence[Compared], paths: Sequence[str], data_dir: str | None = None,
           cache_dir: str | None = None) -> dict[str, Any]:
  """Returns the plane of each run's codes by its name, see `figures/codes.py`.

  Raises:
    InputError: A run has no codes of two numbers that are decoded to images.
  """
  from embeddings_jax.figures.codes import NUM_POINTS, plane_of
  from embeddings_jax.runs import evaluation
  from embeddings_jax.runs.load import load_run

  by_name = {}
  for compared, path in zip(runs, paths):
    run = load_run(path)
    dataset = evaluation.of_run(run, (), data_dir=data_dir, cache_dir=cache_dir).dataset
    rows = np.linspace(0, len(dataset.items) - 1, min(len(dataset.items), NUM_POINTS)).astype(int)
    codes = run.embed(np.asarray(dataset.items)[rows]) if "decode" in run.model.outputs else np.zeros((0, 0))
    if codes.shape[1:] != (2,) or run.decode(codes[:1]).ndim != 4:
      raise InputError(f"{path}: has no codes of two numbers that are decoded to images")
    labels = {name: np.asarray(values)[rows] for name, values in dataset.labels.items()}
    by_name[compared.name] = plane_of(codes, labels, run.decode)
  return by_name


def _value(values: Mapping[str, float], name: str) -> str:
  return f"{values[name]:.4f} " if name in values else "-"


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  flat: dict[str, Any] = {}
  for key, value in config.items():
    flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else {f"{prefix}{key}": value}
  return flat


def _short(names: Sequence[str]) -> list[str]:
  """Returns the shortest ends of paths, in whole folders, that differ from each other."""
  parts = [name.split("/") for name in names]
  for length in range(1, max(map(len, parts))):
    short = ["/".join(part[-length:]) for part in parts]
    if len(set(short)) == len(short):
      return short
  return list(names)
