"""Figures of words with several senses."""
from collections.abc import Mapping
from typing import Any

from embeddings_jax.types import Figure


def distances(plt: Any, word: str, values: Mapping[str, float]) -> Any:
  """Draws the mean distance of a word's vectors within and between its senses, by layer.

  Args:
    plt: matplotlib's pyplot.
    word: The word.
    values: `{metric}` of a model of words, or `layer_{l}/{metric}`.
  """
  layers = sorted(int(key.split("/")[0].removeprefix("layer_")) for key in values if key.endswith("/between"))
  prefixes = [f"layer_{i}/" for i in layers] or [""]
  figure, axis = plt.subplots(figsize=(4, 3), layout="constrained")
  for shift, (name, label) in enumerate((("within", "of one sense"), ("between", "of two senses"))):
    axis.bar([i + 0.4 * shift - 0.2 for i in range(len(prefixes))], [values[prefix + name] for prefix in prefixes],
             width=0.4, label=label)
  axis.set(ylabel="mean distance, 1 - cosine", title=word, xticks=range(len(prefixes)))
  axis.set_xticklabels([str(i) for i in layers] or ["word vector"])
  if layers:
    axis.set_xlabel("layer")
  axis.legend(fontsize="small", frameon=False)
  axis.spines[["top", "right"]].set_visible(False)
  return figure


def _draw(plt: Any, drawing: Any) -> dict[str, Any]:
  """Draws each word of which the protocol `polysemy` was asked."""
  words: dict[str, dict[str, float]] = {}
  for key, value in drawing.metrics.items():
    parts = key.split("/")
    if parts[-1] not in ("within", "between"):
      continue
    size = 2 if len(parts) > 1 and parts[-2].startswith("layer_") else 1
    if len(parts) > size:
      words.setdefault("/".join(parts[:-size]), {})["/".join(parts[-size:])] = value
  return {f"senses_{word.replace('/', '_')}": distances(plt, word, values) for word, values in words.items()}


FIGURES = (Figure("senses", _draw, evaluations=("*between",)),)
