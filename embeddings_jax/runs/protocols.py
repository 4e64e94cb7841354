"""Composes what the evaluations see: `embed(items)`, and the data set that they are asked about."""
import fnmatch
import importlib
import inspect
import itertools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from embeddings_jax.data import catalog, wordsets
from embeddings_jax.data.images import as_rows
from embeddings_jax.data.task_sets import STS
from embeddings_jax.errors import check_choice, nearest
from embeddings_jax.eval import sts
from embeddings_jax.types import InputError, Metric

PROTOCOLS = ("analogies", "categorization", "clustering", "few_shot", "finetuning", "held_out", "knn",
             "linear_probe", "pair_retrieval", "pair_verification", "probing", "retrieval", "sts", "synonyms",
             "text_classification", "topics", "transfer", "word_similarity")
# They ask about the labels of a data set's items.
LABELLED = ("clustering", "few_shot", "knn", "linear_probe", "retrieval")
# Protocols on sentences, which models of words answer too: the data set each is asked about by default.
SENTENCES = {"pair_retrieval": "sts-b", "pair_verification": "snli", "sts": "sts-b", "transfer": "sst2"}
MAX_PIXELS = 256  # Numbers of a picture whose pixels are a baseline of each run: a probe of more takes minutes.
ALL_STS = "sts:all"  # All that there are, and their average.
# Protocols on lists of words: the lists there are, the first is the default, and whether a file will do.
WORD_SETS = {"analogies": (("google", "google-all"), True), "categorization": (tuple(wordsets.CATEGORIZATION), False),
             "synonyms": ((), True), "word_similarity": (tuple(wordsets.WORD_SIMILARITY), False)}


def check(name: str) -> None:
  """Raises unless there is such a protocol and, for one on words, such a list of words."""
  protocol, _, other = name.partition(":")
  check_choice("protocol", protocol, PROTOCOLS)
  if protocol == "finetuning" and other:
    raise InputError(f"--protocols={name}: is asked about the task of the run; leave {other!r} out")
  lists, files = WORD_SETS.get(protocol, ((), True))
  if protocol not in WORD_SETS or other in lists or (lists and not other):
    return
  if files and pathlib.Path(other).is_file():
    return
  if files:
    raise InputError(f"--protocols={name}: " + (f"there is no file {other!r}" if other else
                                                f"needs a file of questions, as {protocol}:FILE"))
  raise InputError(f"--protocols={name}: unknown; {nearest(other, lists)}one of {', '.join(lists)}")


class LeftOut(InputError):
  """A protocol cannot be asked because of what this machine or this data lacks."""


def evaluate(
    names: Sequence[str],
    embed: Callable[[Any], np.ndarray],
    *,
    dataset: Any,
    vocabulary: Any = None,
    sentences: Callable[[Any], np.ndarray] | None = None,
    topics: Mapping[str, Any] | None = None,
    asked: Mapping[str, Any] | None = None,
    seed: int = 0,
    max_items: int = 0,
    view: Callable[[Any], Any] | None = None,
    data_dir: str | None = None,
    cache_dir: str | None = None,
    allow_code: bool = False,
    lenient: bool = False,
    done: Callable[[str, dict[str, float]], None] | None = None,
    report: Callable[[str], None] = print,
) -> dict[str, float]:
  """Runs protocols and merges their metrics; those of another data set have its name in front.

  Args:
    names: `protocol`, or `protocol:dataset` for one that is not the run's own; for protocols on words `dataset` is
      one of `data/wordsets.py`, or the path of a file of synonyms or analogies; for those on sentences it is that of
      `SENTENCES`, unless another is named.
    embed: items -> [num_items, dim].
    dataset: The run's own, or a function that loads it when a protocol needs it.
    vocabulary: Names that `embed` knows, where items are words.
    sentences: sentences -> [num_sentences, dim], where that is not `embed` itself.
    topics: Output of `inference.topics_of` for a topic model.
    asked: Further functions of the model, see `inference.asked_of`.
    seed: Random seed of the protocols.
    max_items: Size of the sample, drawn with `seed`, of a dataset without an official split; 0: all.
    view: Converts another dataset than the run's own, whose labels are used, to what `embed` takes.
    data_dir, cache_dir: Where the other datasets are.
    allow_code: Whether a dataset in `names` may be `FILE.py:FUNCTION`, see `catalog.load`.
    lenient: Report protocols that cannot be answered instead of raising.
    done: Called after each protocol with its name (see `expanded`) and all metrics so far.
    report: Receives a line for each protocol that is left out.
  """
  metrics: dict[str, float] = {}
  given = {"seed": seed, "vocabulary": None if vocabulary is None else dict.fromkeys(vocabulary), **(topics or {}),
           **(asked or {})}
  load = _loader(data_dir, cache_dir, view, allow_code)
  for name in expanded(names):
    check(name)
    protocol, _, other = name.partition(":")
    try:
      function = module(protocol).__dict__[protocol]
      check_answerable(name, function, given)
      other = other or SENTENCES.get(protocol, "")
      options = dict(given)
      if protocol in WORD_SETS:
        other = other or WORD_SETS[protocol][0][0]
        material = _words_asked(protocol, other, data_dir)
        if other == "google-all":  # Asked of all words, not of the most frequent alone.
          options["restrict_vocabulary"] = 0
        other = pathlib.Path(other).stem
      elif other:
        material = load(protocol, other)
      else:
        material = subset(dataset() if callable(dataset) else dataset, max_items, seed)
      if protocol in LABELLED:
        material = _with_labels(name, material, report)
      asked_for = sentences if sentences and protocol in SENTENCES else embed
      parameters = inspect.signature(function).parameters
      values = function(asked_for, material, **{key: value for key, value in options.items() if key in parameters})
      metrics |= {f"{other}/{key}" if other else key: value for key, value in values.items()}
    except InputError as error:
      if not (lenient or isinstance(error, LeftOut)):
        raise
      report(f"{name} is left out: {error}")
    if done:
      done(name, metrics)
  return metrics | (sts.average(metrics) if ALL_STS in names else {})


def expanded(names: Sequence[str]) -> list[str]:
  """Returns the protocols with each set of `sts:all` by itself."""
  every_sts = [f"sts:{other}" for other in STS]
  return list(itertools.chain.from_iterable(every_sts if name == ALL_STS else [name] for name in names))


def module(protocol: str) -> Any:
  """Returns the module of a protocol, one of `PROTOCOLS`."""
  return importlib.import_module(f"embeddings_jax.eval.{protocol}")


def metric(key: str) -> Metric | None:
  """Returns the declaration of an evaluation metric by the last component of its key, or None."""
  last = key.rsplit("/", 1)[-1]
  for protocol in PROTOCOLS:
    declared = module(protocol).METRICS
    for pattern in (last, *(pattern for pattern in declared if "*" in pattern)):
      if pattern in declared and fnmatch.fnmatchcase(last, pattern):
        return declared[pattern]
  return None


def check_best_metric(key: str) -> None:
  """Raises unless checkpoints may be chosen by a metric: one with a direction, not of a test split."""
  if any(part == "test" or part.startswith("test_") for part in key.split("/")):
    raise InputError(f"--config.best_metric={key}: would choose a checkpoint on a test split; use one of dev or "
                     "validation data")
  declared = metric(key)
  if declared is None or declared.higher_is_better is None:
    names = sorted({name for protocol in PROTOCOLS for name, known in module(protocol).METRICS.items()
                    if known.higher_is_better is not None})
    raise InputError(f"--config.best_metric={key}: no metric by which checkpoints can be chosen; "
                     f"{nearest(key.rsplit('/', 1)[-1], names)}its last part is one of {', '.join(names)}")


def check_answerable(name: str, function: Callable[..., Any], given: Mapping[str, Any]) -> None:
  """Raises unless the model offers what a protocol needs."""
  needed = {"vocabulary": "a model of words", "topics": "a model of topics", "predict": "a fine-tuned model",
            "measure": "a language model", "hidden": "a model with layers of tokens, as bert"}
  for argument in inspect.signature(function).parameters.keys() & needed.keys():
    if given.get(argument) is None:
      raise InputError(f"--protocols={name}: needs {needed[argument]}")


def _words_asked(protocol: str, name: str, data_dir: str | None) -> Any:
  try:
    return word_set(protocol, name, data_dir)
  except InputError as error:
    if name not in WORD_SETS[protocol][0]:  # A file of the user's.
      raise
    raise LeftOut(str(error)) from error


def _loader(data_dir: str | None, cache_dir: str | None, view: Callable[[Any], Any] | None,
            allow_code: bool) -> Callable[[str, str], Any]:
  """Returns `(protocol, name) -> dataset`, which keeps the last one: several protocols may ask about it in a row."""
  last: tuple[Any, Any] = None, None

  def load(protocol: str, name: str) -> Any:
    nonlocal last
    viewed = view is not None and protocol in LABELLED
    try:
      if last[0] != (name, viewed):
        found = catalog.load(name, data_dir=data_dir, cache_dir=cache_dir, allow_code=allow_code)
        last = (name, viewed), view(found) if viewed else found
    except InputError as error:
      if protocol not in ("probing", "text_classification", *SENTENCES) or name not in catalog.CATALOG:
        raise
      raise LeftOut(str(error)) from error
    return last[1]

  return load


def _with_labels(name: str, dataset: Any, report: Callable[[str], None]) -> Any:
  """Returns the dataset with the labels that tell items apart: two classes or more among the training rows."""
  if not dataset.labels:
    raise LeftOut(f"{dataset.name!r} has no labels")
  rows = np.asarray(dataset.split.get("train", np.arange(len(dataset.items))))
  constant = [label for label, values in dataset.labels.items() if len(np.unique(np.asarray(values)[rows])) < 2]
  if len(constant) == len(dataset.labels):
    raise LeftOut(f"the labels of {dataset.name!r} have one class: {', '.join(constant)}")
  if not constant:
    return dataset
  report(f"{name}: leaves out labels with one class: {', '.join(constant)}")
  return dataset._replace(labels={label: values for label, values in dataset.labels.items() if label not in constant})


def view_for(encoder: Any, cache_dir: str | None = None) -> Callable[[Any], Any] | None:
  """What makes another data set's items such as the encoder takes: of pictures, those of its size and channels."""
  if encoder.kind == "images":
    return lambda dataset: encoder.view(dataset, cache_dir)
  return as_rows if encoder.kind == "rows" else None


def word_set(protocol: str, name: str, data_dir: str | None) -> Any:
  """What a protocol on lists of words asks about."""
  if protocol == "synonyms":
    return wordsets.synonyms(name)
  if name == "google-all":
    name = "google"
  return getattr(wordsets, protocol)(name, data_dir)


def subset(dataset: Any, max_items: int, seed: int) -> Any:
  """A seeded sample of a data set that has no official split."""
  total = len(dataset.items)
  if not max_items or total <= max_items or dataset.split:
    return dataset
  rows = np.sort(np.random.default_rng(seed).choice(total, max_items, replace=False))
  labels: Mapping[str, np.ndarray] = {name: np.asarray(label)[rows] for name, label in dataset.labels.items()}
  return dataset._replace(items=[dataset.items[i] for i in rows], labels=labels, names=None)


def baselines(dataset: Any, encoder: Any) -> dict[str, Callable[[Any], Any]]:
  """Features without learning, by name, that fit the items of an encoder."""
  from embeddings_jax.eval import baselines as features

  kind = encoder.kind
  if kind == "waveforms":
    return {"mfcc_mean": lambda items: features.mfcc_features(items, dataset.rate, deviation=False),
            "mfcc_mean_deviation": lambda items: features.mfcc_features(items, dataset.rate)}
  if kind == "bags":
    # Frequencies are of the training part, as far as it is asked about the set itself.
    fit = lambda items: dataset.split.get("train") if items is dataset.items else None
    return {"tf_idf": lambda items: features.tf_idf(items, encoder.encode, len(encoder.vocabulary), fit=fit(items))}
  if kind == "images" and np.prod(encoder.shape) <= MAX_PIXELS:
    return {"pixels": features.pixels}
  if kind == "bytes":
    return {"byte_ngrams": lambda items: features.byte_ngrams(items)}
  return {}
