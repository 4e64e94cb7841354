"""Figures of a run, drawn from its log, its evaluations and the model's outputs. Alone in importing matplotlib.

A figure is found by its module, which declares it in `FIGURES`.
"""
import fnmatch

import jax
from etils import epath

from embeddings_jax import extensions
from embeddings_jax.figures import canvas
from embeddings_jax.figures.drawing import Drawing as Drawing
from embeddings_jax.types import Figure


def draw(path: epath.Path, drawing: Drawing, *, of_evaluations: bool = False) -> list[str]:
  """Draws every figure that applies, into `figures/` of a directory.

  Args:
    path: The directory.
    drawing: The run, and what is known of it.
    of_evaluations: Draw figures of evaluation metrics alone.

  Returns:
    The files' names, relative to `path`.
  """
  made = {}
  for figure in declared():
    if (figure.evaluations or not of_evaluations) and applies(figure, drawing):
      drawn = figure.draw(canvas.pyplot(), drawing)
      if drawn is not None:
        made |= drawn if isinstance(drawn, dict) else {figure.name: drawn}
  if made:
    (path / "figures").mkdir(parents=True, exist_ok=True)
  suffix = f"_{drawing.suffix}" if drawing.suffix else ""
  for name, figure in made.items():
    canvas.save(canvas.pyplot(), figure, path / "figures" / f"{name}{suffix}.png")
  return [f"figures/{name}{suffix}.png" for name in made]


def applies(figure: Figure, drawing: Drawing) -> bool:
  """Returns whether a run has what a figure shows."""
  known = drawing.log[-1] if drawing.log else {}
  return (all(name in known for name in figure.metrics)
          and all(name in drawing.outputs for name in figure.outputs)
          and (not figure.evaluations or any(fnmatch.filter(drawing.metrics, key) for key in figure.evaluations))
          and (not figure.vocabulary or drawing.encoder.names is not None)
          and (not figure.embeds or jax.process_count() == 1)
          and (figure.applies is None or figure.applies(drawing)))


def declared() -> list[Figure]:
  """Returns the figures of the package and of the folders that were added."""
  return [figure for module in extensions.modules("figures") for figure in getattr(module, "FIGURES", ())]
