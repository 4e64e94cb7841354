"""Embeds items and sentences with a trained state."""
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from embeddings_jax.data import packing
from embeddings_jax.data.encoders.base import best_widths, bucket
from embeddings_jax.ops import sentence_vectors
from embeddings_jax.ops.sharding import DATA_AXES
from embeddings_jax.train.mesh import num_data_shards, put
from embeddings_jax.types import InputError, Model, PyTree

EMBEDDED_AT_ONCE = 1024  # Items.
WORD_POOLINGS = ("mean", "idf", "sif", "concatenation", "components")
IN_FLIGHT = 2  # Batches that are not fetched yet.


class OverRows:
  """A compiled `(state, batch) -> rows` that gives each device of the state's mesh its share of the batch's rows.

  The result is replicated. Batches are host arrays, whole on every process, of a multiple of the data shards.
  """

  def __init__(self, fn: Callable[[PyTree, Any], Any], state: PyTree):
    self._state, self.mesh = state, jax.tree.leaves(state)[0].sharding.mesh
    # Of a function that stays the same it is compiled once.
    self.compiled = jax.jit(fn, out_shardings=NamedSharding(self.mesh, P()))

  def __call__(self, batch: Mapping[str, Any]) -> Any:
    """Returns the rows of a batch."""
    with jax.set_mesh(self.mesh):
      return self.compiled(self._state, self.placed(batch))

  def placed(self, batch: Mapping[str, Any]) -> Any:
    """Returns the batch as global arrays that are split by rows."""
    if self.mesh.size == 1:
      return batch
    return put(batch, NamedSharding(self.mesh, P(DATA_AXES)))

  def rows(self, number: int) -> int:
    """Returns the number of rows, rounded up to a multiple of the data shards."""
    return -(-number // num_data_shards(self.mesh)) * num_data_shards(self.mesh)

  def at_once(self, elements: int) -> int:
    """Returns the elements of a batch: accelerators want more of them than what stays in a processor's cache."""
    return elements * (1 if self.mesh.devices.flat[0].platform == "cpu" else 32)


def over_batches(fn: Callable[..., Any], state: PyTree, *, of_rows: bool = True,
                 static: Sequence[int] = ()) -> Callable[..., Any]:
  """Returns `(batch, *others) -> fn(state, batch, *others)`, compiled; each device computes its share of the rows.

  Rows of `mask` 0 are added where the data shards do not divide the batch. Without a mask, and with `others`, on the
  shape of whose noise a result may depend, every device computes all of such a batch.

  Args:
    fn: A function of a model.
    state: Its state; its mesh is the program's.
    of_rows: Whether the leading axis of every result is the batch's rows; else rows of `mask` 0 must not change it.
    static: Numbers of the arguments of `fn` that are no arrays.
  """
  sharding = jax.tree.leaves(state)[0].sharding
  if not isinstance(sharding, NamedSharding) or sharding.mesh.size == 1:
    compiled = jax.jit(fn, static_argnums=static)
    return lambda batch, *others: compiled(state, batch, *others)
  mesh: Any = sharding.mesh
  compiled = jax.jit(fn, static_argnums=static, out_shardings=NamedSharding(mesh, P()))
  shards = num_data_shards(mesh)

  def call(batch: Mapping[str, Any], *others: Any) -> Any:
    batch = jax.tree.map(np.asarray, dict(batch))
    lengths = {leaf.shape[:1] for leaf in jax.tree.leaves(batch)}
    (number,) = lengths.pop() if len(lengths) == 1 and () not in lengths else (0,)
    extra = -number % shards
    split = number > 0 and (not extra or ("mask" in batch and not others))
    if split and extra:
      batch = jax.tree.map(lambda x: np.pad(x, [(0, extra)] + [(0, 0)] * (x.ndim - 1)), batch)
    with jax.set_mesh(mesh):
      result = compiled(state, put(batch, NamedSharding(mesh, P(DATA_AXES) if split else P())), *others)
    result = jax.tree.map(lambda x: x.addressable_data(0), result)
    return jax.tree.map(lambda x: x[:number], result) if split and extra and of_rows else result

  return call


def embedder(model: Model, state: PyTree, encoder: Any, output: str = "") -> Callable[[Sequence[Any]], np.ndarray]:
  """`items -> [num_items, dim]`: encode, pad to a bucket, run the compiled program, unpad.

  Args:
    model, state, encoder: Those of a run.
    output: the named output to compute instead of the embedding.
  """
  if not output and "embed_packed" in model.outputs and hasattr(encoder, "token_ids"):
    return packing_embedder(model, state, encoder)
  compiled = OverRows(model.outputs[output] if output else model.embed, state)
  at_once = compiled.at_once(encoder.embedded_at_once)
  widths: list[int] = []  # As the first items want them; kept, so that later ones find their programs compiled.

  def embed(items: Sequence[Any]) -> np.ndarray:
    waiting: dict[Any, dict[str, np.ndarray]] = {}  # Rows that wait for others of their shapes.
    sizes: dict[Any, int] = {}  # Of shapes for which a program is compiled.
    outputs, indices = [], []

    def run(rows: dict[str, np.ndarray], size: int) -> None:
      index = rows.pop("place")
      padded = {key: np.pad(value, [(0, size - len(index))] + [(0, 0)] * (value.ndim - 1))
                for key, value in rows.items()}
      outputs.append(compiled(padded).addressable_data(0)[:len(index)])
      indices.append(index)
      if len(outputs) > IN_FLIGHT:  # Fetched late, so that the device never waits.
        outputs[-1 - IN_FLIGHT] = np.asarray(outputs[-1 - IN_FLIGHT])

    for first in range(0, len(items), encoder.encoded_at_once):
      batch = encoder.encode(items[first:first + encoder.encoded_at_once])
      batch["place"] = first + np.arange(len(batch["mask"]))
      for rows in by_length(encoder, batch, widths):
        shapes = tuple(value.shape[1:] for value in rows.values())
        if shapes in waiting:
          rows = {key: np.concatenate([waiting[shapes][key], value]) for key, value in rows.items()}
        total, per_row = len(rows["place"]), sum(int(np.prod(shape)) for shape in shapes if shape)
        size = compiled.rows(max(1, min(EMBEDDED_AT_ONCE, at_once // max(1, per_row))))
        whole = total // size * size
        for row in range(0, whole, size):
          sizes[shapes] = size
          run({key: value[row:row + size] for key, value in rows.items()}, size)
        waiting[shapes] = {key: value[whole:] for key, value in rows.items()}
    for shapes, rows in waiting.items():
      if len(rows["place"]):
        run(rows, sizes.get(shapes) or compiled.rows(bucket(len(rows["place"]))))
    vectors = np.concatenate([np.asarray(value) for value in outputs])
    vectors[np.concatenate(indices)] = vectors.copy()
    return vectors

  return embed


def sentence_embedder(
    embed: Callable[[Sequence[str]], np.ndarray],
    encoder: Any,
    pooling: str = "mean",
    *,
    sif_a: float = 1e-3,
    num_words: int = 16,
    num_components: int = 2,
) -> Callable[[Sequence[str]], np.ndarray]:
  """`sentences -> [num_sentences, dim]` of a model of words (`embeddings_jax/ops/sentence_vectors.py`).

  Args:
    embed: words -> [num_words, d].
    encoder: Encoder of words; `sif` uses its vocabulary's counts.
    pooling: one of `WORD_POOLINGS`. Of `idf` the counts, and of `sif` the first component, are those of the sentences
      that are embedded together.
    sif_a: the a of `sif`'s a / (a + p(w)).
    num_words, num_components: Options of `concatenation` and `components`.
  """
  counts = encoder.vocabulary.counts
  if pooling == "sif" and not counts.any():
    raise InputError("pooling=sif: needs the words' counts, which a file of vectors lacks; a run has them")
  if not 0 < sif_a < math.inf:
    raise InputError(f"sif_a={sif_a}: must be a positive number")
  fn = {"concatenation": lambda table, tokens, _: sentence_vectors.concatenation(table, tokens, num_words),
        "components": lambda table, tokens, _: sentence_vectors.components(table, tokens, num_components),
        }.get(pooling, sentence_vectors.mean)
  compiled = jax.jit(fn)

  def embed_sentences(sentences: Sequence[str]) -> np.ndarray:
    table, weights = jnp.asarray(embed(encoder.names)), None
    batches = []
    for first in range(0, len(sentences), encoder.encoded_at_once):
      tokens = encoder.encode(sentences[first:first + encoder.encoded_at_once])["tokens"]
      batches.append(np.pad(tokens, [(0, bucket(len(tokens)) - len(tokens)), (0, 0)], constant_values=-1))
    if pooling == "idf":
      frequency = jnp.asarray(sum(
          sentence_vectors.document_frequency(jnp.asarray(tokens), len(table)) for tokens in batches))
      weights = sentence_vectors.idf_weights(frequency, len(sentences))
      if not np.asarray(jnp.where(frequency > 0, weights, 0)).any():
        raise InputError(f"pooling=idf: each word is in all of the {len(sentences)} lines, so that all weights are "
                         "0; the frequencies are those of the input, so give more lines, or take mean")
    elif pooling == "sif":
      weights = sentence_vectors.sif_weights(jnp.asarray(counts, jnp.float32), sif_a)
    # All batches but the last are full, so that no row of padding stands before one of a sentence.
    vectors = np.concatenate([np.asarray(compiled(table, tokens, weights)) for tokens in batches])[:len(sentences)]
    if pooling == "sif":
      common = jnp.asarray(vectors)
      vectors = np.asarray(sentence_vectors.remove_component(common, sentence_vectors.first_component(common)))
      if float(jnp.abs(vectors).max()) <= 1e-5 * float(jnp.abs(common).max()):
        raise InputError(f"pooling=sif: the vectors of the {len(sentences)} lines have one direction, which SIF "
                         "takes for what is common to all and removes; give more lines, or take mean")
    return np.asarray(vectors)

  return embed_sentences


def packing_embedder(model: Model, state: PyTree, encoder: Any) -> Callable[[Sequence[Any]], np.ndarray]:
  """As `embedder`, for models that read several texts in a row: at most four programs, and hardly any padding."""
  compiled = OverRows(model.outputs["embed_packed"], state)
  widths = packing.row_widths(encoder.max_length)
  at_once = compiled.at_once(encoder.embedded_at_once)
  sizes: dict[int, int] = {}  # Width -> rows of the program that is compiled.

  def batches(items: Sequence[Any]):
    """The packed rows, and which item is in which slot."""
    for first in range(0, len(items), encoder.encoded_at_once):
      for rows in packing.packed(encoder.encode(items[first:first + encoder.encoded_at_once]), widths):
        total, width = rows["tokens"].shape
        most = max(1, at_once // (2 * width))
        size = sizes[width] = compiled.rows(max(sizes.get(width, 1), min(most, bucket(total))))
        for row in range(0, total, size):
          piece = {key: value[row:row + size] for key, value in rows.items()}
          more = size - len(piece["tokens"])
          piece = {key: np.pad(value, ((0, more), (0, 0)), constant_values=0 if key == "segments" else -1)
                   for key, value in piece.items()}
          yield piece, np.where(piece["slots"] >= 0, piece["slots"] + first, -1)

  def embed(items: Sequence[Any]) -> np.ndarray:
    waiting: list[tuple[Any, np.ndarray]] = []  # Fetched late, so that the device never waits.
    vectors = None

    def fetch(keep: int) -> None:
      nonlocal vectors
      while len(waiting) > keep:
        value, slots = waiting.pop(0)
        value = np.asarray(value.addressable_data(0))
        if vectors is None:  # A text without a token has the vector 0.
          vectors = np.zeros((len(items), value.shape[-1]), np.float32)
        vectors[slots[slots >= 0]] = value[slots >= 0]

    for piece, slots in batches(items):
      waiting.append((compiled(piece), slots))
      fetch(IN_FLIGHT)
    fetch(0)
    if vectors is None:
      raise InputError("no item to embed has a token")
    return vectors

  return embed


def by_length(encoder: Any, batch: dict[str, np.ndarray], widths: list[int]) -> list[dict[str, np.ndarray]]:
  """The rows of an encoded batch by the lengths that they are to be padded to, shortest first.

  Of an encoder with `num_widths` these are `widths`, to which is added what is lacking.
  """
  lengths = encoder.lengths(batch)
  if lengths is None:
    return [batch]
  if not encoder.num_widths:
    buckets = np.array([encoder.bucket(int(length)) for length in lengths])
  else:
    if not widths:
      widths += [min(width, encoder.max_length) for width in best_widths(lengths, encoder.num_widths)]
    elif lengths.max() > widths[-1]:
      widths.append(encoder.max_length)
    buckets = np.asarray(widths)[np.searchsorted(widths, lengths)]

  def fitted(key: str, rows: np.ndarray, width: int) -> np.ndarray:
    if rows.ndim == 1:
      return rows
    more = [(0, 0), (0, max(0, width - rows.shape[1]))] + [(0, 0)] * (rows.ndim - 2)
    return np.pad(rows[:, :width], more, constant_values=encoder.padding.get(key, 0))

  return [{key: fitted(key, value[buckets == width], width) for key, value in batch.items()}
          for width in np.unique(buckets)]
