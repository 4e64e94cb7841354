"""Wiring: from a config to a data set, the source that a model is trained on, and its encoder."""
import functools
import itertools
import logging
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from embeddings_jax.data import catalog, encoders, formats, matrix, own, tasks, text
from embeddings_jax.data.audio import join_clips
from embeddings_jax.data.bags import Bags, as_bags, bag_source, count_documents
from embeddings_jax.data.cache import digest
from embeddings_jax.data.characters import CharacterEncoder, character_source, spell_documents
from embeddings_jax.data.cooccurrence import Cooccurrence, count_cooccurrences
from embeddings_jax.data.dataset import Dataset, take_columns, without_gaps
from embeddings_jax.data.documents import byte_stream
from embeddings_jax.data.files.tokenizer import load_tokenizer
from embeddings_jax.data.images import as_images, as_rows, fitted
from embeddings_jax.data.overlap import without_overlap
from embeddings_jax.data.sentence_pairs import sentence_pairs
from embeddings_jax.data.sentence_windows import sentence_windows
from embeddings_jax.data.sentences import TokenTexts, sentence_rows, tokenize_documents
from embeddings_jax.data.sources import array_source, window_source
from embeddings_jax.data.subwords import SubwordEncoder, trained_tokenizer, without_special
from embeddings_jax.data.tiles import tile_source
from embeddings_jax.errors import check_choice
from embeddings_jax.types import InputError, Prepared, Source

# What the word models read: running tokens in blocks, or the cells of a matrix of co-occurrences, all or in tiles.
FORMS = ("blocks", "cells", "tiles")
# What each encoder encodes, first what it is meant for.
ITEMS = {"rows": ("rows",), "images": ("images",), "words": ("text",), "bags": ("text", "bags", "matrix"),
         "bytes": ("text",), "waveforms": ("audio",), "subwords": ("text",), "characters": ("text",)}
# What models of subwords read: pairs of sentences as BERT, windows of the running text as GPT, sentences as SimCSE,
# windows of consecutive sentences as CPC.
SUBWORD_FORMS = ("pairs", "windows", "sentences", "sentence_windows")
PICTURES = ("image_size", "channels", "bad")  # Options of pictures; see `data/images.py`.


def load_data(config: Mapping[str, Any], *, data_dir: str | None, cache_dir: str | None, encoder: Any = None,
              dataset: Any = None,
              allow_code: bool = False, progress: Callable[[str, int, int], None] = lambda *_: None) -> Prepared:
  """The training source of a config, its encoder, and the data set for the evaluations.

  Where items are subwords the encoder may be given, a pretrained one, whose tokenizer then serves. `allow_code`: see
  `catalog.load`.
  """
  options, batch_size, seed = config["data"], config["batch_size"], config["seed"]
  if dataset is None and not options["name"]:
    raise InputError("--data is missing: a name of --list_data, tfds:NAME, or a path")
  if options.get("form") == "task":
    encoder = encoder and tasks.task_encoder(encoder, options["max_length"])
    return load_task(config, data_dir=data_dir, cache_dir=cache_dir, encoder=encoder, allow_code=allow_code)
  dataset, extra = load_dataset(options, dataset, data_dir=data_dir, cache_dir=cache_dir, allow_code=allow_code)
  refuse_test_part(dataset, options["name"])
  kind = options["encoder"]
  check_choice("--config.data.encoder", kind, list(ITEMS))
  views = kind == "subwords" and options.get("form") == "sentences"
  known = (*ITEMS[kind], "pairs", "triples") if views else ITEMS[kind]
  if dataset.kind not in known and not (dataset.kind == "matrix" and options.get("form") in ("cells", "tiles")):
    raise InputError(f"--data={options['name']}: holds {dataset.kind}, and --model={config['name']} "
                     f"({kind}) needs {ITEMS[kind][0]}")
  if kind == "bags":
    dataset = as_bags(dataset)
  if options.get("max_documents") and dataset.kind not in ("bags", "matrix"):
    dataset = first_items(dataset, options["max_documents"])
  train = np.asarray(dataset.split.get("train", np.arange(len(dataset.items))))

  validation = None
  if kind == "rows":
    source, encoder = load_rows(dataset, extra, options, batch_size=batch_size, seed=seed)
  elif kind == "images":
    encoder = encoders.ImageEncoder(*dataset.items.shape[1:])
    images = dataset.items[train] if "train" in dataset.split else dataset.items
    source = array_source({"image": images}, batch_size, seed=seed)
  elif kind == "words":
    source, encoder = load_words(training_part(dataset), options, batch_size=batch_size, seed=seed,
                                 cache_dir=cache_dir, progress=progress)
  elif kind == "bags":
    bags = counted_documents(dataset, options, cache_dir)
    encoder = bags.encoder
    source = bag_source(bags, batch_size, blocks=options["blocks"], held_out=options.get("held_out", 0), seed=seed)
  elif kind == "subwords" and dataset.kind != "text":
    source, dataset, encoder = load_views(dataset, options, batch_size=batch_size, seed=seed, data_dir=data_dir,
                                          cache_dir=cache_dir, encoder=encoder)
  elif kind == "subwords":
    source, validation, encoder = load_subwords(dataset, options, batch_size=batch_size, seed=seed,
                                                cache_dir=cache_dir, encoder=encoder)
    if options.get("tokenizer"):  # A file, which determines the course as well.
      dataset = dataset._replace(fingerprint=digest(dataset.fingerprint, encoder.fingerprint))
  elif kind == "characters":
    source, validation, encoder = load_characters(dataset, options, batch_size=batch_size, seed=seed,
                                                  cache_dir=cache_dir)
  elif kind == "bytes":
    stream, _ = byte_stream(training_part(dataset))
    encoder = encoders.ByteEncoder(options["max_length"])
    source = window_source(stream, options["window_length"], batch_size, name="signal", pad=0, seed=seed)
  else:
    grouping = clip_groups(dataset, options.get("group", ""))
    group = dataset.labels[grouping][train] if grouping else np.zeros(len(train), int)
    jitter = options.get("jitter", 0)
    clips = [dataset.items[i] for i in train]
    stream, starts, groups = join_clips(clips, group, seed, options["window_length"], jitter=jitter)
    encoder = encoders.WaveformEncoder(dataset.rate)
    source = window_source(stream, options["window_length"], batch_size, name="signal", starts=starts,
                           beside={"group": groups} if grouping else None, jitter=jitter, seed=seed)
  splits = {"train": source} | ({"validation": validation} if validation else {})
  return Prepared(splits, encoder, dataset, source.facts)


def load_dataset(options: Mapping[str, Any], dataset: Any = None, *, data_dir: str | None, cache_dir: str | None,
                 allow_code: bool = False) -> tuple[Any, dict[str, np.ndarray]]:
  """The data set that a config's `data` names, and the arrays beside its items: `weight` and `label` [num_rows].

  `weight` is a column; `label` one of the data set's labels, or a column of whole numbers, of which those below 0 and
  those that are missing are not known (-1).
  """
  pairs = options.get("encoder") == "subwords" and options.get("form", "pairs") == "pairs"
  if dataset is None:
    dataset = catalog.load(options["name"], data_dir=data_dir, cache_dir=cache_dir, errors=options["errors"],
                           missing=options.get("missing", ""), allow_code=allow_code,
                           documents=options.get("documents") or ("auto" if pairs else "line"),
                           **{key: options[key] for key in PICTURES if key in options})
  elif dataset.kind == "rows":
    dataset = without_gaps(dataset, options.get("missing") or "error")
  size, channels = options.get("image_size", 0), options.get("channels", 0)
  if options.get("encoder") == "images" or size or channels:
    dataset = fitted(as_images(dataset), size, size, channels, cache_dir=cache_dir)
  if options.get("encoder") == "rows":
    dataset = as_rows(dataset)
  roles = {role: options[role] for role in ("label", "weight") if options.get(role)}
  columns = [name for name in roles.values() if name not in dataset.labels]
  dataset, values = take_columns(dataset, columns) if columns else (dataset, [])
  values = {role: dataset.labels[name] if name in dataset.labels else values[columns.index(name)]
            for role, name in roles.items()}
  if "label" in values:
    label = values["label"]
    if label.dtype.kind == "f":
      label = np.where(np.isnan(label), -1, label)
      if (label != np.rint(label)).any():
        raise InputError(f"--config.data.label={roles['label']}: row {(label != np.rint(label)).argmax()} has "
                         f"{label[(label != np.rint(label)).argmax()]}, labels are whole numbers")
    known = label >= 0 if label.dtype.kind in "fi" else np.ones(len(label), bool)
    if not known.any():
      raise InputError(f"--config.data.label={roles['label']}: no row has one; leave the option out")
    values["label"] = np.full(len(label), -1, np.int32)
    values["label"][known] = np.unique(label[known], return_inverse=True)[1]
  if "weight" in values:
    with np.errstate(over="ignore"):
      weight = values["weight"] = values["weight"].astype(np.float32)
    bad = ~(np.isfinite(weight) & (weight >= 0))
    if bad.any() or not weight.any():
      raise InputError(f"--config.data.weight={roles['weight']}: row {bad.argmax()} has {weight[bad.argmax()]}; "
                       "weights are numbers from 0 up, and not all 0")
  if options.get("start"):  # A file of means, which determine the course as well.
    dataset = dataset._replace(fingerprint=digest(dataset.fingerprint, formats.sha256(options["start"])))
  return dataset, values


def load_rows(dataset: Any, extra: Mapping[str, np.ndarray], options: Mapping[str, Any], *, batch_size: int,
              seed: int) -> tuple[Source, Any]:
  """The source of a model of rows, `extra` arrays beside them, and its encoder."""
  rows = dataset.items
  if "train" in dataset.split:
    rows, extra = rows[dataset.split["train"]], {name: x[dataset.split["train"]] for name, x in extra.items()}
  gaps = options.get("missing") == "marginalize"
  encoder = (encoders.RowEncoder.standardizing(rows, gaps) if options.get("standardize")
             else encoders.RowEncoder.centering(rows, gaps))
  encoder.columns = dataset.columns and list(dataset.columns)
  if encoder.mean is not None and encoder.std is None:
    shifted = [str(i) if dataset.columns is None else dataset.columns[i] for i in np.flatnonzero(encoder.mean)]
    logging.warning("%s: the mean is subtracted from %s, whose values float32 cannot tell apart", dataset.name,
                    ", ".join(shifted))
  # Rows that stay as they are need not be in memory together.
  x = rows if rows.dtype == np.float32 and encoder.mean is None else encoder.encode_rows(rows)
  facts = {"missing": True} if gaps else {}
  if "label" in extra:
    facts["num_labels"] = int(extra["label"].max()) + 1
  if options.get("start"):
    facts["means"] = encoder.encode(own.read_rows(pathlib.Path(options["start"])).rows)["x"]
  return array_source({"x": x, **extra}, batch_size or None, seed=seed, order=options.get("order", "shuffled"),
                      remainder="pad", facts=facts), encoder


def load_words(dataset: Any, options: Mapping[str, Any], *, batch_size: int, seed: int,
               cache_dir: str | None, progress: Callable[[str, int, int], None]) -> tuple[Source, Any]:
  """The source of a model of words, in the form that `options` (the config's `data`) ask for, and its encoder."""
  form = options.get("form", "blocks")
  check_choice("--config.data.form", form, FORMS)
  if dataset.kind == "matrix":
    cells, encoder, facts = dataset.items.cells, matrix.encoder(dataset.items), {}
    return cells_in_form(form, cells, facts, options, batch_size, seed, cache_dir, progress), encoder
  tokens = text.tokenize(
      dataset, normalize=options["normalize"], min_count=options["min_count"],
      max_size=options.get("max_size", 0) or None, boundaries=options.get("boundaries", "document"),
      cache_dir=cache_dir)
  text.check_contexts(tokens, dataset.name)
  if form == "blocks":
    source = window_source(tokens.tokens, options["window_length"], batch_size, seed=seed, facts=tokens.facts)
  else:
    cells = counted(tokens, options, cache_dir, progress)
    source = cells_in_form(form, cells, tokens.facts, options, batch_size, seed, cache_dir, progress)
  return source, tokens.encoder


def load_subwords(dataset: Any, options: Mapping[str, Any], *, batch_size: int, seed: int, cache_dir: str | None,
                  encoder: SubwordEncoder | None = None) -> tuple[Source, Source | None, SubwordEncoder]:
  """Sources of training and of held-out documents in the form that `options` (the config's `data`) ask for.

  Options: `tokenizer` (a path; "": trained on the text, by `model`, `vocab_size` and `lowercase`), `max_length`,
  `form` (`pairs`: with `short_fraction`, and `validation_pairs`, as many held-out ones, 0: one drawing; `windows`: of
  `window_length`, else `max_length`, tokens; `sentences`: `num_sentences` with `min_tokens`; `sentence_windows`:
  `num_sentences` of `sentence_length` tokens, and no special tokens around any text). The tokenizer of an `encoder`
  that is given goes before theirs.
  """
  form = options.get("form", "pairs")
  check_choice("--config.data.form", form, SUBWORD_FORMS)
  if encoder is None:
    encoder = subword_encoder(dataset, options, cache_dir)
  else:
    encoder = SubwordEncoder(encoder.tokenizer, options["max_length"])
  if form == "sentence_windows":
    encoder = without_special(encoder)
  facts = encoder.facts
  needed = {"pairs": ("cls", "sep", "mask"), "sentences": ("cls", "sep")}.get(form, ())
  missing = [role for role in needed if f"{role}_id" not in facts]
  if missing:
    raise InputError(f"--config.data.tokenizer={options.get('tokenizer', '')}: has no [{missing[0].upper()}]; "
                     f"{'sentence ' if form == 'pairs' else ''}{form} need "
                     + " and ".join(f"[{role.upper()}]" for role in needed))
  unit = "document" if form == "windows" else "line" if dataset.lines else "sentence"
  corpus = tokenize_documents(dataset, encoder, unit=unit, cache_dir=cache_dir)
  if form == "pairs" and (np.diff(corpus.train.documents) < 2).all():
    logging.warning("%s: no document has two sentences, so that no pair has a next sentence; in a file with a "
                    "sentence a line, --config.data.documents=blank ends documents at blank lines", dataset.name)
  facts |= {"num_raw_words": corpus.num_raw_words, "num_tokens": len(corpus.train.tokens),
            "num_documents": len(corpus.train.documents) - 1,
            "counts": np.bincount(corpus.train.tokens, minlength=facts["vocab_size"])}
  if (continues := encoder.continues) is not None:
    facts["continues"] = continues

  def pairs(texts: TokenTexts, **given: Any) -> Source:
    return sentence_pairs(texts, batch_size, max_length=options["max_length"], cls_id=facts["cls_id"],
                          sep_id=facts["sep_id"], short_fraction=options.get("short_fraction", 0.1), **given)

  def windows(texts: TokenTexts, **given: Any) -> Source:
    return window_source(texts.tokens, options.get("window_length") or options["max_length"], batch_size, **given)

  def sentences(texts: TokenTexts, **given: Any) -> Source:
    return sentence_windows(texts, batch_size, num_sentences=options["num_sentences"],
                            max_length=options["sentence_length"], **given)

  if form == "sentences":
    rows = sentence_rows(corpus.train, number=options["num_sentences"], min_tokens=options["min_tokens"], seed=seed,
                         max_length=options["max_length"], cls_id=facts["cls_id"], sep_id=facts["sep_id"])
    return array_source({"tokens": rows}, batch_size, seed=seed, facts=token_facts(facts, rows)), None, encoder
  held_out = corpus.validation
  if form == "sentence_windows":
    validation = held_out and (np.diff(held_out.documents) > 1).any() and sentences(
        held_out, order="sequential", remainder="pad")
    return sentences(corpus.train, seed=seed, facts=facts), validation or None, encoder
  if form == "windows":
    validation = held_out and windows(held_out, order="sequential", remainder="pad")
    return windows(corpus.train, seed=seed, facts=facts), validation, encoder
  validation = None
  if held_out and len(held_out.documents) > 2:
    validation = pairs(held_out, order="sequential", num_pairs=options.get("validation_pairs", 0))
  return pairs(corpus.train, seed=seed, facts=facts), validation, encoder


def load_views(dataset: Dataset, options: Mapping[str, Any], *, batch_size: int, seed: int, data_dir: str | None,
               cache_dir: str | None, encoder: SubwordEncoder | None = None,
               ) -> tuple[Source, Dataset, SubwordEncoder]:
  """The source of `tokens` int32 `[batch_size, views, max_length]` of pairs or triples of sentences that belong
  together, their sentences as a data set, and the encoder.

  Items that share a sentence with a set of `options["drop_overlap"]`, on which the vectors are to be evaluated, are
  left out; how many is the fact `num_overlapping`.
  """
  if dataset.kind == "pairs" and dataset.labels:
    raise InputError(f"--data={dataset.name}: its pairs have a {next(iter(dataset.labels))}, so that some do not "
                     "belong together; give pairs without one, or triples")
  items = [dataset.items[i] for i in dataset.split.get("train", range(len(dataset.items)))]
  sentences = list(dict.fromkeys(sentence for item in items for sentence in item))
  view = Dataset(dataset.name, "text", sentences, fingerprint=dataset.fingerprint)
  if encoder is None:
    encoder = subword_encoder(view, options, cache_dir)
  else:
    encoder = SubwordEncoder(encoder.tokenizer, options["max_length"])
  dropped = 0
  if options.get("drop_overlap"):
    others = (catalog.load(name, data_dir=data_dir, cache_dir=cache_dir).items for name in options["drop_overlap"])
    kept, dropped = without_overlap(items, itertools.chain.from_iterable(others))
    items = [items[i] for i in kept]
    logging.warning("%d of %d items of %s share a sentence with %s and are left out", dropped, dropped + len(items),
                    dataset.name, ", ".join(options["drop_overlap"]))
    if not items:
      raise InputError(f"--data={dataset.name}: shares a sentence of each item with --config.data.drop_overlap="
                       f"{','.join(options['drop_overlap'])}; none is left")
  width = options["max_length"]
  columns = [encoder.encode(column)["tokens"] for column in zip(*items)]
  padded = [np.pad(column, ((0, 0), (0, width - column.shape[1])), constant_values=-1) for column in columns]
  rows = np.stack(padded, 1)
  facts = token_facts({**encoder.facts, "num_overlapping": dropped}, rows)
  return array_source({"tokens": rows}, batch_size, seed=seed, facts=facts), view, encoder


def token_facts(facts: Mapping[str, Any], rows: np.ndarray) -> dict[str, Any]:
  """`facts`, and how much of the rows is padding."""
  return {**facts, "padding_fraction": round(float((rows < 0).mean()), 4)}


def load_characters(dataset: Any, options: Mapping[str, Any], *, batch_size: int, seed: int,
                    cache_dir: str | None) -> tuple[Source, Source | None, CharacterEncoder]:
  """Windows of `window_length` spelled words, of training and of held-out documents."""
  texts = spell_documents(dataset, vocab_size=options["vocab_size"], max_characters=options["max_characters"],
                          max_length=options["max_length"], cache_dir=cache_dir)

  def windows(stream: np.ndarray, **given: Any) -> Source:
    return character_source(stream, texts.characters, texts.facts["vocab_size"], options["window_length"], batch_size,
                            **given)

  validation = None
  if texts.validation is not None:
    validation = windows(texts.validation, order="sequential", remainder="pad")
  return windows(texts.train, seed=seed, facts=texts.facts), validation, texts.encoder


def subword_encoder(dataset: Any, options: Mapping[str, Any], cache_dir: str | None) -> SubwordEncoder:
  """The encoder of a config's `data`: the tokenizer that it names, else one trained on the data set."""
  lowercase = options.get("lowercase", True)
  if options.get("tokenizer"):
    tokenizer = load_tokenizer(options["tokenizer"], lowercase)
  else:
    tokenizer = trained_tokenizer(dataset, model=options.get("model", "wordpiece"), vocab_size=options["vocab_size"],
                                  lowercase=lowercase, cache_dir=cache_dir)
  return SubwordEncoder(tokenizer, options["max_length"])


def load_task(config: Mapping[str, Any], *, data_dir: str | None, cache_dir: str | None,
              encoder: Any = None, allow_code: bool = False) -> Prepared:
  """The task that a config's `data` names; its `dataset` are the items of the test part (without one: of `dev`).

  Options: `label`, `max_examples`, `max_train`, `max_length`, `stride` (see `data/tasks.py`), and `encoder`, the kind
  that is made where none is given: `subwords`, with the options of `subword_encoder`, or one of `tasks.PLAIN`.
  """
  options = config["data"]
  kind = encoder.kind if encoder else options["encoder"]
  if kind == "images":
    examples, _ = load_dataset({**options, "encoder": kind, "label": ""}, data_dir=data_dir, cache_dir=cache_dir,
                               allow_code=allow_code)
    refuse_test_part(examples, options["name"])
    if encoder:  # A pretrained network's.
      examples = encoder.view(examples, cache_dir)
  else:
    examples = tasks.load_examples(options["name"], data_dir=data_dir, cache_dir=cache_dir, errors=options["errors"],
                                   allow_code=allow_code)
  wanted = {"waveforms": "audio", "images": "images"}.get(kind, "text")
  if wanted != (examples.kind if examples.kind in ("audio", "images", "rows") else "text"):
    raise InputError(f"--config.task={options['name']}: holds {examples.kind}, and a network that reads {kind} needs "
                     f"{wanted}; take another encoder, as --model=cpc_supervised does")
  task = tasks.as_task(examples, options.get("label", ""), options.get("max_examples", 0),
                       options.get("max_train", 0), config["seed"])
  texts = task.texts
  view = Dataset(task.name, "text" if wanted == "text" else examples.kind, texts, examples.rate,
                 fingerprint=task.fingerprint)
  if encoder is None and kind in tasks.PLAIN:
    encoder = (encoders.ImageEncoder(*texts.shape[1:]) if kind == "images" else
               encoders.WaveformEncoder(examples.rate, options["max_length"]) if kind == "waveforms" else
               encoders.ByteEncoder(options["max_length"]))
  elif encoder is None:
    pieces = [piece for i in task.parts["train"] for piece in ([texts[i]] if isinstance(texts[i], str) else texts[i])]
    encoder = tasks.task_encoder(subword_encoder(view._replace(items=pieces), options, cache_dir),
                                 options["max_length"])
  encoded = tasks.encode_task(task, encoder, stride=options["stride"], cache_dir=cache_dir)
  source = tasks.task_source(task, encoded, encoder, config["batch_size"], seed=config["seed"])
  rows = task.parts.get("test", task.parts["dev"])
  labels = {"class": np.array(task.labels)[task.targets[rows]]} if task.kind == "classification" else {}
  shown = view._replace(items=[texts[i] for i in rows], labels=labels,
                        fingerprint=digest(task.fingerprint, encoder.fingerprint))
  return Prepared({"train": source}, encoder, shown, source.facts, task._replace(encoded=encoded))


def counted(tokens: text.Tokens, options: Mapping[str, Any], cache_dir: str | None,
            progress: Callable[[str, int, int], None]) -> Cooccurrence:
  """Counts as the config's `data` says: `window`, `weighting`, `symmetric`, `counting`; `memory` in MiB."""
  return count_cooccurrences(
      tokens.tokens, tokens.facts["vocab_size"], key=tokens.fingerprint, window=options["window"],
      weighting=options["weighting"], symmetric=options["symmetric"], counting=options["counting"],
      memory=options["memory"] << 20, cache_dir=cache_dir, report=functools.partial(progress, "counted"))


def cells_in_form(form: str, cells: Cooccurrence, facts: Mapping[str, Any], options: Mapping[str, Any],
                  batch_size: int, seed: int, cache_dir: str | None,
                  progress: Callable[[str, int, int], None]) -> Source:
  """`cells`: all of them are the one batch of every step, `row`, `col`, `count` and `mask` `[num_cells]`, sorted by
  row; `tiles`: see `tile_source`."""
  if form == "cells":
    return array_source({"row": cells.row, "col": cells.col, "count": cells.count}, facts={**facts, **cells.facts})
  source = tile_source(cells, batch_size, seed=seed, cells_per_tile=options["cells_per_tile"],
                       memory=options["memory"] << 20, cache_dir=cache_dir,
                       report=functools.partial(progress, "dealt out"))
  return source._replace(facts={**facts, **source.facts})


def counted_documents(dataset: Any, options: Mapping[str, Any], cache_dir: str | None) -> Bags:
  """Bags of words as the config's `data` says; of the training part where there is one, unless `part` is `all`."""
  part = options.get("part", "train")
  check_choice("--config.data.part", part, ("train", "all"))
  if part == "train":
    dataset = training_part(dataset)
  return count_documents(
      dataset, normalize=options["normalize"], min_count=options["min_count"],
      min_documents=options["min_documents"], max_share=options["max_share"], min_length=options.get("min_length", 1),
      max_size=options.get("max_size", 0) or None, stop_words=options["stop_words"], unit=options["unit"],
      window=options["window"], cache_dir=cache_dir)


def clip_groups(dataset: Dataset, group: str) -> str:
  """Returns the label that groups clips, or "": a user's folder of wav files knows its folders alone."""
  if group and set(dataset.labels) <= {"folder"} and group not in dataset.labels:
    known = next(iter(dataset.labels), "")
    logging.warning("%s: has no label %r; %s", dataset.name, group,
                    f"clips are grouped by their {known}" if known else "its clips are one group")
    return known
  if group:
    check_choice("--config.data.group", group, list(dataset.labels))
  return group


def refuse_test_part(dataset: Dataset, name: str) -> None:
  """Raises where all that there is to train on is a test part."""
  if "test" in dataset.split and "train" not in dataset.split or re.match(r"tfds:[^:]+:test", name):
    raise InputError(f"--data={name}: is a test set, which is not to be trained on; give one with a part train, and "
                     "evaluate on this by --protocols")


def training_part(dataset: Dataset) -> Dataset:
  """The training part of text, as a set of its own; a set without one is all that."""
  if "train" not in dataset.split:
    return dataset
  return dataset._replace(items=[dataset.items[i] for i in dataset.split["train"]], split={},
                          fingerprint=f"{dataset.fingerprint}:train")


def first_items(dataset: Any, number: int) -> Any:
  """The first items of a data set without a split, for tests and trials."""
  return dataset._replace(
      items=dataset.items[:number], labels={name: label[:number] for name, label in dataset.labels.items()},
      names=None if dataset.names is None else dataset.names[:number],
      fingerprint=f"{dataset.fingerprint}:{number}")
