"""Mean and spread over seeds, the same in every table and benchmark."""
import statistics
from collections.abc import Sequence


def mean_and_std(values: Sequence[float]) -> tuple[float, float]:
  """Returns the mean and the sample standard deviation (n - 1) of some values; of one value the latter is 0."""
  return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def described(values: Sequence[float]) -> str:
  """Returns `mean ± standard deviation` with three decimals; the mean alone for one value."""
  mean, std = mean_and_std(values)
  return f"{mean:.3f} ± {std:.3f}" if len(values) > 1 else f"{mean:.3f}"
