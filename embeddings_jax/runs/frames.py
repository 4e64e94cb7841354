"""Vectors of the frames of a long signal, by a layer of a trained network."""
import hashlib
from collections.abc import Callable

import jax
import numpy as np

from embeddings_jax.errors import InputError
from embeddings_jax.runs.load import load_run

PIECE, MARGIN = 400, 50  # Frames of a piece, of which so many at each end are context alone.


def vectors_of(path: str, layer: int, hop: int) -> tuple[Callable[[np.ndarray], np.ndarray], str]:
  """Returns signal int16 `[num_samples]` -> float32 `[num_frames, dim]`, a frame every `hop` samples; and a checksum.

  Args:
    path: Work directory of a run of audio that has the output `hidden`.
    layer: Number of the layer; 0 are the features of the frames.
    hop: Samples from one frame to the next.

  Raises:
    InputError: The run has no such layer, or another hop.
  """
  run = load_run(path)
  where = f"units={path}:{layer}"
  if "hidden" not in run.model.outputs or run.encoder.kind != "waveforms":
    raise InputError(f"{where}: holds a {run.config['name']} of {run.encoder.kind}; take a run of audio with layers, "
                     "as hubert")
  hidden = jax.jit(lambda state, batch: run.model.outputs["hidden"](state, batch))
  length = PIECE * hop
  shape = jax.eval_shape(hidden, run.state, {"signal": np.zeros((1, length), np.int16)}).shape
  if layer >= shape[1]:
    raise InputError(f"{where}: the layers are 0 to {shape[1] - 1}")
  if not PIECE - MARGIN <= shape[2] <= PIECE:
    raise InputError(f"{where}: its network makes {shape[2]} frames of {length} samples, and hop_length={hop} asks "
                     f"for {PIECE}")

  def vectors(signal: np.ndarray) -> np.ndarray:
    number = max(1, -(-len(signal) // hop))
    frames = np.zeros((number, shape[3]), np.float32)
    step = PIECE - 2 * MARGIN
    for first in range(0, number, step):
      begin = max(0, first - MARGIN)
      piece = signal[begin * hop:begin * hop + length]
      batch = {"signal": np.pad(piece, (0, length - len(piece)))[None]}
      rows = np.asarray(hidden(run.state, batch)[0, layer])
      last = min(first + step, number, begin + len(rows))
      frames[first:last] = rows[first - begin:last - begin]
    return frames

  content = hashlib.sha256(str((run.config["model"], layer)).encode())
  for leaf in jax.tree.leaves(run.state.params):
    content.update(np.ascontiguousarray(leaf).data)
  return vectors, content.hexdigest()
