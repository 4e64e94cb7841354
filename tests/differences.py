"""Gradients of plain NumPy functions."""
from collections.abc import Callable

import numpy as np


def numeric_gradient(fn: Callable[..., float], *points: np.ndarray, step: float = 1e-5) -> list[np.ndarray]:
  """Central differences of `fn(*points)` in float64, one array for each point."""
  points = [np.array(point, np.float64) for point in points]
  slopes = []
  for point in points:
    slope = np.zeros_like(point)
    for place in np.ndindex(point.shape):
      kept = point[place]
      point[place] = kept + step
      above = fn(*points)
      point[place] = kept - step
      slope[place] = (above - fn(*points)) / (2 * step)
      point[place] = kept
    slopes.append(slope)
  return slopes
