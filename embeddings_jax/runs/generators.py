"""Sources of samples of a model, for the protocol `generation` and for figures."""
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from embeddings_jax.runs import codes as of_codes
from embeddings_jax.runs import sampling

AT_ONCE = 250  # Samples.
MAX_CODES = 256  # Largest code to which a mixture is fitted.


def generators(subject: Any) -> Mapping[str, Callable[[int, int], np.ndarray]]:
  """Returns source -> `(num, seed) -> samples`, {} for a model that draws none.

  Args:
    subject: An `Evaluator`, with `model`, `state`, `encoder`, `dataset` and `embed`.
  """
  outputs = subject.model.outputs if subject.model is not None else {}
  if hasattr(subject.encoder, "token_ids"):  # Texts.
    return {}
  by_source: dict[str, Callable[[int, int], np.ndarray]] = {}
  if hasattr(subject.encoder, "origin"):  # Codes of another run, which decodes them.
    compiled = jax.jit(outputs["sample"], static_argnums=2)
    return {"prior": lambda num, seed: of_codes.decode(subject.encoder, in_pieces(
        lambda key: compiled(subject.state, key, AT_ONCE), num, seed))}
  if "sample" in outputs:
    compiled = jax.jit(outputs["sample"], static_argnums=2)
    by_source["prior"] = lambda num, seed: in_pieces(
        lambda key: compiled(subject.state, key, AT_ONCE), num, seed)
  if "decode" in outputs:
    decode = jax.jit(outputs["decode"])

    def of_density(kind: str) -> Callable[[int, int], np.ndarray]:
      return lambda num, seed: decoded(decode, subject.state, sampling.draw_codes(
          training_codes(subject), kind, num, seed=seed))

    if "codes" in outputs:  # Discrete ones, of which there is no Gaussian.
      shape = jax.eval_shape(outputs["codes"], subject.state, subject.encoder.example()).shape[1:]
      number = len(subject.state.extra["counts"])
      draw = lambda num, seed: np.random.default_rng(seed).integers(0, number, (num, *shape)).astype(np.int32)
      return by_source | {"uniform": lambda num, seed: decoded(decode, subject.state, draw(num, seed))}
    width = jax.eval_shape(subject.model.embed, subject.state, subject.encoder.example()).shape[-1]
    by_source |= {kind: of_density(kind) for kind in ("uniform", "gaussian", "mixture")
                  if kind != "mixture" or width <= MAX_CODES}
  return by_source


def in_pieces(draw: Callable[[jax.Array], Any], num: int, seed: int) -> np.ndarray:
  """Returns `num` samples, `AT_ONCE` for each key."""
  keys = [jax.random.fold_in(jax.random.key(seed), piece) for piece in range(-(-num // AT_ONCE))]
  return np.concatenate([np.asarray(draw(key)) for key in keys])[:num]


def decoded(decode: Callable[[Any, Any], Any], state: Any, codes: np.ndarray) -> np.ndarray:
  """Returns what codes stand for, some at a time."""
  pieces = range(0, len(codes), AT_ONCE)
  return np.concatenate([np.asarray(decode(state, codes[first:first + AT_ONCE])) for first in pieces])


def training_codes(subject: Any) -> np.ndarray:
  """Returns embeddings of evenly spaced training items."""
  dataset = subject.dataset
  rows = np.asarray(dataset.split.get("train", np.arange(len(dataset.items))))
  rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), sampling.MAX_ITEMS)).astype(int)]
  items = dataset.items[rows] if isinstance(dataset.items, np.ndarray) else [dataset.items[i] for i in rows]
  return np.asarray(subject.embed(items), np.float32)
