"""Figures of video show what the model says of the clips."""
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest

from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.encoders.clips import ClipEncoder
from embeddings_jax.data.video import Clips
from embeddings_jax.figures import video

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402


def between(clips):
  """Log odds of the order of gray values."""
  value = clips[:, :, 0, 0, 0].astype(jnp.float32)
  i, j, k = value[:, :, None, None], value[:, None, :, None], value[:, None, None, :]
  return jnp.where((i < j) & (j < k) | (i > j) & (j > k), 1.0, -1.0)


PREDICT = {
    "sorted_frames": between,
    "arrow_of_time": lambda clips: jnp.ones((len(clips), 4, 2, 2)) * (
        clips[:, 1, 0, 0, 0] - 1.0 * clips[:, 0, 0, 0, 0])[:, None, None, None],
    "predicted_frames": lambda clips: jnp.ones((len(clips), 3, 4, 4, 3)) / jnp.arange(1, 4)[:, None, None, None],
}


@pytest.fixture
def drawing():
  def make(name):
    masks = np.zeros((12, 4, 4), np.uint8)
    masks[:, 1, 1] = 1
    frames = np.broadcast_to(10 * np.arange(12, dtype=np.uint8)[:, None, None, None], (12, 4, 4, 3)).copy()
    dataset = Dataset("x", "video", Clips(frames, [6, 6], {"masks": masks}))
    outputs = {"predict": lambda state, batch: PREDICT[name](jnp.asarray(batch["clip"]))} if name in PREDICT else {
        "layers": None}
    if name == "copied_colors":
      outputs = {"reconstruct": lambda state, batch: {
          "original": batch["clip"][:, -1] / 255, "reconstructed": 1 - batch["clip"][:, -1] / 255}}
    if name == "sorted_frames":
      outputs["draws"] = None
    maps = lambda frames: {"last": np.eye(2)[masks[:len(frames)]]}
    return SimpleNamespace(
        dataset=dataset, encoder=ClipEncoder(4, 4, 3, window=5), outputs=outputs, state=None, seed=0,
        evals=("propagation",) if name == "carried_masks" else (), evaluator=SimpleNamespace(
            provided=lambda need: {"maps": maps}),
        output=lambda output, batch: jax.tree.map(np.asarray, outputs[output](None, batch)))

  yield make
  pyplot.close("all")


def test_each_figure_applies_to_its_model(drawing):
  for name in (*PREDICT, "carried_masks", "copied_colors"):
    given = drawing(name)
    actual = [figure.name for figure in video.FIGURES if set(figure.outputs) <= given.outputs.keys()
              and (figure.applies is None or figure.applies(given))]
    assert actual == [name]


def pictures(figure):
  return [[axes.images[0].get_array() for axes in figure.axes if axes.images and axes.get_subplotspec().rowspan.start
           == row] for row in range(figure.axes[0].get_gridspec().nrows)]


def test_frames_are_shown_as_shuffled_and_as_sorted(drawing):
  figure = video._draw_sorted(pyplot, drawing("sorted_frames"))
  shuffled, actual = ([round(255 * float(image.max())) for image in row] for row in pictures(figure)[:2])
  assert sorted(shuffled) == sorted(actual) and np.abs(np.diff(actual)).tolist() == [10] * 4
  assert np.abs(np.diff(shuffled)).tolist() != [10] * 4 and "|tau| 1.00" in figure.get_suptitle()


def test_evidence_is_positive_forwards_and_negative_backwards(drawing):
  figure = video._draw_arrow(pyplot, drawing("arrow_of_time"))
  forwards, backwards, _ = figure.axes[2].lines
  np.testing.assert_array_equal(forwards.get_ydata(), [10] * 4)
  np.testing.assert_array_equal(backwards.get_ydata(), [-10] * 4)


def test_masks_are_painted_in_colors_and_carried_beside_true_ones(drawing):
  frames, masks = np.full((1, 2, 2, 3), 100, np.uint8), np.array([[[0, 1], [2, 6]]])
  actual = video.painted(frames, masks)[0]
  np.testing.assert_allclose(actual[0, 0], 100 / 255)
  assert actual[0, 1].argmax() == 0 and actual[1, 0].argmax() == 1
  np.testing.assert_array_equal(actual[1, 1], actual[0, 1])  # Five colors.
  carried, true = pictures(video._draw_masks(pyplot, drawing("carried_masks")))[:2]
  np.testing.assert_allclose(carried, true)


def test_next_frames_are_shown_for_each_action(drawing):
  row = pictures(video._draw_following(pyplot, drawing("predicted_frames")))[0]
  assert len(row) == 6 and [round(float(image.max()), 3) for image in row[3:]] == [1, 0.5, 0.333]


def test_copied_colors_stand_between_gray_and_true_ones(drawing):
  before, gray, copied, true = pictures(video._draw_copied(pyplot, drawing("copied_colors")))[0]
  np.testing.assert_allclose(copied, 1 - true)
  assert gray.ndim == 2 or gray.shape[-1] == 1
  np.testing.assert_allclose(true.max() - before.max(), 10 / 255)
