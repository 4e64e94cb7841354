"""Pretrained word vectors by name: files that others publish, downloaded where there is a network.

The files are those of gensim-data, in the formats of `word_vectors.py`. A file is looked for as
`word-vectors/NAME.gz` in `--data_dir` or `$EMBEDDINGS_DATA`, then in the cache, and else downloaded into the cache. A
download is checked against the size and the MD5 sum that its publisher gives: a guard against damage, the source
itself being trusted.
"""
import hashlib
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple

from embeddings_jax.data.cache import cache_root, cached
from embeddings_jax.types import InputError

ADDRESS = "https://github.com/RaRe-Technologies/gensim-data/releases/download/{name}/{name}.gz"
FOLDER = "word-vectors"
_BLOCK = 1 << 20


class Published(NamedTuple):
  """A published file.

  Attributes:
    size: Bytes of the compressed file.
    md5: Its sum, hexadecimal.
    about: Number of words, dimension and training text.
    license: As its publisher states it.
  """

  size: int
  md5: str
  about: str
  license: str


_GLOVE = "400,000 words, {} dimensions, Wikipedia 2014 and Gigaword 5 (Pennington et al. 2014)"
_TWITTER = "1,193,514 words, {} dimensions, 27 billion tokens of Twitter (Pennington et al. 2014)"
CATALOG = {
    "glove-wiki-gigaword-50": Published(69_182_535, "c289bc5d7f2f02c6dc9f2f9b67641813", _GLOVE.format(50), "PDDL"),
    "glove-wiki-gigaword-100": Published(134_300_434, "40ec481866001177b8cd4cb0df92924f", _GLOVE.format(100), "PDDL"),
    "glove-wiki-gigaword-200": Published(264_336_934, "59652db361b7a87ee73834a6c391dfc1", _GLOVE.format(200), "PDDL"),
    "glove-wiki-gigaword-300": Published(394_362_229, "29e9329ac2241937d55b852e8284e89b", _GLOVE.format(300), "PDDL"),
    "glove-twitter-25": Published(109_885_004, "50db0211d7e7a2dcd362c6b774762793", _TWITTER.format(25), "PDDL"),
    "glove-twitter-100": Published(405_932_991, "b04f7bed38756d64cf55b58ce7e97b15", _TWITTER.format(100), "PDDL"),
    "word2vec-google-news-300": Published(
        1_743_563_840, "a5e5354d40acb95f9ec66d5977d140ef",
        "3,000,000 words and phrases, 300 dimensions, Google News (Mikolov et al. 2013)", "not stated"),
}


def located(name: str | os.PathLike, *, data_dir: str | os.PathLike | None = None,
            cache_dir: str | os.PathLike | None = None) -> Path | str | os.PathLike:
  """Returns the file of vectors that are named in the catalog; anything else, as an existing path, as it is.

  Args:
    name: A name of `CATALOG`, or a path.
    data_dir: Directory of data; by default `$EMBEDDINGS_DATA`.
    cache_dir: See `data/cache.py`.

  Raises:
    InputError: The file is neither there nor can it be downloaded, or it is not the published one.
  """
  if str(name) not in CATALOG or Path(name).exists():
    return name
  folder = data_dir or os.environ.get("EMBEDDINGS_DATA")
  local = Path(folder) / FOLDER / f"{name}.gz" if folder else None
  if local is not None and local.exists():
    return local
  return cached(cache_root(cache_dir) / FOLDER / f"{name}.gz", lambda draft: _download(str(name), draft))


def _download(name: str, draft: Path) -> None:
  published, address = CATALOG[name], ADDRESS.format(name=name)
  advice = f"or download it yourself and give its path, or put it into the data directory as {FOLDER}/{name}.gz"
  total, md5 = 0, hashlib.md5(usedforsecurity=False)
  try:
    with urllib.request.urlopen(address, timeout=60) as response, draft.open("wb") as file:
      while block := response.read(_BLOCK):
        total += len(block)
        if total > published.size:
          break
        md5.update(block)
        file.write(block)
  except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
    reason = getattr(error, "reason", error)
    raise InputError(f"{name}: {address} cannot be downloaded ({reason}); try again, {advice}") from error
  if (total, md5.hexdigest()) != (published.size, published.md5):
    raise InputError(f"{name}: {address} is not the published file ({published.size:,} bytes, MD5 {published.md5}); "
                     f"try again, {advice}")
