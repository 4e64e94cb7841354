"""Batches: their mask and inputs, and one clear line for an array that is missing or of another form."""
import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from embeddings_jax.types import OUTPUTS, Array, Batch, InputError, Model

# Name of an array -> its axes by their number, accepted dtypes, and what its values mean.
FORMS = {
    "image": ({4: "[n, height, width, channels]"}, (jnp.uint8, jnp.floating), "uint8 from 0 to 255, or floats from 0 "
              "to 1,"),
    "clip": ({5: "[n, frames, height, width, channels]"}, (jnp.uint8, jnp.floating), "uint8 from 0 to 255, or floats "
             "from 0 to 1,"),
    "x": ({2: "[n, num_features]"}, (jnp.floating, jnp.integer), "numbers"),
    "tokens": ({2: "[n, length]", 3: "[n, texts, length]"}, (jnp.integer,), "integers, ids and -1 for padding,"),
    "segments": ({2: "[n, length]", 3: "[n, texts, length]"}, (jnp.integer,), "integers"),
    "characters": ({3: "[n, words, characters]", 4: "[n, texts, words, characters]"}, (jnp.integer,), "integers"),
    "signal": ({2: "[n, length]"}, (jnp.integer, jnp.floating), "uint8 bytes or int16 samples"),
    "words": ({2: "[n, length]"}, (jnp.integer,), "integers, words and -1 for padding,"),
    "counts": ({2: "[n, length]"}, (jnp.floating, jnp.integer), "numbers"),
}


def inputs_of(batch: Mapping[str, Any]) -> Mapping[str, Any]:
  """Returns the inputs of a supervised batch, `{"inputs": ..., "targets": ..., "mask": ...}`; another is its own."""
  return batch.get("inputs", batch)


def row_mask(batch: Batch) -> Array:
  """Returns 1 for each valid row of a batch and 0 for padding, [n]; all ones where the batch has no `mask`."""
  return jnp.asarray(batch["mask"]) if "mask" in batch else jnp.ones(len(jax.tree.leaves(batch)[0]))


_Factory = TypeVar("_Factory", bound=Callable[..., Model])


def takes(**axes: int | tuple[int, ...] | None) -> Callable[[_Factory], _Factory]:
  """Decorates a model's factory: its functions check their batches while they are traced, at no cost after that.

  Called on arrays, `init` checks that images in floats lie in [0, 1] too; traced it cannot see values.

  Args:
    axes: Arrays that the model reads -> accepted numbers of axes; None for any, and for arrays not in `FORMS`.
  """
  numbers = {name: (number,) if isinstance(number, int) else number for name, number in axes.items()}

  def decorate(factory: _Factory) -> _Factory:
    @functools.wraps(factory)
    def build(*args: Any, **options: Any) -> Model:
      model = factory(*args, **options)
      name = factory.__name__

      def checked(fn, index):
        @functools.wraps(fn)
        def call(*values, **named):
          batch = values[index] if len(values) > index else named.get("batch")
          if batch is None:
            return fn(*values, **named)
          check_batch(name, batch, numbers)
          try:
            return fn(*values, **named)
          except KeyError as error:
            known = FORMS.keys() | numbers if "inputs" in numbers else numbers
            if error.args and error.args[0] in known and error.args[0] not in {**inputs_of(batch), **batch}:
              raise InputError(_missing(name, batch, error.args[0], numbers)) from error
            raise
        return call

      def init(rng, batch):
        check_values(name, batch)
        return checked_init(rng, batch)

      checked_init = checked(model.init, 1)
      outputs = {}
      for key, fn in model.outputs.items():
        arguments = OUTPUTS[key].arguments if key in OUTPUTS else ("state", "batch")
        outputs[key] = checked(fn, arguments.index("batch")) if "batch" in arguments else fn
      return model._replace(init=init, update=checked(model.update, 1), embed=checked(model.embed, 1),
                            outputs=outputs)

    return build

  return decorate


def check_batch(model: str, batch: Any, axes: Mapping[str, tuple[int, ...] | None]) -> None:
  """Raises unless the arrays of a batch that the model reads have a form that it accepts.

  Args:
    model: Name for error messages.
    batch: name -> array.
    axes: Arrays that the model reads -> accepted numbers of axes; None for any.
  """
  if not isinstance(batch, Mapping):
    raise InputError(f"{model}: the batch is a {type(batch).__name__}; expected a dict of arrays, "
                     f"{_expected(next(iter(axes)), axes)}")
  arrays = inputs_of(batch)
  # The network of a supervised model reads its inputs, whichever they are.
  for name in arrays if "inputs" in axes else axes:
    array = arrays.get(name)
    if array is None or name not in FORMS or not hasattr(array, "dtype"):
      continue
    forms, dtypes, _ = FORMS[name]
    if array.ndim not in (axes.get(name) or forms) or not any(_is(array.dtype, dtype) for dtype in dtypes):
      raise InputError(f"{model}: {name!r} of the batch is {_described(array)}; expected {_expected(name, axes)}")
    if name == "image" and array.shape[-1] > 4 and array.shape[1] <= 4:
      raise InputError(f"{model}: 'image' of the batch is {_described(array)}; expected the channels on the last "
                       "axis, [n, height, width, channels]")
    mask = batch.get("mask")
    if getattr(mask, "ndim", 0) == 1 and len(mask) != len(array):
      raise InputError(f"{model}: {name!r} of the batch has {len(array)} rows, 'mask' {len(mask)}")


def check_values(model: str, batch: Any) -> None:
  """Raises if images in floats, as arrays that are not traced, are not in [0, 1]."""
  image = inputs_of(batch).get("image") if isinstance(batch, Mapping) else None
  if image is None or isinstance(image, (jax.core.Tracer, jax.ShapeDtypeStruct)) or not hasattr(image, "dtype"):
    return
  if _is(image.dtype, jnp.floating) and image.size and getattr(image, "is_fully_addressable", True):
    low, high = float(np.min(np.asarray(image, np.float32))), float(np.max(np.asarray(image, np.float32)))
    if not (low >= 0 and high <= 1):
      raise InputError(f"{model}: 'image' of the batch has floats from {low:g} to {high:g}; expected 0 to 1 (or "
                       "uint8 from 0 to 255)")


def _missing(model: str, batch: Mapping[str, Any], name: str, axes: Mapping[str, Any]) -> str:
  present = ", ".join(f"{key!r} {_described(value)}" for key, value in inputs_of(batch).items()) or "nothing"
  return f"{model}: the batch has no {name!r}, expected {_expected(name, axes)}; it has {present}"


def _expected(name: str, axes: Mapping[str, Any]) -> str:
  if name not in FORMS:
    return f"an array {name!r}"
  forms, _, values = FORMS[name]
  return f"{name!r}: {values} {' or '.join(forms[number] for number in axes.get(name) or forms)}"


def _described(array: Any) -> str:
  return f"{array.dtype} {list(array.shape)}" if hasattr(array, "dtype") else f"a {type(array).__name__}"


def _is(dtype: Any, kind: Any) -> bool:
  return jnp.issubdtype(dtype, kind)
