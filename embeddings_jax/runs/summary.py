"""Closing summary of a run in plain words: a table of its metrics beside those of the baselines."""
from collections.abc import Collection, Mapping

from embeddings_jax.eval import metric

_WORDS = {True: "higher is better", False: "lower is better", None: ""}


def table(metrics: Mapping[str, float], baselines: Collection[str] = ()) -> list[str]:
  """Returns the lines of a table: a row for each metric, a column `trained` and one for each baseline.

  Args:
    metrics: Metrics of the model, and of each baseline with its name in front, as `untrained/class/test/accuracy`.
    baselines: Names of the baselines.
  """
  columns: dict[str, dict[str, float]] = {"trained": {}}
  for key, value in metrics.items():
    baseline, _, own = key.partition("/")
    if baseline in baselines and own in metrics:
      columns.setdefault(baseline, {})[own] = value
    else:
      columns["trained"][key] = value
  rows = list(columns["trained"])
  if not rows:
    return []
  cells = [["", *columns, ""]]
  for row in rows:
    declared = metric(row)
    cells.append([row, *(shown(column[row], declared and declared.unit) if row in column else "-"
                         for column in columns.values()), _WORDS[declared.higher_is_better if declared else None]])
  widths = [max(map(len, column)) for column in zip(*cells)]
  return ["  ".join([first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(middle, widths[1:-1])),
                     last]).rstrip() for first, *middle, last in cells]


def shown(value: float, unit: str | None = "") -> str:
  """Returns a metric with four digits behind the point, a count without any."""
  return f"{value:,.0f}" if unit == "count" and value == round(value) else f"{value:.4f}"
