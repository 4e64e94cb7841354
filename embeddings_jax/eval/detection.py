"""Detection by classified boxes: R-CNN on a frozen or a fine-tuned network (Girshick et al. 2014, arXiv:1311.2524).

Protocol. Candidate boxes are those of a sliding grid (`scales` of the image's shorter side for heights, `ratios` of
width to height, a `step` of a third), or are given. A box is enlarged so that `context` of the 227 pixels of R-CNN's
input lie around it on each side, and warped to the size of the network's images; outside the image is the image's
mean color. The network's embedding of it, standardized by the training boxes, is classified linearly: of each class
the true boxes are positive, candidates that overlap none of them by an IoU of .3 are negative, the others are not
used. Linear support vector machines (squared hinge, C = .001, a positive counts twice) see `negatives` of each image,
then once more those among twice as many that they got wrong. At the test, boxes of a class that overlap a better
one by more than .3 are dropped. Difficult boxes are no training examples.

With `finetune` the network learns first to classify the training boxes (section 2.3 of the paper): a box has the
class of the true box that it overlaps most if that IoU is at least .5, else it is background. One network serves all
trials.

Trials: each draws three quarters of the `max_train` training images, and its negatives, by its own seed; metrics are
means over the trials, those with `_std` standard deviations over them. Metrics: `ap`, `ap50` and `ap75` as COCO has
them, `voc07_map` and `voc12_map` (`eval/average_precision.py`), and `proposal_recall`, the share of true boxes that a
candidate overlaps by .5, which bounds the others.

Deviations: neither selective search nor regression of the boxes.
"""
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from embeddings_jax.data.boxes import Boxes, check_boxes, kept_boxes, overlaps, sliding_boxes
from embeddings_jax.eval.average_precision import Detections, summary
from embeddings_jax.types import InputError, Metric, Protocol

FRAME = 227  # Pixels of R-CNN's input, on which `context` is counted.
NEGATIVE, POSITIVE, SUPPRESSED = 0.3, 0.5, 0.3
COST, WEIGHT = 1e-3, 2.0
AP_NAMES = ("ap", "ap50", "ap75")


def detection(
    embed: Callable[[Any], Any],
    dataset: Any,
    *,
    shape: Sequence[int],
    scales: Sequence[float] = (0.32, 0.42, 0.54),
    ratios: Sequence[float] = (0.55, 0.85),
    step: float = 1 / 3,
    proposals: Mapping[int, np.ndarray] | None = None,
    context: float = 16.0,
    negatives: int = 16,
    max_train: int = 256,
    max_test: int = 96,
    trials: int = 5,
    seed: int = 0,
    finetune: Callable[[np.ndarray, np.ndarray], Callable[[Any], Any]] | None = None,
) -> dict[str, float]:
  """Average precision of R-CNN with the embeddings of warped boxes.

  Args:
    embed: uint8 images [n, *shape] -> vectors.
    dataset: Images with `boxes`; with a split `train` and `test`, else every second image is a test image.
    shape: Height, width and channels of the network's images.
    scales: Heights of candidate boxes over the image's shorter side.
    ratios: Widths over heights.
    step: Distance of neighboring boxes over their sides.
    proposals: Number of an image -> candidate boxes [n, 4], instead of the grid; see `data/boxes.py: read_proposals`.
    context: Pixels around a box, of `FRAME`.
    negatives: Candidates of each training image.
    max_train, max_test: Most images of each split.
    trials: Number of trials.
    seed: Random seed of the first trial.
    finetune: Training boxes uint8 [n, *shape] and their classes [n], 0 for background and 1 for the first class ->
      `embed` of the network that was fine-tuned on them, which replaces the argument of that name.

  Returns:
    `{split}/` `ap`, `ap50`, `ap75`, the same with `_std`, `voc07_map`, `voc12_map` and `proposal_recall`.

  Raises:
    InputError: There are no boxes, or some reach outside their image.
  """
  boxes = dataset.boxes
  if boxes is None:
    raise InputError(f"detection: {dataset.name} has no boxes; pasted-digits and folders of PASCAL VOC have")
  if trials < 1 or negatives < 1 or not 0 <= context < FRAME / 2:
    raise InputError(f"trials={trials}, negatives={negatives}, context={context}: must be at least 1, at least 1, "
                     f"and from 0 to {FRAME // 2}")
  count = np.arange(len(dataset.items))
  train, test = (np.asarray(dataset.split.get(name, count[i::2]))[:most]
                 for i, (name, most) in enumerate((("train", max_train), ("test", max_test))))

  def candidates(i: int, image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    if proposals is not None:
      return check_boxes(proposals.get(i, np.zeros((0, 4))), height, width, f"proposals of image {i}")
    return sliding_boxes(height, width, np.array(scales) * min(height, width), ratios, step)

  # Training: the true boxes, and a pool of candidates of each image from which trials draw.
  rng, pool, vectors = np.random.default_rng(seed), [], []
  for i in map(int, train):
    image, own = np.asarray(dataset.items[i]), boxes.of(i)
    check_boxes(own.corners, *image.shape[:2], f"image {i}")
    drawn = candidates(i, image)
    drawn = drawn[rng.permutation(len(drawn))[:2 * negatives]]
    pool.append(np.concatenate([own.corners, drawn]))
    crops = warped(image, pool[-1], shape, context)
    vectors.append(crops if finetune else embed(crops))
  if finetune:
    labels = np.concatenate([box_classes(corners, boxes.of(int(i))) for corners, i in zip(pool, train)])
    embed = finetune(np.concatenate(vectors)[labels >= 0], labels[labels >= 0])
    vectors = [embed(crops) for crops in vectors]
  # Test: all candidates.
  tested, scored = {}, {}
  for i in map(int, test):
    image = np.asarray(dataset.items[i])
    check_boxes(boxes.of(i).corners, *image.shape[:2], f"image {i}")
    tested[i] = candidates(i, image)
    scored[i] = np.asarray(embed(warped(image, tested[i], shape, context))) if len(tested[i]) else None
  truth = boxes.chosen(np.isin(boxes.image, test))
  results = []
  for trial in range(trials):
    rng = np.random.default_rng([seed, trial])
    chosen = rng.permutation(len(train))[:max(1, 3 * len(train) // 4)]
    classify = classifiers([(pool[j], np.asarray(vectors[j], np.float64), boxes.of(int(train[j]))) for j in chosen],
                           negatives, rng)
    results.append(summary(detected(tested, scored, classify, len(boxes.classes)), truth))
  part = "test" if "test" in dataset.split else "half"
  means = {name: float(np.mean([result[name] for result in results])) for name in results[0]}
  means |= {f"{name}_std": float(np.std([result[name] for result in results])) for name in AP_NAMES}
  means["proposal_recall"] = _recall(tested, truth)
  return {f"{part}/{name}": value for name, value in means.items()}


def box_classes(corners: np.ndarray, own: Boxes) -> np.ndarray:
  """Returns the classes of boxes [n] for fine-tuning, from 1 on; 0 is background.

  Args:
    corners: [n, 4].
    own: True boxes of the image; what overlaps a difficult one most, by an IoU of .5, is -1 and not used.
  """
  if not len(own.label):
    return np.zeros(len(corners), int)
  shares = overlaps(corners, own.corners)
  nearest = shares.argmax(1)
  classes = np.where(own.difficult[nearest], -1, 1 + own.label[nearest])
  return np.where(shares.max(1) >= POSITIVE, classes, 0)


def warped(image: np.ndarray, corners: np.ndarray, shape: Sequence[int], context: float = 16.0) -> np.ndarray:
  """Returns boxes of an image, with `context` pixels of `FRAME` around them, at one size, uint8 [n, *shape].

  Args:
    image: uint8 [height, width, channels].
    corners: [n, 4].
    shape: Height, width and channels of the result.
    context: See `detection`.
  """
  from PIL import Image

  center = (corners[:, :2] + corners[:, 2:]) / 2
  half = (corners[:, 2:] - corners[:, :2]) / 2 * FRAME / (FRAME - 2 * context)
  wide = np.concatenate([center - half, center + half], 1)
  beyond = int(np.ceil(max(0.0, -wide.min(initial=0), (wide[:, 2:] - image.shape[:2]).max(initial=0))))
  padded = np.empty((image.shape[0] + 2 * beyond, image.shape[1] + 2 * beyond, image.shape[2]), np.uint8)
  padded[:] = np.rint(image.mean((0, 1)))
  padded[beyond:beyond + image.shape[0], beyond:beyond + image.shape[1]] = image
  source = Image.fromarray(padded[..., 0] if padded.shape[2] == 1 else padded)
  source = source.convert("L" if shape[2] == 1 else "RGB")
  crops = np.empty((len(corners), *shape), np.uint8)
  for i, (top, left, bottom, right) in enumerate(wide + beyond):
    crop = source.resize((shape[1], shape[0]), Image.Resampling.BILINEAR, box=(left, top, right, bottom))
    crops[i] = np.asarray(crop).reshape(shape)
  return crops


def classifiers(examples: Sequence[tuple[np.ndarray, np.ndarray, Boxes]], negatives: int,
                rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
  """Fits a linear classifier of boxes for each class, and returns `vectors -> scores [n, classes]`.

  Args:
    examples: For each image its boxes [n, 4], the true ones first, their vectors, and the true boxes.
    negatives: Negative boxes of each image that are seen at first.
    rng: Draws these.
  """
  from sklearn.svm import LinearSVC

  every = np.concatenate([vectors for _, vectors, _ in examples])
  mean, scale = every.mean(0), np.maximum(every.std(0), 1e-6)
  every = (every - mean) / scale
  classes = len(examples[0][2].classes)
  positive, negative, first = (np.zeros((len(every), classes), bool) for _ in range(3))
  start = 0
  for corners, _, own in examples:
    rows = slice(start, start + len(corners))
    seen = rng.permutation(len(corners)) < negatives
    for label in range(classes):
      of_class = own.corners[own.label == label]
      apart = overlaps(corners, of_class).max(1, initial=0) < NEGATIVE
      negative[rows, label], first[rows, label] = apart, apart & seen
    positive[start + np.flatnonzero(~own.difficult), own.label[~own.difficult]] = True
    negative[start + np.flatnonzero(own.difficult)] = False
    start += len(corners)
  weights, biases = np.zeros((classes, every.shape[1])), np.full(classes, -np.inf)
  for label in range(classes):
    if not positive[:, label].any():
      continue
    used = positive[:, label] | (first & negative)[:, label]
    for _ in range(2):
      target = positive[used, label]
      if target.all():
        raise InputError(f"detection: class {examples[0][2].classes[label]} has no negative boxes")
      machine = LinearSVC(C=COST, dual=False, class_weight={True: WEIGHT, False: 1.0}, tol=1e-3, max_iter=200)
      machine.fit(every[used], target)
      weights[label], biases[label] = machine.coef_[0], machine.intercept_[0]
      used = used | negative[:, label] & (every @ weights[label] + biases[label] > -1)
  known = np.isfinite(biases)

  def scores(vectors: np.ndarray) -> np.ndarray:
    values = (np.asarray(vectors, np.float64) - mean) / scale @ weights.T + np.where(known, biases, 0)
    return np.where(known, values, -1e9)  # A class without a positive box.

  return scores


def detected(tested: Mapping[int, np.ndarray], scored: Mapping[int, Any], classify: Callable[[Any], np.ndarray],
             classes: int) -> Detections:
  """Returns the boxes that are kept of each image and class, with their scores."""
  outputs = [Detections(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0, int), np.zeros(0))]
  for i, corners in tested.items():
    if not len(corners):
      continue
    scores = classify(scored[i])
    for label in range(classes):
      kept = kept_boxes(corners, scores[:, label], SUPPRESSED)
      outputs.append(Detections(corners[kept], np.full(len(kept), i), np.full(len(kept), label), scores[kept, label]))
  return Detections(*(np.concatenate(part) for part in zip(*outputs)))


def _recall(tested: Mapping[int, np.ndarray], truth: Boxes) -> float:
  """Returns the share of true boxes, without difficult ones, that some candidate overlaps by `POSITIVE`."""
  hits = [overlaps(truth.corners[row:row + 1], tested[int(truth.image[row])]).max(initial=0) >= POSITIVE
          for row in np.flatnonzero(~truth.difficult)]
  return float(np.mean(hits)) if hits else 0.0


PROTOCOL = Protocol(
    detection, needs=("embed", "image_shape"), default="pasted-digits",
    metrics={name: Metric(True, "fraction") for name in (*AP_NAMES, "voc07_map", "voc12_map")} | {
        name: Metric(None, "fraction") for name in (*(f"{name}_std" for name in AP_NAMES), "proposal_recall")})
