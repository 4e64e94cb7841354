"""Tables of results, from `experiments/results/*.json`.

`python -m experiments.baselines [--add=WORKDIR]` records a run, and writes the pages.

A result file may carry a `note`, which the table shows beside its row.
"""
import csv
import io
import json
import pathlib
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from embeddings_jax.errors import InputError
from experiments import command
from experiments.spread import described

FLAGS = flags.FLAGS
flags.DEFINE_string("add", "", "Work directory whose results.json is recorded first.")

FOLDER = pathlib.Path(__file__).parent / "results"
# Numbers of questions, sections of the analogies and deviations over draws are in the files alone.
LEFT_OUT = re.compile(
    r"(^|/)((pairs|questions|words|out_of_vocabulary|few_shot_\d+/deviation|(nmi|ari|purity|(micro|macro)-f1)/std)$|"
    r"cos(add|mul)/(?!total/|semantic/|syntactic/))")
# Metrics of the complete table alone.
DETAILS = re.compile(
    r"/dev/|/threshold/|/(f1|macro_f1|matthews|ari|purity|precision_at_10|recall_at_10|mrr|ndcg_at_10|knn200_accuracy)$|cosmul/|/(semantic|syntactic)/|"
    r"sts-1\d/|^ud-ewt/(mix|center|expected|test/(layer|cumulative))|bound_([2-9]|1\d)$|npmi_window|mfcc_mean/|"
    r"^(untrained/)?validation/(masked_accuracy|next_loss|perplexity)$")
# Metrics of a reference, and of the training: in the complete table alone.
REFERENCE = re.compile(r"(^|/)(majority|untrained|unigram)|^training/")
# Of what the last updates measured: of each step ahead, nats that the future and the context have in common at least.
OF_TRAINING = re.compile(r"bound_\d+$|log_num_candidates$")


def main(argv: Sequence[str]) -> int:
  command.parse(argv)
  if FLAGS.add:
    path = pathlib.Path(FLAGS.add) / "results.json"
    if not path.is_file():
      raise InputError(f"--add={FLAGS.add}: has no results.json")
    results = json.loads(path.read_text())
    name = f"{results['model']}-{results['preset']}-{results['data']}-{results['steps']}-seed{results['seed']}.json"
    (FOLDER / name.replace("/", "_").replace(":", "_")).write_text(json.dumps(results, indent=1) + "\n")
  from experiments import pages  # Which read this module.

  pages.write()
  return 0


def baseline_table(left_out: re.Pattern | None = None, most: int = 3) -> str:
  """Returns the table of baselines: a row for each model on a dataset by a command, over the seeds.

  Args:
    left_out: Metrics to omit.
    most: Largest number of metrics of a row.
  """
  columns = ("model", "data", "result (untrained)", "steps", "seeds", "minutes", "command", "notes")
  lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
  for row in baselines(left_out):
    shown = [metric for metric in row["metrics"] if not REFERENCE.search(metric)][:most]
    results = [f"{plain(metric)} {row['metrics'][metric]}"
               + (f" ({row['untrained'][metric]})" if row["untrained"][metric] else "") for metric in shown]
    cells = (f"`{row['model']}`", row["data"], "; ".join(results), row["steps"], str(row["seeds"]), row["minutes"],
             f"`{row['command']}`", row["notes"])
    lines.append("| " + " | ".join(cells) + " |")
  return "\n".join(lines) + "\n"


def complete() -> str:
  """Returns the complete results as CSV: a line for each metric."""
  file = io.StringIO()
  writer = csv.writer(file, lineterminator="\n")
  writer.writerow(("model", "data", "steps", "metric", "value", "untrained", "seeds", "minutes", "command", "notes"))
  for row in baselines():
    for metric, value in row["metrics"].items():
      writer.writerow((row["model"], row["data"], row["steps"], metric, value, row["untrained"][metric], row["seeds"],
                       row["minutes"], row["command"], row["notes"]))
  return file.getvalue()


def baselines(left_out: re.Pattern | None = None) -> list[dict[str, Any]]:
  """Returns the results of each model on a dataset by a command; metrics are means and deviations over the seeds."""
  groups: dict[tuple, list[dict]] = {}
  for path in sorted(FOLDER.glob("*.json")):
    if not path.name.startswith("benchmark-"):
      results = json.loads(path.read_text())
      shown = re.sub(r" --(seed|workdir|data_dir|cache_dir)=\S+", "", results["command"])
      groups.setdefault((results["model"], results["data"], shown), []).append(results)
  rows = []
  for (model, data, shown), runs in groups.items():
    # The median, as one of the seeds may have run beside other work.
    minutes = f"{statistics.median(run['wall_seconds'] for run in runs) / 60:.1f}"
    if runs[0]["device"] != "cpu":
      minutes += f" ({runs[0]['device']})"
    measured = [{name: value for name, value in run["training"].items() if OF_TRAINING.match(name)} for run in runs]
    measured = [run["metrics"] | {f"training/{name}": each[name] for name in sorted(each, key=_by_number)}
                for run, each in zip(runs, measured)]
    shared = [name for name in measured[0] if not LEFT_OUT.search(name) and not (left_out and left_out.search(name))]
    shared = [name for name in shared if name.removeprefix("untrained/") == name
              or name.removeprefix("untrained/") not in shared]
    rows.append(dict(
        model=model, data=data, command=shown, steps=_range([run["steps"] for run in runs]), seeds=len(runs),
        minutes=minutes, notes=_notes(runs), metrics={name: _over_seeds(measured, name) for name in shared},
        untrained={name: _untrained(runs, measured, f"untrained/{name}") for name in shared}))
  return rows


# Components of metrics' names that readers know by another name.
PLAIN = {
    "ws353": "WordSim-353", "simlex999": "SimLex-999", "men": "MEN", "google": "Google analogies", "sts-b": "STS-B",
    "sts-average": "STS average", "sst2": "SST-2", "cosadd": "3CosAdd", "knn_accuracy": "kNN accuracy",
    "spearman": "Spearman", "map": "MAP", "nmi": "NMI", "ari": "ARI", "npmi": "NPMI", "f1": "F1",
    "linear_probe": "linear probe", "test": "", "class": "", "total": ""}


def plain(metric: str) -> str:
  """Returns a metric's name for readers, as `WordSim-353 Spearman` of `ws353/spearman`."""
  words = (PLAIN.get(part, part.replace("_", " ")) for part in metric.split("/"))
  return " ".join(word for word in words if word)


def _range(steps: Sequence[int]) -> str:
  """Returns the smallest and largest number of steps; runs that end when they have converged differ."""
  return "–".join(str(step) for step in sorted({min(steps), max(steps)}))


def _notes(runs: Sequence[Mapping[str, Any]]) -> str:
  """Returns what a reader has to know about a row: another checkpoint than the last, changed code, `note` fields."""
  best = [run["best_step"] for run in runs if "best_step" in run]
  notes = [f"best checkpoint by dev: step {_range(best)}"] if best else []
  changed = sum(run["commit"].endswith("+") for run in runs)
  if changed:
    notes.append("code changed since its commit" + f" ({changed} of {len(runs)} seeds)" * (len(runs) > 1))
  notes += dict.fromkeys(run["note"] for run in runs if "note" in run)
  return "; ".join(notes)


def _over_seeds(measured: Sequence[Mapping[str, float]], metric: str) -> str:
  """Returns mean and standard deviation over the runs that have the metric, and how many have it if not all do."""
  values = [each[metric] for each in measured if metric in each]
  if not values:
    return ""
  return described(values) + (f" ({len(values)} of {len(measured)} seeds)" if len(values) < len(measured) else "")


def _untrained(runs: Sequence[Mapping[str, Any]], measured: Sequence[Mapping[str, float]], metric: str) -> str:
  """Mean and standard deviation of the untrained networks: over the runs, or of a single run over its own ones."""
  cell = _over_seeds(measured, metric)
  if not cell or len(runs) > 1:
    return cell
  if spread := runs[0].get("standard_deviations", {}).get(metric):
    return f"{cell} ± {spread:.3f}"
  best_of = runs[0].get("untrained_best_of")  # Older runs recorded the best of several networks.
  return f"{cell} (best of {best_of})" if best_of else cell


def _by_number(name: str) -> tuple[str, int]:
  word, _, number = name.rpartition("_")
  return (word, int(number)) if number.isdigit() else (name, 0)


def benchmark_table() -> str:
  lines = ["| command | result |", "|---|---|"]
  for path in sorted(FOLDER.glob("benchmark-*.json")):
    record = json.loads(path.read_text())
    elsewhere = ", ".join(f"{entry['ratio']:.2f} x ({entry['device']})" for entry in record.get("elsewhere", ()))
    summary = record["summary"] + (f"; on other processors {elsewhere}" if elsewhere else "")
    lines.append(f"| `{record['command']}` | {summary} |")
  return "\n".join(lines) + "\n"


if __name__ == "__main__":
  command.call(main)
