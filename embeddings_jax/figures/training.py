"""Training curves, and probe accuracy by layer."""
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from embeddings_jax.types import Figure


def loss_curve(plt: Any, records: Sequence[dict[str, float]], subject: str = "") -> Any:
  """Training loss by step; `subject` names the model and its data."""
  figure, axes = plt.subplots(figsize=(6, 4))
  axes.plot([r["step"] for r in records], [r["loss"] for r in records])
  axes.set(xlabel="step (updates)", ylabel="training loss", title=subject or "Training loss")
  axes.grid(alpha=0.3)
  return figure


def bounds(plt: Any, records: Sequence[dict[str, float]]) -> Any:
  figure, axes = plt.subplots(figsize=(6, 4))
  steps = [r["step"] for r in records]
  names = sorted((name for name in records[-1] if name.startswith("bound_")), key=lambda name: int(name[6:]))
  colors = plt.get_cmap("viridis")(np.linspace(0, 0.9, len(names)))
  for name, color in zip(names, colors):
    axes.plot(steps, [r[name] for r in records], color=color, label=f"{name[6:]} ahead")
  if "log_num_candidates" in records[-1]:
    axes.axhline(records[-1]["log_num_candidates"], color="black", linestyle="--", label="log N")
  axes.set(xlabel="step", ylabel="nats", title="InfoNCE's lower bound on the mutual information")
  axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))  # Beside: the curves fill the axes.
  axes.grid(alpha=0.3)
  return figure


def collapse(plt: Any, records: Sequence[dict[str, float]]) -> Any:
  """Loss and spread of the vectors: a low loss of vectors that are all alike is worth nothing."""
  figure, (top, bottom) = plt.subplots(2, sharex=True, figsize=(6, 5), layout="constrained")
  steps = [record["step"] for record in records]
  top.plot(steps, [record["loss"] for record in records])
  top.set_ylabel("loss")
  bottom.plot(steps, [record["deviation"] for record in records])
  bottom.axhline(0, color="gray", linewidth=0.8)
  bottom.axhline(1, color="gray", linewidth=0.8, linestyle="--")
  bottom.set(xlabel="step", ylabel="deviation", ylim=(-0.05, 1.1), title="0: collapsed; 1: directions at random")
  return figure


def pretraining(plt: Any, records: Sequence[dict[str, float]], facts: Mapping[str, Any]) -> Any:
  """Losses and accuracies of masked words and, where there are pairs, of next sentences, beside what is known without
  learning: the frequencies of words, and of pairs that follow each other (a half in records that lack it)."""
  steps = [record["step"] for record in records]
  share = facts["counts"] / facts["counts"].sum()
  entropy = -float(np.sum(share[share > 0] * np.log(share[share > 0])))
  tasks = [("masked", "masked words", entropy, float(share.max()), "word frequencies")]
  if "next_loss" in records[-1]:
    true = float(np.mean([record.get("next_share", 0.5) for record in records]))
    entropy = -true * np.log(true) - (1 - true) * np.log1p(-true) if 0 < true < 1 else 0.0
    tasks.append(("next", "next sentence", entropy, max(true, 1 - true), "their frequency"))
  figure, rows = plt.subplots(len(tasks), 2, figsize=(9, 3 * len(tasks)), squeeze=False, sharex=True)
  for axes, (name, title, loss, accuracy, known) in zip(rows, tasks):
    for ax, kind, base in zip(axes, ("loss", "accuracy"), (loss, accuracy)):
      ax.plot(steps, [record[f"{name}_{kind}"] for record in records])
      ax.axhline(base, color="gray", linestyle="--", linewidth=1, label=known)
      ax.set_title(title)
      ax.set_ylabel("loss (nats)" if kind == "loss" else kind)
      ax.legend()
  for ax in rows[-1]:
    ax.set_xlabel("step")
  figure.tight_layout()
  return figure


def probing(plt: Any, name: str, accuracies: Mapping[str, float]) -> Any:
  """Weights of the layers in the mixture, what each adds to those below it, and what it tells alone."""
  layers = range(sum(key.startswith("mix_") for key in accuracies))
  scores = {kind: [accuracies[f"test/{kind}_{i}/accuracy"] for i in layers] for kind in ("layer", "cumulative")}
  figure, (weights, gains, accuracy) = plt.subplots(1, 3, figsize=(11, 3.2))
  weights.bar(layers, [accuracies[f"mix_{i}"] for i in layers], color="tab:blue")
  weights.set(ylabel="weight in the mixture", title=f"center of gravity {accuracies['center_of_gravity']:.2f}")
  weights.axvline(accuracies["center_of_gravity"], color="black", linestyle=":")
  gains.bar(layers[1:], np.diff(scores["cumulative"]), color="tab:purple")
  expected = accuracies.get("expected_layer", float("nan"))
  gains.set(ylabel="accuracy that it adds", xlim=weights.get_xlim())
  gains.set_title(f"expected layer {expected:.2f}" if np.isfinite(expected) else "upper layers add nothing")
  if np.isfinite(expected):
    gains.axvline(expected, color="black", linestyle=":")
  gains.axhline(0, color="black", linewidth=0.8)
  accuracy.plot(layers, scores["layer"], marker="o", label="this layer")
  accuracy.plot(layers, scores["cumulative"], marker="s", label="up to this layer")
  for key, style in (("untrained", "--"), ("majority", ":")):
    if f"test/{key}/accuracy" in accuracies:
      accuracy.axhline(accuracies[f"test/{key}/accuracy"], color="gray", linestyle=style, label=key)
  accuracy.set(ylabel="accuracy", title="linear probes")
  accuracy.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
  for axes in (weights, gains, accuracy):
    axes.set(xlabel="layer", xticks=layers if len(layers) <= 13 else layers[::4])
    axes.spines[["top", "right"]].set_visible(False)
  figure.suptitle(name)
  figure.tight_layout()
  return figure


def draw_probing(plt: Any, drawing: Any) -> dict[str, Any]:
  """Draws each dataset that the protocol `probing` was asked about."""
  names = [key.removesuffix("/mix_0") for key in drawing.metrics if key.endswith("/mix_0")]
  return {f"probing_{name}": probing(plt, name, {key.removeprefix(f"{name}/"): value
                                                 for key, value in drawing.metrics.items()
                                                 if key.startswith(f"{name}/")}) for name in names}


def _learns(drawing: Any) -> bool:
  """Returns whether the loss took a course: that of a closed form is there at once, or after a last batch."""
  return len({record["loss"] for record in drawing.log}) > 2


FIGURES = (
    Figure("loss", lambda plt, drawing: loss_curve(plt, drawing.log, drawing.subject), metrics=("loss",),
           applies=_learns),
    Figure("bound", lambda plt, drawing: bounds(plt, drawing.log), metrics=("bound_1",)),
    Figure("collapse", lambda plt, drawing: collapse(plt, drawing.log), metrics=("deviation",)),
    Figure("pretraining", lambda plt, drawing: pretraining(plt, drawing.log, drawing.facts),
           metrics=("masked_loss", "masked_accuracy")),
    Figure("probing", draw_probing, evaluations=("*/mix_0",)),
)
