"""The largest eigenvalues of a symmetric operator that is known by its products alone: block Lanczos (Golub &
Underwood 1977) with thick restarts (Wu & Simon 2000), in float32 with full orthogonalisation.

  process = fresh(block, capacity), or later start(vectors, values, block, capacity)
  while not full(process): process = extend(process, operator @ process.block)
  vectors, values, residual, block = restart(process, kept)

From a random block and without a restart this is the block Krylov method of Halko, Martinsson, Shkolnisky & Tygert
(2011): all the blocks that power iterations go through are kept, not the last alone, so that the same number of
passes over the data gives far more exact values. Directions that the span has already become 0, which is harmless,
so that operators of any rank and size may come.
"""
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from embeddings_jax.types import Array

NEGLIGIBLE = 5e-6  # Of a unit vector, along the basis that it should be orthogonal to.


class Process(NamedTuple):
  """A growing basis and what the operator C is on it."""

  basis: Float[Array, "m n"]  # Orthonormal rows; 0 where there is none yet.
  core: Float[Array, "m m"]  # Upper triangle: basis C basis'.
  block: Float[Array, "n b"]  # What comes next: orthonormal, and so to the basis.
  beyond: Float[Array, "b b"]  # block' C (the basis' last b rows)'.
  size: Int[Array, ""]  # Rows of the basis in use.


def fresh(block: Float[Array, "n b"], capacity: int) -> Process:
  """A process that knows nothing yet but an orthonormal block; its basis will have `capacity` rows."""
  return start(jnp.zeros((0, block.shape[0])), jnp.zeros(0), block, capacity)


def start(vectors: Float[Array, "r n"], values: Float[Array, " r"], block: Float[Array, "n b"],
          capacity: int) -> Process:
  """A process that begins with what is known: `vectors`, orthonormal (or 0), on which C is diagonal, and a `block`
  orthonormal to them that holds what C leads to beyond them."""
  kept, size = values.shape[0], block.shape[1]
  diagonal = jnp.arange(kept)
  return Process(
      basis=jnp.pad(vectors, ((0, capacity - kept), (0, 0))),
      core=jnp.zeros((capacity, capacity)).at[diagonal, diagonal].set(values),
      block=block, beyond=jnp.zeros((size, size)), size=jnp.asarray(kept, jnp.int32))


def grown(process: Process, capacity: int) -> Process:
  """The same with room for `capacity` rows."""
  extra = capacity - process.basis.shape[0]
  return process._replace(basis=jnp.pad(process.basis, ((0, extra), (0, 0))),
                          core=jnp.pad(process.core, ((0, extra), (0, extra))))


def full(process: Process) -> Bool[Array, ""]:
  """Returns whether there is no room for a further block."""
  return process.size + process.block.shape[1] > process.basis.shape[0]


def extend(process: Process, image: Float[Array, "n b"]) -> Process:
  """Takes the block into the basis; `image` is C block."""
  basis = jax.lax.dynamic_update_slice(process.basis, process.block.T, (process.size, 0))
  column = jnp.matmul(basis, image, precision="highest")
  core = jax.lax.dynamic_update_slice(process.core, column, (0, process.size))
  block = orthonormal(image, basis.T)
  return Process(basis, core, block, jnp.matmul(block.T, image, precision="highest"),
                 process.size + process.block.shape[1])


def restart(process: Process, kept: int, magnitude: bool = False) -> tuple[Array, Array, Array, Array]:
  """The best that the basis holds, after at least one extension.

  Args:
    process: The process.
    kept: Number of eigenvectors.
    magnitude: Whether to keep the values that are largest in magnitude, as singular values are.

  Returns:
    vectors [kept, n]; values [kept], descending (in magnitude); the norms of their residuals C v - value v [kept];
    the block [n, b] to go on with.
  """
  size = process.block.shape[1]
  values, turn = jnp.linalg.eigh(jnp.triu(process.core) + jnp.triu(process.core, 1).T)
  order = jnp.argsort(-jnp.abs(values)) if magnitude else jnp.arange(values.shape[0])[::-1]
  values, turn = values[order][:kept], turn[:, order][:, :kept]
  last = jax.lax.dynamic_slice_in_dim(turn, process.size - size, size)
  residual = jnp.linalg.norm(process.beyond @ last, axis=0)
  vectors = jnp.matmul(turn.T, process.basis, precision="highest")
  return vectors * signs(vectors.T)[:, None], values, residual, process.block


def largest(product: Callable[[Array], Array], size: int, count: int, rng: Array, *, block: int, blocks: int,
            num_oversamples: int, tol: float, max_cycles: int,
            magnitude: bool = False) -> tuple[Array, Array, Array]:
  """Finds the largest eigenvalues of a symmetric operator.

  Args:
    product: The operator, [n, b] -> [n, b].
    size: n.
    count: Number of eigenpairs.
    rng: Key of the first block.
    block, blocks, num_oversamples, tol, max_cycles: As in `models/graphs/netmf.py`.
    magnitude: Whether values count by their magnitude. Otherwise an operator with values below 0 must be shifted, as
      what is not found yet ranks as 0.

  Returns:
    vectors [n, count], orthonormal; values [count], descending; the largest residual, relative to its value.
  """
  block = min(block, size)
  kept = min(count + num_oversamples, size)
  capacity = kept + blocks * block

  def relative(values, residual):
    largest_values = jnp.abs(values[:count])
    return (residual[:count] / jnp.maximum(largest_values, 1e-4 * largest_values[0] + 1e-30)).max()

  def cycle(carry):
    vectors, values, following, _, number = carry
    process = start(vectors, values, following, capacity)
    process = jax.lax.fori_loop(0, blocks, lambda _, p: extend(p, product(p.block)), process)
    vectors, values, residual, following = restart(process, kept, magnitude)
    return vectors, values, following, relative(values, residual), number + 1

  nothing = jnp.zeros((kept, size))
  first = orthonormal(jax.random.normal(rng, (size, block)), nothing.T)
  vectors, values, _, residual, _ = jax.lax.while_loop(
      lambda carry: (carry[3] > tol) & (carry[4] < max_cycles), cycle,
      (nothing, jnp.zeros(kept), first, jnp.asarray(jnp.inf), jnp.zeros((), jnp.int32)))
  return vectors[:count].T, values[:count], residual


def orthonormal(x: Float[Array, "n b"], basis: Float[Array, "n m"]) -> Float[Array, "n b"]:
  """An orthonormal basis [n, b] of what the columns of x [n, b] add to those of `basis` [n, m]; 0 where nothing.

  By the eigenvectors of the Gram matrix (Stathopoulos & Wu 2002), which tell the rank; a second turn makes up for
  what rounding left of the first. It takes away what lies along the basis where that is not negligible yet: errors of
  a basis that is added to grow from block to block.
  """
  product = lambda a, b: jnp.matmul(a, b, precision="highest")

  def rotated(x, least):
    squares, turn = jnp.linalg.eigh(product(x.T, x))
    length = jnp.sqrt(jnp.maximum(squares, 0))
    return product(x, turn * jnp.where(length > least, 1 / jnp.maximum(length, 1e-30), 0))

  size = jnp.linalg.norm(x, axis=0).max()
  x = rotated(x - product(basis, product(basis.T, x)), 1e-5 * size)
  along = product(basis.T, x)
  x = jax.lax.cond(jnp.abs(along).max() > NEGLIGIBLE, lambda x: x - product(basis, along), lambda x: x, x)
  return rotated(x, 0.5)


def signs(vectors: Float[Array, "n b"]) -> Float[Array, " b"]:
  """Factors that make the largest component of each column positive, so that the sign is not left to rounding."""
  largest = jnp.take_along_axis(vectors, jnp.abs(vectors).argmax(0)[None], 0)[0]
  return jnp.where(largest < 0, -1.0, 1.0)
