"""Figures of generative models: both players of a GAN, samples and walks between them, use of discrete codes."""
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from embeddings_jax.figures.codes import NUM_IMAGES, STEPS, WALKS, rows_of_images
from embeddings_jax.types import Figure

NUM_POINTS = 2000
NUM_ITEMS = 2000  # Images whose codes are counted.


def players(plt: Any, records: Sequence[Mapping[str, float]]) -> Any:
  """Draws the losses of both players, mean scores of real and generated rows, and the spread of samples."""
  figure, (losses, scores, spread) = plt.subplots(3, sharex=True, figsize=(7, 7), layout="constrained")
  steps = [record["step"] for record in records]
  curve = lambda axes, name, label: axes.plot(steps, [record[name] for record in records], label=label)
  curve(losses, "discriminator_loss", "discriminator")
  curve(losses, "generator_loss", "generator")
  losses.set(ylabel="loss", title="A loss says who is ahead, not how good the samples are")
  curve(scores, "real_score", "real rows")
  curve(scores, "fake_score", "samples")
  scores.set(ylabel="mean score of D", title="0 for samples: the generator's gradient saturates")
  curve(spread, "spread", "samples / data")
  spread.axhline(1, color="gray", linewidth=0.8, linestyle="--")
  spread.axhline(0, color="gray", linewidth=0.8)
  spread.set(xlabel="step", ylabel="standard deviation", title="0: the samples have collapsed")
  for axes in (losses, scores, spread):
    axes.legend(fontsize="small")
    axes.grid(alpha=0.3)
  return figure


def points(plt: Any, data: np.ndarray, samples: np.ndarray) -> Any:
  """Draws rows [n, 2] of data and samples side by side, on the same axes."""
  figure, both = plt.subplots(1, 2, sharex=True, sharey=True, figsize=(9, 4.5), layout="constrained")
  for axes, rows, title in zip(both, (data, samples), ("data", "samples")):
    axes.scatter(*rows.T, s=4, linewidths=0, alpha=0.5)
    axes.set(title=title, aspect="equal")
  return figure


def frequencies(plt: Any, counts: np.ndarray) -> Any:
  """Draws how often each code occurs, the most frequent first."""
  figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
  share = np.sort(counts)[::-1] / max(counts.sum(), 1)
  used = share[share > 0]
  axes.bar(np.arange(len(share)), share, width=1.0)
  axes.axhline(1 / len(share), color="black", linewidth=0.8, linestyle="--", label="all alike")
  perplexity = np.exp(-(used * np.log(used)).sum())
  axes.set(xlabel="code, by rank", ylabel="share",
           title=f"{len(used)} of {len(share)} codes are used, perplexity {perplexity:.0f}")
  axes.legend()
  return figure


def _draw_points(plt: Any, drawing: Any) -> Any:
  items = drawing.dataset.items
  rows = np.asarray(items)[np.linspace(0, len(items) - 1, min(len(items), NUM_POINTS)).astype(int)]
  samples = jax.jit(drawing.outputs["sample"], static_argnums=2)(
      drawing.state, jax.random.key(drawing.seed), len(rows))
  return points(plt, drawing.encoder.encode(rows)["x"], np.asarray(samples))


def _draw_walks(plt: Any, drawing: Any) -> Any:
  """Walks between samples, and uniformly random images."""
  draw = jax.jit(drawing.outputs["interpolate"], static_argnums=2)
  rows = [np.asarray(draw(drawing.state, jax.random.fold_in(jax.random.key(drawing.seed), walk), STEPS))
          for walk in range(WALKS)]
  noise = np.random.default_rng(drawing.seed).random((NUM_IMAGES, *rows[0].shape[1:]))
  return rows_of_images(plt, [*rows, noise], [f"walk {i + 1}" for i in range(WALKS)] + ["uniform pixels"],
                        "Walks between samples, and uniformly random images")


def _draw_frequencies(plt: Any, drawing: Any) -> Any:
  items = drawing.dataset.items
  rows = np.asarray(drawing.dataset.split.get("test", np.arange(len(items))))
  rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), NUM_ITEMS)).astype(int)]
  codes = drawing.output("codes", drawing.encoder.encode([items[i] for i in rows]))
  return frequencies(plt, np.bincount(codes.reshape(-1), minlength=len(drawing.state.extra["counts"])))


def _sample_axes(drawing: Any) -> int:
  """Returns the number of axes of samples."""
  shape = jax.eval_shape(lambda state, rng: drawing.outputs["sample"](state, rng, 2), drawing.state,
                         jax.random.key(0)).shape
  return len(shape) if len(shape) == 4 or shape[-1] == 2 else 0


FIGURES = (
    Figure("players", lambda plt, drawing: players(plt, drawing.log),
           metrics=("generator_loss", "discriminator_loss", "real_score", "fake_score", "spread")),
    Figure("points", _draw_points, outputs=("sample", "interpolate"),
           applies=lambda drawing: _sample_axes(drawing) == 2),
    Figure("interpolations", _draw_walks, outputs=("sample", "interpolate"),
           applies=lambda drawing: _sample_axes(drawing) == 4),
    Figure("codebook", _draw_frequencies, outputs=("codes",)),
)
