"""Topics, and documents by what they are about."""
from collections.abc import Sequence
from typing import Any

import numpy as np

from embeddings_jax.eval.topics import top_words
from embeddings_jax.types import Figure

NUM_DOCUMENTS = 1000
NUM_TOPICS = 12  # Those with the most occurrences are drawn, with
NUM_TOPIC_WORDS = 10  # words each.


def topics(plt: Any, beta: np.ndarray, weights: np.ndarray, words: Sequence[str]) -> Any:
  """The most probable words of the most frequent topics [k, V], as bars of p(w|z)."""
  chosen = np.argsort(-weights, kind="stable")[:NUM_TOPICS]
  columns = min(4, len(chosen))
  rows = -(-len(chosen) // columns)
  figure, grid = plt.subplots(rows, columns, figsize=(3.2 * columns, 2.6 * rows), squeeze=False)
  for axes in grid.flat:
    axes.set_axis_off()
  for axes, topic in zip(grid.flat, chosen):
    best = top_words(beta[topic][None], NUM_TOPIC_WORDS)[0]
    axes.set_axis_on()
    axes.barh([words[i] for i in best], beta[topic, best], color="tab:blue", height=0.7)
    axes.invert_yaxis()
    axes.tick_params(labelsize=8)
    axes.locator_params(axis="x", nbins=3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(f"topic {topic}: {weights[topic]:.1%} of the words", fontsize=9)
  figure.suptitle("Probable words of the largest topics, p(w|z)")
  figure.tight_layout()
  return figure


def document_map(plt: Any, vectors: np.ndarray, label: str, classes: np.ndarray) -> Any:
  """A sample of documents by t-SNE of the cosine distances of their vectors, colored by a label."""
  from sklearn.manifold import TSNE
  from threadpoolctl import threadpool_limits  # scikit-learn brings it.

  known = np.flatnonzero(np.ptp(vectors, axis=1) > 1e-6)  # Not those without a known word.
  if len(known) < 5:
    known = np.arange(len(vectors))
  rows = np.sort(np.random.default_rng(0).permutation(known)[:NUM_DOCUMENTS])
  chosen = vectors[rows] / np.maximum(np.linalg.norm(vectors[rows], axis=1, keepdims=True), 1e-12)
  perplexity = min(30, (len(rows) - 1) / 3)
  with threadpool_limits(1):  # Threads that wait for each other on a busy machine take ten times as long.
    points = TSNE(metric="cosine", init="random", perplexity=perplexity, random_state=0).fit_transform(chosen)
  names, group = np.unique(classes[rows], return_inverse=True)
  colors = plt.get_cmap("tab10" if len(names) <= 10 else "tab20")
  figure, axes = plt.subplots(figsize=(9, 8))
  for i, name in enumerate(names):
    axes.scatter(*points[group == i].T, s=9, color=colors(i % colors.N), marker="os^v"[i // colors.N % 4], label=name,
                 linewidths=0)
  if len(names) <= 40:
    axes.legend(title=label, fontsize="small", loc="upper left", bbox_to_anchor=(1, 1), markerscale=2, frameon=False)
  axes.set(xticks=[], yticks=[], xlabel="first t-SNE axis", ylabel="second t-SNE axis",
           title=f"{len(rows)} documents by {label} (t-SNE of cosine distances)")
  return figure


def _has_topics(drawing: Any) -> bool:
  return hasattr(drawing.encoder, "bag") and {"beta", "weights"} <= drawing.components.keys()


def _draw_topics(plt: Any, drawing: Any) -> Any:
  return topics(plt, drawing.components["beta"], drawing.components["weights"], drawing.encoder.vocabulary.words)


def _draw_documents(plt: Any, drawing: Any) -> Any:
  label, classes = next(iter(drawing.dataset.labels.items()), ("", ()))
  if len(classes) != len(drawing.embeddings):
    return None
  # Square roots of topics' shares: their cosine is the Bhattacharyya coefficient.
  vectors = np.sqrt(drawing.embeddings) if _has_topics(drawing) else drawing.embeddings
  return document_map(plt, vectors, label, classes)


FIGURES = (
    Figure("topics", _draw_topics, outputs=("components",), applies=_has_topics),
    Figure("documents", _draw_documents, applies=lambda drawing: hasattr(drawing.encoder, "bag")),
)
