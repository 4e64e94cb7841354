"""Writes the tables of results, from `experiments/results/*.json`, into the README and that folder's own.

`python -m experiments.baselines [--add=WORKDIR]`

A result file may carry a `note`, which the table shows beside its row.
"""
import functools
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
flags.DEFINE_string("add", "", "First take over the results.json of this work directory.")

FOLDER = pathlib.Path(__file__).parent / "results"
READMES = pathlib.Path(__file__).parents[1] / "README.md", FOLDER / "README.md"
# Numbers of questions, sections of the analogies and deviations over draws are in the files alone.
LEFT_OUT = re.compile(
    r"(^|/)((pairs|questions|words|out_of_vocabulary|few_shot_\d+/deviation|(nmi|ari|purity|(micro|macro)-f1)/std)$|"
    r"cos(add|mul)/(?!total/|semantic/|syntactic/))")
# What the folder's own table has beyond the README's: other measures of the same, and parts of a mean.
DETAILS = re.compile(
    r"/dev/|/threshold/|/(f1|macro_f1|matthews|ari|purity|precision_at_10|recall_at_10|mrr|ndcg_at_10|knn200_accuracy)$|cosmul/|/(semantic|syntactic)/|"
    r"sts-1\d/|^ud-ewt/(mix|centre|expected|test/(layer|cumulative))|bound_([2-9]|1\d)$|npmi_window|mfcc_mean/|"
    r"^(untrained/)?validation/(masked_accuracy|next_loss|perplexity)$")
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
  for readme in READMES:
    readme.write_text(filled(readme.read_text()))
  return 0


def filled(readme: str) -> str:
  """A README's text with its tables made anew."""
  tables = {"baselines": functools.partial(baseline_table, DETAILS), "all baselines": baseline_table,
            "benchmarks": benchmark_table}
  return re.sub(r"(<!-- ([a-z ]+) -->\n).*?(<!-- /\2 -->)", lambda m: m[1] + tables[m[2]]() + m[3], readme,
                flags=re.DOTALL)


def baseline_table(left_out: re.Pattern | None = None) -> str:
  """Returns the table of baselines: a row for each metric of a model on a dataset by a command, over the seeds.

  Args:
    left_out: Metrics to omit.
  """
  groups: dict[tuple, list[dict]] = {}
  for path in sorted(FOLDER.glob("*.json")):
    if not path.name.startswith("benchmark-"):
      results = json.loads(path.read_text())
      shown = re.sub(r" --(seed|workdir|data_dir|cache_dir)=\S+", "", results["command"])
      groups.setdefault((results["model"], results["data"], shown), []).append(results)
  columns = ("model", "data", "steps", "metric", "value", "untrained", "seeds", "minutes", "command", "notes")
  lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
  for (model, data, shown), runs in groups.items():
    # The median, as one of the seeds may have run beside other work.
    minutes = f"{statistics.median(run['wall_seconds'] for run in runs) / 60:.1f}"
    if runs[0]["device"] != "cpu":
      minutes += f" ({runs[0]['device']})"
    row = [f"`{model}`", data, _range([run["steps"] for run in runs]), None, None, None, str(len(runs)), minutes,
           f"`{shown}`", _notes(runs)]
    measured = [{name: value for name, value in run["training"].items() if OF_TRAINING.match(name)} for run in runs]
    measured = [run["metrics"] | {f"training/{name}": each[name] for name in sorted(each, key=_by_number)}
                for run, each in zip(runs, measured)]
    shared = [name for name in measured[0] if not LEFT_OUT.search(name) and not (left_out and left_out.search(name))]
    for metric in (name for name in shared if name.removeprefix("untrained/") == name
                   or name.removeprefix("untrained/") not in shared):
      row[3:6] = metric, _over_seeds(measured, metric), _untrained(runs, measured, f"untrained/{metric}")
      lines.append("| " + " | ".join(row) + " |")
      row = [""] * len(columns)
  return "\n".join(lines) + "\n"


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
    found = json.loads(path.read_text())
    elsewhere = ", ".join(f"{entry['ratio']:.2f} x ({entry['device']})" for entry in found.get("elsewhere", ()))
    summary = found["summary"] + (f"; on other processors {elsewhere}" if elsewhere else "")
    lines.append(f"| `{found['command']}` | {summary} |")
  return "\n".join(lines) + "\n"


if __name__ == "__main__":
  command.call(main)
