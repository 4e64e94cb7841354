"""Composes what the evaluations see: `embed(items)`, and the data set that they are asked about."""
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
from embeddings_jax.eval import sts
from embeddings_jax.types import InputError
from experiments.command import check_choice, nearest

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
    report: Callable[[str], None] = print,
) -> dict[str, float]:
  """Runs protocols and merges their metrics; those of another data set have its name in front.

  Args:
    names: `protocol`, or `protocol:dataset` for one that is not the run's own; for protocols on words `dataset` is
      one of `data/wordsets.py`, or the path of a file of synonyms or analogies; for those on sentences it is that of
      `SENTENCES`, unless another is named.
    embed: items -> [num_items, dim].
    dataset: the run's own, or a function that loads it when a protocol needs it.
    vocabulary: names that `embed` knows, where items are words.
    sentences: sentences -> [num_sentences, dim], where that is not `embed` itself.
    topics: of a model of topics, what `inference.topics_of` gives.
    asked: what else the model can be asked for, as `inference.asked_of` gives it.
    seed: of the protocols' own randomness.
    max_items: evaluate on this many items of a set without an official split, drawn with `seed`; 0: all.
    view: makes of another data set than the run's own, whose labels are asked about, what `embed` takes.
    data_dir, cache_dir: where to find the others.
    report: told what is left out for want of data.
  """
  metrics: dict[str, float] = {}
  last: tuple[Any, Any] = None, None  # The data set that was loaded, and may be asked about again.
  vocabulary = None if vocabulary is None else dict.fromkeys(vocabulary)  # In their order, and quick to look up.
  every_sts = [f"sts:{other}" for other in STS]
  for name in itertools.chain.from_iterable(every_sts if name == ALL_STS else [name] for name in names):
    check(name)
    protocol, _, other = name.partition(":")
    other = other or SENTENCES.get(protocol, "")
    function = getattr(importlib.import_module(f"embeddings_jax.eval.{protocol}"), protocol)
    given: dict[str, Any] = {"seed": seed, "vocabulary": vocabulary, **(topics or {}), **(asked or {})}
    known = inspect.signature(function).parameters
    if "vocabulary" in known and vocabulary is None:
      raise InputError(f"--protocols={name}: needs a model of words")
    if "topics" in known and topics is None:
      raise InputError(f"--protocols={name}: needs a model of topics")
    if "predict" in known and "predict" not in given:
      raise InputError(f"--protocols={name}: needs a fine-tuned model")
    if "measure" in known and "measure" not in given:
      raise InputError(f"--protocols={name}: needs a language model")
    if "hidden" in known and "hidden" not in given:
      raise InputError(f"--protocols={name}: needs a model with layers of tokens, as bert")
    if protocol in WORD_SETS:
      lists, _ = WORD_SETS[protocol]
      other = other or lists[0]
      try:
        material = word_set(protocol, other, data_dir)
      except InputError as error:
        if other not in lists:  # A file of the user's.
          raise
        report(f"{name} is left out: {error}")
        continue
      if other == "google-all":  # Asked of all words, not of the most frequent alone.
        given["restrict_vocabulary"] = 0
      other = pathlib.Path(other).stem
    elif other:
      try:
        viewed = view is not None and protocol in LABELLED
        if last[0] != (other, viewed):
          found = catalog.load(other, data_dir=data_dir, cache_dir=cache_dir)
          last = (other, viewed), view(found) if viewed else found
        material = last[1]
      except InputError as error:
        if protocol not in ("probing", "text_classification", *SENTENCES) or other not in catalog.CATALOG:
          raise
        report(f"{name} is left out: {error}")
        continue
    else:
      material = subset(dataset() if callable(dataset) else dataset, max_items, seed)
    if protocol in LABELLED and not material.labels:
      report(f"{name} is left out: {material.name!r} has no labels")
      continue
    asked_for = sentences if sentences and protocol in SENTENCES else embed
    found = function(asked_for, material, **{key: value for key, value in given.items() if key in known})
    metrics |= {f"{other}/{key}" if other else key: value for key, value in found.items()}
  return metrics | (sts.average(metrics) if ALL_STS in names else {})


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
