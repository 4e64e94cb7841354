"""Evaluates a model by protocols: loads each dataset once, embeds it once, and gives the protocols what they need."""
import functools
import inspect
import itertools
import pathlib
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from embeddings_jax.data import catalog
from embeddings_jax.errors import InputError, check_choice, nearest
from embeddings_jax.eval import find
from embeddings_jax.runs import inference
from embeddings_jax.runs.needs import NEEDS
from embeddings_jax.types import Model, Protocol, PyTree

SECONDS_BETWEEN_LINES = 10.0  # Of progress.
# Needs that look at the run's own splits.
_OF_SPLITS = {"measures", "predict", "reconstruct", "likelihood", "codes", "decode"}


class LeftOut(InputError):
  """A protocol cannot be asked because of what this machine or this data lacks."""


class Evaluator:
  """Evaluates one state of a model, or features without learning.

  Attributes:
    embed: `items -> [num_items, dim]`; vectors of datasets in use are kept.
    sentences: The same of sentences: a model of words pools those of their words.
  """

  def __init__(
      self,
      model: Model | None,
      state: PyTree,
      encoder: Any,
      *,
      embed: Callable[[Any], Any] | None = None,
      pooling: str = "",
      dataset: Any = None,
      task: Any = None,
      splits: Mapping[str, Any] | None = None,
      facts: Mapping[str, Any] | None = None,
      untrained: Callable[[], PyTree] | None = None,
      adapt: Callable[[Any], Any] | None = None,
      data_dir: str | None = None,
      cache_dir: str | None = None,
      seed: int = 0,
      max_items: int = 0,
      allow_code: bool = False,
      protocols: Mapping[str, Protocol] | None = None,
      options: Mapping[str, Any] | None = None,
      report: Callable[[str], None] = lambda line: None,
  ):
    """Creates an evaluator; nothing is loaded or computed before a protocol needs it.

    Args:
      model: The pure functions; None for features without learning.
      state: A trained state.
      encoder: Turns items into batches; None if `embed` alone is asked.
      embed: Replaces the model's embedding, as by normalized vectors.
      pooling: How a model of words embeds a sentence, one of `inference.WORD_POOLINGS`; "" for the mean.
      dataset: The model's own, or a function that loads it.
      task: Task of a fine-tuned model, with its encoded splits.
      splits: Sources by name, of which a language model's `validation` is measured.
      facts: Facts of the training data.
      untrained: `() -> state` before the first update.
      adapt: Converts another dataset to items that `embed` takes; by default the encoder's own way.
      data_dir, cache_dir: Directories of the catalog's files and of derived data.
      seed: Random seed of the protocols.
      max_items: Size of the sample, drawn with `seed`, of an own dataset without an official split; 0: all.
      allow_code: Whether a dataset may be `FILE.py:FUNCTION`, see `catalog.load`.
      protocols: Further protocols by name.
      options: Keyword arguments of protocols' functions, each for those that have it; and `inception`, the file whose
        features `generation` compares.
      report: Receives a line for each protocol that is left out.
    """
    self.model, self.state, self.encoder = model, state, encoder
    self.task, self.splits, self.facts, self.untrained = task, splits, facts, untrained
    self.embed = Remembered(embed or inference.embedder(model, state, encoder))
    self.data_dir, self.cache_dir, self.seed = data_dir, cache_dir, seed
    self._pooling, self._max_items, self._allow_code = pooling, max_items, allow_code
    self._adapt = adapt or (functools.partial(encoder.adapt, cache_dir=cache_dir) if encoder else None)
    self._protocols, self._report, self.options = protocols or {}, report, dict(options or {})
    self._own = dataset
    self._loaded: dict[tuple[str, bool], Any] = {}
    self._provided: dict[str, Mapping[str, Any] | None] = {}
    if self._words is not None:
      self.embed.keep(self._words)

  @property
  def _words(self) -> Sequence[str] | None:
    return getattr(self.encoder, "names", None)

  @functools.cached_property
  def sentences(self) -> Callable[[Any], Any]:
    if self._words is None:
      return self.embed
    return inference.sentence_embedder(self.embed, self.encoder, self._pooling or "mean")

  @functools.cached_property
  def dataset(self) -> Any:
    """The model's own dataset, or the sample of it that is evaluated; None without one."""
    own = self._own() if callable(self._own) else self._own
    if own is None:
      return None
    total, own = len(own.items), subset(own, self._max_items, self.seed)
    if len(own.items) < total:
      self._report(f"{own.name}: evaluated on a sample, {len(own.items):,} of {total:,} items (eval_items)")
    self.embed.keep(own.items)
    return own

  def load(self, name: str, adapted: bool = False) -> Any:
    """Returns a dataset of the catalog or of the user's, converted to the encoder's items if `adapted`."""
    adapted = adapted and self._adapt is not None
    if (name, adapted) not in self._loaded:
      dataset = catalog.load(name, data_dir=self.data_dir, cache_dir=self.cache_dir, allow_code=self._allow_code)
      dataset = self._adapt(dataset) if adapted else dataset
      self._loaded[name, adapted] = dataset
      self.embed.keep(dataset.items)
    return self._loaded[name, adapted]

  def evaluate(
      self,
      names: Sequence[str],
      *,
      lenient: bool = False,
      done: Callable[[str, dict[str, float]], None] | None = None,
  ) -> dict[str, float]:
    """Runs protocols and merges their metrics; those of another dataset have its name in front.

    Args:
      names: `protocol`, or `protocol:dataset` for another dataset than the protocol's default; for protocols on words
        `dataset` is a list of `data/wordsets.py`, or the path of a file of synonyms or analogies.
      lenient: Report protocols that cannot be answered instead of raising.
      done: Called after each protocol with its name (see `expanded`) and all metrics so far.

    Raises:
      InputError: A protocol is unknown, or cannot be answered.
    """
    metrics: dict[str, float] = {}
    pending = self.expanded(names)
    for name in pending:
      self.check(name)
      if not lenient:
        self._check_answerable(name)
    uses = Counter(filter(None, map(self._dataset_of, pending)))
    shown = time.monotonic()
    for number, name in enumerate(pending, 1):
      if number > 1 and time.monotonic() - shown > SECONDS_BETWEEN_LINES:
        shown = time.monotonic()
        self._report(f"evaluating {name}, {number} of {len(pending)}")
      try:
        metrics |= self._ask(name)
      except InputError as error:
        if not (lenient or isinstance(error, LeftOut)):
          raise
        self._report(f"{name} is left out: {error}")
      if used := self._dataset_of(name):
        uses[used] -= 1
        if not uses[used] and used in self._loaded:
          self.embed.forget(self._loaded.pop(used).items)
      if done:
        done(name, metrics)
    for name in names:
      protocol, _, group = name.partition(":")
      declared = self.find(protocol)
      if group in declared.groups and declared.summarize:
        metrics |= declared.summarize(metrics)
    return metrics

  def find(self, protocol: str) -> Protocol:
    """Returns the declaration of a protocol."""
    return self._protocols.get(protocol) or find(protocol)

  def check(self, name: str) -> None:
    """Raises unless there is such a protocol and such a list of words, see `check`."""
    check(name, self.find(name.partition(":")[0]))

  def expanded(self, names: Sequence[str]) -> list[str]:
    """Returns the protocols with each dataset of a group, as of `sts:all`, by itself."""
    return expanded(names, self.find)

  def answers(self, name: str) -> bool:
    """Returns whether the model offers what a protocol needs."""
    return all(self.provided(need) is not None for need in self.find(name.partition(":")[0]).needs)

  def provided(self, need: str) -> Mapping[str, Any] | None:
    """Returns the keyword arguments that a need of `NEEDS` stands for, or None if the model lacks it."""
    if need not in self._provided:
      self._provided[need] = NEEDS[need].provide(self)
    return self._provided[need]

  def _dataset_of(self, name: str) -> tuple[str, bool] | None:
    """Returns the key in `_loaded` of the dataset that a protocol asks about."""
    protocol, _, other = name.partition(":")
    declared = self.find(protocol)
    other = other or declared.default
    return (other, declared.labels and self._adapt is not None) if other and not declared.lists else None

  def _ask(self, name: str) -> dict[str, float]:
    protocol, _, other = name.partition(":")
    declared = self.find(protocol)
    self._check_answerable(name)
    options: dict[str, Any] = {"seed": self.seed, **self.options}
    for need in (*declared.needs, *declared.uses):
      options |= self.provided(need) or {}
    material, prefix = self._material(name, declared)
    if declared.labels:
      material = with_labels(name, material, self._report, declared.several_labels)
    parameters = inspect.signature(declared.function).parameters
    options = {key: value for key, value in options.items() if key in parameters}
    if declared.lists:
      options |= declared.lists.names.get(other, {})
    values = declared.function(self.sentences if "sentences" in declared.needs else self.embed, material, **options)
    return {f"{prefix}{key}": value for key, value in values.items()}

  def _check_answerable(self, name: str) -> None:
    """Raises unless the model offers what a protocol needs, and there is a dataset to ask about."""
    protocol, _, other = name.partition(":")
    declared = self.find(protocol)
    for need in declared.needs:
      if self.provided(need) is None:
        raise InputError(f"protocols={name}: needs {NEEDS[need].model}")
    if self._own is None and declared.dataset and not (other or declared.default or declared.lists):
      raise InputError(f"protocols={name}: there is no dataset of the model's own; name one, as {name}:DATASET")

  def _material(self, name: str, declared: Protocol) -> tuple[Any, str]:
    """Returns what a protocol is asked about, and what stands in front of the names of its metrics."""
    other = name.partition(":")[2] or declared.default
    if declared.lists:
      try:
        return declared.lists.load(other, self.data_dir), f"{pathlib.Path(other).stem}/"
      except InputError as error:
        if other not in declared.lists.names:  # A file of the user's.
          raise
        raise LeftOut(str(error)) from error
    if other:
      try:
        return self.load(other, declared.labels), f"{other}/"
      except InputError as error:
        if declared.labels or other not in catalog.entries():
          raise
        raise LeftOut(str(error)) from error
    return self.dataset if declared.dataset else None, ""


def of_run(
    run: Any,
    names: Sequence[str],
    *,
    pooling: str = "",
    data: str = "",
    data_dir: str | None = None,
    cache_dir: str | None = None,
    allow_code: bool = False,
    allow_data_code: bool = False,
    options: Mapping[str, Any] | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> Evaluator:
  """Returns the evaluator of a loaded run.

  Args:
    run: A `runs/run.py: Run`.
    names: Protocols that will be asked, which decide what is prepared of the run's data.
    pooling: How a text's vector is made from those of its tokens or words; "" for the model's own way.
    data: Replaces the run's dataset.
    data_dir, cache_dir: Directories of the catalog's files and of derived data.
    allow_code: Whether a dataset in the protocols may be `FILE.py:FUNCTION`.
    allow_data_code: Whether the run's dataset may.
    options: Keyword arguments of protocols' functions; see `Evaluator`.
    report: Receives a line for each protocol that is left out, and the dataset's note.
  """
  from embeddings_jax.runs import build, workdir

  of_words = run.encoder.names is not None
  if pooling and not of_words:
    run = run.with_pooling(pooling)
  if pooling and of_words:
    check_choice("pooling", pooling, inference.WORD_POOLINGS)
  config = run.record["config"]
  dirs: dict[str, Any] = {"data_dir": data_dir, "cache_dir": cache_dir}
  config = {**config, "data": {**config.get("data", {}), **({"name": data} if data else {})}}
  prepared = None if data else run.prepared
  has_data = bool(config["data"].get("name"))
  # The run's own task or held-out split; with its own tokenizer, as the directory that it came from may be gone.
  needs = {need for name in names for need in find(name.partition(":")[0]).needs}
  if prepared is None and has_data and ("predict" in run.model.outputs or _OF_SPLITS & needs):
    prepared = build.prepare(config, encoder=run.encoder, allow_code=allow_data_code, **dirs)

  def dataset() -> Any:
    own = prepared.dataset if prepared else build.read_dataset(
        config, encoder=run.encoder, allow_code=allow_data_code, **dirs)
    if own.note:
      report(own.note)
    return own

  def untrained() -> PyTree:
    if "batch" in run.record:
      batch = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), workdir.stand_in_batch(run.record["batch"]))
    else:
      batch = run.encoder.example()
    return build.first_state(run.model, batch, run.mesh, config.get("seed", 0))

  return Evaluator(
      run.model, run.state, run.encoder, embed=run.embed, pooling=pooling if of_words else "",
      dataset=dataset if prepared or has_data else None,
      untrained=untrained, seed=config.get("seed", 0), max_items=config.get("eval_items", 0), allow_code=allow_code,
      options=options, report=report, **dirs, **({} if prepared is None else {
          "task": prepared.task, "splits": prepared.splits, "facts": prepared.facts}))


class Remembered:
  """An embedding that keeps the vectors of chosen items, however many protocols ask for them."""

  def __init__(self, embed: Callable[[Any], Any]):
    self._embed = embed
    self._kept: dict[int, list[Any]] = {}  # Address of items -> the items, and their vectors.

  def __call__(self, items: Any) -> Any:
    kept = self._kept.get(id(items))
    if kept is None:
      return self._embed(items)
    if len(kept) == 1:
      kept.append(self._embed(items))
    return kept[1]

  def keep(self, items: Any) -> None:
    """Keeps vectors of these very items once they are embedded."""
    self._kept.setdefault(id(items), [items])

  def forget(self, items: Any) -> None:
    self._kept.pop(id(items), None)


def check(name: str, declared: Protocol | None = None) -> None:
  """Raises unless there is a protocol, `protocol:dataset`, and it can be asked about that dataset or list."""
  protocol, _, other = name.partition(":")
  declared = declared or find(protocol)
  if other and not declared.dataset:
    raise InputError(f"protocols={name}: is asked about the run's own data; leave {other!r} out")
  lists = declared.lists
  if lists is None or (other or declared.default) in lists.names or (lists.files and pathlib.Path(other).is_file()):
    return
  if lists.files:
    if not other:
      raise InputError(f"protocols={name}: needs a file of questions, as {protocol}:FILE")
    listed = f"; {nearest(other, list(lists.names))}lists are {', '.join(lists.names)}" if lists.names else ""
    raise InputError(f"protocols={name}: there is no file {other!r}{listed}")
  raise InputError(f"protocols={name}: unknown; {nearest(other, list(lists.names))}one of {', '.join(lists.names)}")


def expanded(names: Sequence[str], find_protocol: Callable[[str], Protocol] = find) -> list[str]:
  """Returns the protocols with each dataset of a group, as of `sts:all`, by itself."""
  def each(name: str) -> list[str]:
    protocol, _, group = name.partition(":")
    members = find_protocol(protocol).groups.get(group)
    return [name] if members is None else [f"{protocol}:{member}" for member in members]
  return list(itertools.chain.from_iterable(map(each, names)))


def with_labels(name: str, dataset: Any, report: Callable[[str], None], several: bool = False) -> Any:
  """Returns the dataset with the labels that tell items apart: two classes or more among the training rows.

  Unless `several`, labels of which an item may have more than one are left out.
  """
  if not dataset.labels:
    raise LeftOut(f"{dataset.name!r} has no labels")
  if not several and any(np.ndim(values) > 1 for values in dataset.labels.values()):
    dataset = dataset._replace(labels={label: values for label, values in dataset.labels.items()
                                       if np.ndim(values) == 1})
    if not dataset.labels:
      raise LeftOut(f"items of {dataset.name!r} have several labels each; ask node_classification")
  rows = np.asarray(dataset.split.get("train", np.arange(len(dataset.items))))
  constant = [label for label, values in dataset.labels.items() if len(np.unique(np.asarray(values)[rows])) < 2]
  if len(constant) == len(dataset.labels):
    raise LeftOut(f"the labels of {dataset.name!r} have one class: {', '.join(constant)}")
  if not constant:
    return dataset
  report(f"{name}: leaves out labels with one class: {', '.join(constant)}")
  return dataset._replace(labels={label: values for label, values in dataset.labels.items() if label not in constant})


def subset(dataset: Any, max_items: int, seed: int) -> Any:
  """Returns a seeded sample of a dataset that has no official split."""
  total = len(dataset.items)
  if not max_items or total <= max_items or dataset.split:
    return dataset
  rows = np.sort(np.random.default_rng(seed).choice(total, max_items, replace=False))
  labels: Mapping[str, np.ndarray] = {name: np.asarray(label)[rows] for name, label in dataset.labels.items()}
  names = None if dataset.names is None else [dataset.names[i] for i in rows]
  attributes: Mapping[str, np.ndarray] = {name: values[rows] for name, values in dataset.attributes.items()}
  return dataset._replace(items=[dataset.items[i] for i in rows], labels=labels, attributes=attributes, names=names,
                          rows=rows)
