"""Words and sentences: maps, analogies, and cosines against people's judgments."""
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from embeddings_jax.data import wordsets
from embeddings_jax.eval import pairs, word_similarity
from embeddings_jax.eval.metrics import spearman
from embeddings_jax.eval.word_similarity import known_form
from embeddings_jax.types import Figure, InputError

NUM_WORDS = 150
SKIPPED_WORDS = 100  # The most frequent words are function words, which say little on a map.
NUM_RELATED = 5  # Pairs on the map.
# Pairs that stand in one relation, for the parallelograms; of the first list with three known pairs.
RELATIONS = {
    "country and capital": ("France Paris", "Germany Berlin", "Italy Rome", "Russia Moscow", "Japan Tokyo",
                            "Spain Madrid", "Greece Athens"),
    "man and woman": ("man woman", "king queen", "father mother", "son daughter", "brother sister", "he she"),
    "one and many": ("array arrays", "value values", "function functions", "row rows", "element elements",
                     "word words", "day days", "group groups"),
}


def word_map(plt: Any, vectors: np.ndarray, names: Sequence[str], method: str) -> Any:
  first = SKIPPED_WORDS if len(names) >= SKIPPED_WORDS + 20 else 0
  chosen = vectors[first:first + NUM_WORDS]
  chosen = chosen / np.maximum(np.linalg.norm(chosen, axis=1, keepdims=True), 1e-12)
  if method == "PCA":
    points, share = principal_plane(chosen)
    title = f"Frequent words (PCA of unit vectors: {share:.0%} of the variance)"
  else:
    from sklearn.manifold import TSNE

    perplexity = min(15, (len(chosen) - 1) / 3)
    points = TSNE(metric="cosine", init="random", perplexity=perplexity, random_state=0).fit_transform(chosen)
    title = "Frequent words (t-SNE of cosine distances)"
  figure, axes = plt.subplots(figsize=(11, 9))
  axes.scatter(*points.T, s=4)
  axis = "principal component" if method == "PCA" else "t-SNE axis"
  axes.set(xticks=[], yticks=[], xlabel=f"first {axis}", ylabel=f"second {axis}", title=title)
  _label(figure, axes, points, names[first:])
  return figure


def _label(figure: Any, axes: Any, points: np.ndarray, names: Sequence[str], fontsize: int = 7) -> None:
  """Writes names beside their points, each on the first side on which it stands within the frame and covers no other,
  if there is one, else on one within the frame."""
  sides = [(x, y) for y in (1, -1, 0) for x in (1, -1)] + [(0, 1), (0, -1)]
  figure.canvas.draw()  # Limits are settled then.
  renderer, taken = figure.canvas.get_renderer(), []
  frame = axes.get_window_extent(renderer)
  for point, name in zip(points, names):
    fallback = None
    for x, y in sides:
      text = axes.annotate(
          name, point, (4 * x if not y else 2 * x, 2 * y), textcoords="offset points", fontsize=fontsize,
          ha={1: "left", 0: "center", -1: "right"}[x], va={1: "bottom", 0: "center", -1: "top"}[y])
      box = text.get_window_extent(renderer)
      inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
      if inside and not any(box.overlaps(other) for other in taken):
        break
      text.remove()
      if fallback is None or inside and not fallback[2]:
        fallback = text, box, inside
    else:
      text, box, _ = fallback
      axes.add_artist(text)
    taken.append(box)


def principal_plane(points: np.ndarray) -> tuple[np.ndarray, float]:
  """Points [n, d] on their first two principal components, [n, 2], and the share of the variance there."""
  centered = points - points.mean(0)
  left, size, _ = np.linalg.svd(centered, full_matrices=False)
  left, size = (np.pad(left, [(0, 0), (0, 2)]), np.pad(size, (0, 2)))  # There may be fewer than two.
  return left[:, :2] * size[:2], float((size[:2] ** 2).sum() / max((size**2).sum(), 1e-30))


def analogy(plt: Any, vectors: np.ndarray, row: Mapping[str, int]) -> Any:
  """The parallelograms of the first of `RELATIONS` with three pairs of known words, or None."""
  for relation, related in RELATIONS.items():
    known = [[known_form(word, row) for word in pair.split()] for pair in related]
    known = [pair for pair in known if None not in pair][:NUM_RELATED]
    if len(known) >= 3:
      return parallelograms(plt, vectors[[[row[word] for word in pair] for pair in known]], known, relation)
  return None


def parallelograms(plt: Any, pairs: np.ndarray, names: Sequence[Sequence[str]], relation: str) -> Any:
  """Pairs of words [n, 2, d] on the plane of their unit vectors' first two principal components."""
  normalized = pairs / np.maximum(np.linalg.norm(pairs, axis=2, keepdims=True), 1e-12)
  points, share = principal_plane(normalized.reshape(-1, normalized.shape[-1]))
  points = points.reshape(len(pairs), 2, 2)
  # Beside each other lie the pairs that are neighbors across the arrows, so that the gray lines do not cross.
  arrow = (points[:, 1] - points[:, 0]).mean(0)
  order = np.argsort(points.mean(1) @ [-arrow[1], arrow[0]])
  points, names = points[order], [names[i] for i in order]
  figure, axes = plt.subplots(figsize=(8, 6))
  for column, color in enumerate(("tab:blue", "tab:orange")):
    axes.plot(*points[:, column].T, color="0.85", linewidth=0.8, zorder=1)
    axes.scatter(*points[:, column].T, s=18, color=color, zorder=3)
  for pair in points:
    axes.annotate("", pair[1], pair[0], arrowprops={"arrowstyle": "->", "color": "0.4", "shrinkA": 4, "shrinkB": 4})
  axes.margins(0.15, 0.1)
  _label(figure, axes, points.reshape(-1, 2), [word for pair in names for word in pair], fontsize=9)
  axes.set(xlabel="first principal component", ylabel="second principal component",
           title=f"{relation.capitalize()} (PCA of unit vectors: {share:.0%} of the variance)")
  return figure


def similarity_scatter(plt: Any, vectors: np.ndarray, row: dict[str, int], name: str, data_dir: str | None) -> Any:
  """People's ratings against cosines, or None where the data or the words are missing."""
  try:
    pairs = wordsets.word_similarity(name, data_dir)
  except InputError:  # The evaluation has said so.
    return None
  embed = lambda words: vectors[[row[word] for word in words]]
  known, cosine, ratings = word_similarity.scored_pairs(embed, pairs, vocabulary=row)
  if len(known) < 2:
    return None
  spearman = word_similarity.word_similarity(embed, pairs, vocabulary=row)["spearman"]
  figure, axes = plt.subplots(figsize=(7, 6))
  axes.scatter(ratings, cosine, s=10, alpha=min(1, 0.15 + 150 / len(known)), linewidths=0)
  # The pairs on whose ranks people and vectors differ most.
  rank = lambda values: np.argsort(np.argsort(values))
  apart = rank(cosine) - rank(ratings)
  named = sorted({*np.argsort(apart)[:5], *np.argsort(-apart)[:5]})
  axes.scatter(ratings[named], cosine[named], s=12, color="tab:red", linewidths=0)
  axes.margins(0.12, 0.05)
  _label(figure, axes, np.stack([ratings[named], cosine[named]], 1), ["-".join(known[i]) for i in named])
  axes.set(xlabel="people's rating", ylabel="cosine",
           title=f"{name}: {len(known)} of {len(pairs)} pairs, Spearman {spearman:.3f}")
  axes.grid(alpha=0.3)
  return figure


def score_scatter(plt: Any, score: np.ndarray, cosine: np.ndarray, title: str) -> Any:
  """Pairs as points, and of each whole score the median cosine with the middle half."""
  figure, axes = plt.subplots(figsize=(7, 5))
  axes.scatter(score, cosine, s=10, alpha=min(1, 0.15 + 150 / len(score)), linewidths=0)
  near = {whole: cosine[np.rint(score) == whole] for whole in np.unique(np.rint(score))}
  low, middle, high = np.array([np.quantile(values, [0.25, 0.5, 0.75]) for values in near.values()]).T
  axes.errorbar(list(near), middle, [middle - low, high - middle], color="tab:red", marker="o", capsize=4,
                label="median and middle half")
  axes.set(xlabel="people's score", ylabel="cosine",
           title=f"{title}: {len(score)} pairs, Spearman {spearman(cosine, score):.3f}")
  axes.grid(alpha=0.3)
  axes.legend(loc="lower right")
  return figure


def _draw_analogy(plt: Any, drawing: Any) -> Any:
  return analogy(plt, *drawing.word_vectors())


def _draw_similarity(plt: Any, drawing: Any) -> dict[str, Any]:
  """Draws each list of pairs that the protocol `word_similarity` was asked about."""
  names = [key.removesuffix("/pairs") for key in drawing.metrics if key.endswith("/pairs")]
  made = {f"similarity_{name}": similarity_scatter(plt, *drawing.word_vectors(), name, drawing.evaluator.data_dir)
          for name in names if name in wordsets.WORD_SIMILARITY}
  return {name: figure for name, figure in made.items() if figure}


def _draw_scores(plt: Any, drawing: Any) -> Any:
  dataset = drawing.evaluator.load("sts-b")
  rows = dataset.split["test"]
  cosine = pairs.cosines(*pairs.embedded(drawing.evaluator.sentences, [dataset.items[i] for i in rows], "sts"))
  return score_scatter(plt, np.asarray(dataset.labels["score"])[rows], cosine, "STS Benchmark, test")


def _of_words(drawing: Any) -> bool:
  return getattr(drawing.dataset, "graph", None) is None  # Nodes of a graph have names too.


FIGURES = (
    Figure("words", lambda plt, drawing: word_map(plt, drawing.word_vectors()[0], drawing.encoder.names, "t-SNE"),
           vocabulary=True, applies=_of_words),
    Figure("words_pca", lambda plt, drawing: word_map(plt, drawing.word_vectors()[0], drawing.encoder.names, "PCA"),
           vocabulary=True, applies=_of_words),
    Figure("analogy", _draw_analogy, vocabulary=True, applies=_of_words),
    Figure("similarity", _draw_similarity, evaluations=("*/pairs",), vocabulary=True),
    Figure("sts", _draw_scores, evaluations=("sts-b/test/spearman",), embeds=True),
)
