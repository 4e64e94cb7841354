"""Even shares of arrays that the mesh does not divide: rows of zeros at the ends of stored leaves.

A vocabulary of 30,522 words divides by neither 4 nor 8. A leaf that a rule splits is stored with as few rows more as
make the shares equal; models, evaluations and exports only see it without them, so that no result depends on them.
Within a program the cut leaf keeps its layout, as each device's share has the same size.
"""
import functools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from embeddings_jax.ops.sharding import constrain
from embeddings_jax.train.mesh import path_name, spread, state_shardings
from embeddings_jax.types import PyTree, Rule

MOST = 1 / 16  # Share of an axis that may be added; where it would take more, every device holds the whole.


class Padding:
  """Stored and whole forms of a state on a mesh.

  Attributes:
    whole: Abstract state as the model has it.
    stored: Abstract state as it lies on devices and in checkpoints.
    layout: Sharding of every stored leaf; `whole_layout`: of every leaf of a whole state.
    sizes: Path -> shape without padding, of the leaves that have some.
  """

  def __init__(self, abstract: PyTree, mesh: Mesh, rules: Sequence[Rule]):
    self.whole = abstract
    self.sizes: dict[str, list[int]] = {}

    def grow(path, leaf):
      name = path_name(path)
      spec = next((spec for pattern, spec in rules if re.search(pattern, name)), ())
      shape = tuple(_even(size, axes, mesh) for size, axes in zip(leaf.shape, spec)) + leaf.shape[len(spec):]
      if shape == leaf.shape:
        return leaf
      self.sizes[name] = list(leaf.shape)
      return jax.ShapeDtypeStruct(shape, leaf.dtype)

    self.stored = jax.tree_util.tree_map_with_path(grow, abstract)
    self.layout = state_shardings(self.stored, mesh, rules)
    self.whole_layout = state_shardings(abstract, mesh, rules)

  def of(self, make: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """Returns `make`, whose result is a whole state, with the stored one as result."""
    return make if not self.sizes else lambda *args: self._grown(make(*args))

  def around(self, update: Callable[..., tuple[PyTree, Any]]) -> Callable[..., tuple[PyTree, Any]]:
    """Returns `(state, ...) -> (state, result)` on stored states."""
    if not self.sizes:
      return update

    def on_stored(state, *args):
      state, result = update(self._cut(state), *args)
      return self._grown(state), result

    return on_stored

  def reading(self, function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns `(state, ...) -> result` on stored states."""
    return function if not self.sizes else lambda state, *args: function(self._cut(state), *args)

  def cut(self, state: PyTree) -> PyTree:
    """Returns the whole state of a stored one; what was padded is then replicated along that axis."""
    return state if not self.sizes else self._compiled_cut(state)

  def grown(self, state: PyTree) -> PyTree:
    """Inverts `cut`."""
    return state if not self.sizes else self._compiled_grown(state)

  @functools.cached_property
  def _compiled_cut(self) -> Callable[[PyTree], PyTree]:
    return jax.jit(self._cut, out_shardings=self.whole_layout)  # Once, not at every evaluation.

  @functools.cached_property
  def _compiled_grown(self) -> Callable[[PyTree], PyTree]:
    return jax.jit(self._grown, out_shardings=self.layout)

  def _cut(self, state: PyTree) -> PyTree:
    def one(leaf, whole, sharding):
      if leaf.shape == whole.shape:
        return leaf
      return constrain(leaf[tuple(slice(size) for size in whole.shape)], sharding.spec)
    return jax.tree.map(one, state, self.whole, self.layout)

  def _grown(self, state: PyTree) -> PyTree:
    def one(leaf, stored):
      return jnp.pad(leaf, [(0, new - old) for old, new in zip(leaf.shape, stored.shape)])
    return jax.tree.map(lambda leaf, stored: leaf if leaf.shape == stored.shape else one(leaf, stored), state,
                        self.stored)


def _even(size: int, axes: Any, mesh: Mesh) -> int:
  """Size of an axis with the padding that makes shares even; `size` where that would be too much."""
  shards = math.prod(mesh.shape[axis] for axis in spread(axes))
  extra = -size % shards
  return size + extra if extra <= MOST * size else size
