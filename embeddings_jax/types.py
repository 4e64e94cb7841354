"""The contract between models, the training loop, evaluations and the command line."""
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple, TypeVar, get_args, get_origin

import jax
from jax.sharding import PartitionSpec

from embeddings_jax.errors import InputError as InputError

Array = jax.Array
PyTree = Any
Batch = Mapping[str, PyTree]  # Trees of arrays, leading axis = examples; `mask` (1 = valid) marks padded rows.
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
    outputs: Further pure functions by name. `OUTPUTS` has the arguments and the result of each; one that is not
      listed there takes `(state, batch)`.
    rules: how to lay the state out over the mesh; the first rule whose expression is found in a
      leaf's path (`params/encoder/kernel`) wins, all else is replicated or left to `fsdp`.
  """

  init: Callable[[Array, Batch], PyTree]
  update: Callable[[PyTree, Batch, Array], tuple[PyTree, Metrics]]
  embed: Callable[[PyTree, Batch], Array]
  outputs: Mapping[str, Callable[..., Any]] = {}
  rules: Sequence[Rule] = ()


class Output(NamedTuple):
  """Signature and result of a named output of a model.

  Attributes:
    shape: Axes of the result, or name -> axes of a dict, where `*` stands for any names; None: any tree. `n` is the
      number of rows of the batch, `num` that of samples, a number itself; another name is any size, the same
      wherever it stands; a last `...` is any further axes.
    meaning: Description of the result.
    arguments: Names of the arguments, in order.
  """

  shape: tuple[Any, ...] | Mapping[str, tuple[Any, ...]] | None
  meaning: str
  arguments: tuple[str, ...] = ("state", "batch")


_N = ("n", ...)
OUTPUTS: Mapping[str, Output] = {
    # Objectives. Deterministic ones see held-out data always in the same way.
    "loss": Output((), "held-out objective, nats where it is a likelihood; mean over examples"),
    "training_loss": Output((), "loss that `update` lowers", ("state", "batch", "rng")),
    "training_step": Output(None, "that loss, and the `extra` of a `GradientState` after the update",
                            ("state", "batch", "rng")),
    "log_likelihood": Output(_N, "log likelihood, nats, of each example or of each of its elements"),
    "likelihood_bound": Output(("n",), "lower bound on each example's log likelihood from `num` draws, nats",
                               ("state", "batch", "rng", "num")),
    "log_joint": Output(("n", "k"), "log p(x, z = k), nats"),
    "aic": Output((), "Akaike's information criterion of a batch"),
    "bic": Output((), "Bayesian information criterion of a batch"),
    "bound": Output(("k",), "lower bounds on mutual information, nats, of each prediction step"),
    "measures": Output({"*": (2,)}, "held-out metrics as [sum, count], to be added up over batches"),
    # Representations.
    "hidden": Output(("n", "layers", "time", "dim"), "vectors of all layers, the embeddings first"),
    "layers": Output({"*": _N}, "vectors of all layers by name, where their shapes differ"),
    "attention": Output(("n", "layers", "heads", "time", "time"), "attention weights"),
    "frames": Output(_N, "vectors of frames, patches or tokens, without context"),
    "embed_packed": Output(("n", "slots", "dim"), "embeddings of several texts in a row, see `data/packing.py`"),
    "distances": Output(("n", "k"), "squared distances from the centers"),
    # Predictions and generation.
    "predict": Output(_N, "predictions of a supervised model, logits or scores"),
    "reconstruct": Output({"original": _N, "reconstructed": _N, "masked": _N, "mask": _N, "corrupted": _N},
                          "inputs and their reconstructions; of masked models what is seen, and the mask; of "
                          "denoising models the corrupted inputs"),
    "sample": Output(("num", ...), "samples; `batch` is a condition (a prompt, classes)",
                     ("state", "rng", "num", "batch")),
    "interpolate": Output(("num", ...), "samples on a path between two draws", ("state", "rng", "num")),
    "codes": Output(_N, "discrete codes, int32"),
    "decode": Output(("n", ...), "what latent codes [n, ...] stand for, integers if discrete", ("state", "codes")),
    # Parameters and what is made of training data.
    "components": Output({"*": (...,)}, "parameters by name, without padding", ("state",)),
    "best_start": Output((), "number of the best of several initializations", ("state",)),
    "calibrated": Output(None, "`extra` of a `GradientState` with the running statistics of the batch alone, for a "
                               "fair untrained baseline"),
    "draws": Output(None, "what an update draws: tokens, windows and noise words", ("state", "batch", "rng")),
    "walks": Output(("num_walks", "length"), "random walks of an update, -1 behind their ends"),
    "weighted": Output(("n", "cells"), "weighted cells of blocks of a sparse matrix"),
    "similarities": Output(("n",), "values of a sparse matrix at its cells"),
}


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
    shared: Names of a batch's arrays that are no examples, as a graph's; they are replicated.
  """

  facts: Mapping[str, Any]
  batch_size: int
  feed_at: Callable[..., dict[str, Any]]
  assemble: Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any]]
  resident: Mapping[str, Any] = {}
  whole: bool = False
  may_pad: bool = True
  shared: Sequence[str] = ()

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
    several_labels: Whether an item may have several, bool [num_items, num_classes].
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
  several_labels: bool = False
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
