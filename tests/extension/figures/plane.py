"""Nodes in the plane of their first two coordinates."""
from embeddings_jax.types import Figure


def plane(plt, drawing):
  figure, axes = plt.subplots()
  axes.scatter(*drawing.vectors[:, :2].T)
  return figure


FIGURES = (
    Figure("plane", plane, outputs=("components",), applies=lambda drawing: hasattr(drawing.encoder, "nodes")),
)
