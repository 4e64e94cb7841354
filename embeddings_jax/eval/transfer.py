"""Transfer: what a linear classifier reads off frozen sentence vectors, as SentEval asks."""
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import sparse

from embeddings_jax.eval.linear_probe import classifier
from embeddings_jax.eval.pairs import holds_pairs, holds_texts
from embeddings_jax.types import InputError, Metric, Protocol


def transfer(embed: Callable[[Sequence[str]], Any], dataset: Any, *, seed: int = 0) -> dict[str, float]:
  """Accuracy and Matthews' correlation of logistic regression on sentence vectors, or on those of pairs.

  Protocol (after SentEval, Conneau & Kiela 2018). Features are a sentence's vector, or of a pair (u, v) the vectors
  |u - v| and u * v side by side; u and v themselves, which SentEval adds for SNLI, are left out. The classifier is
  that of `eval/linear_probe.py`, features standardized by the training part, fitted to `train`; its penalty is the
  one of four with the highest accuracy on `dev` (`valid`), ties: the largest; of a set without `dev`, as `20news`,
  that on a fifth of the training part, which is then learnt from as well. The part `test` is looked at once.

  Sets: `sst2` (Socher et al. 2013; its test part is GLUE's development part, its training part has phrases), `cola`
  (Warstadt et al. 2018; test is the out-of-domain part; by Matthews' correlation), `20news` (Lang 1995), `rte` (as in
  GLUE), `snli` (Bowman et al. 2015; learnt from nine tenths of its development part, as the training part is not at
  hand); checksums are in `data/catalog.py`. No part is SentEval's own, so its published figures are no reference.
  Means of `sgns --preset=small`'s vectors: accuracy on `sst2` .709, `snli` .523, `rte` .545, and on `cola` that of
  the most frequent class, as order is lost. Vectors drawn at random have that everywhere, `test/majority/accuracy`,
  and a Matthews' correlation of 0.

  Args:
    embed: sentences -> [num_sentences, dim], an array or a sparse matrix of scipy.
    dataset: texts or pairs with one kind of label (classes) and the parts `train` and `test`.
    seed: Random seed of the fifth that is held out.

  Returns:
    `test/transfer_accuracy`, `test/transfer_matthews`, `test/majority/accuracy`.
  """
  from sklearn.metrics import matthews_corrcoef

  name = getattr(dataset, "name", "")
  labels = next(iter(dataset.labels.values()), np.zeros(0))
  if (not (holds_texts(dataset) or holds_pairs(dataset)) or len(dataset.labels) != 1
      or np.asarray(labels).dtype.kind == "f" or not {"train", "test"} <= set(dataset.split)):
    raise InputError(f"transfer: dataset {name!r} should have texts or pairs, one kind of label (classes) and the "
                     "parts train and test, as sst2, cola, rte and snli do")
  labels = np.unique(np.asarray(labels), return_inverse=True)[1]
  if len(np.unique(labels[np.asarray(dataset.split["train"])])) < 2:
    raise InputError(f"transfer: labels {next(iter(dataset.labels))!r} of dataset {name!r} have one class in the "
                     "part train; there is nothing to tell apart")
  held_out = next((dataset.split[part] for part in ("dev", "valid") if part in dataset.split), None)
  parts = {"train": dataset.split["train"], "held_out": held_out, "test": dataset.split["test"]}
  parts = {part: np.asarray(rows) for part, rows in parts.items() if rows is not None}
  vectors = _features(embed, dataset, np.concatenate(list(parts.values())))
  ends = np.cumsum([len(rows) for rows in parts.values()])
  features = {part: vectors[end - len(rows):end] for (part, rows), end in zip(parts.items(), ends)}
  chosen_on = (features["held_out"], labels[parts["held_out"]]) if "held_out" in parts else None
  classify = classifier(features["train"], labels[parts["train"]], held_out=chosen_on, seed=seed)
  predicted, right = classify(features["test"]), labels[parts["test"]]
  majority = np.bincount(labels[parts["train"]]).argmax()
  return {"test/transfer_accuracy": float((predicted == right).mean()),
          "test/transfer_matthews": float(matthews_corrcoef(right, predicted)),
          "test/majority/accuracy": float((right == majority).mean())}


def _features(embed: Callable[[Sequence[str]], Any], dataset: Any, rows: np.ndarray) -> Any:
  """[len(rows), num_features]: each distinct sentence is embedded once."""
  row_of: dict[str, int] = {}
  pairs = holds_pairs(dataset)
  items = (dataset.items[i] if pairs else (dataset.items[i],) for i in rows)
  index = np.array([[row_of.setdefault(sentence, len(row_of)) for sentence in item] for item in items])
  vectors = embed(list(row_of))
  vectors = sparse.csr_array(vectors) if sparse.issparse(vectors) else np.asarray(vectors, np.float32)
  bad = ~np.isfinite(vectors.sum(1))
  if bad.any():
    raise InputError(f"transfer: the embedding of row {bad.argmax()} is not finite")
  if not pairs:
    return vectors[index[:, 0]]
  u, v = vectors[index[:, 0]], vectors[index[:, 1]]
  if sparse.issparse(vectors):
    return sparse.hstack([abs(u - v), u.multiply(v)], format="csr")
  return np.concatenate([np.abs(u - v), u * v], 1)


PROTOCOL = Protocol(
    transfer, needs=("sentences",), default="sst2",
    metrics={
        "transfer_accuracy": Metric(True, "fraction"), "transfer_matthews": Metric(True),
        "accuracy": Metric(True, "fraction"),
    })
