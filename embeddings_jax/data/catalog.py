"""Every data set by name: its files, their checksums, its licence, where it comes from and how it is read.

A name is looked up here, then as `tfds:<name>[/config][:split]`, then as a path or a glob of the user's own files, or
as `FILE.py:FUNCTION`, which yields documents.
"""
import difflib
import functools
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from embeddings_jax.data import formats, own, task_sets
from embeddings_jax.data.cache import cache_root, digest
from embeddings_jax.data.dataset import Dataset, content_digest, text_dataset, without_gaps
from embeddings_jax.data.documents import Document, read_documents
from embeddings_jax.data.images import by_folders, check_options, decoded
from embeddings_jax.types import InputError


class Place(NamedTuple):
  """What a loader may read: `files` by their catalog names, verified, and the cache."""

  files: Mapping[str, Path]
  cache_dir: Path
  errors: str
  fingerprint: str
  missing: str = ""
  pictures: Mapping[str, Any] = {}


class Entry(NamedTuple):
  """One line of the catalog; without `files` the set is embedded in what is installed."""

  kind: str
  description: str
  licence: str
  load: Callable[[str, Place], Dataset]
  files: Mapping[str, str] = {}  # Path below the data directory -> SHA-256.


class Available(NamedTuple):
  name: str
  kind: str
  where: str
  description: str
  licence: str


def load(
    name: str,
    *,
    data_dir: str | os.PathLike | None = None,
    cache_dir: str | os.PathLike | None = None,
    errors: str = "strict",
    missing: str = "",
    allow_code: bool = False,
    documents: str = "line",
    **pictures: Any,
) -> Dataset:
  """Loads a data set.

  Args:
    name: of the catalog (`available()`), `tfds:<name>[/config][:split]`, a path or glob, or `FILE.py:FUNCTION`.
    data_dir: folder of the catalog's files; default `$EMBEDDINGS_DATA`.
    cache_dir: folder of what is derived; default `$EMBEDDINGS_CACHE`, then `~/.cache/embeddings_jax`.
    errors: `strict` refuses text that is not UTF-8, `replace` puts replacement characters.
    missing: what to do with rows that lack a value: `error`, `drop` (leave them out) or `marginalize` (keep them,
      with NaN); by default the tables of the catalog are without such rows, and files that have some are refused.
    allow_code: Whether `FILE.py:FUNCTION` may run; only for a name that the user has given himself.
    documents: End of a document of the user's plain text: `line`, `blank` (line) or `auto`; see `own.load_path`.
    **pictures: of sets of picture files: `image_size`, `channels` and `bad`; see `images.decoded`.

  Raises:
    InputError: an unknown name, a missing, damaged or empty file.
  """
  name = str(name)
  cache_dir = cache_root(cache_dir)
  check_options(**pictures)
  if documents not in own.DOCUMENTS:
    raise InputError(f"documents={documents}: must be one of {', '.join(own.DOCUMENTS)}")
  if name in CATALOG:
    entry = CATALOG[name]
    files = {file: formats.checked_file(data_dir, file, checksum) for file, checksum in entry.files.items()}
    return entry.load(name, Place(files, cache_dir, errors, digest(name, dict(entry.files), errors),
                                  missing, pictures))
  if name.startswith("tfds:"):
    from embeddings_jax.data.tfds import load_tfds  # TFDS takes a while to import.

    return load_tfds(name, data_dir=data_dir, cache_dir=cache_dir, **pictures)
  if re.search(r"\.py:\w+$", name):
    if not allow_code:
      raise InputError(f"{name}: is code, which a recorded config cannot run; if you trust it, give --data={name}")
    return own.load_function(name, cache_dir)
  if os.path.exists(os.path.expanduser(name)) or re.search(r"[/\\*?\[]|\.\w{1,5}$", name):
    return own.load_path(name, cache_dir, errors, missing, documents, **pictures)
  near = difflib.get_close_matches(name.lower(), CATALOG, n=1, cutoff=0.4)
  hint = f"did you mean {near[0]!r}? " if near else ""
  raise InputError(f"--data={name}: unknown data set; {hint}--list_data lists them; files are given by their path")


def available(data_dir: str | os.PathLike | None = None) -> list[Available]:
  """The catalog, each entry with where it is: `embedded`, the data directory, or which file is missing."""
  data_dir = data_dir or os.environ.get("EMBEDDINGS_DATA")
  listed = []
  for name, entry in CATALOG.items():
    missing = [file for file in entry.files if not data_dir or not (Path(data_dir).expanduser() / file).is_file()]
    where = "embedded" if not entry.files else f"missing: {missing[0]}" if missing else str(data_dir)
    listed.append(Available(name, entry.kind, where, entry.description, entry.licence))
  return listed


def _digits(name: str, place: Place) -> Dataset:
  from sklearn import datasets

  digits = datasets.load_digits()
  found = _row_dataset(name, digits.data / 16, list(digits.feature_names), {"class": digits.target})
  return found._replace(picture=(8, 8))


def _translated_digits(name: str, place: Place) -> Dataset:
  """Each digit at a random place of a larger canvas, as in translated MNIST (Jaderberg et al. 2015, section 4.1)."""
  digits, side = _digits("digits", place), 12
  images = np.zeros((len(digits.items), side, side), np.float32)
  for image, digit, (row, column) in zip(images, digits.items.reshape(-1, 8, 8),
                                         np.random.default_rng(0).integers(0, side - 7, (len(images), 2))):
    image[row:row + 8, column:column + 8] = digit
  found = _row_dataset(name, images.reshape(len(images), -1), None, digits.labels)
  return found._replace(picture=(side, side))


def _photographs(name: str, place: Place) -> Dataset:
  from sklearn import datasets

  size = place.pictures.get("image_size") or 8
  images = datasets.load_sample_images()
  if size > (least := min(min(image.shape[:2]) for image in images.images)):
    raise InputError(f"image_size={size}: {name} have {least} pixels at most")
  rows, origin = [], []
  for image, file in zip(images.images, images.filenames):
    height, width = (length // size for length in image.shape[:2])
    patches = image[:height * size, :width * size].reshape(height, size, width, size, 3).swapaxes(1, 2)
    rows.append(patches.reshape(height * width, -1) / 255)
    origin += [Path(file).stem] * (height * width)
  found = _row_dataset(name, np.concatenate(rows), None, {"image": np.array(origin)})
  return found._replace(picture=(size, size, 3))


def _sklearn_table(name: str, place: Place) -> Dataset:
  from sklearn import datasets

  table = getattr(datasets, f"load_{name}")()
  return _row_dataset(name, table.data, list(table.feature_names), {"class": table.target_names[table.target]})


def _row_dataset(name: str, rows: np.ndarray, columns: Sequence[str] | None, labels: dict) -> Dataset:
  rows = np.asarray(rows, np.float32)
  return Dataset(name, "rows", rows, columns=columns, labels=labels,
                 fingerprint=content_digest([rows, *labels.values()]))


def _pydocs(name: str, place: Place) -> Dataset:
  from embeddings_jax.data.pydocs import pydocs

  items = pydocs(place.cache_dir)
  return Dataset(name, "text", items, names=items.names, labels=items.labels, fingerprint=items.fingerprint)


def _small_table(name: str, place: Place, labels: Sequence[str] = (), left_out: Sequence[str] = ()) -> Dataset:
  """A table whose first column names the rows."""
  (path,) = place.files.values()
  header, *lines = (cells for _, cells in formats.csv_rows(path))
  columns = [column for column in header[1:] if column not in (*labels, *left_out)]
  measured = [header.index(column) for column in columns]
  rows = np.array([[line[i] or "nan" for i in measured] for line in lines], np.float32)
  return without_gaps(
      Dataset(name, "rows", rows, names=[line[0] for line in lines], columns=columns, fingerprint=place.fingerprint,
              labels={label: np.array([line[header.index(label)] for line in lines]) for label in labels}),
      place.missing or "drop")


def _fashion_mnist(name: str, place: Place) -> Dataset:
  rows, labels, split, picture = own.read_idx_pairs(list(place.files.values()))
  return Dataset(name, "rows", rows, labels=labels, split=split, fingerprint=place.fingerprint, picture=picture)


def _cifar10(name: str, place: Place) -> Dataset:
  """Pictures `{train,test}/<class>/NNNN.jpg`, which are decoded once."""
  (path,) = place.files.values()
  return by_folders(decoded(name, place.fingerprint, formats.tar_members(path), place.cache_dir, **place.pictures))


def _imagenet_sample(name: str, place: Place) -> Dataset:
  """Pictures `<id>_<class>.jpg`, whose short side is 128."""
  (path,) = place.files.values()
  members = ((Path(member).name, data) for member, data in formats.tar_members(path))
  options = {**place.pictures, "image_size": place.pictures.get("image_size") or 128}
  dataset = decoded(name, place.fingerprint, members, place.cache_dir, **options)
  classes = np.array([Path(file).stem.partition("_")[2] for file in dataset.names])
  return dataset._replace(labels={"class": classes})


def _enwiki(name: str, place: Place) -> Dataset:
  (path,) = place.files.values()
  return text_dataset(name, place.fingerprint, lambda: read_documents(path, place.errors), place.cache_dir)


def _wikitext(name: str, place: Place) -> Dataset:
  """A document is an article, which opens at a line ` = Title = `; the training part is not at hand."""

  def documents() -> Iterator[Document]:
    for part in ("valid", "test"):
      title, lines = "", []
      for line in formats.read_lines(place.files[f"wikitext-2/{part}.txt.gz"], place.errors):
        if match := re.fullmatch(r" = ([^=].*) = ", line):
          if lines:
            yield Document("\n".join(lines), title, {"split": part})
          title, lines = match[1], []
        if line.strip():
          lines.append(line.strip())
      yield Document("\n".join(lines), title, {"split": part})

  return text_dataset(name, place.fingerprint, documents, place.cache_dir)


def _associated_press(name: str, place: Place) -> Dataset:
  (path,) = place.files.values()

  def documents() -> Iterator[Document]:
    text = dict(formats.tar_members(path))["ap/ap.txt"].decode("latin-1")
    for number, body in re.findall(r"<DOC>\s*<DOCNO>\s*(\S+)\s*</DOCNO>\s*<TEXT>(.*?)</TEXT>", text, re.DOTALL):
      yield Document(body.strip(), number)

  return text_dataset(name, place.fingerprint, documents, place.cache_dir)


def _newsgroups(name: str, place: Place) -> Dataset:
  """Posts without their headers and without the lines they quote, which give the group away."""
  (path,) = place.files.values()
  quoted = re.compile(r"^(\s*[>|].*|In article.*|.*\b(writes|wrote|says|said):\s*)$\n?", re.MULTILINE)

  def documents() -> Iterator[Document]:
    for member, data in sorted(formats.tar_members(path)):
      part, group, number = member.split("/")
      body = data.decode("latin-1").replace("\r", "").partition("\n\n")[2]
      labels = {"group": group, "split": part.removeprefix("20news-bydate-")}
      yield Document(quoted.sub("", body).strip(), f"{group}/{number}", labels)

  return text_dataset(name, place.fingerprint, documents, place.cache_dir)


def _sst2(name: str, place: Place) -> Dataset:
  """Phrases (train, dev) and sentences (test) of film reviews; `test` is the development part of GLUE."""

  def documents() -> Iterator[Document]:
    for part in ("train", "dev", "test"):
      lines = formats.read_lines(place.files[f"sst2/{part}.tsv.gz"], place.errors)
      next(lines)
      for line in lines:
        text, _, label = line.rpartition("\t")
        yield Document(text.strip(), "", {"sentiment": ("negative", "positive")[int(label)], "split": part})

  return text_dataset(name, place.fingerprint, documents, place.cache_dir)


def _spoken_digits(name: str, place: Place) -> Dataset:
  """Recordings `<digit>_<speaker>_<index>.wav`; the usual test set is index 0 to 4."""
  (path,) = place.files.values()
  members = sorted(formats.tar_members(path))
  clips, rates = zip(*(formats.read_wav(data, member) for member, data in members))
  names = [Path(member).stem for member, _ in members]
  digit, speaker, index = (np.array(part) for part in zip(*(stem.split("_") for stem in names)))
  labels = {"digit": digit.astype(np.int64), "speaker": speaker}
  test = index.astype(np.int64) < 5
  return Dataset(name, "audio", list(clips), rates[0], names, labels=labels, fingerprint=place.fingerprint,
                 split={"train": np.flatnonzero(~test), "test": np.flatnonzero(test)})


_NOT_STATED = "not stated at the origin"
_WIKIPEDIA = "CC BY-SA 3.0"
_SKLEARN = "BSD-3-Clause (scikit-learn)"

CATALOG = {
    "digits": Entry("rows", "1,797 handwritten digits, 8x8, in [0, 1] (UCI)", _SKLEARN, _digits),
    "translated-digits": Entry(
        "rows", "digits, each at a random place of 12x12 pixels", _SKLEARN, _translated_digits),
    "photographs": Entry(
        "rows", "RGB patches of two photographs, 8x8 or image_size, in [0, 1]", "CC BY", _photographs),
    "iris": Entry("rows", "150 flowers of 3 species, 4 measurements (Fisher 1936)", _SKLEARN, _sklearn_table),
    "wine": Entry("rows", "178 wines of 3 cultivars, 13 measurements (UCI)", _SKLEARN, _sklearn_table),
    "pydocs": Entry(
        "text", "docstrings of the Python library and of numeric packages", "each package's own", _pydocs),
    "faithful": Entry(
        "rows", "Old Faithful: 272 eruptions and waiting times (Azzalini & Bowman 1990)", _NOT_STATED, _small_table,
        {"small-numeric/faithful.csv": "5043db1e2c51c8e8fd67e0868c768ae589770cc76ad0ac0c5b7afd1fca31fc57"}),
    "galaxies": Entry(
        "rows", "velocities of 82 galaxies, km/s (Roeder 1990)", _NOT_STATED, _small_table,
        {"small-numeric/galaxies.csv": "5c094d8beb8ecc980493de62e9fd4d2cf7f891b07aed6b1c55a5b42879f498d0"}),
    "penguins": Entry(
        "rows", "342 penguins of 3 species, 4 measurements; 2 more lack them (Horst et al. 2020)", "CC0",
        functools.partial(_small_table, labels=("species", "island", "sex"), left_out=("year",)),
        {"small-numeric/penguins.csv": "3c4c14fd9d1b3466dff2e046627cc32814ab6226c0e228c55f24e896a93a89b1"}),
    "fashion-mnist": Entry(
        "rows", "70,000 pictures of clothes, 28x28, in [0, 1] (Xiao et al. 2017)", "MIT", _fashion_mnist,
        {"fashion-mnist/train-images-idx3-ubyte.gz":
             "f46450982819e161325683178a5324fc64e606fb3758c65c6ca7dcc91aa489fd",
         "fashion-mnist/train-labels-idx1-ubyte.gz":
             "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
         "fashion-mnist/t10k-images-idx3-ubyte.gz":
             "55ec2dd7358c56fba81678bf2cd00a44de07bae64c342921600298a2b5eb517d",
         "fashion-mnist/t10k-labels-idx1-ubyte.gz":
             "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"}),
    "cifar10-jpeg": Entry(
        "images", "CIFAR-10 as JPEG: 60,000 colour pictures, 32x32, 10 classes (Krizhevsky 2009)", _NOT_STATED,
        _cifar10,
        {"cifar10-jpeg/cifar10-jpeg.tar.xz": "ce53570ca4413e103ab391943f826508ad67d99be32e6ba57a3926529b940690"}),
    "imagenet-sample-128": Entry(
        "images", "1,000 photographs, one of each class of ImageNet, cropped to 128x128 (Deng et al. 2009)",
        "non-commercial research", _imagenet_sample,
        {"imagenet-sample-128/imagenet-sample-128.tar":
             "08105fa2095668536bcd8618121c3a484dfa667502156b35fe915995886d0a39"}),
    "enwiki-2015": Entry(
        "text", "6,514 articles of the English Wikipedia of 2015, 16 M words", _WIKIPEDIA, _enwiki,
        {"enwiki-2015/enwiki_AA.txt.xz": "969f4e9581d37bd7d6a88d498bc9ad6abfd518fb1e494c473e9dacf718be9c9a"}),
    "wikitext-2": Entry(
        "text", "WikiText-2, validation and test part (Merity et al. 2016)", _WIKIPEDIA, _wikitext,
        {"wikitext-2/valid.txt.gz": "3ac34ae2b6509075d52302c50a04a8a1970739ffe1a904f2cd374fefbea3cbf2",
         "wikitext-2/test.txt.gz": "a2b26b5d2619cc1f6cd34c8e116a451aed09af51479346aadfbf508ceb8b192e"}),
    "fsdd": Entry(
        "audio", "Free Spoken Digit Dataset: 3,000 clips, 6 speakers, 8 kHz", "CC BY-SA 4.0", _spoken_digits,
        {"fsdd/recordings.tar.xz": "bc7c8b9ded33230354d11d3ac5e7daa70efc8e009877f66f0c2dcf6943835da3"}),
    "ap": Entry(
        "text", "2,246 news articles of the Associated Press, 1988 (Blei et al. 2003)", "research use only",
        _associated_press,
        {"topics/ap.tgz": "92cbe192631874708540db11969211363cf2f5c0a56b2897e0229925e5d4f2a3"}),
    "sst2": Entry(
        "text", "Stanford Sentiment Treebank as in GLUE: 68,221 phrases, 2 classes (Socher et al. 2013)", _NOT_STATED,
        _sst2,
        {"sst2/train.tsv.gz": "6ca4e5263d501878f4d62f077157b7bb7d9963542c55bc6800442efc42ffa92e",
         "sst2/dev.tsv.gz": "154c711e8e71f1bb16d35f7cf2d0fe802da59a499d45cb421626abbc621e394c",
         "sst2/test.tsv.gz": "19553efc6f7bac0b7fdd37d4e29dc37c15e9e779767249a16f857fbfcedb23fa"}),
    "cola": Entry(
        "text", "Corpus of Linguistic Acceptability: 9,594 sentences (Warstadt et al. 2018)", _NOT_STATED,
        task_sets.cola,
        {"cola/cola_public.zip": "2cf856f46df11c143d38e0cf2f9f34ff2fdb088c521cd859f5c4b9581683278b"}),
    "rte": Entry(
        "pairs", "Recognizing Textual Entailment as in GLUE: 2,767 pairs (Wang et al. 2018)", _NOT_STATED,
        task_sets.rte,
        {"rte/train.tsv.gz": "93af7a1ecd40ce2c7769561cb0b1b945610008f8a74179a720b69aff35b0bb95",
         "rte/val.tsv.gz": "5ea9cf81621a5c9b72fcbaae23e9d571ac32f8062803844569fefab621deca90",
         "rte/dev.tsv.gz": "af9453b2f54ef5ed3770360833e9a2365682d71e4a7a98dbeaffc636d603ee58"}),
    "sts-b": Entry(
        "pairs", "STS Benchmark: 8,628 pairs and how alike they are, 0 to 5 (Cer et al. 2017)",
        "CC BY-SA 4.0, texts by origin", task_sets.sts_benchmark,
        {"sts-benchmark/sts-train.csv": "fbe68f39a712ff9e80d48906d62547bde42a8154a37dfb5ad78002f29a810fb3",
         "sts-benchmark/sts-dev.csv": "5d7e944d8b02734b07bfdb5df67db3420c64bed153fcaa1ba47ad03480cf4234",
         "sts-benchmark/sts-test.csv": "affe45928a66ee5a708531233c95b7dacbbdc57f974f002a3d32ea0180cf816a"}),
    **{f"sts-{year % 100}": Entry(
        "pairs", f"SemEval STS {year}: {number} pairs and how alike they are, 0 to 5 (Agirre et al. {year})",
        _NOT_STATED, functools.partial(task_sets.semeval_sts, year=year),
        {"semeval-sts/semeval-sts-2012-2016.tar.gz":
             "a2d35a3bb8ca748b54dfa05f6f4599014ea1187fcd251b903b94afccb6b308bb"})
       for year, number in ((2012, "3,842"), (2013, "1,500"), (2014, "3,750"), (2015, "3,000"), (2016, "1,186"))},
    "snli": Entry(
        "pairs", "SNLI's development and test part: 19,666 pairs (Bowman et al. 2015)", "CC BY-SA 4.0",
        task_sets.snli,
        {"snli/dev.txt.gz": "8276d7a2971b66f0e9443572c366959e91d0ba4012adf70db6165415f90ce8b3",
         "snli/test.txt.gz": "72e7e29add41228ee5f2fc083e08c3fb23d99334de0a3d84f399c5c16dd3c85a"}),
    "snli-triples": Entry(
        "triples", "5,883 premises of SNLI's development and test part, each with what it entails and what it "
        "contradicts (Bowman et al. 2015)", "CC BY-SA 4.0", task_sets.snli_triples,
        {"snli/triples.tsv.gz": "fb8c29b6110b7ef5ece676dd4a59219bae1f0d8cc43ea457adcece5a7f107ebc"}),
    "wnut17": Entry(
        "words", "WNUT-17 emerging entities: 5,690 sentences (Derczynski et al. 2017)", "CC BY 4.0", task_sets.wnut17,
        {"ner/wnut17train.conll": "731820e13f71af324c6b55a1575ec2ce59fbaa2a0806f8f0400b98d56cd6a7a5",
         "ner/emerging.dev.conll": "e053b752b8155113ca66e7db08af5f2f5f43ab993694e4774f1ec5bad42312d8",
         "ner/emerging.test.annotated": "2aa79b764e56ec9264a1b30fdd9b70195bd00ff400b62edd8f399d5f13c178f0"}),
    "ud-ewt": Entry(
        "words", "English Web Treebank: parts of speech in 16,622 sentences (Silveira et al. 2014)", "CC BY-SA 4.0",
        task_sets.english_web_treebank,
        {"ud-english-ewt/en_ewt-ud-train.conllu.xz":
             "7e8496d11de12deb81c6dd479785ef225439de3f281dbf78f02459633645a9ad",
         "ud-english-ewt/en_ewt-ud-dev.conllu.xz": "343a1f0431c7eb0f7cf51f4d60d5d2b59dc0c94d26a4cd2fd4d4ab9c6af2dae4",
         "ud-english-ewt/en_ewt-ud-test.conllu.xz":
             "694c114fe9170a1b052d7690b45ebe1081c7e8257035e5fe3462e8736a5a38fd"}),
    "squad-parts": Entry(
        "questions", "6,928 questions on 48 articles, half of SQuAD 2.0 dev, and XQuAD (Rajpurkar et al. 2018)",
        "CC BY-SA 4.0", task_sets.squad_parts,
        {"squad-parts/squad2-halfdev.json.gz": "583fde6aab86a306f1d40364059e9bb1e75074213881a6daa0bb9da5c0d54964",
         "squad-parts/xquad.en.json.gz": "36c41f5f7aace8ee0468fefd41bb46886642e7f8ad880dd48c132fdd75674648"}),
    "20news": Entry(
        "text", "20 Newsgroups by date, 18,846 posts without headers and quotes (Lang 1995)", _NOT_STATED,
        _newsgroups,
        {"topics/20news-bydate.tar.xz": "cd94d54005d0bf40e0b1efa395e973ca656db9505fcc4b0a15cca2381f3542f9"}),
}
