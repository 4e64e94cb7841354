"""Principal component analysis (Pearson 1901; Hotelling 1933), for rows that need not be in memory together.

With rows x_n, their mean m and the scatter matrix C = sum_n (x_n - m)(x_n - m)', the rows v_1, ..., v_k of V are the
eigenvectors of C with the largest eigenvalues l_1 >= l_2 >= ...; among all linear maps of rank k they lose least:

  loss = 1/N sum_n |x_n - m - V'V (x_n - m)|^2 = (trace C - l_1 - ... - l_k) / N

| symbol         | code                 | shape  |
| -------------- | -------------------- | ------ |
| m              | `mean`               | [d]    |
| V              | `components`         | [k, d] |
| l / (N - 1)    | `variances`          | [k]    |
| V (x - m)      | `embed`              | [n, k] |

One update is one batch; an epoch is `steps_per_epoch` of them. Three ways (`solver`):
- `exact`: sums C over one pass and takes its eigenvectors, for d up to some thousands;
- `randomized`: never forms C. A pass multiplies a block of vectors by it, C Q = sum_n (x_n - m)((x_n - m)'Q), and all
  blocks of `num_epochs` passes together span the space in which the eigenvectors are sought (Halko, Martinsson &
  Tropp 2011; with all the blocks: Halko, Martinsson, Shkolnisky & Tygert 2011; see `ops/lanczos.py`). Then it goes on
  from what it found, until the residuals |C v - l v| are below `tol` times l;
- `incremental`: each batch is merged into the components of those before, by the eigenvectors of
  V' diag(l) V + C_batch + n m / (n + m) (difference of the means)(...)' (Ross et al. 2008). One pass, and an estimate
  after each batch; what a batch has beyond k components is forgotten, so that it is an approximation.
Sums are taken around a row near the data (the first batch's mean, then the mean of all) and corrected for it, which
float32 needs where the data is far from 0. Rows are split over the data shards; one all-reduce adds the sums up.

Split: row | its place in few dimensions | the row.

Expected: scikit-learn's components up to sign and its variances, to float error (its test).
Command: `python -m experiments.run --model=pca`.
"""
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from embeddings_jax.ops import lanczos
from embeddings_jax.ops.batches import row_mask, takes
from embeddings_jax.ops.chunks import sum_over_chunks
from embeddings_jax.types import Batch, Fact, InputError, Model

SOLVERS = ("auto", "exact", "randomized", "incremental")
EXACT_FEATURES = 1024  # `auto` sums the scatter matrix up to this d.


class Sums(NamedTuple):
  """Sums over rows, around the state's mean s."""

  count: Float[Array, ""]
  first: Float[Array, " d"]  # sum (x - s)
  square: Float[Array, ""]  # sum |x - s|^2
  image: Float[Array, "d b"]  # sum (x - s)(x - s)' Q; Q is the identity where the scatter matrix is summed.


class PCAState(NamedTuple):
  """The components, the sums of the current pass, and the randomized search.

  Attributes:
    step: updates made.
    mean: m, or where it is not known yet a row near it; 0 where the data is not centered.
    components: V, orthonormal; 0 before the first is known.
    variances: Variances of the components, l / (N - 1).
    total: the variance of all d features together.
    loss: mean squared distance of a row to its reconstruction.
    residual: the largest |C v - l v| / l.
    sums: Sums of the epoch under way (`incremental`: all rows' count, no more).
    search: Search of `randomized`, else ().
  """

  step: Int[Array, ""]
  mean: Float[Array, " d"]
  components: Float[Array, "k d"]
  variances: Float[Array, " k"]
  total: Float[Array, ""]
  loss: Float[Array, ""]
  residual: Float[Array, ""]
  converged: Int[Array, ""]
  sums: Sums
  search: Any


@takes(x=2)
def pca(
    *,
    num_features: Fact[int],
    num_rows: Fact[int],
    dim: int,
    steps_per_epoch: Fact[int] = 1,
    solver: str = "auto",
    center: bool = True,
    whiten: bool = False,
    num_epochs: int = 4,
    num_oversamples: int = 10,
    tol: float = 1e-2,
    chunk_size: int = 16384,
) -> Model:
  """A `Model` of batches `x` [n, d] float32 and `mask` [n].

  Args:
    num_features: d.
    num_rows: N, at least as many as components are wanted.
    dim: k.
    steps_per_epoch: batches of an epoch.
    solver: `exact`, `randomized`, `incremental`, or `auto`: exact for d up to 1024, else randomized.
    center: take the mean away; without it C is the sum of x x' (and m is 0).
    whiten: divide the coordinates by their deviations, so that each has variance 1 over the data; those of a
      component without variance are 0.
    num_epochs: Passes of `randomized` until it checks its residuals, the first with random vectors, the others power
      iterations; where it has to go on, one fewer.
    num_oversamples: vectors beyond k that `randomized` and `incremental` carry along.
    tol: Tolerance of `randomized`; the others converge with the first pass. 0 never converges.
    chunk_size: rows of one product on one device.

  Returns:
    `embed` gives coordinates [n, k]. Outputs: `reconstruct` (`original` and `reconstructed`, [n, d]), `loss`, and
    `components`: `mean`, `components`, `explained_variance`, `explained_variance_ratio` and `singular_values` (as
    scikit-learn names them).
  """
  if solver not in SOLVERS:
    raise InputError(f"pca: solver={solver!r}: must be one of {', '.join(SOLVERS)}")
  if not 1 <= dim <= min(num_features, num_rows):
    raise InputError(f"pca: dim={dim}: must be from 1 to {min(num_features, num_rows)}, for the data has {num_rows} "
                     f"rows of {num_features} features")
  for name, value, least in (("num_epochs", num_epochs, 2), ("num_oversamples", num_oversamples, 0),
                             ("chunk_size", chunk_size, 1)):
    if value < least:
      raise InputError(f"pca: {name}={value}: must be at least {least}")
  small = num_features <= EXACT_FEATURES
  if solver == "auto":
    solver = "exact" if small else "randomized"
  dense = solver == "exact" or (solver == "incremental" and small)  # The scatter matrix is formed.
  width = min(dim + num_oversamples, num_features)

  def init(rng, batch):
    x, mask = batch["x"], row_mask(batch)
    count = jnp.maximum(mask.sum(), 1)
    mean = (mask @ x) / count if center else jnp.zeros(num_features)
    square = (mask * ((x - mean) ** 2).sum(1)).sum()
    search = ()
    if solver == "randomized":
      block = lanczos.orthonormal(jax.random.normal(rng, (num_features, width)), jnp.zeros((num_features, 1)))
      search = lanczos.fresh(block, num_epochs * width)
    return PCAState(
        step=jnp.zeros((), jnp.int32), mean=mean, components=jnp.zeros((dim, num_features)),
        variances=jnp.zeros(dim), total=square / jnp.maximum(count - 1, 1), loss=square / count,
        residual=jnp.ones(()), converged=jnp.zeros((), jnp.int32), sums=_no_sums(), search=search)

  def _no_sums():
    columns = {"exact": num_features, "randomized": width, "incremental": 1}[solver]
    return Sums(jnp.zeros(()), jnp.zeros(num_features), jnp.zeros(()), jnp.zeros((num_features, columns)))

  def update(state, batch, rng):
    step = {"exact": accumulate, "randomized": accumulate, "incremental": merge}[solver]
    state = jax.lax.cond(state.converged > 0, lambda state: state, lambda state: step(state, batch, rng), state)
    ratio = state.variances / jnp.maximum(state.total, 1e-30)
    metrics = {"loss": state.loss, "explained_variance": ratio.sum(), "converged": state.converged}
    return state, metrics | ({"residual": state.residual} if solver == "randomized" else {})

  def accumulate(state, batch, rng):
    del rng
    block = state.search.block if solver == "randomized" else None
    sums = jax.tree.map(jnp.add, state.sums, batch_sums(batch, state.mean, block, chunk_size))
    state = state._replace(step=state.step + 1, sums=sums)
    if steps_per_epoch == 1:
      return end_of_pass(state)
    return jax.lax.cond(state.step % steps_per_epoch == 0, end_of_pass, lambda state: state, state)

  def end_of_pass(state):
    count, first, square, image = state.sums
    count = jnp.maximum(count, 1)
    delta = first / count if center else jnp.zeros(num_features)
    part = delta if solver == "exact" else _product(delta, state.search.block)
    image -= count * delta[:, None] * part  # From sums around s to sums around the mean.
    scatter = square - count * (delta ** 2).sum()
    state = state._replace(mean=state.mean + delta, total=scatter / jnp.maximum(count - 1, 1), sums=_no_sums())
    if solver == "exact":
      return found(state, count, *_largest(image, dim))._replace(converged=jnp.asarray(tol > 0, jnp.int32))
    state = state._replace(search=lanczos.extend(state.search, image))
    return jax.lax.cond(lanczos.full(state.search), lambda state: end_of_search(state, count), lambda state: state,
                        state)

  def end_of_search(state, count):
    vectors, values, residual, block = lanczos.restart(state.search, width)
    relative = residual[:dim] / jnp.maximum(values[:dim], 1e-6 * values[0] + 1e-30)
    state = found(state, count, vectors[:dim], values[:dim])
    return state._replace(residual=relative.max(), converged=(relative.max() < tol).astype(jnp.int32),
                          search=lanczos.start(vectors, values, block, num_epochs * width))

  def found(state, count, components, values):
    values = jnp.maximum(values, 0)
    scatter = state.total * jnp.maximum(count - 1, 1)
    return state._replace(components=components, variances=values / jnp.maximum(count - 1, 1),
                          loss=jnp.maximum(scatter - values.sum(), 0) / count)

  def merge(state, batch, rng):
    """Takes in one batch of `incremental`."""
    old = jnp.maximum(state.sums.count, 0)
    known = state.components, state.variances * jnp.maximum(old - 1, 1)
    sums = lambda block: batch_sums(batch, state.mean, block, chunk_size)
    image_of = lambda block: merged_image(sums(block), block, *known, old, center)
    if dense:
      merged = image_of(None)
      components, values = _largest(merged.image, dim)
    else:
      start = jnp.concatenate([state.components.T, jax.random.normal(rng, (num_features, width))], 1)
      block = lanczos.orthonormal(start, jnp.zeros((num_features, 1)))
      search = lanczos.fresh(block, 2 * block.shape[1])
      for _ in range(2):
        merged = image_of(search.block)
        search = lanczos.extend(search, merged.image)
      components, values, _, _ = lanczos.restart(search, dim)
    count = old + merged.sums.count
    scatter = ((state.sums.count > 0) * state.total * jnp.maximum(old - 1, 1)
               + merged.sums.square - merged.lost * (merged.delta ** 2).sum())
    state = state._replace(
        step=state.step + 1, mean=state.mean + merged.delta * merged.sums.count / jnp.maximum(count, 1),
        total=scatter / jnp.maximum(count - 1, 1), sums=state.sums._replace(count=count),
        converged=((state.step + 1 >= steps_per_epoch) & (tol > 0)).astype(jnp.int32))
    return found(state, jnp.maximum(count, 1), components, values)

  def project(state, x):
    return _product(x - state.mean, state.components.T)

  def embed(state, batch):
    coordinates = project(state, batch["x"])
    if whiten:
      # Below that it is rounding.
      nonzero = state.variances > num_features * jnp.finfo(jnp.float32).eps * state.variances[0]
      coordinates *= jnp.where(nonzero, 1 / jnp.sqrt(jnp.maximum(state.variances, 1e-30)), 0)
    return coordinates

  def reconstruct(state, batch):
    x = batch["x"]
    return {"original": x, "reconstructed": state.mean + _product(project(state, x), state.components)}

  def loss(state, batch):
    mask, error = row_mask(batch), batch["x"] - reconstruct(state, batch)["reconstructed"]
    return (mask * (error ** 2).sum(1)).sum() / jnp.maximum(mask.sum(), 1)

  def components(state):
    return {"mean": state.mean, "components": state.components, "explained_variance": state.variances,
            "explained_variance_ratio": state.variances / jnp.maximum(state.total, 1e-30),
            "singular_values": jnp.sqrt(state.variances * max(num_rows - 1, 1))}

  rules = ((r"(^|/)(components|basis)$", P(None, "model")), (r"(^|/)(image|block)$", P("model", None)))
  return Model(init, update, embed, {"reconstruct": reconstruct, "loss": loss, "components": components}, rules)


class Merged(NamedTuple):
  """A batch's sums joined with the components known before.

  Attributes:
    sums: Of the batch, around the old mean.
    delta: The batch's mean less the old one.
    lost: Rows' worth of scatter between the two means, n^2 / (N + n), as around the old mean it counts twice.
    image: (V' diag(l) V + sum (x - m)(x - m)') Q around the new mean m.
  """

  sums: Sums
  delta: Float[Array, " d"]
  lost: Float[Array, ""]
  image: Float[Array, "d b"]


def batch_sums(batch: Batch, mean: Float[Array, " d"], block: Float[Array, "d b"] | None, chunk_size: int) -> Sums:
  """Returns the sums of a batch around `mean`; `block` is Q, or None for the identity."""

  def one_chunk(args, chunk):
    (mean, block), mask = args, chunk["mask"]
    offset = jnp.where(mask[:, None] > 0, chunk["x"] - mean, 0)
    other = offset if block is None else _product(offset, block)
    return Sums(mask.sum(), offset.sum(0), (offset ** 2).sum(), _product(offset.T, other))

  return sum_over_chunks(one_chunk, (mean, block), {"x": batch["x"], "mask": row_mask(batch)}, chunk_size)


def merged_image(sums: Sums, block: Float[Array, "d b"] | None, components: Float[Array, "k d"],
                 values: Float[Array, " k"], old: Float[Array, ""], center: bool) -> Merged:
  """Joins a batch's sums with the components and eigenvalues of the `old` rows before it (Ross et al. 2008)."""
  num_features = components.shape[1]
  delta = sums.first / jnp.maximum(sums.count, 1) if center else jnp.zeros(num_features)
  part = delta if block is None else _product(delta, block)
  lost = sums.count ** 2 / jnp.maximum(old + sums.count, 1)
  eye = jnp.eye(num_features) if block is None else block
  known = _product(components.T, values[:, None] * _product(components, eye))
  return Merged(sums, delta, lost, known + sums.image - lost * delta[:, None] * part)


def _product(a, b):
  return jnp.matmul(a, b, precision="highest")


def _largest(matrix: Float[Array, "d d"], k: int) -> tuple[Float[Array, "k d"], Float[Array, " k"]]:
  """Eigenvectors, as rows, and values of a symmetric matrix, the largest first."""
  values, vectors = jnp.linalg.eigh((matrix + matrix.T) / 2)
  values, vectors = values[::-1][:k], vectors[:, ::-1][:, :k]
  return (vectors * lanczos.signs(vectors)).T, values
