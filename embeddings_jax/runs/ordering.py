"""Sorts the frames of a clip by a network that verifies their order."""
from typing import Any, NamedTuple

import jax
import numpy as np

from embeddings_jax.errors import InputError
from embeddings_jax.ops.ordering import MOST, best_order, kendall_tau


class Ordered(NamedTuple):
  """Frames that were shuffled and sorted.

  Attributes:
    frames: uint8 [t, height, width, channels], as they were given.
    shuffled: Numbers of the frames in the order in which the network saw them.
    order: Numbers of the frames as they were sorted, up to the direction of time.
    tau: Absolute value of Kendall's tau between both orders: 1 if the clip's order was found.
  """

  frames: np.ndarray
  shuffled: np.ndarray
  order: np.ndarray
  tau: float


def order_frames(run: Any, clip: Any, *, num: int = 0, seed: int = 0) -> Ordered:
  """Shuffles the frames of a clip and sorts them again.

  Args:
    run: A run of `order_verification`.
    clip: uint8 [frames, height, width, channels], of which the encoder's window is read, or a path.
    num: Number of frames, evenly spaced in the window; 0: all of the window.
    seed: Random seed of the shuffling.

  Raises:
    InputError: The run cannot do it, or the clip is too short.
  """
  if run.config["name"] != "order_verification" and run.config.get("factory") != "order_verification":
    raise InputError(f"the run is one of {run.config['name']}, which does not verify orders; train "
                     "order_verification")
  frames = run.encoder.encode([clip])["clip"][0]
  number = num or min(len(frames), MOST)
  if not 3 <= number <= min(MOST, len(frames)):
    raise InputError(f"num={num}: must be from 3 to {min(MOST, len(frames))}, or 0")
  frames = frames[np.linspace(0, len(frames) - 1, number).round().astype(int)]
  return sort_frames(jax.jit(run.model.outputs["predict"]), run.state, frames, seed)


def sort_frames(predict: Any, state: Any, frames: np.ndarray, seed: int = 0) -> Ordered:
  """Shuffles and sorts frames by the output `predict` of a model."""
  shuffled = np.random.default_rng(seed).permutation(len(frames))
  scores = np.asarray(predict(state, {"clip": frames[shuffled][None], "mask": np.ones(1, np.float32)}))[0]
  order = shuffled[best_order(scores, seed=seed)]
  return Ordered(frames, shuffled, order, abs(kendall_tau(order)))
