"""Matplotlib without a screen, and its files."""
from typing import Any

from etils import epath

from embeddings_jax.data.files.atomic import replacing


def pyplot() -> Any:
  """`matplotlib.pyplot`, imported when the first figure is drawn: it is a fifth of a second."""
  import matplotlib

  matplotlib.use("Agg")
  from matplotlib import pyplot as plt

  return plt


def save(plt: Any, figure: Any, path: epath.PathLike) -> None:
  """Writes the figure to a PNG, and forgets it."""
  with replacing(path) as file:
    figure.savefig(file, dpi=120, bbox_inches="tight", format="png")
  plt.close(figure)
