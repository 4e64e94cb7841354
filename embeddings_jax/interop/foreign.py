"""Files of other programs that are no word vectors, told by their first bytes, and the way out."""
import os

from embeddings_jax.data.files.streams import opened
from embeddings_jax.types import InputError

_FOREIGN = {
    **{bytes([0x80, version]): "a pickle (gensim's .kv and .model are), which runs code when it is loaded; in gensim "
       "write the vectors by model.wv.save_word2vec_format(FILE), or KeyedVectors'" for version in range(2, 6)},
    b"\xba\x16\x4f\x2f": "a model of fastText; read it by format=fasttext, or in gensim write the vectors by "
       "load_facebook_vectors(PATH).save_word2vec_format(FILE)",
    b"PK\x03\x04": "an archive (of torch, Keras or NumPy); save the table by np.save, with its words in "
       "NAME.vocabulary.txt",
    b"\x89HDF": "HDF5; save the table by np.save, with its words in NAME.vocabulary.txt",
    b"\x93NUMPY": "a .npy file; give it a name that ends in .npy, with its words in NAME.vocabulary.txt"}


def refuse_foreign(path: str | os.PathLike) -> None:
  """Raises for files of other programs that are recognized, and for directories."""
  if os.path.isdir(path):
    raise InputError(f"{path}: is a directory; give a file of word vectors")
  with opened(path) as file:
    start = file.read(8)
  for beginning, what in _FOREIGN.items():
    if start.startswith(beginning):
      raise InputError(f"{path}: is {what}")
