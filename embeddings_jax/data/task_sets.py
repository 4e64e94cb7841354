"""The catalog's labelled sets of text: which file is which part, and what is left out."""
import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from embeddings_jax.data import formats
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.files.json import parse_json
from embeddings_jax.data.task_files import Example, read_conll, read_conllu, read_squad, read_table
from embeddings_jax.types import InputError

STS = ("sts-12", "sts-13", "sts-14", "sts-15", "sts-16", "sts-b")  # Pairs and how alike they are.
LABELS = {"choices": "choice", "questions": "answers", "words": "tags"}  # What the targets are called.


def task_dataset(name: str, kind: str, parts: Mapping[str, Sequence[Example]], fingerprint: str) -> Dataset:
  """A data set of examples; `names` are the places they were read from.

  Its one label is `label` (str), `score` (float64), `choice` (int), `answers` (tuples) or `tags` (tuples of str);
  examples whose targets are None have none.
  """
  examples = [example for listed in parts.values() for example in listed]
  if not examples:
    raise InputError(f"{name}: is empty, it has no example")
  label = LABELS.get(kind) or ("score" if isinstance(examples[0].target, float) else "label")
  targets = np.empty(len(examples), object)
  targets[:] = [example.target for example in examples]
  if label in ("label", "score", "choice"):
    targets = targets.astype({"label": str, "score": np.float64, "choice": np.int32}[label])
  ends = np.cumsum([len(listed) for listed in parts.values()])
  split = {part: np.arange(end - len(listed), end) for (part, listed), end in zip(parts.items(), ends) if listed}
  labels = {} if examples[0].target is None else {label: targets}
  return Dataset(name, kind, [example.item for example in examples], names=[example.place for example in examples],
                 labels=labels, split=split, fingerprint=fingerprint)


def cola(name: str, place: Any) -> Dataset:
  """Sentences and whether they are acceptable; `dev` is in-domain, `test` the out-of-domain development part (the
  test part proper is not public). Nothing of the archive is written to the disk."""
  (path,) = place.files.values()
  members = {"train": "in_domain_train", "dev": "in_domain_dev", "test": "out_of_domain_dev"}
  parts = {}
  try:
    with formats.opened(path) as file, zipfile.ZipFile(io.BytesIO(file.read())) as archive:
      for part, member in members.items():
        lines = archive.read(f"cola_public/raw/{member}.tsv").decode().splitlines()
        cells = [line.split("\t") for line in lines]
        parts[part] = [Example(row[3].strip(), ("unacceptable", "acceptable")[int(row[1])], f"{member}: line {i}")
                       for i, row in enumerate(cells, 1)]
  except (zipfile.BadZipFile, KeyError, ValueError, IndexError) as e:
    raise InputError(f"{path}: damaged archive ({e}); get it again") from e
  return task_dataset(name, "text", parts, place.fingerprint)


def rte(name: str, place: Any) -> Dataset:
  """Pairs as in GLUE: its training part is `train` and `dev` here, its development part `test`."""
  files = {part: place.files[f"rte/{file}.tsv.gz"] for part, file in
           {"train": "train", "dev": "val", "test": "dev"}.items()}
  parts = {}
  for part, path in files.items():
    rows = [(i, line.split("\t")) for i, line in enumerate(formats.read_lines(path), 1)]
    parts[part] = [Example((row[1], row[2]), row[3], f"{path}: line {i}") for i, row in rows if row[0] != "index"]
  return task_dataset(name, "pairs", parts, place.fingerprint)


def sts_benchmark(name: str, place: Any) -> Dataset:
  """Pairs and how much alike they are, 0 to 5."""
  parts = {}
  for part in ("train", "dev", "test"):
    path = place.files[f"sts-benchmark/sts-{part}.csv"]
    rows = [(i, line.split("\t")) for i, line in enumerate(formats.read_lines(path), 1)]
    parts[part] = [Example((row[5].strip(), row[6].strip()), float(row[4]), f"{path}: line {i}") for i, row in rows]
  return task_dataset(name, "pairs", parts, place.fingerprint)


def semeval_sts(name: str, place: Any, *, year: int) -> Dataset:
  """Pairs of several sources and how much alike they are, 0 to 5; the label `source` tells which is whose. Pairs
  without a score are left out.

  `test` is what systems were asked in that year; 2012 has `train` too. MSRvid of 2012 is not at hand, so no figure
  for that year is comparable with published ones; of 2013 SMT is not, as in SentEval (Conneau & Kiela 2018), whose
  figures are therefore comparable, but not those of the task's own report.
  """
  (path,) = place.files.values()
  parts = {"train": [], "test": []}
  sources = {"train": [], "test": []}
  for member, data in sorted(formats.tar_members(path)):
    folder, file = PurePosixPath(member).parts[-2:] if "/" in member else ("", member)
    if folder != str(year) or not file.endswith(".tsv"):
      continue
    source, part, _ = file.split(".")
    rows = [(i, line.split("\t")) for i, line in enumerate(data.decode().split("\n"), 1)]
    found = [Example((row[1].strip(), row[2].strip()), float(row[0]), f"{member}: line {i}")
             for i, row in rows if row[0].strip()]
    parts[part] += found
    sources[part] += [source] * len(found)
  dataset = task_dataset(name, "pairs", parts, place.fingerprint)
  return dataset._replace(labels=dict(dataset.labels) | {"source": np.array(sources["train"] + sources["test"])})


def snli_triples(name: str, place: Any) -> Dataset:
  """(premise, what it entails, what it contradicts) in small letters without punctuation, for training: so without a
  split. The label `part` tells which part of SNLI a premise is of: with these, neither part of `snli` is unseen."""
  (path,) = place.files.values()
  rows = [line.split("\t") for line in formats.read_lines(path)][1:]
  found = [Example(tuple(row[1:4]), None, f"{path}: line {i}") for i, row in enumerate(rows, 2)]
  dataset = task_dataset(name, "triples", {"": found}, place.fingerprint)
  return dataset._replace(labels={"part": np.array([row[0] for row in rows])}, split={})


def snli(name: str, place: Any) -> Dataset:
  """Pairs in small letters without punctuation. The training part is not at hand: `train` is the development part
  but for the premises of its last tenth, which are `dev`; `test` is the test part."""
  classes = {"0": "entailment", "1": "neutral", "2": "contradiction"}
  read = {}
  for part in ("dev", "test"):
    _, examples = read_table(place.files[f"snli/{part}.txt.gz"])
    read[part] = [example._replace(target=classes[example.target]) for example in examples]
  cut = len(read["dev"]) * 9 // 10
  while read["dev"][cut].item[0] == read["dev"][cut - 1].item[0]:  # A premise's pairs stay together.
    cut += 1
  parts = {"train": read["dev"][:cut], "dev": read["dev"][cut:], "test": read["test"]}
  return task_dataset(name, "pairs", parts, place.fingerprint)


def wnut17(name: str, place: Any) -> Dataset:
  files = {"train": "ner/wnut17train.conll", "dev": "ner/emerging.dev.conll", "test": "ner/emerging.test.annotated"}
  parts = {part: list(read_conll(place.files[file], place.errors)) for part, file in files.items()}
  return task_dataset(name, "words", parts, place.fingerprint)


def english_web_treebank(name: str, place: Any) -> Dataset:
  parts = {part: list(read_conllu(place.files[f"ud-english-ewt/en_ewt-ud-{part}.conllu.xz"], place.errors))
           for part in ("train", "dev", "test")}
  return task_dataset(name, "words", parts, place.fingerprint)


def squad_parts(name: str, place: Any) -> Dataset:
  """Questions on 48 articles of SQuAD's development part: XQuAD (5 paragraphs of each, all with an answer) and half
  of that of SQuAD 2.0 (16 of the articles whole, half of the questions without an answer).

  Of a paragraph that is in both, XQuAD's questions are dropped: most are among the other's. The articles are parted,
  so that no paragraph is in two parts: the 16 in alphabetical order, then the 32 in alphabetical order; the fourth of
  every five is `dev`, the fifth `test`, the others `train`.
  """
  files = [place.files["squad-parts/squad2-halfdev.json.gz"], place.files["squad-parts/xquad.en.json.gz"]]
  articles, titles = {}, {}
  for path in files:
    with formats.opened(path) as file:
      data = parse_json(file.read(), path)["data"]
    for article in data:
      for paragraph in article["paragraphs"]:
        titles.setdefault(paragraph["context"], article["title"])
    articles[path] = sorted({article["title"] for article in data})
  whole, some = articles.values()
  order = [*whole, *(title for title in some if title not in whole)]
  part_of = {title: {3: "dev", 4: "test"}.get(i % 5, "train") for i, title in enumerate(order)}
  first = read_squad(files[0])
  known = {example.item[1] for example in first}
  parts = {"train": [], "dev": [], "test": []}
  for example in [*first, *(example for example in read_squad(files[1]) if example.item[1] not in known)]:
    parts[part_of[titles[example.item[1]]]].append(example)
  return task_dataset(name, "questions", parts, place.fingerprint)
