"""The 2 x 2 table of what pretraining adds, from accuracies by the number of labels."""
from types import SimpleNamespace

import pytest

from embeddings_jax.types import InputError
from experiments.benchmarks import labels, transfer


class Flags(SimpleNamespace):
  """Flags by attribute, and by name as absl's flags are listed."""

  def __getitem__(self, name):
    return SimpleNamespace(name=name, value=getattr(self, name))


def test_cells_are_fine_tuned_minus_from_scratch(monkeypatch):
  flags = Flags(workdir="runs/near,runs/far", numbers=["30", "900"], data="digits", seeds=2)
  tuned = {"runs/near": (0.7, 0.9), "runs/far": (0.35, 0.84)}
  monkeypatch.setattr(transfer, "FLAGS", flags)
  monkeypatch.setattr(labels, "labels", lambda: {"rows": [
      {"labels": number, "fine-tuned": accuracy, "from scratch": scratch}
      for number, accuracy, scratch in zip((30, 900), tuned[flags.workdir], (0.4, 0.85))]})
  result = transfer.transfer()
  assert result["rows"] == [
      {"run": "near", "30 labels": 0.3, "900 labels": 0.05, "30 labels, from scratch": 0.4,
       "900 labels, from scratch": 0.85},
      {"run": "far", "30 labels": -0.05, "900 labels": -0.01, "30 labels, from scratch": 0.4,
       "900 labels, from scratch": 0.85}]
  assert "near 30: +0.300, 900: +0.050; far 30: -0.050, 900: -0.010 (2 seeds)" in result["summary"]
  assert flags.workdir == "runs/near,runs/far"
  for change in (dict(workdir="runs/near"), dict(numbers=["900", "30"])):
    monkeypatch.setattr(transfer, "FLAGS", Flags(**{**vars(flags), **change}))
    with pytest.raises(InputError, match="give two runs, and two numbers of labels, the smaller first"):
      transfer.transfer()
