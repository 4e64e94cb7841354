"""Average precision by hand and by a double loop, boxes, and R-CNN on planted features."""
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from embeddings_jax.data.boxes import Boxes, kept_boxes, overlaps, read_proposals, sliding_boxes
from embeddings_jax.data.encoders.images import ImageEncoder
from embeddings_jax.eval.average_precision import (
    RULES,
    THRESHOLDS,
    Detections,
    average_precision,
    average_precisions,
    summary,
)
from embeddings_jax.eval.detection import box_classes, detection, warped
from embeddings_jax.nets import convnet
from embeddings_jax.runs import box_tuning
from embeddings_jax.runs.trunks import Trunk
from embeddings_jax.types import InputError
from experiments.benchmarks.seeing import against


def boxes(corners, image, label=None, difficult=None, classes=("a",)):
  corners = np.asarray(corners, np.float32).reshape(-1, 4)
  label = np.zeros(len(corners), int) if label is None else np.asarray(label)
  difficult = np.zeros(len(corners), bool) if difficult is None else np.asarray(difficult)
  return Boxes(corners, np.asarray(image), label, difficult, list(classes))


def square(left, side=10):
  return [0, left, side, left + side]


def test_a_case_by_hand():
  """Marks by score: true, false (taken), left out (difficult), false (empty image), true; three of four are found.

  Precision after each counted one: 1, 1/2, 1/3, 2/4; recalls 1/3 and 2/3 of three.
  """
  truth = boxes([square(0), square(20), square(40), square(60)], [0, 0, 1, 1], difficult=[False, False, True, False])
  found = Detections(np.array([square(0), square(1), square(40), square(0), square(21)], float),
                     np.array([0, 0, 1, 7, 0]), np.zeros(5, int), np.array([0.9, 0.8, 0.7, 0.6, 0.5]))
  expected = {"area": (1 + 0.5) / 3, "11-point": (4 * 1 + 3 * 0.5) / 11,  # Recalls 0 to .3, .4 to .6.
              "101-point": (34 * 1 + 33 * 0.5) / 101}  # 0 to .33, .34 to .66.
  for rule, value in expected.items():
    assert average_precisions(found, truth, rule)[0] == pytest.approx(value), rule
  # The second best box overlaps by 9 / 11 = .82: at .85 it matters no more that the first box is taken.
  assert average_precisions(found, truth, "area", 0.85)[0] == pytest.approx(1 / 3)


def by_loops(found, truth, label, rule, threshold):
  """The same written down as one reads it."""
  order = sorted(np.flatnonzero(found.label == label), key=lambda i: -found.score[i])
  used, true, false, points = set(), 0, 0, []
  total = sum(1 for j in range(len(truth.label)) if truth.label[j] == label and not truth.difficult[j])
  for i in order:
    best, overlap = None, -1.0
    for j in range(len(truth.label)):
      if truth.label[j] == label and truth.image[j] == found.image[i]:
        t, p = truth.corners[j], found.corners[i]
        height = max(0, min(t[2], p[2]) - max(t[0], p[0]))
        width = max(0, min(t[3], p[3]) - max(t[1], p[1]))
        both = height * width
        union = (t[2] - t[0]) * (t[3] - t[1]) + (p[2] - p[0]) * (p[3] - p[1]) - both
        if both / union > overlap:
          best, overlap = j, both / union
    if best is not None and overlap >= threshold and truth.difficult[best]:
      continue
    if best is not None and overlap >= threshold and best not in used:
      used.add(best)
      true += 1
    else:
      false += 1
    points.append((true, true / (true + false)))
  precision = lambda least: max([p for hits, p in points if hits >= least - 1e-9], default=0.0)
  if rule == "area":
    return sum(precision(k) for k in range(1, total + 1)) / total
  parts = {"11-point": 10, "101-point": 100}[rule]
  return sum(precision(total * i / parts) for i in range(parts + 1)) / (parts + 1)


def drawn(rng, number):
  """Boxes of 4 to 11 pixels."""
  low = rng.integers(0, 12, (number, 2))
  return np.concatenate([low, low + rng.integers(4, 12, (number, 2))], 1).astype(float)


@pytest.mark.parametrize("rule", RULES)
def test_a_double_loop_agrees(rule):
  for seed in range(4):
    rng = np.random.default_rng(seed)
    truth = boxes(drawn(rng, 30), rng.integers(0, 5, 30), rng.integers(0, 2, 30), rng.random(30) < 0.2, "ab")
    near = truth.corners[rng.integers(0, 30, 60)] + rng.integers(-1, 2, (60, 4))
    found = Detections(np.concatenate([near, drawn(rng, 20)]), rng.integers(0, 5, 80), rng.integers(0, 2, 80),
                       rng.permutation(80) / 80)
    for threshold in (0.5, 0.75):
      actual = average_precisions(found, truth, rule, threshold)
      expected = [by_loops(found, truth, label, rule, threshold) for label in (0, 1)]
      np.testing.assert_allclose(actual, expected, rtol=1e-6)
      assert 0 < actual.max() < 1


def test_true_boxes_give_1_and_none_give_0():
  rng = np.random.default_rng(0)
  truth = boxes([square(12 * i) for i in range(9)], np.arange(9) % 3, np.arange(9) % 2, np.arange(9) == 4, "ab")
  found = Detections(truth.corners, truth.image, truth.label, rng.random(9))
  assert set(summary(found, truth).values()) == {1.0}
  nothing = Detections(np.zeros((0, 4)), *[np.zeros(0, int)] * 2, np.zeros(0))
  assert set(summary(nothing, truth).values()) == {0.0}
  # A class without true boxes does not count.
  assert np.isnan(average_precisions(found, truth._replace(classes=["a", "b", "c"]))[2])
  # COCO's average: boxes that overlap by 8 / 10 pass 7 of the ten thresholds.
  shifted = Detections(truth.corners + [0, 0, -2, 0], truth.image, truth.label, rng.random(9))
  assert summary(shifted, truth)["ap"] == pytest.approx(0.7) and len(THRESHOLDS) == 10
  with pytest.raises(InputError, match="rule='12-point'"):
    average_precision(np.ones(1, bool), 1, "12-point")
  with pytest.raises(InputError, match="a score is not finite"):
    average_precisions(found._replace(score=np.full(9, np.nan)), truth)


def test_boxes():
  assert overlaps(np.array([square(0)]), np.array([square(5), square(10), square(0)])).tolist() == [
      pytest.approx([50 / 150, 0, 1])]
  corners = np.array([square(0), square(2), square(30), square(31)], float)
  # The second overlaps the first by 8 / 12, the fourth the third by 9 / 11.
  assert kept_boxes(corners, np.array([0.2, 0.9, 0.5, 0.4]), 0.3).tolist() == [1, 2]
  assert kept_boxes(corners, np.array([0.2, 0.9, 0.5, 0.4]), 0.7).tolist() == [1, 2, 0]
  grid = sliding_boxes(20, 30, [10, 20, 40], [1.0, 0.5], 0.5)
  assert grid.min() == 0 and grid[:, 2].max() == 20 and grid[:, 3].max() == 30
  for box in ([10, 20, 20, 30], [0, 0, 20, 10], [5, 5, 15, 15]):  # At corners, and between.
    assert (grid == box).all(1).any()
  assert len(np.unique(grid, axis=0)) == len(grid) == 15 + 33 + 2 + 5
  with pytest.raises(InputError, match="no box fits into an image of 20 x 30 pixels"):
    sliding_boxes(20, 30, [40])


def test_candidates_are_read_from_a_file(tmp_path):
  path = tmp_path / "boxes.npz"
  np.savez(path, corners=np.array([square(0), square(4), square(8)]), image=np.array([2, 0, 2]))
  actual = read_proposals(path)
  assert {i: part[:, 1].tolist() for i, part in actual.items()} == {0: [4], 2: [0, 8]}
  for bad in ({"corners": np.zeros((2, 4))}, {"corners": np.zeros((2, 3)), "image": np.zeros(2, int)},
              {"corners": np.zeros((2, 4)), "image": np.array([None, 1])}):
    np.savez(path, **bad)
    with pytest.raises(InputError, match="boxes.npz"):
      read_proposals(path)
  path.write_bytes(b"PK no zip")
  with pytest.raises(InputError, match="is no .npz file"):
    read_proposals(path)


def test_boxes_are_warped_with_context():
  """A gradient stays one; 16 of 227 pixels around a box of 195 are 16, and outside is the mean."""
  image = np.broadcast_to(np.arange(240, dtype=np.uint8)[:, None, None], (240, 200, 3))
  crop = warped(image, np.array([[20.0, 0, 215, 195]]), (227, 227, 3))[0]
  np.testing.assert_allclose(crop[:, 100, 0], np.arange(4, 231), atol=1)
  mean = np.rint(image.mean())
  assert (crop[:, 0] == mean).all() and (crop[:, 211] != mean).any() and (crop[:, 226] == mean).all()
  gray = warped(image, np.array([[10.0, 10, 30, 30], [0, 0, 8, 4]]), (9, 7, 1), context=0)
  assert gray.shape == (2, 9, 7, 1) and abs(float(gray[0].mean()) - 19.5) < 1


@pytest.fixture(scope="module")
def planted():
  """Gray images with one or two bright squares, red or green; the class is the color."""
  rng = np.random.default_rng(0)
  images, corners, image, label = np.full((24, 24, 24, 3), 90, np.uint8), [], [], []
  for i in range(24):
    for half in range(1 + i % 2):
      top, left, kind = rng.integers(0, 13), 12 * half + rng.integers(0, 4), rng.integers(0, 2)
      images[i, top:top + 8, left:left + 8] = (220, 30, 30) if kind else (30, 220, 30)
      corners.append([top, left, top + 8, left + 8])
      image.append(i)
      label.append(kind)
  return SimpleNamespace(name="planted", items=images, split={"train": np.arange(12), "test": np.arange(12, 24)},
                         boxes=boxes(corners, image, label, classes=("green", "red")))


OPTIONS = dict(shape=(8, 8, 3), scales=(8 / 24,), ratios=(1.0,), step=1 / 8, context=16, negatives=40, trials=2)


def colors(crops):
  """Mean color of the middle and of the border: a box is right if they differ."""
  crops = crops.astype(float) / 255
  return np.concatenate([crops[:, 2:6, 2:6].mean((1, 2)), crops[:, :1].mean((1, 2)), crops[:, -1:].mean((1, 2)),
                         crops[:, :, 0].mean(1), crops[:, :, -1].mean(1)], 1)


def test_r_cnn_finds_what_its_features_tell(planted):
  actual = detection(colors, planted, **OPTIONS)
  assert actual["test/voc12_map"] > 0.9 and actual["test/proposal_recall"] == 1
  assert actual["test/ap"] <= actual["test/ap50"] and actual["test/ap50_std"] < 0.1
  noise = detection(lambda crops: np.random.default_rng(len(crops)).normal(size=(len(crops), 5)), planted, **OPTIONS)
  assert noise["test/voc12_map"] < 0.3
  assert detection(colors, planted, **OPTIONS) == actual  # Trials are a matter of the seed.
  # Given boxes: without any but the true ones of one half of the images.
  own = {i: planted.boxes.of(i).corners for i in range(0, 24, 2)}
  assert detection(colors, planted, **OPTIONS, proposals={
      i: np.concatenate([own.get(i, np.zeros((0, 4))), [[0, 16, 8, 24]]]) for i in range(24)})[
          "test/proposal_recall"] < 0.7


def test_classes_of_boxes_for_fine_tuning():
  own = boxes([square(0), square(20), square(40)], [0] * 3, [1, 0, 1], [False, False, True], "ab")
  corners = np.array([square(0), square(3), square(5), square(21), square(39), square(70)], float)
  # Shares of 1, 7 / 13, 5 / 15, 9 / 11, and 9 / 11 with a difficult box.
  assert box_classes(corners, own).tolist() == [2, 2, 0, 1, -1, 0]
  assert box_classes(corners, own.chosen(own.image == 9)).tolist() == [0] * 6


def test_a_fine_tuned_trunk_tells_apart_what_the_frozen_one_cannot(planted):
  """Kernels that are equal for all channels see no colors, by which the classes differ, until they are trained."""
  network = convnet.encoder(channels=(8,), strides=(1,))
  variables = jax.jit(network.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
  kernel = variables["params"]["block_0"]["conv"]["kernel"]
  variables["params"]["block_0"]["conv"]["kernel"] = kernel.mean(2, keepdims=True).repeat(3, 2)
  trunk = Trunk("convnet", network, variables, ImageEncoder(8, 8, 3))
  embed = box_tuning.vectors(trunk, "block_0")
  frozen = detection(embed, planted, **OPTIONS)
  finetune = box_tuning.finetuner(trunk, "block_0", steps=60, learning_rate=0.02)
  tuned = detection(embed, planted, **OPTIONS, finetune=finetune)
  assert tuned["test/voc12_map"] > 0.95 > 0.8 > frozen["test/voc12_map"]
  with pytest.raises(InputError, match="needs positive boxes and boxes of background; there are 0 and 4"):
    finetune(np.zeros((4, 8, 8, 3), np.uint8), np.zeros(4, int))
  with pytest.raises(InputError, match="steps=0"):
    box_tuning.finetuner(trunk, "block_0", steps=0)


def test_trunks_are_compared_by_two_standard_deviations_of_the_difference():
  row = lambda trunk, family, *ap: {"trunk": trunk, "family": family, "ap": ap}
  rows = [row("a", "pretext", 0.30, 0.03), row("b", "contrastive", 0.19, 0.04), row("c", "supervised", 0.21, 0.04),
          row("d", "contrastive", 0.41, 0.04), row("e", "autoencoders", 0.0, 0.01)]  # Twice the deviation is .1.
  assert against(rows, "pretext", ("contrastive", "supervised")) == (["a above b"], ["a below d"], 3)


def test_mistakes_are_named(planted):
  with pytest.raises(InputError, match="planted has no boxes; pasted-digits"):
    detection(colors, SimpleNamespace(**{**vars(planted), "boxes": None}), **OPTIONS)
  outside = planted.boxes._replace(corners=planted.boxes.corners + [0, 20, 0, 20])
  with pytest.raises(InputError, match=r"image 0: the box \(top, left, bottom, right\) = .* reaches outside the "
                                       "image of 24 x 24"):
    detection(colors, SimpleNamespace(**{**vars(planted), "boxes": outside}), **OPTIONS)
  with pytest.raises(InputError, match="trials=0"):
    detection(colors, planted, **{**OPTIONS, "trials": 0})
  with pytest.raises(InputError, match="proposals of image 0: the box"):
    detection(colors, planted, **OPTIONS, proposals={0: np.array([[5, 5, 5, 9]])})
