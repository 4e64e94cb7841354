"""Scores a fine-tuned model on its task's held-out splits by the task's usual metrics."""
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from embeddings_jax.eval import metrics, spans
from embeddings_jax.types import Metric, Protocol


def finetuning(
    embed: Callable[[Any], np.ndarray] | None,
    dataset: Any,
    *,
    task: Any,
    encoded: Mapping[str, Mapping[str, Any]],
    predict: Callable[[Mapping[str, Any]], np.ndarray],
) -> dict[str, float]:
  """Measures of the model's predictions on each part but the training part.

  classification    `accuracy`, `matthews`, `macro_f1` (mean over the classes) and, of two classes, `f1` of the one
                    that is second in the alphabet (1, positive, ...)
  regression        `pearson`, `spearman`
  multiple_choice   `accuracy`
  span              SQuAD's `exact` and `f1`; where some questions have no answer, with that `threshold` on the margin
                    over "no answer" which has the highest F1 on `dev`, and of both kinds apart (`answer_f1`,
                    `no_answer_f1`, ...)
  tagging           `accuracy` of words; where the tags are B-, I- and O, of entities `precision`, `recall`, `f1`

  Words that are cut off count, as if tagged `O` (where there is no such tag, the first). The parts are those of
  `data/tasks.py` and `data/datasets/tasks.py`. Nothing is chosen on `test`.

  Args:
    embed, dataset: not looked at.
    task: see `data/tasks.py: Task`.
    encoded: part -> arrays, as `data/tasks.py: encode_task` gives them.
    predict: arrays -> the model's output `predict` of all rows.

  Returns:
    `{task}/{part}/{measure}`.
  """
  del embed, dataset
  results: dict[str, float] = {}
  threshold = -np.inf
  # The threshold is chosen on `dev`, so that goes first.
  for part in sorted((part for part in task.parts if part != "train"), key=lambda part: (part != "dev", part)):
    arrays = encoded[part]
    logits = np.asarray(predict(arrays))
    if task.kind == "span":
      scores, threshold = _spans(task, arrays, logits, part, threshold)
    else:
      scores = _MEASURES[task.kind](task, arrays, logits)
    results |= {f"{task.name}/{part}/{name}": value for name, value in scores.items()}
  return results


def _classes(task: Any, arrays: Mapping[str, Any], logits: np.ndarray) -> dict[str, float]:
  from sklearn.metrics import matthews_corrcoef

  guessed, right = logits.argmax(-1), np.asarray(arrays["targets"]["label"])
  f1 = metrics.f1_scores(guessed, right)
  results = {"accuracy": metrics.accuracy(guessed, right), "matthews": float(matthews_corrcoef(right, guessed)),
             "macro_f1": float(np.nanmean(f1))}
  if len(task.labels) == 2:
    results["f1"] = float(f1[1]) if len(f1) > 1 and np.isfinite(f1[1]) else 0.0
  return results


def _scores(task: Any, arrays: Mapping[str, Any], logits: np.ndarray) -> dict[str, float]:
  right = np.asarray(arrays["targets"]["label"])
  return {"pearson": metrics.pearson(logits, right, f"{task.name}: pearson"),
          "spearman": metrics.spearman(logits, right, f"{task.name}: spearman")}


def _choices(task: Any, arrays: Mapping[str, Any], logits: np.ndarray) -> dict[str, float]:
  return {"accuracy": metrics.accuracy(logits.argmax(-1), np.asarray(arrays["targets"]["label"]))}


def _tags(task: Any, arrays: Mapping[str, Any], logits: np.ndarray) -> dict[str, float]:
  guessed = logits.argmax(-1)
  other = task.labels.index("O") if "O" in task.labels else 0
  predicted, gold = [], []
  for row, example in enumerate(arrays["example"].tolist()):
    tags = np.asarray(task.targets[example])
    starts = np.asarray(arrays["word_starts"][row, :len(tags)])
    predicted.append(np.where(starts >= 0, guessed[row, np.maximum(starts, 0)], other))
    gold.append(tags)
  results = {"accuracy": metrics.accuracy(np.concatenate(predicted), np.concatenate(gold))}
  if all(tag == "O" or tag[:2] in ("B-", "I-", "E-", "S-") for tag in task.labels):
    named = [[[task.labels[i] for i in tags] for tags in listed] for listed in (predicted, gold)]
    results |= metrics.entity_scores(*named)
  return results


def _spans(task: Any, arrays: Mapping[str, Any], logits: np.ndarray, part: str,
           threshold: float) -> tuple[dict[str, float], float]:
  examples = np.unique(arrays["example"]).tolist()
  answers = spans.best_answers(logits, np.asarray(arrays["offsets"]), np.asarray(arrays["example"]),
                               {i: task.items[i][1] for i in examples})
  right = {i: [text for _, text in task.targets[i]] for i in examples}
  unanswerable = not all(right.values())
  if part == "dev" and unanswerable:
    threshold = spans.best_threshold(answers, right)
  results = spans.squad_scores(answers, right, threshold)
  return results | ({"threshold": threshold} if unanswerable and np.isfinite(threshold) else {}), threshold


_MEASURES = {"classification": _classes, "regression": _scores, "multiple_choice": _choices, "tagging": _tags}


PROTOCOL = Protocol(
    finetuning, needs=("predict",), dataset=False,
    metrics={
        "accuracy": Metric(True, "fraction"), "matthews": Metric(True), "macro_f1": Metric(True, "fraction"),
        "f1": Metric(True, "fraction"), "pearson": Metric(True), "spearman": Metric(True),
        "precision": Metric(True, "fraction"), "recall": Metric(True, "fraction"), "exact": Metric(True, "fraction"),
        "*_exact": Metric(True, "fraction"), "*_f1": Metric(True, "fraction"), "threshold": Metric(None),
    })
