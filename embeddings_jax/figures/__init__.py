"""Figures of a run, drawn from its log and from the model's named outputs. Alone in importing matplotlib."""
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from embeddings_jax.data import catalog
from embeddings_jax.eval import pairs
from embeddings_jax.figures import canvas, components, documents, mixtures, pictures, training, words
from embeddings_jax.runs import metrics_log
from embeddings_jax.types import InputError, Model, PyTree


def draw(
    path: epath.Path, model: Model, state: PyTree, data: Any, vectors: np.ndarray, names: Any, *,
    evals: Sequence[str] = (), data_dir: str | None = None, seed: int = 0,
) -> list[str]:
  """Draws what the model, its log and its evaluations give, into `figures/`; returns the files' names."""
  plt = canvas.pyplot()
  folder = path / "figures"
  folder.mkdir(parents=True, exist_ok=True)
  records = [record for record in metrics_log.read_metrics(path) if "loss" in record]
  made = {}
  if records:
    made["loss"] = training.loss_curve(plt, records)
  if records and "bound_1" in records[-1]:
    made["bound"] = training.bounds(plt, records)
  if records and "deviation" in records[-1]:
    made["collapse"] = training.collapse(plt, records)
  if records and "masked_loss" in records[-1]:
    made["pretraining"] = training.pretraining(plt, records, data.facts)
  if "components" in model.outputs and data.encoder.kind == "rows":
    parts = jax.tree.map(np.asarray, model.outputs["components"](state))
    if {"means", "covariances"} <= parts.keys():
      resp = vectors if len(vectors) == len(data.dataset.items) else None  # Of a sample, where the set is large.
      if resp is not None:
        made["mixture"] = mixtures.mixture(plt, parts, data, resp)
        made["responsibilities"] = mixtures.responsibilities(plt, resp, seed)
      steps = records[-1]["step"] if records else 0
      repeatable = data.splits["train"].whole and data.splits["train"].batch_size <= mixtures.COURSE_ROWS
      if repeatable and parts["means"].shape[1] > 1 and steps:
        made["mixture_course"] = mixtures.mixture_course(plt, model, state, data, seed, steps)
    if "explained_variance_ratio" in parts:
      made |= components.principal_components(plt, parts, data)
  if "reconstruct" in model.outputs and data.encoder.kind == "images":
    chosen = np.linspace(0, len(data.dataset.items) - 1, pictures.NUM_PICTURES).astype(int)
    batch = data.encoder.encode(np.stack([data.dataset.items[i] for i in chosen]))
    found = jax.tree.map(np.asarray, jax.jit(model.outputs["reconstruct"])(state, batch))
    made["reconstructions"] = pictures.hidden_patches(plt, found)
  if data.encoder.kind == "bags":
    parts = model.outputs["components"](state) if "components" in model.outputs else {}
    if {"beta", "weights"} <= parts.keys():
      made["topics"] = documents.topics(plt, *(np.asarray(parts[name]) for name in ("beta", "weights")),
                               data.encoder.vocabulary.words)
    labels = next(iter(data.dataset.labels.items()), None)
    if labels and len(labels[1]) == len(vectors):
      made["documents"] = documents.document_map(plt, np.sqrt(vectors) if "topics" in made else vectors, *labels)
  if data.encoder.names is not None:
    made["words"] = words.word_map(plt, vectors, names, "t-SNE")
    made["words_pca"] = words.word_map(plt, vectors, names, "PCA")
    row = {name: i for i, name in enumerate(names)}
    if analogy := words.analogy(plt, vectors, row):
      made["analogy"] = analogy
    for name in evals:
      protocol, _, other = name.partition(":")
      if protocol == "word_similarity":
        figure = words.similarity_scatter(plt, vectors, row, other or "ws353", data_dir)
        made |= {f"similarity_{other or 'ws353'}": figure} if figure else {}
  for name, figure in made.items():
    canvas.save(plt, figure, folder / f"{name}.png")
  return [f"figures/{name}.png" for name in made]


def draw_probing(path: epath.Path, metrics: Mapping[str, float]) -> list[str]:
  """Draws what the protocol `probing` found of each data set, into `figures/`; returns the files' names."""
  names = [key.removesuffix("/mix_0") for key in metrics if key.endswith("/mix_0")]
  if not names:
    return []
  plt = canvas.pyplot()
  (path / "figures").mkdir(parents=True, exist_ok=True)
  for name in names:
    figure = training.probing(plt, name, {key.removeprefix(f"{name}/"): value for key, value in metrics.items()
                                           if key.startswith(f"{name}/")})
    canvas.save(plt, figure, path / "figures" / f"probing_{name}.png")
  return [f"figures/probing_{name}.png" for name in names]


def draw_sts(path: epath.Path, embed: Callable[[Sequence[str]], Any], names: Sequence[str], *,
             data_dir: str | None = None, cache_dir: str | None = None, prefix: str = "") -> list[str]:
  """Draws cosines against people's scores of the STS Benchmark's test part, if `names` of protocols ask about it."""
  if not {"sts", "sts:sts-b", "sts:all"} & set(names):
    return []
  try:
    dataset = catalog.load("sts-b", data_dir=data_dir, cache_dir=cache_dir)
  except InputError:  # The evaluation has said so.
    return []
  plt = canvas.pyplot()
  rows = dataset.split["test"]
  cosine = pairs.cosines(*pairs.embedded(embed, [dataset.items[i] for i in rows], "sts"))
  figure = words.score_scatter(plt, np.asarray(dataset.labels["score"])[rows], cosine, "STS Benchmark, test")
  (path / "figures").mkdir(parents=True, exist_ok=True)
  file = f"figures/sts{f'_{prefix}' if prefix else ''}.png"
  canvas.save(plt, figure, path / file)
  return [file]
