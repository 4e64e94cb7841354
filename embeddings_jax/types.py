"""The contract between models, the training loop, evaluations and the command line."""
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import PartitionSpec

Array = jax.Array
PyTree = Any
Batch = Mapping[str, Array]  # Leading axis = examples; `mask` (1 = valid) marks padded rows.
Metrics = Mapping[str, Array]  # Flat, scalars only, with a finite `loss`.
Rule = tuple[str, PartitionSpec]  # (regular expression searched in a leaf's path, its partition)


class Model(NamedTuple):
  """A learner as pure functions. The loop, the evaluations and the figures know nothing else.

  Attributes:
    init: `(rng, batch) -> state`. `state` is a NamedTuple of arrays, nested at will: no functions,
      Python scalars or keys, so that checkpoints, donation and sharding need no special case.
    update: `(state, batch, rng) -> (state, metrics)`. Closed: same tree, shapes, dtypes and weak
      types out as in. Randomness comes from `rng` alone, so that a resumed run is the same run.
    embed: `(state, batch) -> Array`, leading axis = examples.
    outputs: other named pure functions `(state, batch, rng) -> Array or dict`; standard names are
      `loss`, `log_likelihood`, `reconstruct`, `sample`, `hidden`, `components`, and `calibrated`: of a
      `GradientState` the `extra` whose running statistics are those of the batch, for a fair untrained baseline.
    rules: how to lay the state out over the mesh; the first rule whose expression is found in a
      leaf's path (`params/encoder/kernel`) wins, all else is replicated or left to `fsdp`.
  """

  init: Callable[[Array, Batch], PyTree]
  update: Callable[[PyTree, Batch, Array], tuple[PyTree, Metrics]]
  embed: Callable[[PyTree, Batch], Array]
  outputs: Mapping[str, Callable[[PyTree, Batch, Array], Any]] = {}
  rules: Sequence[Rule] = ()


class Source(NamedTuple):
  """Training data as a pure function of the step: there is no iterator state to lose.

  Attributes:
    facts: what only the data knows (`num_rows`, `num_features`, `vocab_size`, `counts`,
      `steps_per_epoch`, ...), passed to the factories that name them.
    batch_size: rows of the global batch.
    feed_at: `(step, rows=slice(None)) -> dict of NumPy arrays`: what the host must send for those
      rows of the global batch of that step.
    assemble: `(resident, feed) -> batch`: pure, on NumPy and on JAX arrays alike.
    resident: arrays that go to the device once. Empty when the feed is the batch itself.
    whole: every batch is `resident`, with rows sharded over the mesh; the feed is empty. The loop
      adds rows with `mask` 0 until the data shards divide them.
    may_pad: whether it may; not where models keep a state per row, which must not depend on the mesh.
  """

  facts: Mapping[str, Any]
  batch_size: int
  feed_at: Callable[..., dict[str, Any]]
  assemble: Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any]]
  resident: Mapping[str, Any] = {}
  whole: bool = False
  may_pad: bool = True

  def batch_at(self, step: int) -> dict[str, Any]:
    """The global batch of `step` on the host."""
    return self.assemble(self.resident, self.feed_at(step))


class Metric(NamedTuple):
  """Direction and unit of an evaluation metric.

  Attributes:
    higher_is_better: Direction; None for what describes the evaluation, as the number of questions.
    unit: `fraction`, `nats`, `count`, ...; "" if it has none.
  """

  higher_is_better: bool | None
  unit: str = ""


class InputError(ValueError):
  """Something the user gave is wrong; the message is one line that says what, where and what to do."""
