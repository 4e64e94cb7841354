"""Counts the products that a traced program asks for, before any is split or repeated among devices."""
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jax.extend import core


def flops(jaxpr: Any) -> float:
  """Returns twice the multiplications of all matrix products and convolutions of a closed jaxpr, kernels included.

  Bodies of `scan` count by their lengths, those of `shard_map` by the devices among which their inputs or results are
  split, of `cond` the most expensive branch. Bodies of `while` count once, as the text says no number of trips.
  """
  return _flops(jaxpr.jaxpr, _of_equation)


def kernel_flops(jaxpr: Any) -> float:
  """Returns those of `flops` that hand-written kernels compute, which compiled programs do not show."""
  of_kernels = lambda equation: _of_kernel(equation) if equation.primitive.name == "pallas_call" else 0.0
  return _flops(jaxpr.jaxpr, of_kernels)


def _flops(jaxpr: Any, leaf: Callable[[Any], float]) -> float:
  return sum(_within(equation, leaf) for equation in jaxpr.eqns)


def _of_equation(equation: Any) -> float:
  """Returns the FLOPs of an equation that has no body, or whose body is a kernel."""
  name, params = equation.primitive.name, equation.params
  if name == "dot_general":
    (axes, _), _ = params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    return 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in axes)
  if name == "conv_general_dilated":
    return _of_convolution(equation)
  return _of_kernel(equation) if name == "pallas_call" else 0.0


def _of_kernel(equation: Any) -> float:
  """Products of a Pallas kernel: those of its body, in each cell of its grid."""
  grid = [size for size in equation.params["grid_mapping"].grid if isinstance(size, int)]
  return math.prod(grid) * _flops(equation.params["jaxpr"], _of_equation)


def _within(equation: Any, leaf: Callable[[Any], float]) -> float:
  name, params = equation.primitive.name, equation.params
  if name in ("dot_general", "conv_general_dilated", "pallas_call"):
    return leaf(equation)
  if name == "cond":
    return max(_flops(branch.jaxpr, leaf) for branch in params["branches"])
  times = 1
  if name == "scan":
    times = params["length"]
  elif name == "shard_map":
    specs = [axis for spec in (*params["in_specs"], *params["out_specs"]) for axis in _axes(spec)]
    times = math.prod(params["mesh"].shape[axis] for axis in set(specs))
  return times * sum(_flops(body, leaf) for body in inner(params))


def _axes(spec: Any) -> Iterator[str]:
  for entry in spec:
    if entry is not None:
      yield from (entry,) if isinstance(entry, str) else entry


def inner(params: Any) -> Iterator[Any]:
  """Jaxprs among the parameters of an equation, those of custom derivatives left out."""
  for key, value in params.items():
    if key in ("jvp_jaxpr_fun", "fwd_jaxpr_thunk", "bwd", "cond_jaxpr"):
      continue
    for part in value if isinstance(value, (tuple, list)) else (value,):
      if isinstance(part, core.ClosedJaxpr):
        yield part.jaxpr
      elif isinstance(part, core.Jaxpr):
        yield part


def _of_convolution(equation: Any) -> float:
  """Elements that are padding, or gaps of a dilation, count for nothing, as in `hlo.py`."""
  numbers, params = equation.params["dimension_numbers"], equation.params
  left, right = (operand.aval.shape for operand in equation.invars)
  result = equation.outvars[0].aval.shape
  number = result[numbers.out_spec[0]] * result[numbers.out_spec[1]] * right[numbers.rhs_spec[1]]
  for i, (low, _) in enumerate(params["padding"]):
    length, size = left[numbers.lhs_spec[2 + i]], right[numbers.rhs_spec[2 + i]]
    places = (np.arange(result[numbers.out_spec[2 + i]])[:, None] * params["window_strides"][i]
              + np.arange(size) * params["rhs_dilation"][i] - low)
    spread = params["lhs_dilation"][i]
    number *= int(((places >= 0) & (places <= (length - 1) * spread) & (places % spread == 0)).sum())
  return 2.0 * number / params["batch_group_count"]
