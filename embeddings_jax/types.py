"""The contract between models, the training loop, evaluations and the command line."""
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple, TypeVar, get_args, get_origin

import jax
from jax.sharding import PartitionSpec

from embeddings_jax.errors import InputError as InputError

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


class Prepared(NamedTuple):
  """Data that a pipeline has made ready for one model.

  Attributes:
    splits: Name (`train`, `validation`, ...) -> source; `train` is always there.
    encoder: Turns items into batches like those of the sources.
    dataset: Items and labels for the evaluations.
    facts: Facts of the training data, see `Fact`.
    task: Task of fine-tuning, with its encoded splits; else None.
  """

  splits: Mapping[str, Source]
  encoder: Any
  dataset: Any
  facts: Mapping[str, Any]
  task: Any = None


class Metric(NamedTuple):
  """Direction and unit of an evaluation metric.

  Attributes:
    higher_is_better: Direction; None for what describes the evaluation, as the number of questions.
    unit: `fraction`, `nats`, `count`, ...; "" if it has none.
  """

  higher_is_better: bool | None
  unit: str = ""


class Lists(NamedTuple):
  """Material of a protocol that is no dataset: lists of words.

  Attributes:
    load: `(name, data_dir) -> material`, the protocol's second argument.
    names: Names of the published lists -> keyword arguments for the protocol's function.
    files: Whether a file of the user's will do.
  """

  load: Callable[[str, str | None], Any]
  names: Mapping[str, Mapping[str, Any]] = {}
  files: bool = False


class Protocol(NamedTuple):
  """Declaration of an evaluation protocol, `PROTOCOL` of its module.

  Attributes:
    function: `(embed, dataset, **needs and options) -> {name: value}`; it gets `seed`, and what its needs provide, by
      the names of its keyword arguments.
    needs: What a model must offer, names of `runs/needs.py: NEEDS`: `embed`, `sentences`, `vocabulary`, `hidden`, ...
    uses: Needs that it can do without.
    labels: Whether it asks about labels of the dataset's items.
    default: Name of the dataset or list that is asked about unless another is named; "" for the run's own dataset.
    metrics: Last component of a metric's name, or a pattern of it -> direction and unit.
    dataset: Whether it is asked about a dataset; False if about the run's own task or held-out split.
    lists: Lists of words that it is asked about instead of a dataset.
    groups: Name -> datasets for which it stands, as `all`.
    summarize: `metrics of all protocols -> further metrics`, computed for a group.
  """

  function: Callable[..., Mapping[str, float]]
  needs: Sequence[str] = ("embed",)
  uses: Sequence[str] = ()
  labels: bool = False
  default: str = ""
  metrics: Mapping[str, Metric] = {}
  dataset: bool = True
  lists: Lists | None = None
  groups: Mapping[str, Sequence[str]] = {}
  summarize: Callable[[Mapping[str, float]], Mapping[str, float]] | None = None


class Figure(NamedTuple):
  """Declaration of a figure, one of `FIGURES` of its module.

  Attributes:
    name: Name of the file, without `.png`.
    draw: `(plt, drawing) -> figure`, `{name: figure}` for several, or None where there is nothing to show; see
      `figures/drawing.py: Drawing`.
    outputs: Outputs of the model that it draws.
    metrics: Metrics of the training log that it draws.
    evaluations: Patterns of evaluation metrics, of which it draws one or more.
    vocabulary: Whether it draws a model of words.
    applies: `drawing -> bool`: a further condition, as on the form of an output.
    embeds: Whether it embeds items; with several processes it is then left out, as one of them draws.
  """

  name: str
  draw: Callable[[Any, Any], Any]
  outputs: Sequence[str] = ()
  metrics: Sequence[str] = ()
  evaluations: Sequence[str] = ()
  vocabulary: bool = False
  applies: Callable[[Any], bool] | None = None
  embeds: bool = False


FACT = "fact"
_T = TypeVar("_T")
# Annotates a factory's argument that the data determines, as `vocab_size: Fact[int]`; pipelines give the facts.
Fact = Annotated[_T, FACT]


def is_fact(annotation: Any) -> bool:
  """Returns whether an argument's annotation is `Fact[...]`."""
  return get_origin(annotation) is Annotated and FACT in get_args(annotation)[1:]
