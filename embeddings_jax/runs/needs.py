"""Capabilities of a trained model that evaluations ask for by name: a protocol's `needs`."""
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from embeddings_jax.data.encoders.base import bucket
from embeddings_jax.runs.inference import OverRows, over_batches
from embeddings_jax.types import Model, PyTree

PREDICTED_AT_ONCE = 64  # Rows.


class Need(NamedTuple):
  """A capability.

  Attributes:
    model: The kind of model that has it, for error messages.
    provide: `evaluator -> keyword arguments of a protocol's function`, or None where the model lacks it. The
      evaluator is that of `runs/evaluation.py`; it has `model`, which may be None, `state`, `encoder`, `task`,
      `splits`, `facts`, `untrained` and `options`.
  """

  model: str
  provide: Callable[[Any], Mapping[str, Any] | None]


def _vocabulary(subject: Any) -> Mapping[str, Any] | None:
  names = getattr(subject.encoder, "names", None)
  if names is None:
    return None
  known = getattr(subject.encoder, "known_words", None)  # Of words that are made of n-grams: every word.
  return {"vocabulary": dict.fromkeys(names) if known is None else known}


def _topics(subject: Any) -> Mapping[str, Any] | None:
  """Returns `topics` [k, V], p(w|z), and the encoder of words."""
  if not hasattr(subject.encoder, "bag") or "components" not in _outputs(subject):
    return None
  parts = subject.model.outputs["components"](subject.state)
  return {"topics": np.asarray(parts["beta"]), "encoder": subject.encoder} if "beta" in parts else None


def _predict(subject: Any) -> Mapping[str, Any] | None:
  if "predict" not in _outputs(subject) or subject.task is None:
    return None
  return {"task": subject.task, "encoded": subject.task.encoded,
          "predict": predictor(subject.model, subject.state, subject.encoder)}


def _measures(subject: Any) -> Mapping[str, Any] | None:
  """Returns `measure`, the held-out `source`, and the training split's `counts` and `special_ids`."""
  if "measures" not in _outputs(subject) or subject.splits is None:
    return None
  facts = {name: subject.facts[name] for name in ("counts", "special_ids") if name in (subject.facts or {})}
  return {"measure": over_batches(subject.model.outputs["measures"], subject.state, of_rows=False),
          "source": subject.splits.get("validation"), **facts}


def _hidden(subject: Any) -> Mapping[str, Any] | None:
  if not _has_layers(subject):
    return None
  return {"hidden": word_layers(subject.model, lambda: subject.state, subject.encoder)}


def _untrained(subject: Any) -> Mapping[str, Any] | None:
  """Returns the layers of a state before its first update."""
  if not _has_layers(subject) or subject.untrained is None:
    return None
  return {"untrained": word_layers(subject.model, subject.untrained, subject.encoder)}


def _reconstruct(subject: Any) -> Mapping[str, Any] | None:
  """Returns `reconstruct`, `encode` and the held-out `source`."""
  if "reconstruct" not in _outputs(subject):
    return None
  return {"reconstruct": over_batches(subject.model.outputs["reconstruct"], subject.state), **_held_out(subject)}


def _likelihood(subject: Any) -> Mapping[str, Any] | None:
  """Returns `bound`, `encode` and the held-out `source`."""
  if "likelihood_bound" not in _outputs(subject):
    return None
  return {"bound": over_batches(subject.model.outputs["likelihood_bound"], subject.state, static=(3,)),
          **_held_out(subject)}


def _decode(subject: Any) -> Mapping[str, Any] | None:
  """Returns `decode`, codes -> images, some at a time."""
  if "decode" not in _outputs(subject):
    return None
  compiled = jax.jit(subject.model.outputs["decode"])

  def decode(codes: np.ndarray) -> np.ndarray:
    pieces = np.array_split(codes, range(PREDICTED_AT_ONCE, len(codes), PREDICTED_AT_ONCE))
    return np.concatenate([np.asarray(compiled(subject.state, piece)) for piece in pieces])

  return {"decode": decode, "source": (subject.splits or {}).get("validation")}


def _maps(subject: Any) -> Mapping[str, Any] | None:
  """Returns `maps`, frames -> feature maps [n, h, w, dim] of all layers by name, of models of images or clips."""
  if "layers" not in _outputs(subject) or not hasattr(subject.encoder, "shape"):
    return None
  layers = over_batches(subject.model.outputs["layers"], subject.state)
  encode = getattr(subject.encoder, "encode_frames", subject.encoder.encode)

  def maps(frames: np.ndarray) -> dict[str, np.ndarray]:
    pieces = []
    for first in range(0, len(frames), PREDICTED_AT_ONCE):
      piece = frames[first:first + PREDICTED_AT_ONCE]
      padded = np.pad(piece, [(0, -len(piece) % 8)] + [(0, 0)] * 3)  # Few lengths of clips are few programs.
      by_layer = jax.tree.map(np.asarray, layers(encode(padded)))
      pieces.append({name: value.reshape(len(padded), *value.shape[-3:])[:len(piece)]
                     for name, value in by_layer.items()})
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}

  return {"maps": maps}


def _frames(subject: Any) -> Mapping[str, Any] | None:
  """Returns `frames`, clips -> layer -> the vectors of each clip's frames, of networks of audio."""
  if "hidden" not in _outputs(subject) or not hasattr(subject.encoder, "rate"):
    return None
  hidden = over_batches(subject.model.outputs["hidden"], subject.state)

  def frames(clips: Sequence[Any]) -> dict[str, list[np.ndarray]]:
    vectors: dict[str, list[np.ndarray]] = {}
    for first in range(0, len(clips), PREDICTED_AT_ONCE):
      batch = subject.encoder.encode(clips[first:first + PREDICTED_AT_ONCE])
      samples = bucket(batch["signal"].shape[1])
      extra = PREDICTED_AT_ONCE - len(batch["signal"])
      padded = {"signal": np.pad(batch["signal"], [(0, extra), (0, samples - batch["signal"].shape[1])]),
                "length": np.pad(batch["length"], (0, extra), constant_values=1),
                "mask": np.pad(batch["mask"], (0, extra))}
      layers = np.asarray(hidden(padded))
      for clip, length in zip(layers, batch["length"]):
        number = max(1, round(layers.shape[2] * int(length) / samples))  # The others are padding.
        for layer, rows in enumerate(clip):
          vectors.setdefault(str(layer), []).append(rows[:number].astype(np.float32))
    return vectors

  return {"frames": frames}


def _image_shape(subject: Any) -> Mapping[str, Any] | None:
  """Returns `shape`, height, width and channels, of models of images."""
  return {"shape": subject.encoder.shape} if getattr(subject.encoder, "kind", "") == "images" else None


def _codes(subject: Any) -> Mapping[str, Any] | None:
  """Returns `codes`, `num_codes`, `encode` and the held-out `source`."""
  if "codes" not in _outputs(subject):
    return None
  return {"codes": over_batches(subject.model.outputs["codes"], subject.state),
          "num_codes": len(subject.state.extra["counts"]), **_held_out(subject)}


def _generate(subject: Any) -> Mapping[str, Any] | None:
  """Returns `generators` by their sources, `encode`, `cache_dir`, and `features` of a file that was named."""
  from embeddings_jax.runs.generators import generators

  drawn = generators(subject)
  if not drawn:
    return None
  provided = {"generators": drawn, "encode": subject.encoder.encode, "cache_dir": subject.cache_dir}
  if path := subject.options.get("inception"):
    from embeddings_jax.runs.inception_features import inception_features

    provided["features"] = functools.partial(inception_features, path)
  return provided


def _held_out(subject: Any) -> Mapping[str, Any]:
  return {"encode": subject.encoder.encode, "source": (subject.splits or {}).get("validation")}


NEEDS = {
    "embed": Need("a model with embeddings", lambda subject: {}),
    "sentences": Need("a model of sentences", lambda subject: {}),
    "vocabulary": Need("a model of words", _vocabulary),
    "topics": Need("a model of topics", _topics),
    "predict": Need("a fine-tuned model", _predict),
    "measures": Need("a language model", _measures),
    "reconstruct": Need("a model that reconstructs its inputs", _reconstruct),
    "likelihood": Need("a model with a bound on the likelihood, as vae", _likelihood),
    "decode": Need("a model that decodes codes, as autoencoder", _decode),
    "maps": Need("a model with feature maps of frames, as video_colorization", _maps),
    "frames": Need("a network of audio with layers of frames, as hubert", _frames),
    "image_shape": Need("a model of images", _image_shape),
    "codes": Need("a model with discrete codes, as vq_vae", _codes),
    "generate": Need("a model that draws samples or decodes codes, as gan", _generate),
    "hidden": Need("a model with layers of tokens, as bert", _hidden),
    "untrained": Need("a model with layers of tokens, as bert", _untrained),
}


def _outputs(subject: Any) -> Mapping[str, Any]:
  return subject.model.outputs if subject.model is not None else {}


def _has_layers(subject: Any) -> bool:
  return "hidden" in _outputs(subject) and hasattr(subject.encoder, "encode_words")


def predictor(model: Model, state: PyTree, encoder: Any) -> Callable[[Mapping[str, Any]], np.ndarray]:
  """Returns `encoded -> predictions`, the output `predict` of all rows of a split of a task.

  Rows that the encoder pads are sorted by length and cut to one of four widths.
  """
  compiled = OverRows(model.outputs["predict"], state)
  at_once = compiled.rows(PREDICTED_AT_ONCE)

  def rows_of(inputs: Mapping[str, Any], rows: np.ndarray, axis: int, width: int | None) -> dict[str, np.ndarray]:
    """Some rows, cut to the width at their axis of time, and filled up to a full batch."""
    def one(value):
      value = np.asarray(value[rows])
      value = value[(slice(None),) * axis + (slice(width),)] if width else value
      return np.pad(value, [(0, at_once - len(rows))] + [(0, 0)] * (value.ndim - 1))
    return jax.tree.map(one, dict(inputs))

  def predict(encoded: Mapping[str, Any]) -> np.ndarray:
    inputs = encoded["inputs"]
    lengths, first = encoder.lengths(inputs), jax.tree.leaves(inputs)[0]
    if lengths is None:
      order, axis, widths = np.arange(len(first)), 0, np.array([0])
    else:
      axis, longest = lengths.ndim, first.shape[lengths.ndim]
      lengths = lengths.reshape(len(lengths), -1).max(1)
      order = np.argsort(lengths, kind="stable")
      widths = np.array(sorted({min(longest, -(-longest * i // 32) * 8) for i in range(1, 5)}))
    predictions = None
    for start in range(0, len(order), at_once):
      rows = order[start:start + at_once]
      width = 0 if lengths is None else int(widths[np.searchsorted(widths, lengths[rows].max())])
      batch = {"inputs": rows_of(inputs, rows, axis, width)}
      part = np.asarray(compiled(batch).addressable_data(0))[:len(rows)]
      of_tokens = part.ndim == 3
      if predictions is None:
        predictions = np.zeros((len(order), longest, part.shape[2]) if of_tokens else (len(order), *part.shape[1:]),
                               part.dtype)
      if of_tokens:
        predictions[rows, :width] = part
      else:
        predictions[rows] = part
    return predictions

  return predict


def word_layers(model: Model, state_of: Callable[[], PyTree], encoder: Any) -> Callable:
  """Returns `sentences -> (float32 [num_words, layers + 1, dim], bool [num_words])`, the words one after another.

  A word's vectors are those of its first token; the second array says whether there is one. `state_of` is called
  when the vectors are needed."""

  def layers(state, batch):
    batch = dict(batch)
    starts = batch.pop("starts")
    layers_of_batch = model.outputs["hidden"](state, batch)
    layers_of_batch = jnp.take_along_axis(layers_of_batch, starts[:, None, :, None], axis=2)
    return jnp.moveaxis(layers_of_batch, 2, 1).astype(jnp.float32)

  def hidden(sentences: Sequence[Sequence[str]]) -> tuple[np.ndarray, np.ndarray]:
    compiled = over_batches(layers, state_of())
    order = np.argsort([len(words) for words in sentences], kind="stable")
    first = np.concatenate([[0], np.cumsum([len(words) for words in sentences])])
    vectors, known = None, np.zeros(first[-1], bool)
    for start in range(0, len(order), PREDICTED_AT_ONCE):
      rows = order[start:start + PREDICTED_AT_ONCE]
      chosen = [sentences[i] for i in rows] + [["."]] * (PREDICTED_AT_ONCE - len(rows))
      batch = encoder.encode_words(chosen)
      starts = batch.pop("word_starts")
      width = bucket(starts.shape[1])
      starts = np.pad(starts, [(0, 0), (0, width - starts.shape[1])], constant_values=-1)
      values = np.asarray(compiled({**batch, "starts": np.maximum(starts, 0)}))
      if vectors is None:
        vectors = np.zeros((first[-1], *values.shape[2:]), np.float32)
      for row, i in enumerate(rows):
        words = slice(first[i], first[i + 1])
        vectors[words] = values[row, :len(sentences[i])]
        known[words] = starts[row, :len(sentences[i])] >= 0
    return vectors, known

  return hidden
