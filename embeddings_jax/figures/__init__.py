"""Figures of a run, drawn from its log, its evaluations and the model's outputs. Alone in importing matplotlib.

A figure is found by its module, which declares it in `FIGURES`.
"""
import fnmatch
import importlib
import importlib.util
import os
import pathlib
import pkgutil

import jax
from etils import epath

from embeddings_jax import extensions
from embeddings_jax.figures import canvas
from embeddings_jax.figures.drawing import Drawing as Drawing
from embeddings_jax.types import Figure


def draw(path: epath.Path, drawing: Drawing, *, of_evaluations: bool = False,
         folder: str | os.PathLike | None = None) -> list[str]:
  """Draws every figure that applies, into `figures/` of a directory.

  Args:
    path: The directory.
    drawing: The run, and what is known of it.
    of_evaluations: Draw figures of evaluation metrics alone.
    folder: Directory of one's own, of which `figures/*.py` are read too.

  Returns:
    The files' names, relative to `path`.
  """
  made = {}
  for figure in declared(folder):
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


def declared(folder: str | os.PathLike | None = None) -> list[Figure]:
  """Returns the figures of the package, and of `figures/*.py` in a folder of one's own."""
  modules = [importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
  for path in sorted(pathlib.Path(folder, "figures").glob("*.py")) if folder else ():
    spec = importlib.util.spec_from_file_location(f"{__name__}._{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    modules.append(module)
  modules += extensions.modules("figures")
  return [figure for module in modules for figure in getattr(module, "FIGURES", ())]
