"""The subject of figures: a run with its data, log and metrics."""
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from embeddings_jax.types import PyTree


@dataclasses.dataclass
class Drawing:
  """A run as figures see it.

  Attributes:
    evaluator: Model, state, encoder and data, see `runs/evaluation.py: Evaluator`.
    log: Records of the training log.
    metrics: Evaluation metrics.
    evals: Names of the evaluations.
    vectors: Embeddings of the vocabulary, else of the dataset's items; computed if they are not at hand.
    suffix: Stands behind the names of the files.
    name: Name of the model.
  """

  evaluator: Any
  log: Sequence[Mapping[str, float]] = ()
  metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
  evals: Sequence[str] = ()
  vectors: np.ndarray | None = None
  suffix: str = ""
  name: str = ""

  def __post_init__(self):
    self.log = [record for record in self.log if "loss" in record]  # Not those of evaluations.

  model = property(lambda self: self.evaluator.model)
  state = property(lambda self: self.evaluator.state)
  encoder = property(lambda self: self.evaluator.encoder)
  dataset = property(lambda self: self.evaluator.dataset)
  splits = property(lambda self: self.evaluator.splits)
  facts = property(lambda self: self.evaluator.facts)
  seed = property(lambda self: self.evaluator.seed)

  @property
  def outputs(self) -> Mapping[str, Callable]:
    return self.model.outputs if self.model is not None else {}

  @property
  def subject(self) -> str:
    """Returns the names of the model and its data, for a title."""
    data = str(getattr(self.dataset, "name", "") or "") if self.name else ""
    data = data if len(data) <= 40 else f"...{data[-37:]}"
    return f"{self.name} on {data}" if data else self.name

  @functools.cached_property
  def components(self) -> dict[str, np.ndarray]:
    """The model's output `components`, {} without it."""
    if "components" not in self.outputs:
      return {}
    return jax.tree.map(np.asarray, self.outputs["components"](self.state))

  @functools.cached_property
  def embeddings(self) -> np.ndarray:
    """Vectors of the vocabulary, else of the dataset's items."""
    if self.vectors is not None:
      return self.vectors
    names = self.encoder.names
    return self.evaluator.embed(self.dataset.items if names is None else names)

  def word_vectors(self) -> tuple[np.ndarray, dict[str, int]]:
    """Returns vectors of the vocabulary, and the row of each word."""
    return self.embeddings, {name: i for i, name in enumerate(self.encoder.names)}

  def output(self, name: str, batch: Mapping[str, Any]) -> PyTree:
    """Returns an output of the model for a batch, as NumPy arrays."""
    return jax.tree.map(np.asarray, jax.jit(self.outputs[name])(self.state, batch))
