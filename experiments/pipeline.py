"""Wiring: from a config to a source, an encoder and a model, and from a state to `embed(items)`."""
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from embeddings_jax.data import catalog, encoders, matrix, text
from embeddings_jax.data.audio import join_clips
from embeddings_jax.data.bags import Bags, as_bags, bag_source, count_documents
from embeddings_jax.data.cooccurrence import Cooccurrence, count_cooccurrences
from embeddings_jax.data.documents import byte_stream
from embeddings_jax.data.sources import array_source, window_source
from embeddings_jax.data.tiles import tile_source
from embeddings_jax.train.checkpoints import Checkpoints
from embeddings_jax.train.mesh import make_mesh, state_shardings
from embeddings_jax.types import InputError, Model, PyTree, Source
from experiments import optimizers, workdir
from experiments.command import check_choice
from experiments.progress import Progress

# What the word models read: running tokens in blocks, or the cells of a matrix of co-occurrences, all or in tiles.
FORMS = ("blocks", "cells", "tiles")
# What each encoder encodes, first what it is meant for.
ITEMS = {"rows": ("rows",), "words": ("text",), "bags": ("text", "bags", "matrix"), "bytes": ("text",),
         "waveforms": ("audio",)}
ENCODED_AT_ONCE = 1024  # Items.
EMBEDDED_AT_ONCE = 1 << 21  # Elements of the encoded items.


class Data(NamedTuple):
  source: Source
  encoder: Any
  dataset: Any


def load_data(config: Mapping[str, Any], *, data_dir: str | None, cache_dir: str | None) -> Data:
  """The training source of a config, its encoder, and the data set for the evaluations."""
  options, batch_size, seed = config["data"], config["batch_size"], config["seed"]
  if not options["name"]:
    raise InputError("--data is missing: a name of --list_data, tfds:NAME, or a path")
  dataset = catalog.load(options["name"], data_dir=data_dir, cache_dir=cache_dir, errors=options["errors"])
  kind = options["encoder"]
  check_choice("--config.data.encoder", kind, list(ITEMS))
  if dataset.kind not in ITEMS[kind] and not (dataset.kind == "matrix" and options.get("form") in ("cells", "tiles")):
    raise InputError(f"--data={options['name']}: holds {dataset.kind}, and --model={config['name']} "
                     f"({kind}) needs {ITEMS[kind][0]}")
  if kind == "bags":
    dataset = as_bags(dataset)
  if options.get("max_documents") and dataset.kind not in ("bags", "matrix"):
    dataset = first_items(dataset, options["max_documents"])
  train = np.asarray(dataset.split.get("train", np.arange(len(dataset.items))))

  if kind == "rows":
    rows = np.asarray(dataset.items)
    rows = rows[train] if "train" in dataset.split else rows
    encoder = (encoders.RowEncoder.standardizing(rows) if options.get("standardize")
               else encoders.RowEncoder(rows.shape[1]))
    # Rows that stay as they are need not be in memory together.
    x = encoder.encode(rows)["x"] if options.get("standardize") else rows
    source = array_source({"x": x}, batch_size or None, seed=seed, remainder="pad")
  elif kind == "words":
    source, encoder = load_words(dataset, options, batch_size=batch_size, seed=seed, cache_dir=cache_dir)
  elif kind == "bags":
    bags = counted_documents(dataset, options, cache_dir)
    encoder = bags.encoder
    source = bag_source(bags, batch_size, blocks=options["blocks"], held_out=options.get("held_out", 0), seed=seed)
  elif kind == "bytes":
    stream, _ = byte_stream(dataset)
    encoder = encoders.ByteEncoder(options["max_length"])
    source = window_source(stream, options["window_length"], batch_size, name="signal", pad=0, seed=seed)
  else:
    if options.get("group"):
      check_choice("--config.data.group", options["group"], list(dataset.labels))
    group = dataset.labels[options["group"]][train] if options.get("group") else np.zeros(len(train), int)
    jitter = options.get("jitter", 0)
    clips = [dataset.items[i] for i in train]
    stream, starts = join_clips(clips, group, seed, options["window_length"], jitter=jitter)
    encoder = encoders.WaveformEncoder(dataset.rate)
    source = window_source(stream, options["window_length"], batch_size, name="signal", starts=starts, jitter=jitter,
                           seed=seed)
  return Data(source, encoder, dataset)


def load_words(dataset: Any, options: Mapping[str, Any], *, batch_size: int, seed: int,
               cache_dir: str | None) -> tuple[Source, Any]:
  """The source of a model of words, in the form that `options` (the config's `data`) ask for, and its encoder."""
  form = options.get("form", "blocks")
  check_choice("--config.data.form", form, FORMS)
  if dataset.kind == "matrix":
    cells, encoder, facts = dataset.items.cells, matrix.encoder(dataset.items), {}
    return cells_in_form(form, cells, facts, options, batch_size, seed, cache_dir), encoder
  tokens = text.tokenize(
      dataset, normalize=options["normalize"], min_count=options["min_count"],
      max_size=options.get("max_size", 0) or None, boundaries=options.get("boundaries", "document"),
      cache_dir=cache_dir)
  if form == "blocks":
    source = window_source(tokens.tokens, options["window_length"], batch_size, seed=seed, facts=tokens.facts)
  else:
    cells = counted(tokens, options, cache_dir)
    source = cells_in_form(form, cells, tokens.facts, options, batch_size, seed, cache_dir)
  return source, tokens.encoder


def counted(tokens: text.Tokens, options: Mapping[str, Any], cache_dir: str | None) -> Cooccurrence:
  """Counts as the config's `data` says: `window`, `weighting`, `symmetric`, `counting`; `memory` in MiB."""
  with Progress(3 * len(tokens.tokens), unit="counted") as progress:
    return count_cooccurrences(
        tokens.tokens, tokens.facts["vocab_size"], key=tokens.fingerprint, window=options["window"],
        weighting=options["weighting"], symmetric=options["symmetric"], counting=options["counting"],
        memory=options["memory"] << 20, cache_dir=cache_dir, report=lambda done, total: progress.show(done, {}))


def cells_in_form(form: str, cells: Cooccurrence, facts: Mapping[str, Any], options: Mapping[str, Any],
                  batch_size: int, seed: int, cache_dir: str | None) -> Source:
  """`cells`: all of them are the one batch of every step, `row`, `col`, `count` and `mask` `[num_cells]`, sorted by
  row; `tiles`: see `tile_source`."""
  if form == "cells":
    return array_source({"row": cells.row, "col": cells.col, "count": cells.count}, facts={**facts, **cells.facts})
  with Progress(2 * len(cells.row), unit="dealt out") as progress:
    source = tile_source(cells, batch_size, seed=seed, cells_per_tile=options["cells_per_tile"],
                         memory=options["memory"] << 20, cache_dir=cache_dir,
                         report=lambda done, total: progress.show(done, {}))
  return source._replace(facts={**facts, **source.facts})


def counted_documents(dataset: Any, options: Mapping[str, Any], cache_dir: str | None) -> Bags:
  """Bags of words as the config's `data` says; of the training part where there is one, unless `part` is `all`."""
  part = options.get("part", "train")
  check_choice("--config.data.part", part, ("train", "all"))
  if part in dataset.split:
    dataset = dataset._replace(items=[dataset.items[i] for i in dataset.split[part]],
                               fingerprint=f"{dataset.fingerprint}:{part}")
  return count_documents(
      dataset, normalize=options["normalize"], min_count=options["min_count"],
      min_documents=options["min_documents"], max_share=options["max_share"], min_length=options.get("min_length", 1),
      max_size=options.get("max_size", 0) or None, stop_words=options["stop_words"], unit=options["unit"],
      window=options["window"], cache_dir=cache_dir)


def first_items(dataset: Any, number: int) -> Any:
  """The first items of a data set without a split, for tests and trials."""
  return dataset._replace(
      items=dataset.items[:number], labels={name: label[:number] for name, label in dataset.labels.items()},
      names=None if dataset.names is None else dataset.names[:number],
      fingerprint=f"{dataset.fingerprint}:{number}")


def make_model(config: Mapping[str, Any], facts: Mapping[str, Any], num_steps: int) -> Model:
  """Calls the model's factory with the config's keyword arguments and the facts that it names."""
  name = config.get("factory") or config["name"]
  try:
    factory = getattr(importlib.import_module(f"embeddings_jax.models.{name}"), name)
  except ModuleNotFoundError as error:
    if error.name != f"embeddings_jax.models.{name}":
      raise
    raise InputError(f"--model={name}: there is no embeddings_jax/models/{name}.py") from error
  known = inspect.signature(factory).parameters
  arguments = dict(config["model"])
  unknown = set(arguments) - set(known)
  if unknown:
    raise InputError(f"--config.model: {name} has no {', '.join(sorted(unknown))}; it has {', '.join(known)}")
  given: dict[str, Any] = {"num_steps": num_steps, **facts}
  if "optimizer" in known:
    given["optimizer"] = optimizers.optimizer(config["optimizer"], num_steps)
  if "learning_rate" in known and config["optimizer"]:
    given["learning_rate"] = optimizers.schedule(config["optimizer"], num_steps)
  return factory(**{key: value for key, value in given.items() if key in known} | arguments)


def embedder(model: Model, state: PyTree, encoder: Any, output: str = "") -> Callable[[Sequence[Any]], np.ndarray]:
  """`items -> [num_items, dim]`: encode, pad to a bucket, run the compiled program, unpad.

  Args:
    model, state, encoder: of a run.
    output: the named output to compute instead of the embedding.
  """
  replicated = NamedSharding(jax.tree.leaves(state)[0].sharding.mesh, P())
  fn = (lambda state, batch: model.outputs[output](state, batch, jax.random.key(0))) if output else model.embed
  compiled = jax.jit(fn, out_shardings=replicated)

  def embed(items: Sequence[Any]) -> np.ndarray:
    pieces = []
    # Documents of a piece are padded to its longest, so that the long ones had better be together.
    order = np.argsort([len(item) for item in items], kind="stable") if encoder.kind == "bags" else None
    for first in range(0, len(items), ENCODED_AT_ONCE):
      chosen = slice(first, first + ENCODED_AT_ONCE)
      batch = encoder.encode(items[chosen] if order is None else [items[i] for i in order[chosen]])
      total = len(batch["mask"])
      per_row = sum(np.prod(value.shape[1:], dtype=int) for value in batch.values())
      size = max(1, min(ENCODED_AT_ONCE, EMBEDDED_AT_ONCE // int(per_row)))
      size = 1 << (min(size, total) - 1).bit_length()
      for row in range(0, total, size):
        piece = {key: value[row:row + size] for key, value in batch.items()}
        valid = len(piece["mask"])
        piece = {key: np.pad(value, [(0, size - valid)] + [(0, 0)] * (value.ndim - 1))
                 for key, value in piece.items()}
        pieces.append(np.asarray(compiled(state, piece).addressable_data(0))[:valid])
    found = np.concatenate(pieces)
    if order is not None:
      found[order] = found.copy()
    return found

  return embed


def topics_of(model: Model, state: PyTree, encoder: Any) -> dict[str, Any] | None:
  """What the protocol `topics` asks a model of topics for: `topics` [k, V], p(w|z), and the `encoder` of words."""
  if encoder.kind != "bags" or "components" not in model.outputs:
    return None
  parts = model.outputs["components"](state, None, None)
  return {"topics": np.asarray(parts["beta"]), "encoder": encoder} if "beta" in parts else None


class Run(NamedTuple):
  """What a work directory holds: enough to embed and evaluate, without the training data."""

  path: epath.Path
  record: dict[str, Any]  # config.json
  model: Model
  state: PyTree
  step: int
  encoder: Any


def load_run(path: str, mesh: jax.sharding.Mesh | None = None) -> Run:
  """The newest sound checkpoint of a work directory with its model and encoder."""
  folder = epath.Path(path)
  record = workdir.read_json(folder / "config.json")
  model = make_model(record["config"], workdir.stand_in_facts(record["facts"]), record["steps"])
  batch = {key: jax.ShapeDtypeStruct(tuple(shape), dtype) for key, (shape, dtype) in record["batch"].items()}
  encoder = encoders.load_encoder(folder / "encoder")
  if encoder.fingerprint != record["encoder"]:
    raise InputError(f"{folder / 'encoder'}: changed since the training began; it does not fit the checkpoints")
  mesh = mesh or make_mesh()
  with jax.set_mesh(mesh):
    abstract = jax.eval_shape(model.init, jax.eval_shape(lambda: jax.random.key(0)), batch)
    layout = state_shardings(abstract, mesh, model.rules)
    checkpoints = Checkpoints(str(folder / "checkpoints"))
    restored = checkpoints.restore(abstract, layout)
    checkpoints.close()
  if restored is None:
    raise InputError(f"{folder}: there is no complete checkpoint to read")
  return Run(folder, record, model, restored[0], restored[1], encoder)

