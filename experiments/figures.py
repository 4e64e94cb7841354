"""Figures of a run, drawn from its log and from the model's named outputs. Alone in importing matplotlib."""
import functools
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from embeddings_jax.data import catalog, wordsets
from embeddings_jax.eval import pairs, word_similarity
from embeddings_jax.eval.metrics import spearman
from embeddings_jax.eval.topics import top_words
from embeddings_jax.eval.word_similarity import known_form
from embeddings_jax.ops.augment import augmented
from embeddings_jax.ops.pixels import unit
from embeddings_jax.train.loop import programs
from embeddings_jax.types import InputError, Model, PyTree
from experiments import workdir

NUM_WORDS = 150
NUM_DOCUMENTS = 1000
NUM_TOPICS = 12  # Those with the most occurrences are drawn, with
NUM_TOPIC_WORDS = 10  # words each.
COURSE = (0, 1, 2, 5, 10)  # Iterations of a mixture that are drawn beside its last.
COURSE_ROWS = 20_000  # Of larger sets no iteration is repeated for a figure.
SHOWN_ROWS = 300  # Rows of which responsibilities are drawn.
NUM_PICTURES = 12  # Of which masks and reconstructions are drawn.
SKIPPED_WORDS = 100  # The most frequent words are function words, which say little on a map.


# Pairs that stand in one relation, for the parallelograms; of the first list with three known pairs.
RELATIONS = {
    "country and capital": ("France Paris", "Germany Berlin", "Italy Rome", "Russia Moscow", "Japan Tokyo",
                            "Spain Madrid", "Greece Athens"),
    "man and woman": ("man woman", "king queen", "father mother", "son daughter", "brother sister", "he she"),
    "one and many": ("array arrays", "value values", "function functions", "row rows", "element elements",
                     "word words", "day days", "group groups"),
}
NUM_RELATED = 5  # Pairs on the map.


def draw(
    path: epath.Path, model: Model, state: PyTree, data: Any, vectors: np.ndarray, names: Any, *,
    evals: Sequence[str] = (), data_dir: str | None = None, seed: int = 0,
) -> list[str]:
  """Draws what the model, its log and its evaluations give, into `figures/`; returns the files' names."""
  import matplotlib

  matplotlib.use("Agg")
  from matplotlib import pyplot as plt

  folder = path / "figures"
  folder.mkdir(parents=True, exist_ok=True)
  records = [record for record in workdir.read_metrics(path) if "loss" in record]
  made = {}
  if records:
    made["loss"] = _loss_curve(plt, records)
  if records and "bound_1" in records[-1]:
    made["bound"] = _bounds(plt, records)
  if records and "deviation" in records[-1]:
    made["collapse"] = _collapse(plt, records)
  if records and "masked_loss" in records[-1]:
    made["pretraining"] = _pretraining(plt, records, data.source.facts)
  if "components" in model.outputs and data.encoder.kind == "rows":
    parts = jax.tree.map(np.asarray, model.outputs["components"](state, None, None))
    if {"means", "covariances"} <= parts.keys():
      resp = vectors if len(vectors) == len(data.dataset.items) else None  # Of a sample, where the set is large.
      if resp is not None:
        made["mixture"] = _mixture(plt, parts, data, resp)
        made["responsibilities"] = _responsibilities(plt, resp, seed)
      steps = records[-1]["step"] if records else 0
      if data.source.whole and data.source.batch_size <= COURSE_ROWS and parts["means"].shape[1] > 1 and steps:
        made["mixture_course"] = _mixture_course(plt, model, state, data, seed, steps)
    if "explained_variance_ratio" in parts:
      made |= _principal_components(plt, parts, data)
  if "reconstruct" in model.outputs and data.encoder.kind == "images":
    chosen = np.linspace(0, len(data.dataset.items) - 1, NUM_PICTURES).astype(int)
    batch = data.encoder.encode(np.stack([data.dataset.items[i] for i in chosen]))
    found = jax.tree.map(np.asarray, jax.jit(model.outputs["reconstruct"])(state, batch, None))
    made["reconstructions"] = _hidden_patches(plt, found)
  if data.encoder.kind == "bags":
    parts = model.outputs["components"](state, None, None) if "components" in model.outputs else {}
    if {"beta", "weights"} <= parts.keys():
      made["topics"] = _topics(plt, *(np.asarray(parts[name]) for name in ("beta", "weights")),
                               data.encoder.vocabulary.words)
    labels = next(iter(data.dataset.labels.items()), None)
    if labels and len(labels[1]) == len(vectors):
      made["documents"] = _document_map(plt, np.sqrt(vectors) if "topics" in made else vectors, *labels)
  if data.encoder.names is not None:
    made["words"] = _word_map(plt, vectors, names, "t-SNE")
    made["words_pca"] = _word_map(plt, vectors, names, "PCA")
    row = {name: i for i, name in enumerate(names)}
    for relation, pairs in RELATIONS.items():
      known = [[known_form(word, row) for word in pair.split()] for pair in pairs]
      known = [pair for pair in known if None not in pair][:NUM_RELATED]
      if len(known) >= 3:
        chosen = vectors[[[row[word] for word in pair] for pair in known]]
        made["analogy"] = _parallelograms(plt, chosen, known, relation)
        break
    for name in evals:
      protocol, _, other = name.partition(":")
      if protocol == "word_similarity":
        figure = _similarity_scatter(plt, vectors, row, other or "ws353", data_dir)
        made |= {f"similarity_{other or 'ws353'}": figure} if figure else {}
  for name, figure in made.items():
    with (folder / f"{name}.png").open("wb") as file:
      figure.savefig(file, dpi=120, bbox_inches="tight")
    plt.close(figure)
  return [f"figures/{name}.png" for name in made]


def draw_probing(path: epath.Path, metrics: Mapping[str, float]) -> list[str]:
  """Draws what the protocol `probing` found of each data set, into `figures/`; returns the files' names."""
  names = [key.removesuffix("/mix_0") for key in metrics if key.endswith("/mix_0")]
  if not names:
    return []
  import matplotlib

  matplotlib.use("Agg")
  from matplotlib import pyplot as plt

  (path / "figures").mkdir(parents=True, exist_ok=True)
  for name in names:
    figure = _probing(plt, name, {key.removeprefix(f"{name}/"): value for key, value in metrics.items()
                                  if key.startswith(f"{name}/")})
    with (path / "figures" / f"probing_{name}.png").open("wb") as file:
      figure.savefig(file, dpi=120, bbox_inches="tight")
    plt.close(figure)
  return [f"figures/probing_{name}.png" for name in names]


def draw_information_bounds(path: str, rows: Sequence[Mapping[str, Any]]) -> None:
  """Draws what `experiments.benchmark mutual_information` found into the file `path`.

  Args:
    path: of the picture.
    rows: each with `bound`, `num`, `truth`, and the means `trained` and `best` and their `_deviation`s over batches.
  """
  import matplotlib

  matplotlib.use("Agg")
  from matplotlib import pyplot as plt

  figure = _information_bounds(plt, rows)
  with epath.Path(path).open("wb") as file:
    figure.savefig(file, dpi=120, bbox_inches="tight", format="png")
  plt.close(figure)


def draw_label_gain(path: str, rows: Sequence[Mapping[str, Any]], title: str) -> None:
  """Draws what `experiments.benchmark labels` found into the file `path`.

  Args:
    path: of the picture.
    rows: each with the number of `labels`, and for each way to learn from them its accuracy and `... deviation`.
    title: of the picture.
  """
  ways = [name for name in rows[0] if name != "labels" and not name.endswith(" deviation")]
  _draw_lines(path, [row["labels"] for row in rows],
              {name: [(row[name], row[f"{name} deviation"]) for row in rows] for name in ways},
              title, "labels of the training part", "accuracy on the test part", log=True)


def draw_mask_ratios(path: str, rows: Sequence[Mapping[str, Any]], title: str) -> None:
  """Draws what `experiments.benchmark mask_ratios` found into the file `path`.

  Args:
    path: of the picture.
    rows: each with `mask_ratio`, `accuracy` and its `deviation`.
    title: of the picture.
  """
  _draw_lines(path, [row["mask_ratio"] for row in rows],
              {"linear probe": [(row["accuracy"], row["deviation"]) for row in rows]},
              title, "share of patches that is hidden", "accuracy on the test part")


def _draw_lines(path: str, x: Sequence[float], lines: Mapping[str, Sequence[tuple[float, float]]], title: str,
                xlabel: str, ylabel: str, log: bool = False) -> None:
  """A line for each name, of (value, deviation) by x."""
  import matplotlib

  matplotlib.use("Agg")
  from matplotlib import pyplot as plt

  figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
  for name, points in lines.items():
    values, deviations = np.transpose(points)
    axes.errorbar(x, values, deviations if deviations.any() else None, marker="o", capsize=3, label=name)
  if log:
    axes.set_xscale("log")
  axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
  axes.grid(alpha=0.3)
  if len(lines) > 1:
    axes.legend(frameon=False)
  with epath.Path(path).open("wb") as file:
    figure.savefig(file, dpi=120, bbox_inches="tight", format="png")
  plt.close(figure)


def _information_bounds(plt: Any, rows: Sequence[Mapping[str, Any]]) -> Any:
  """InfoNCE against the truth for each number of pairs, below log N; and the bounds beside each other for one."""
  names = {"info_nce": "InfoNCE", "nwj": "NWJ", "donsker_varadhan": "Donsker-Varadhan (MINE)"}
  column = lambda name, num, key: np.array([row[key] for row in rows if (row["bound"], row["num"]) == (name, num)])
  sizes = sorted({row["num"] for row in rows if row["bound"] == "info_nce"})
  compared = next((row["num"] for row in rows if row["bound"] != "info_nce"), sizes[-1])
  largest = max(row["truth"] for row in rows)
  figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), sharex=True, sharey=True)
  for axes in (left, right):
    axes.plot([0, largest], [0, largest], color="black", linewidth=1, label="the truth")
    axes.set(xlabel="mutual information (nats)", xlim=(0, 1.04 * largest), ylim=(0, 1.04 * largest))
    axes.grid(alpha=0.3)
  note = dict(textcoords="offset points", fontsize=8)
  for i, num in enumerate(sizes):
    color, truth = f"C{i}", column("info_nce", num, "truth")
    left.axhline(np.log(num), color=color, linestyle="--", linewidth=0.8)
    left.annotate(f"log {num}", (0, np.log(num)), (4, 2), color=color, **note)
    left.plot(truth, column("info_nce", num, "best"), color=color, linewidth=1)
    left.plot(truth, column("info_nce", num, "trained"), color=color, marker="o", markersize=5, linestyle="",
              label=f"N = {num}")
  left.plot([], [], color="0.4", linewidth=1, label="with the best critic")
  left.set(ylabel="lower bound (nats)", title="InfoNCE (points: trained critics)")
  left.legend(fontsize="small", loc="lower right", ncols=3)
  right.axhline(np.log(compared), color="0.4", linestyle="--", linewidth=0.8)
  right.annotate(f"log {compared}", (0, np.log(compared)), (4, 2), color="0.4", **note)
  for i, (name, label) in enumerate(names.items()):
    truth = column(name, compared, "truth")
    if len(truth):
      mean, deviation = (column(name, compared, key) for key in ("trained", "trained_deviation"))
      right.errorbar(truth + 0.06 * (i - 1), mean, deviation, color=f"C{len(sizes) + i}", marker="os^"[i],
                     markersize=5, linewidth=1, elinewidth=1, capsize=2, label=label)
  right.set(title=f"Trained critics, N = {compared} (bars: deviation over batches)")
  right.legend(fontsize="small", loc="lower right")
  figure.tight_layout()
  return figure


def draw_augmentations(path: str, images: np.ndarray, ops: Mapping[str, Callable], *, num_draws: int = 2,
                       seed: int = 0) -> None:
  """Draws pictures, and several draws of each change of them, into the file `path`.

  Args:
    path: of the picture, a PNG.
    images: [n, height, width, channels], bytes or floats in [0, 1].
    ops: what to do with a picture, as in `ops/augment.py`, by what it is called.
    num_draws: of each picture and change.
    seed: of the draws.
  """
  import matplotlib
  from PIL import Image

  matplotlib.use("Agg")
  from matplotlib import pyplot as plt

  figure = _augmentations(plt, images, ops, num_draws, seed)
  drawn = io.BytesIO()
  figure.savefig(drawn, dpi=100, bbox_inches="tight", format="png")
  plt.close(figure)
  with epath.Path(path).open("wb") as file:  # 256 colours: a third of the bytes, and hardly to be seen.
    Image.open(drawn).convert("RGB").quantize(256).save(file, format="PNG", optimize=True)


def _augmentations(plt: Any, images: np.ndarray, ops: Mapping[str, Callable], num_draws: int, seed: int) -> Any:
  """A block for the originals and for each change: a row for each picture, a column for each draw."""

  def block(columns):
    """[column, picture, height, width, channels] side by side, with white lines between them."""
    framed = np.pad(np.asarray(columns), ((0, 0), (0, 0), (0, 2), (0, 2), (0, 0)), constant_values=1)
    rows = framed.transpose(1, 2, 0, 3, 4).reshape(-1, framed.shape[0] * framed.shape[3], framed.shape[4])
    return rows if rows.shape[-1] == 3 else np.repeat(rows, 3, -1)

  images = jax.device_put(images)
  blocks = {"original": block([unit(images)])}
  for rng, (name, op) in zip(jax.random.split(jax.random.key(seed), len(ops)), ops.items()):
    many = jax.jit(functools.partial(augmented, op))
    blocks[name] = block([many(key, images) for key in jax.random.split(rng, num_draws)])
  num_columns = min(5, len(blocks))
  num_rows = -(-len(blocks) // num_columns)
  height, width = max(block.shape[0] for block in blocks.values()), max(block.shape[1] for block in blocks.values())
  scale = 2 / max(height, width)  # Inches.
  figure, axes = plt.subplots(num_rows, num_columns, squeeze=False, layout="constrained",
                              figsize=(num_columns * width * scale, num_rows * (height * scale + 0.3)))
  for axis in axes.flat:
    axis.axis("off")
  for axis, (name, picture) in zip(axes.flat, blocks.items()):
    axis.imshow(picture)
    around = (width - picture.shape[1]) / 2  # The original is as large as the draws.
    axis.set(xlim=(-around, width - around), ylim=(height, 0))
    axis.set_title(name, fontsize=10)
  return figure


def draw_sts(path: epath.Path, embed: Callable[[Sequence[str]], Any], names: Sequence[str], *,
             data_dir: str | None = None, cache_dir: str | None = None, prefix: str = "") -> list[str]:
  """Draws cosines against people's scores of the STS Benchmark's test part, if `names` of protocols ask about it."""
  if not {"sts", "sts:sts-b", "sts:all"} & set(names):
    return []
  try:
    dataset = catalog.load("sts-b", data_dir=data_dir, cache_dir=cache_dir)
  except InputError:  # The evaluation has said so.
    return []
  import matplotlib

  matplotlib.use("Agg")
  from matplotlib import pyplot as plt

  rows = dataset.split["test"]
  cosine = pairs.cosines(*pairs.embedded(embed, [dataset.items[i] for i in rows], "sts"))
  figure = _score_scatter(plt, np.asarray(dataset.labels["score"])[rows], cosine, "STS Benchmark, test")
  (path / "figures").mkdir(parents=True, exist_ok=True)
  file = f"figures/sts{f'_{prefix}' if prefix else ''}.png"
  with (path / file).open("wb") as handle:
    figure.savefig(handle, dpi=120, bbox_inches="tight")
  plt.close(figure)
  return [file]


def _score_scatter(plt: Any, score: np.ndarray, cosine: np.ndarray, title: str) -> Any:
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


def _probing(plt: Any, name: str, found: Mapping[str, float]) -> Any:
  """Weights of the layers in the mixture, what each adds to those below it, and what it tells alone."""
  layers = range(sum(key.startswith("mix_") for key in found))
  scores = {kind: [found[f"test/{kind}_{i}/accuracy"] for i in layers] for kind in ("layer", "cumulative")}
  figure, (weights, gains, accuracy) = plt.subplots(1, 3, figsize=(11, 3.2))
  weights.bar(layers, [found[f"mix_{i}"] for i in layers], color="tab:blue")
  weights.set(ylabel="weight in the mixture", title=f"centre of gravity {found['centre_of_gravity']:.2f}")
  weights.axvline(found["centre_of_gravity"], color="black", linestyle=":")
  gains.bar(layers[1:], np.diff(scores["cumulative"]), color="tab:purple")
  expected = found.get("expected_layer", float("nan"))
  gains.set(ylabel="accuracy that it adds", xlim=weights.get_xlim())
  gains.set_title(f"expected layer {expected:.2f}" if np.isfinite(expected) else "upper layers add nothing")
  if np.isfinite(expected):
    gains.axvline(expected, color="black", linestyle=":")
  gains.axhline(0, color="black", linewidth=0.8)
  accuracy.plot(layers, scores["layer"], marker="o", label="this layer")
  accuracy.plot(layers, scores["cumulative"], marker="s", label="up to this layer")
  for key, style in (("untrained", "--"), ("majority", ":")):
    if f"test/{key}/accuracy" in found:
      accuracy.axhline(found[f"test/{key}/accuracy"], color="grey", linestyle=style, label=key)
  accuracy.set(ylabel="accuracy", title="linear probes")
  accuracy.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
  for axes in (weights, gains, accuracy):
    axes.set(xlabel="layer", xticks=layers if len(layers) <= 13 else layers[::4])
    axes.spines[["top", "right"]].set_visible(False)
  figure.suptitle(name)
  figure.tight_layout()
  return figure


def _loss_curve(plt: Any, records: Sequence[dict[str, float]]) -> Any:
  figure, axes = plt.subplots(figsize=(6, 4))
  axes.plot([r["step"] for r in records], [r["loss"] for r in records])
  axes.set(xlabel="step", ylabel="loss", title="Training loss")
  axes.grid(alpha=0.3)
  return figure


def _bounds(plt: Any, records: Sequence[dict[str, float]]) -> Any:
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


def _collapse(plt: Any, records: Sequence[dict[str, float]]) -> Any:
  """Loss and spread of the vectors: a low loss of vectors that are all alike is worth nothing."""
  figure, (top, bottom) = plt.subplots(2, sharex=True, figsize=(6, 5), layout="constrained")
  steps = [record["step"] for record in records]
  top.plot(steps, [record["loss"] for record in records])
  top.set_ylabel("loss")
  bottom.plot(steps, [record["deviation"] for record in records])
  bottom.axhline(0, color="grey", linewidth=0.8)
  bottom.axhline(1, color="grey", linewidth=0.8, linestyle="--")
  bottom.set(xlabel="step", ylabel="deviation", ylim=(-0.05, 1.1), title="0: collapsed; 1: directions at random")
  return figure


def _pretraining(plt: Any, records: Sequence[dict[str, float]], facts: Mapping[str, Any]) -> Any:
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


def _mixture(plt: Any, parts: dict[str, np.ndarray], data: Any, resp: np.ndarray) -> Any:
  """Ellipses of one and two deviations, over two features or the first two principal components."""
  x = _filled(data.encoder.encode(data.dataset.items)["x"])
  columns = data.dataset.columns
  if x.shape[1] == 1:
    return _mixture_1d(plt, parts, x[:, 0], columns)
  centre, basis, labels = _plane(x, columns)
  figure, axes = plt.subplots(figsize=(6, 5))
  _ellipses(plt, axes, parts, resp, (x - centre) @ basis, centre, basis)
  axes.set(xlabel=labels[0], ylabel=labels[1], title="Components: 1 and 2 standard deviations")
  return figure


def _mixture_course(plt: Any, model: Model, state: PyTree, data: Any, seed: int, steps: int) -> Any:
  """The mixture after several iterations, over the rows that it learns from, in the colours of what explains them.

  The first iterations are made again: the run is a function of its seed.
  """
  make_state, many_updates = programs(model, data.source)
  resident = dict(data.source.resident)
  update = jax.jit(many_updates)
  current, at, shown = jax.jit(make_state)(np.uint32(seed), resident, {}), 0, []
  chosen = [step for step in COURSE if step < steps]
  for step in chosen:
    for number in range(at, step):
      current, _ = update(current, np.uint32(seed), np.array([number], np.int32), np.int32(1), resident, {})
    at = step
    shown.append((step, current))
  shown.append((steps, state))
  if "best_start" in model.outputs:  # Of several starts, the course of the one that is best in the end.
    best = int(model.outputs["best_start"](state))
    shown = [(step, jax.tree.map(lambda x: np.repeat(np.asarray(x)[best:best + 1], len(x), 0), at_step))
             for step, at_step in shown]
  x = resident["x"]
  filled = _filled(x)
  centre, basis, labels = _plane(filled, data.dataset.columns)
  points = (filled - centre) @ basis
  rows = -(-len(shown) // 3)
  figure, axes = plt.subplots(rows, min(len(shown), 3), figsize=(4 * min(len(shown), 3), 3.4 * rows), sharex=True,
                              sharey=True, squeeze=False)
  embed, components = jax.jit(model.embed), jax.jit(lambda state: model.outputs["components"](state, None, None))
  for place, (step, at_step) in zip(axes.flat, shown):
    at_step = jax.tree.map(np.asarray, at_step)
    parts, resp = jax.tree.map(np.asarray, (components(at_step), embed(at_step, {"x": x})))
    _ellipses(plt, place, parts, resp, points, centre, basis)
    place.set_title(f"after {step} iterations" if step != 1 else "after 1 iteration", fontsize="medium")
  for place in axes.flat[len(shown):]:
    place.set_axis_off()
  margin = 0.15 * (points.max(0) - points.min(0)) + 1e-9
  axes[0, 0].set(xlim=(points[:, 0].min() - margin[0], points[:, 0].max() + margin[0]),
                 ylim=(points[:, 1].min() - margin[1], points[:, 1].max() + margin[1]))
  figure.supxlabel(labels[0])
  figure.supylabel(labels[1])
  figure.tight_layout()
  return figure


def _ellipses(plt: Any, axes: Any, parts: dict[str, np.ndarray], resp: np.ndarray, points: np.ndarray,
              centre: np.ndarray, basis: np.ndarray) -> None:
  """Points in the mixture of their components' colours, and each component's ellipses."""
  colors = _component_colors(plt, len(parts["means"]))
  axes.scatter(*points.T, s=8, c=np.clip(resp @ colors, 0, 1), alpha=0.6, linewidths=0)
  circle = np.stack([np.cos(np.linspace(0, 2 * np.pi, 100)), np.sin(np.linspace(0, 2 * np.pi, 100))])
  for mean, covariance, color in zip((parts["means"] - centre) @ basis, parts["covariances"], colors):
    values, directions = np.linalg.eigh(basis.T @ covariance @ basis)
    outline = directions @ (np.sqrt(np.maximum(values, 0))[:, None] * circle)
    for deviations in (1, 2):
      axes.plot(*(mean[:, None] + deviations * outline), color=color, linewidth=1.8 / deviations)
    axes.plot(*mean, marker="x", color=color)


def _responsibilities(plt: Any, resp: np.ndarray, seed: int) -> Any:
  """A bar a row, of the parts that the components have in it, sorted by the first of them and its part."""
  shown = resp
  if len(resp) > SHOWN_ROWS:
    shown = resp[np.random.default_rng(seed).choice(len(resp), SHOWN_ROWS, replace=False)]
  first = shown.argmax(1)
  shown = shown[np.lexsort((-shown[np.arange(len(shown)), first], first))]
  figure, axes = plt.subplots(figsize=(8, 2.8))
  bottom = np.zeros(len(shown))
  for k, color in enumerate(_component_colors(plt, shown.shape[1])):
    axes.bar(np.arange(len(shown)), shown[:, k], 1.0, bottom, color=color, label=str(k + 1))
    bottom += shown[:, k]
  number = f"{len(shown)} of {len(resp)} rows" if len(shown) < len(resp) else f"{len(resp)} rows"
  axes.set(xlim=(-0.5, len(shown) - 0.5), ylim=(0, 1), xlabel=f"{number}, by component", ylabel="responsibility")
  if shown.shape[1] <= 20:
    axes.legend(title="component", fontsize="small", loc="upper left", bbox_to_anchor=(1, 1),
                ncols=1 + (shown.shape[1] - 1) // 10)
  return figure


def _component_colors(plt: Any, num: int) -> np.ndarray:
  """RGB [num, 3]."""
  return plt.get_cmap("tab10" if num <= 10 else "turbo")(np.linspace(0, 1, max(num, 10)))[:num, :3]


def _filled(x: np.ndarray) -> np.ndarray:
  """Rows with the mean of the column where a value is missing."""
  return np.where(np.isnan(x), np.nanmean(x, axis=0), x) if np.isnan(x).any() else x


def _plane(x: np.ndarray, columns: Sequence[str] | None) -> tuple[np.ndarray, np.ndarray, list[str]]:
  """Centre, basis [d, 2] and labels of two features, or of the first two principal components."""
  if x.shape[1] == 2:
    return np.zeros(2), np.eye(2), list(columns) if columns else ["first feature", "second feature"]
  centre = x.mean(0)
  basis = np.linalg.svd(x - centre, full_matrices=False)[2][:2].T
  return centre, basis, ["first principal component", "second principal component"]


def _mixture_1d(plt: Any, parts: dict[str, np.ndarray], x: np.ndarray, columns: Any) -> Any:
  figure, axes = plt.subplots(figsize=(6, 4))
  axes.hist(x, bins=40, density=True, alpha=0.3)
  grid = np.linspace(x.min(), x.max(), 400)[:, None]
  variance = parts["covariances"][:, 0, 0]
  distance = (grid - parts["means"][:, 0]) ** 2 / variance
  density = parts["weights"] / np.sqrt(2 * np.pi * variance) * np.exp(-distance / 2)
  axes.plot(grid, density, linewidth=1)
  axes.plot(grid, density.sum(1), color="black")
  axes.set(xlabel=columns[0] if columns else "x", ylabel="density", title="Mixture and its components")
  return figure


def _topics(plt: Any, beta: np.ndarray, weights: np.ndarray, words: Sequence[str]) -> Any:
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


def _document_map(plt: Any, vectors: np.ndarray, label: str, classes: np.ndarray) -> Any:
  """A sample of documents by t-SNE of the cosine distances of their vectors, coloured by a label."""
  from sklearn.manifold import TSNE
  from threadpoolctl import threadpool_limits  # scikit-learn brings it.

  known = np.flatnonzero(np.ptp(vectors, axis=1) > 1e-6)  # Not those without a known word.
  if len(known) < 5:
    known = np.arange(len(vectors))
  rows = np.sort(np.random.default_rng(0).permutation(known)[:NUM_DOCUMENTS])
  chosen = vectors[rows] / np.maximum(np.linalg.norm(vectors[rows], axis=1, keepdims=True), 1e-12)
  perplexity = min(30, (len(rows) - 1) / 3)
  with threadpool_limits(1):  # Threads that wait for each other on a busy machine take ten times as long.
    places = TSNE(metric="cosine", init="random", perplexity=perplexity, random_state=0).fit_transform(chosen)
  names, group = np.unique(classes[rows], return_inverse=True)
  colors = plt.get_cmap("tab10" if len(names) <= 10 else "tab20")
  figure, axes = plt.subplots(figsize=(9, 8))
  for i, name in enumerate(names):
    axes.scatter(*places[group == i].T, s=9, color=colors(i % colors.N), marker="os^v"[i // colors.N % 4], label=name,
                 linewidths=0)
  if len(names) <= 40:
    axes.legend(title=label, fontsize="small", loc="upper left", bbox_to_anchor=(1, 1), markerscale=2, frameon=False)
  axes.set(xticks=[], yticks=[], title=f"{len(rows)} documents by {label} (t-SNE of cosine distances)")
  return figure


def _principal_components(plt: Any, parts: dict[str, np.ndarray], data: Any) -> dict[str, Any]:
  """Explained variance; of pictures the components and reconstructions, of other rows the line and the plane."""
  x = data.encoder.encode(data.dataset.items)["x"]
  made = {"explained_variance": _explained_variance(plt, parts["explained_variance_ratio"])}
  if data.dataset.picture:
    std = 1 if data.encoder.std is None else data.encoder.std
    origin = 0 if data.encoder.mean is None else data.encoder.mean
    pixels = lambda rows: np.reshape(rows * std + origin, (-1, *data.dataset.picture))
    made["components"] = _component_pictures(plt, parts, pixels, data.dataset.picture)
    made["reconstructions"] = _reconstructions(plt, parts, x, pixels, data.dataset.labels)
  elif x.shape[1] > 1:
    made["fit"] = _line_and_plane(plt, parts, x, data.dataset)
  return made


def _explained_variance(plt: Any, ratio: np.ndarray) -> Any:
  figure, axes = plt.subplots(figsize=(6, 4))
  number = np.arange(1, len(ratio) + 1)
  axes.bar(number, ratio, color="tab:blue", alpha=0.5, width=0.8, label="of each component")
  axes.plot(number, np.cumsum(ratio), color="black", marker="." if len(ratio) <= 40 else "", label="of all up to it")
  axes.set(xlabel="component", ylabel="share of the variance", ylim=(0, 1.03), title="Explained variance")
  axes.xaxis.get_major_locator().set_params(integer=True)
  axes.grid(alpha=0.3)
  axes.legend(loc="center right")
  return figure


def _component_pictures(plt: Any, parts: dict[str, np.ndarray], pixels: Any, shape: tuple[int, ...]) -> Any:
  """The mean and the first components, each scaled to its largest weight: grey, or red and blue, is 0."""
  chosen, ratio = parts["components"][:23], parts["explained_variance_ratio"]
  columns = min(8, len(chosen) + 1)
  lines = -(-(len(chosen) + 1) // columns)
  figure, axes = plt.subplots(lines, columns, figsize=(1.3 * columns, 1.6 * lines), squeeze=False)
  for place in axes.flat:
    place.axis("off")
  axes.flat[0].imshow(np.clip(pixels(parts["mean"])[0], 0, 1), cmap="gray", vmin=0, vmax=1)
  axes.flat[0].set_title("mean", fontsize=8)
  for i, (place, row) in enumerate(zip(axes.flat[1:], chosen)):
    weights = np.reshape(row / max(np.abs(row).max(), 1e-30), shape)
    place.imshow((weights + 1) / 2, cmap="RdBu_r", vmin=0, vmax=1)
    place.set_title(f"{i + 1}: {ratio[i]:.1%}", fontsize=8)
  figure.suptitle("Mean and principal components, with their shares of the variance")
  return figure


def _reconstructions(plt: Any, parts: dict[str, np.ndarray], x: np.ndarray, pixels: Any, labels: Any) -> Any:
  """Some pictures, one of each class where there are classes, from more and more components."""
  classes = np.asarray(next(iter(labels.values()))) if labels else np.arange(len(x))
  rows = np.unique(classes, return_index=True)[1]
  if len(rows) == len(x) or len(rows) < 4:  # Nothing to choose by.
    rows = np.linspace(0, len(x) - 1, min(10, len(x))).astype(int)
  rows = rows[:10]
  total = len(parts["components"])
  numbers = [0, *(k for k in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512) if k < total), total]
  centred = x[rows] - parts["mean"]
  codes = centred @ parts["components"].T
  figure, axes = plt.subplots(len(rows), len(numbers) + 1, figsize=(0.95 * (len(numbers) + 1), 0.95 * len(rows)),
                              squeeze=False)
  for column, k in enumerate([*numbers, None]):
    made = x[rows] if k is None else parts["mean"] + codes[:, :k] @ parts["components"][:k]
    for place, picture in zip(axes[:, column], pixels(made)):
      place.imshow(np.clip(picture, 0, 1), cmap="gray", vmin=0, vmax=1)
      place.axis("off")
    axes[0, column].set_title("picture" if k is None else "mean" if not k else f"k = {k}", fontsize=8)
  figure.suptitle("Reconstructions from the first k components", y=0.94)
  figure.subplots_adjust(wspace=0.05, hspace=0.05)
  return figure


def _hidden_patches(plt: Any, found: Mapping[str, np.ndarray]) -> Any:
  """Rows of pictures, of what an autoencoder sees of them, and of what it makes of it."""
  rows = ("original", "masked", "reconstructed")
  columns = len(found["original"])
  figure, axes = plt.subplots(len(rows), columns, figsize=(0.95 * columns, 0.95 * len(rows)), squeeze=False)
  for row, name in zip(axes, rows):
    for place, picture in zip(row, found[name]):
      place.imshow(picture, cmap="gray", vmin=0, vmax=1)
      place.set(xticks=[], yticks=[])
      place.set_frame_on(False)
    row[0].set_ylabel(name, fontsize=8)
  figure.suptitle(f"{found['mask'].mean():.0%} of the patches hidden, and filled in")
  figure.subplots_adjust(wspace=0.05, hspace=0.05)
  return figure


def _line_and_plane(plt: Any, parts: dict[str, np.ndarray], x: np.ndarray, dataset: Any) -> Any:
  """The line of the first component, over two features, and the plane of the first two, over three: the cloud's best
  ones, or where it has more features their images in those that vary most along them. Each point is tied to its
  reconstruction."""
  rows = np.sort(np.random.default_rng(0).permutation(len(x))[:300])
  label = next((np.asarray(values)[rows] for values in dataset.labels.values() if len(np.unique(values)) <= 10), None)
  color = np.zeros(len(rows), int) if label is None else np.unique(label, return_inverse=True)[1]
  color = plt.get_cmap("tab10")(color)
  names = dataset.columns or [f"feature {i + 1}" for i in range(x.shape[1])]
  panels = [k for k in (1, 2) if x.shape[1] > k and len(parts["components"]) >= k]
  figure = plt.figure(figsize=(6 * len(panels), 5))
  for panel, k in enumerate(panels, 1):
    basis = parts["components"][:k]
    seen = np.sort(np.argsort(-(parts["explained_variance"][:k] @ basis ** 2), kind="stable")[:k + 1])
    points = x[rows]
    codes = (points - parts["mean"]) @ basis.T
    on, points = (parts["mean"] + codes @ basis)[:, seen], points[:, seen]
    axes = figure.add_subplot(1, len(panels), panel, projection="3d" if k == 2 else None)
    ties = np.stack([points, on, np.full_like(on, np.nan)], 1).reshape(-1, k + 1)
    axes.plot(*ties.T, color="0.6", linewidth=0.5)
    axes.scatter(*points.T, c=color, s=12, linewidths=0, alpha=0.9, depthshade=False) if k == 2 else axes.scatter(
        *points.T, c=color, s=12, linewidths=0, zorder=3)
    ends = [codes.min(0), codes.max(0)]
    grid = np.stack(np.meshgrid(*[np.linspace(*end, 2) for end in np.transpose(ends)], indexing="ij"), -1)
    surface = (parts["mean"] + grid @ basis)[..., seen]
    if k == 1:
      axes.plot(*surface.T, color="black")
      axes.set_aspect("equal", "datalim")
    else:
      axes.plot_surface(*np.moveaxis(surface, -1, 0), color="0.5", alpha=0.25)
      axes.set_zlabel(names[seen[2]])
      axes.set_aspect("equal")
    found, many = ("line", "two") if k == 1 else ("plane", "three")
    where = "" if x.shape[1] == k + 1 else f", seen in {many} of {x.shape[1]} features"
    axes.set(xlabel=names[seen[0]], ylabel=names[seen[1]], title=f"Best {found}{where}")
  return figure


def _word_map(plt: Any, vectors: np.ndarray, names: Sequence[str], method: str) -> Any:
  first = SKIPPED_WORDS if len(names) >= SKIPPED_WORDS + 20 else 0
  chosen = vectors[first:first + NUM_WORDS]
  chosen = chosen / np.maximum(np.linalg.norm(chosen, axis=1, keepdims=True), 1e-12)
  if method == "PCA":
    places, share = _principal_plane(chosen)
    title = f"Frequent words (PCA of unit vectors: {share:.0%} of the variance)"
  else:
    from sklearn.manifold import TSNE

    perplexity = min(15, (len(chosen) - 1) / 3)
    places = TSNE(metric="cosine", init="random", perplexity=perplexity, random_state=0).fit_transform(chosen)
    title = "Frequent words (t-SNE of cosine distances)"
  figure, axes = plt.subplots(figsize=(11, 9))
  axes.scatter(*places.T, s=4)
  axes.set(xticks=[], yticks=[], title=title)
  _label(figure, axes, places, names[first:])
  return figure


def _label(figure: Any, axes: Any, places: np.ndarray, names: Sequence[str], fontsize: int = 7) -> None:
  """Writes names beside their points, each on the first side on which it covers no other, if there is one."""
  sides = [(x, y) for y in (1, -1, 0) for x in (1, -1)] + [(0, 1), (0, -1)]
  figure.canvas.draw()  # Limits are settled then.
  renderer, taken = figure.canvas.get_renderer(), []
  for place, name in zip(places, names):
    for x, y in [*sides, sides[0]]:
      text = axes.annotate(
          name, place, (4 * x if not y else 2 * x, 2 * y), textcoords="offset points", fontsize=fontsize,
          ha={1: "left", 0: "center", -1: "right"}[x], va={1: "bottom", 0: "center", -1: "top"}[y])
      box = text.get_window_extent(renderer)
      if not any(box.overlaps(other) for other in taken):
        break
      text.remove()
    else:
      axes.add_artist(text)
    taken.append(box)


def _principal_plane(points: np.ndarray) -> tuple[np.ndarray, float]:
  """Points [n, d] on their first two principal components, [n, 2], and the share of the variance there."""
  centred = points - points.mean(0)
  left, size, _ = np.linalg.svd(centred, full_matrices=False)
  left, size = (np.pad(left, [(0, 0), (0, 2)]), np.pad(size, (0, 2)))  # There may be fewer than two.
  return left[:, :2] * size[:2], float((size[:2] ** 2).sum() / max((size**2).sum(), 1e-30))


def _parallelograms(plt: Any, pairs: np.ndarray, names: Sequence[Sequence[str]], relation: str) -> Any:
  """Pairs of words [n, 2, d] on the plane of their unit vectors' first two principal components."""
  unit = pairs / np.maximum(np.linalg.norm(pairs, axis=2, keepdims=True), 1e-12)
  places, share = _principal_plane(unit.reshape(-1, unit.shape[-1]))
  places = places.reshape(len(pairs), 2, 2)
  # Beside each other lie the pairs that are neighbours across the arrows, so that the grey lines do not cross.
  arrow = (places[:, 1] - places[:, 0]).mean(0)
  order = np.argsort(places.mean(1) @ [-arrow[1], arrow[0]])
  places, names = places[order], [names[i] for i in order]
  figure, axes = plt.subplots(figsize=(8, 6))
  for column, color in enumerate(("tab:blue", "tab:orange")):
    axes.plot(*places[:, column].T, color="0.85", linewidth=0.8, zorder=1)
    axes.scatter(*places[:, column].T, s=18, color=color, zorder=3)
  for pair in places:
    axes.annotate("", pair[1], pair[0], arrowprops={"arrowstyle": "->", "color": "0.4", "shrinkA": 4, "shrinkB": 4})
  axes.margins(0.15, 0.1)
  _label(figure, axes, places.reshape(-1, 2), [word for pair in names for word in pair], fontsize=9)
  axes.set(xlabel="first principal component", ylabel="second principal component",
           title=f"{relation.capitalize()} (PCA of unit vectors: {share:.0%} of the variance)")
  return figure


def _similarity_scatter(plt: Any, vectors: np.ndarray, row: dict[str, int], name: str, data_dir: str | None) -> Any:
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
