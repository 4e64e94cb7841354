"""Pretext tasks beside each other: what the layers of equally expensive trainings of one trunk know."""
import collections
import json
import pathlib

from absl import flags

from embeddings_jax.errors import InputError
from experiments.spread import mean_and_std

FLAGS = flags.FLAGS


def pretext_table() -> dict:
  """Accuracies by layer of all runs in a folder, the best headline first, mean and standard deviation over seeds.

  The runs were evaluated by `layer_probes`; those of a model differ in their seeds only. A run with baselines gives
  the row `untrained`.
  """
  folder = pathlib.Path(FLAGS.workdir)
  records = [json.loads(path.read_text()) for path in sorted(folder.glob("*/results.json"))]
  if not FLAGS.workdir or not records:
    raise InputError(f"--workdir={FLAGS.workdir}: a folder with work directories of runs is needed")
  runs = collections.defaultdict(list)
  for record in records:
    metrics = record["metrics"]
    if not any(key.endswith("headline/accuracy") for key in metrics):
      raise InputError(f"--workdir={FLAGS.workdir}: a run of {record['model']!r} was not evaluated by layer_probes")
    trained = {key: value for key, value in metrics.items() if not key.startswith(("untrained/", "pixels/"))}
    runs[record["model"]].append((record, trained))
    untrained = {key.removeprefix("untrained/"): value for key, value in metrics.items()
                 if key.startswith("untrained/") and ("/block_" in key or "/headline/" in key)}
    if untrained:
      runs["untrained"].append(({**record, "steps": 0, "wall_seconds": 0}, untrained))
  rows = [row(name, each) for name, each in runs.items()]
  rows.sort(key=lambda row: -row["headline_accuracy"][0])
  return {"summary": ", ".join(f"{row['model']} {row['headline_accuracy'][0]:.3f}" for row in rows), "rows": rows}


def row(model: str, runs: list[tuple[dict, dict[str, float]]]) -> dict:
  """Returns one model's row; each metric as [mean, standard deviation]."""
  names = {"headline_accuracy": "headline/accuracy", "headline_knn": "headline/knn_accuracy"}
  over_seeds = lambda ending: [round(value, 4) for value in mean_and_std(
      [next(value for key, value in metrics.items() if key.endswith(ending)) for _, metrics in runs])]
  first = runs[0][1]
  layers = [key.split("/")[-2] for key in first if "/test/" in key and key.endswith("knn_accuracy")]
  pretext = {key: round(value, 4) for key, value in first.items() if not key.startswith("class/")}
  return {"model": model, "seeds": len(runs), "steps": runs[0][0]["steps"],
          "seconds": round(max(record["wall_seconds"] for record, _ in runs)),
          **{name: over_seeds(ending) for name, ending in names.items()},
          "knn_by_layer": {layer: over_seeds(f"test/{layer}/knn_accuracy") for layer in layers}, "pretext": pretext,
          "commands": [record["command"] for record, _ in runs] if runs[0][0]["steps"] else []}
