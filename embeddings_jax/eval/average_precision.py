"""Average precision of detections, by the rules of PASCAL VOC and of COCO.

Detections of a class are taken from the greatest score on (of equal scores in the order given). Each is held against
the true box of its class and image that it overlaps most (Everingham et al. 2010, section 4.2):

  IoU < threshold              a false positive
  a difficult box              neither true nor false: the detection is left out
  a box that is free           a true positive; the box is free no more
  a box that is taken          a false positive

Recall is over the true boxes that are not difficult. Of precision p(r), with p̂(r) = max_{r' >= r} p(r'):

  rule          average precision
  11-point      mean of p̂ at r = 0, .1, ..., 1                (VOC until 2009)
  area          ∫ p̂(r) dr                                     (VOC from 2010)
  101-point     mean of p̂ at r = 0, .01, ..., 1               (COCO)

COCO's average is the mean over the thresholds .5, .55, ..., .95, with the 101-point rule; AP50 and AP75 are those of
one threshold.
"""
from typing import NamedTuple

import numpy as np

from embeddings_jax.data.boxes import Boxes, overlaps
from embeddings_jax.types import InputError

RULES = ("11-point", "area", "101-point")
THRESHOLDS = tuple(np.arange(50, 100, 5) / 100)


class Detections(NamedTuple):
  """Detected boxes.

  Attributes:
    corners: [n, 4], top, left, bottom and right.
    image: int [n], number of the image.
    label: int [n], number of the class.
    score: [n].
  """

  corners: np.ndarray
  image: np.ndarray
  label: np.ndarray
  score: np.ndarray


def average_precisions(
    detections: Detections, truth: Boxes, rule: str = "area", threshold: float = 0.5,
) -> np.ndarray:
  """Returns the average precision of each class, NaN where there is no true box that is not difficult."""
  return np.array([average_precision(*marked(detections, truth, label, threshold), rule)
                   for label in range(len(truth.classes))])


def summary(detections: Detections, truth: Boxes) -> dict[str, float]:
  """Returns means over classes: `ap`, `ap50`, `ap75` as COCO has them, `voc07_map` and `voc12_map` at IoU .5."""
  def mean(rule, threshold):
    values = average_precisions(detections, truth, rule, threshold)
    if np.isnan(values).all():
      raise InputError("average precision: there is no true box that is not difficult")
    return float(np.nanmean(values))

  at = {threshold: mean("101-point", threshold) for threshold in THRESHOLDS}
  return {"ap": float(np.mean(list(at.values()))), "ap50": at[0.5], "ap75": at[0.75],
          "voc07_map": mean("11-point", 0.5), "voc12_map": mean("area", 0.5)}


def marked(detections: Detections, truth: Boxes, label: int, threshold: float) -> tuple[np.ndarray, int]:
  """Returns whether each detection of a class is true, the greatest score first, without those that are left out; and
  the number of true boxes that are not difficult."""
  truth, of_class = truth.chosen(truth.label == label), detections.label == label
  corners, image, score = detections.corners[of_class], detections.image[of_class], detections.score[of_class]
  if not np.isfinite(score).all():
    raise InputError(f"detections of class {truth.classes[label]}: a score is not finite")
  taken, rows = np.zeros(len(truth.label), bool), {}
  for row, number in enumerate(truth.image):
    rows.setdefault(int(number), []).append(row)
  marks = []
  for i in np.argsort(-score, kind="stable"):
    candidates = np.array(rows.get(int(image[i]), []), int)
    if not len(candidates):
      marks.append(False)
      continue
    shared = overlaps(corners[i:i + 1], truth.corners[candidates])[0]
    best = candidates[shared.argmax()]
    if shared.max() < threshold:
      marks.append(False)
    elif not truth.difficult[best]:
      marks.append(not taken[best])
      taken[best] = True
  return np.array(marks, bool), int((~truth.difficult).sum())


def average_precision(true: np.ndarray, positives: int, rule: str) -> float:
  """Returns the average precision by a rule, NaN without positives.

  Args:
    true: Whether each detection is true, the greatest score first.
    positives: Number of true boxes.
    rule: One of `RULES`.
  """
  if rule not in RULES:
    raise InputError(f"rule={rule!r}: must be one of {', '.join(RULES)}")
  if not positives:
    return float("nan")
  hits = np.cumsum(true)
  precision = hits / np.arange(1, len(true) + 1)
  best = np.maximum.accumulate(precision[::-1])[::-1]
  if rule == "area":
    return float(best[true].sum() / positives)  # Recall grows by 1 / positives at each hit.
  parts = 10 if rule == "11-point" else 100
  # Recall of `hits` against i / parts, in whole numbers: .3 is no multiple of .1 in floating point.
  reached = np.searchsorted(hits * parts, np.arange(parts + 1) * positives)
  return float(np.append(best, 0.0)[reached].mean())
