"""Labeled text: classes, pairs, triples, questions and tagged words."""
import functools
import io
import zipfile
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from embeddings_jax.data import formats
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.datasets.base import NOT_STATED, Entry
from embeddings_jax.data.files.json import parse_json
from embeddings_jax.data.task_files import Example, read_conll, read_conllu, read_squad, read_table, task_dataset
from embeddings_jax.types import InputError

STS = ("sts-12", "sts-13", "sts-14", "sts-15", "sts-16", "sts-b")  # Pairs and how alike they are.


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
    examples = [Example((row[1].strip(), row[2].strip()), float(row[0]), f"{member}: line {i}")
                for i, row in rows if row[0].strip()]
    parts[part] += examples
    sources[part] += [source] * len(examples)
  dataset = task_dataset(name, "pairs", parts, place.fingerprint)
  return dataset._replace(labels=dict(dataset.labels) | {"source": np.array(sources["train"] + sources["test"])})


def snli_triples(name: str, place: Any) -> Dataset:
  """(premise, what it entails, what it contradicts) in small letters without punctuation, for training: so without a
  split. The label `part` tells which part of SNLI a premise is of: with these, neither part of `snli` is unseen."""
  (path,) = place.files.values()
  rows = [line.split("\t") for line in formats.read_lines(path)][1:]
  examples = [Example(tuple(row[1:4]), None, f"{path}: line {i}") for i, row in enumerate(rows, 2)]
  dataset = task_dataset(name, "triples", {"": examples}, place.fingerprint)
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


DATASETS = {
    "cola": Entry(
        "text", "Corpus of Linguistic Acceptability: 9,594 sentences (Warstadt et al. 2018)", NOT_STATED,
        cola,
        {"cola/cola_public.zip": "2cf856f46df11c143d38e0cf2f9f34ff2fdb088c521cd859f5c4b9581683278b"}),
    "rte": Entry(
        "pairs", "Recognizing Textual Entailment as in GLUE: 2,767 pairs (Wang et al. 2018)", NOT_STATED,
        rte,
        {"rte/train.tsv.gz": "93af7a1ecd40ce2c7769561cb0b1b945610008f8a74179a720b69aff35b0bb95",
         "rte/val.tsv.gz": "5ea9cf81621a5c9b72fcbaae23e9d571ac32f8062803844569fefab621deca90",
         "rte/dev.tsv.gz": "af9453b2f54ef5ed3770360833e9a2365682d71e4a7a98dbeaffc636d603ee58"}),
    "sts-b": Entry(
        "pairs", "STS Benchmark: 8,628 pairs and how alike they are, 0 to 5 (Cer et al. 2017)",
        "CC BY-SA 4.0, texts by origin", sts_benchmark,
        {"sts-benchmark/sts-train.csv": "fbe68f39a712ff9e80d48906d62547bde42a8154a37dfb5ad78002f29a810fb3",
         "sts-benchmark/sts-dev.csv": "5d7e944d8b02734b07bfdb5df67db3420c64bed153fcaa1ba47ad03480cf4234",
         "sts-benchmark/sts-test.csv": "affe45928a66ee5a708531233c95b7dacbbdc57f974f002a3d32ea0180cf816a"}),
    **{f"sts-{year % 100}": Entry(
        "pairs", f"SemEval STS {year}: {number} pairs and how alike they are, 0 to 5 (Agirre et al. {year})",
        NOT_STATED, functools.partial(semeval_sts, year=year),
        {"semeval-sts/semeval-sts-2012-2016.tar.gz":
             "a2d35a3bb8ca748b54dfa05f6f4599014ea1187fcd251b903b94afccb6b308bb"})
       for year, number in ((2012, "3,842"), (2013, "1,500"), (2014, "3,750"), (2015, "3,000"), (2016, "1,186"))},
    "snli": Entry(
        "pairs", "SNLI's development and test part: 19,666 pairs (Bowman et al. 2015)", "CC BY-SA 4.0",
        snli,
        {"snli/dev.txt.gz": "8276d7a2971b66f0e9443572c366959e91d0ba4012adf70db6165415f90ce8b3",
         "snli/test.txt.gz": "72e7e29add41228ee5f2fc083e08c3fb23d99334de0a3d84f399c5c16dd3c85a"}),
    "snli-triples": Entry(
        "triples", "5,883 premises of SNLI's development and test part, each with what it entails and what it "
        "contradicts (Bowman et al. 2015)", "CC BY-SA 4.0", snli_triples,
        {"snli/triples.tsv.gz": "fb8c29b6110b7ef5ece676dd4a59219bae1f0d8cc43ea457adcece5a7f107ebc"}),
    "wnut17": Entry(
        "words", "WNUT-17 emerging entities: 5,690 sentences (Derczynski et al. 2017)", "CC BY 4.0", wnut17,
        {"ner/wnut17train.conll": "731820e13f71af324c6b55a1575ec2ce59fbaa2a0806f8f0400b98d56cd6a7a5",
         "ner/emerging.dev.conll": "e053b752b8155113ca66e7db08af5f2f5f43ab993694e4774f1ec5bad42312d8",
         "ner/emerging.test.annotated": "2aa79b764e56ec9264a1b30fdd9b70195bd00ff400b62edd8f399d5f13c178f0"}),
    "ud-ewt": Entry(
        "words", "English Web Treebank: parts of speech in 16,622 sentences (Silveira et al. 2014)", "CC BY-SA 4.0",
        english_web_treebank,
        {"ud-english-ewt/en_ewt-ud-train.conllu.xz":
             "7e8496d11de12deb81c6dd479785ef225439de3f281dbf78f02459633645a9ad",
         "ud-english-ewt/en_ewt-ud-dev.conllu.xz": "343a1f0431c7eb0f7cf51f4d60d5d2b59dc0c94d26a4cd2fd4d4ab9c6af2dae4",
         "ud-english-ewt/en_ewt-ud-test.conllu.xz":
             "694c114fe9170a1b052d7690b45ebe1081c7e8257035e5fe3462e8736a5a38fd"}),
    "squad-parts": Entry(
        "questions", "6,928 questions on 48 articles, half of SQuAD 2.0 dev, and XQuAD (Rajpurkar et al. 2018)",
        "CC BY-SA 4.0", squad_parts,
        {"squad-parts/squad2-halfdev.json.gz": "583fde6aab86a306f1d40364059e9bb1e75074213881a6daa0bb9da5c0d54964",
         "squad-parts/xquad.en.json.gz": "36c41f5f7aace8ee0468fefd41bb46886642e7f8ad880dd48c132fdd75674648"}),
}
