"""Corpora and labeled documents."""
import re
from collections.abc import Iterator

from embeddings_jax.data import formats
from embeddings_jax.data.dataset import Dataset, text_dataset
from embeddings_jax.data.datasets.base import NOT_STATED, WIKIPEDIA, Entry, Place
from embeddings_jax.data.documents import Document, read_documents


def _pydocs(name: str, place: Place) -> Dataset:
  from embeddings_jax.data.pydocs import pydocs

  items = pydocs(place.cache_dir)
  return Dataset(name, "text", items, names=items.names, labels=items.labels, fingerprint=items.fingerprint)


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


DATASETS = {
    "pydocs": Entry(
        "text", "docstrings of the Python library and of numeric packages", "each package's own", _pydocs),
    "enwiki-2015": Entry(
        "text", "6,514 articles of the English Wikipedia of 2015, 16 M words", WIKIPEDIA, _enwiki,
        {"enwiki-2015/enwiki_AA.txt.xz": "969f4e9581d37bd7d6a88d498bc9ad6abfd518fb1e494c473e9dacf718be9c9a"}),
    "wikitext-2": Entry(
        "text", "WikiText-2, validation and test part (Merity et al. 2016)", WIKIPEDIA, _wikitext,
        {"wikitext-2/valid.txt.gz": "3ac34ae2b6509075d52302c50a04a8a1970739ffe1a904f2cd374fefbea3cbf2",
         "wikitext-2/test.txt.gz": "a2b26b5d2619cc1f6cd34c8e116a451aed09af51479346aadfbf508ceb8b192e"}),
    "ap": Entry(
        "text", "2,246 news articles of the Associated Press, 1988 (Blei et al. 2003)", "research use only",
        _associated_press,
        {"topics/ap.tgz": "92cbe192631874708540db11969211363cf2f5c0a56b2897e0229925e5d4f2a3"}),
    "20news": Entry(
        "text", "20 Newsgroups by date, 18,846 posts without headers and quotes (Lang 1995)", NOT_STATED,
        _newsgroups,
        {"topics/20news-bydate.tar.xz": "cd94d54005d0bf40e0b1efa395e973ca656db9505fcc4b0a15cca2381f3542f9"}),
    "sst2": Entry(
        "text", "Stanford Sentiment Treebank as in GLUE: 68,221 phrases, 2 classes (Socher et al. 2013)", NOT_STATED,
        _sst2,
        {"sst2/train.tsv.gz": "6ca4e5263d501878f4d62f077157b7bb7d9963542c55bc6800442efc42ffa92e",
         "sst2/dev.tsv.gz": "154c711e8e71f1bb16d35f7cf2d0fe802da59a499d45cb421626abbc621e394c",
         "sst2/test.tsv.gz": "19553efc6f7bac0b7fdd37d4e29dc37c15e9e779767249a16f857fbfcedb23fa"}),
}
