"""Feature maps averaged over cells."""
import jax.numpy as jnp
from jaxtyping import Array, Float

from embeddings_jax.types import InputError


def pooled(maps: Float[Array, "batch h w dim"], grid: int) -> Float[Array, "batch cells_dim"]:
  """Returns means over `grid` x `grid` cells, by rows, side by side; see `cell_means`."""
  if grid == 1:
    return maps.mean((1, 2))
  if grid > min(maps.shape[1:3]):
    raise InputError(f"grid={grid}: exceeds the map of {maps.shape[1]} x {maps.shape[2]} places")
  return cell_means(maps, grid, grid).reshape(len(maps), -1)


def cell_means(maps: Float[Array, "batch h w dim"], rows: int, columns: int) -> Float[
    Array, "batch {rows} {columns} dim"]:
  """Returns means over `rows` x `columns` cells, which overlap where these do not divide the map."""
  def cells(length, num):
    position, cell = jnp.arange(length), jnp.arange(num)[:, None]
    inside = (position >= cell * length // num) & (position < -(-(cell + 1) * length // num))
    return inside / inside.sum(1, keepdims=True)

  maps = jnp.einsum("ih,bhwd->biwd", cells(maps.shape[1], rows), maps, precision="highest")
  return jnp.einsum("jw,biwd->bijd", cells(maps.shape[2], columns), maps, precision="highest")
