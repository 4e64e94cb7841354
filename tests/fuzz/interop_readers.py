"""Readers of foreign models, tokenizers, word vectors and encoder folders, and valid files for them."""
import io
import json
import os
import pathlib
import struct
import sys
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

os.environ["TOKENIZERS_PARALLELISM"] = "false"  # Children are forked.
sys.path.append(str(pathlib.Path(__file__).parents[1]))

import numpy as np  # noqa: E402
from harness import Reader, reader_of_files  # noqa: E402
from networks import mae_params, random_params, vit_params  # noqa: E402

from embeddings_jax.data.encoders import load_encoder  # noqa: E402
from embeddings_jax.data.encoders.bags import BagEncoder  # noqa: E402
from embeddings_jax.data.encoders.bytes import ByteEncoder  # noqa: E402
from embeddings_jax.data.encoders.characters import MARKS, CharacterEncoder  # noqa: E402
from embeddings_jax.data.encoders.images import ImageEncoder  # noqa: E402
from embeddings_jax.data.encoders.rows import RowEncoder  # noqa: E402
from embeddings_jax.data.encoders.subwords import SubwordEncoder  # noqa: E402
from embeddings_jax.data.encoders.waveforms import WaveformEncoder  # noqa: E402
from embeddings_jax.data.encoders.words import WordEncoder  # noqa: E402
from embeddings_jax.data.files.tokenizer import load_tokenizer  # noqa: E402
from embeddings_jax.data.processor import Processor  # noqa: E402
from embeddings_jax.data.tokenizer_training import train_bpe, train_wordpiece  # noqa: E402
from embeddings_jax.data.words import Vocabulary  # noqa: E402
from embeddings_jax.interop import huggingface, huggingface_vision, word_vectors  # noqa: E402

TEXTS = ["The cat sat on the mat.", "A dog, a cat and another dog!", "naïve 京都"]
WORDPIECE, BPE = train_wordpiece(TEXTS * 9, 90), train_bpe(TEXTS, 270)
WORDS, VECTORS = ["king", "queen", "naïve", "x\u2028y"], np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)
TEXT = dict(dim=4, num_layers=1, num_heads=2, mlp_dim=16, max_length=16, position_offset=0, positions="learned")


def files_of(write: Callable[[pathlib.Path], Any]) -> dict[str, bytes]:
  """Returns the files that a function writes into a folder."""
  with tempfile.TemporaryDirectory() as folder:
    root = pathlib.Path(folder)
    write(root)
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def network(kind: str, **options: Any) -> dict[str, bytes]:
  tokenizer = BPE if kind == "gpt" else WORDPIECE
  hyper = TEXT | dict(vocab_size=tokenizer.get_vocab_size()) | (
      dict(num_segments=0, embedding_norm=False, causal=True, norm="pre", activation="gelu_tanh", norm_epsilon=1e-5)
      if kind == "gpt" else dict(num_segments=2, embedding_norm=True, causal=False, norm="post", activation="gelu",
                                 norm_epsilon=1e-12))
  files = huggingface.tokenizer_files(tokenizer.to_str().encode(), 16) | options.get("files", {})
  params = random_params(hyper, ("pooler",) if kind == "bert" else ())
  return files_of(lambda folder: huggingface.write(folder, kind, hyper, params, files))


def as_bert_tokenizer(files: Mapping[str, bytes]) -> dict[str, bytes]:
  """With the class that is built from the vocabulary, and without `tokenizer.json`."""
  config = b'''{"tokenizer_class": "BertTokenizer", "do_lower_case": true, "strip_accents": false,
    "model_max_length": 12, "cls_token": {"content": "[CLS]"},
    "added_tokens_decoder": {"0": {"content": "[PAD]", "special": true}}}'''
  return {name: data for name, data in files.items() if name != "tokenizer.json"} | {"tokenizer_config.json": config}


def read_text_network(folder: pathlib.Path) -> None:
  sentence = huggingface.sentence_model(folder)
  _, hyper, _ = huggingface.read(folder)
  huggingface.text_encoder(sentence, hyper).encode(["The cat", ("a dog", "sat")])


def vision(decoder: bool) -> dict[str, bytes]:
  hyper = dict(patch_size=2, dim=8, num_layers=1, num_heads=2, mlp_dim=8, norm_epsilon=1e-12)
  others = dict(decoder_dim=8, decoder_layers=1, decoder_heads=2, decoder_mlp_dim=8)
  params = mae_params(hyper | others, 4, 3) if decoder else {"encoder": vit_params(
      hyper | dict(positions="learned"), 4, 3)}
  return files_of(lambda folder: huggingface_vision.write(
      folder, hyper | dict(positions="sincos2d" if decoder else "learned"), others, params, (4, 4, 3)))


def read_vision(folder: pathlib.Path) -> None:
  if not huggingface_vision.is_vision(folder):
    return
  *_, shape = huggingface_vision.read(folder)
  encoder = ImageEncoder(*shape, huggingface_vision.processor(folder, shape))
  encoder.encode([np.zeros((5, 7, shape[2]), np.uint8) if encoder.processor else np.zeros(shape, np.uint8)])


ITEMS: dict[str, list[Any]] = {
    "rows": [[1.0, 2.0]], "images": [np.zeros((4, 4, 1), np.uint8)], "words": ["king x"], "bags": ["king x"],
    "waveforms": [np.ones(9, np.int16)], "bytes": ["king"], "subwords": ["the cat"], "characters": ["the cat"]}


def read_encoder(folder: pathlib.Path) -> None:
  encoder = load_encoder(folder)
  assert len(encoder.fingerprint) == 64
  items = ITEMS[encoder.kind]
  if encoder.kind == "rows":
    items = [np.zeros(min(encoder.num_features, 1 << 16))]
  if encoder.kind == "images" and not encoder.processor:
    items = [np.zeros([min(side, 256) for side in encoder.shape], np.uint8)]
  encoder.encode(items)


VOCABULARY = Vocabulary(WORDS, [4, 3, 2, 1])
FOLDERS = [files_of(encoder.save) for encoder in (
    RowEncoder(2, [0, 1], [1, 2], True), ImageEncoder(4, 4, 1),
    ImageEncoder(4, 4, 1, Processor(6, 3, (4, 4))), WordEncoder(VOCABULARY, "lower"),
    BagEncoder(VOCABULARY, "cased"), WaveformEncoder(8000, 100), ByteEncoder(16),
    SubwordEncoder(WORDPIECE, 16), SubwordEncoder(BPE, 16),
    CharacterEncoder([*MARKS, "the", "cat"], 8, 16))]


def saved(array: np.ndarray) -> bytes:
  file = io.BytesIO()
  np.save(file, array)
  return file.getvalue()


def vectors_in(format: str, name: str) -> dict[str, bytes]:
  words = WORDS if format == "npy" else [*WORDS[:3], "z"]
  return files_of(lambda folder: word_vectors.write(folder / name, words, VECTORS, format))


def fasttext() -> bytes:
  """A model of four words with n-grams of two and three characters in five buckets."""
  data = struct.pack("<ii12id", 793712314, 12, 3, 5, 5, 1, 5, 1, 2, 1, 5, 2, 3, 100, 1e-4)
  data += struct.pack("<iiiqq", 4, 4, 0, 9, -1)
  data += b"".join(word.encode() + b"\0" + struct.pack("<qb", 3, 0) for word in ("king", "queen", "na\u00efve", "z"))
  return data + struct.pack("<?qq", False, 9, 3) + np.arange(27, dtype="<f4").tobytes()


def byte_pairs() -> dict[str, bytes]:
  model = json.loads(BPE.to_str())["model"]
  return {"vocab.json": json.dumps(model["vocab"]).encode(), "config.json": b'{"model_type": "gpt2"}',
          "merges.txt": ("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in model["merges"])).encode()}


def read_vectors(path: pathlib.Path) -> None:
  for errors in ("strict", "replace"):
    word_vectors.read(path, errors=errors)


BERT, GPT, SENTENCES = network("bert"), network("gpt"), network("bert", files=huggingface.sentence_files(
    "mean", 4, 12, True))
READERS = [
    reader_of_files("word2vec text", vectors_in("word2vec", "a.txt") | vectors_in("word2vec", "a.txt.gz"),
                    read_vectors),
    reader_of_files("word2vec binary", vectors_in("word2vec-binary", "a.bin"), read_vectors),
    reader_of_files("fasttext", {"a.bin": fasttext()}, read_vectors),
    Reader("vocabulary and merges", [byte_pairs()],
           lambda folder: SubwordEncoder(load_tokenizer(folder), 16).encode(["The cat", ("a", "b")])),
    reader_of_files("glove", vectors_in("glove", "a.txt"), read_vectors),
    Reader("npy vectors", [vectors_in("npy", "a.npy"), {"a.npy": saved(VECTORS[:2].astype(np.float64)),
                                                        "vocabulary.txt": b"a\nb\n"}],
           lambda folder: read_vectors(folder / "a.npy")),
    Reader("bert", [BERT, as_bert_tokenizer(BERT)], read_text_network),
    Reader("gpt2", [GPT], read_text_network),
    Reader("sentence-transformers", [SENTENCES], read_text_network,
           [name for name in SENTENCES if name.endswith(".json") and name not in ("config.json", "tokenizer.json")]),
    Reader("vit", [vision(True), vision(False)], read_vision),
    reader_of_files("tokenizer.json", {"a.json": BERT["tokenizer.json"], "b.json": GPT["tokenizer.json"]},
                    lambda path: SubwordEncoder(load_tokenizer(path), 16).encode(["The cat", ("a", "b")])),
    reader_of_files("vocab.txt", {"vocab.txt": BERT["vocab.txt"]},
                    lambda path: SubwordEncoder(load_tokenizer(path.rename(path.with_suffix(".txt"))), 16).encode(
                        ["The cat", ("a", "b")])),
    Reader("encoder folder", FOLDERS, read_encoder),
]
