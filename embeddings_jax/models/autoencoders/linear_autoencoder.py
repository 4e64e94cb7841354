"""Linear autoencoder: the objective of principal component analysis, by gradients (Bourlard & Kamp 1988; Baldi &
Hornik 1989).

  loss = 1/n sum_n |x_n - x^_n|^2,   x^ = b + (x - b) W D

is least, over all W, D and b, where b is the mean and W D the projection onto the span of the first k principal
components; every other critical point is a saddle (Baldi & Hornik 1989). The minimum leaves W and D free up to W G
and G^-1 D, so that the code is any basis of that span and not the components themselves. Tied weights, D = W', make W
orthonormal at the minimum (there W W' is a projection), free up to a rotation.

| symbol | code | shape |
|---|---|---|
| W, D | `params["encoder"]`, `params["decoder"]` (not if tied) | [d, k], [k, d] |
| b | `extra["mean"]` (not if not centered) | [d] |
| (x - b) W | `embed` | [n, k] |

Rows are `x` [n, d], or bags of words: then x_w = log(1 + count of w), scaled to length 1, and a batch is made dense
on the device, so that the vocabulary should be some thousands of words.

Split: row, or bag of words | a few linear functions of it | the whole of it.

Expected: the subspace of PCA (tests/models/autoencoders/test_linear_autoencoder.py). Command:
`python -m experiments.run --model=linear_autoencoder`.
"""
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float

from embeddings_jax.gradient import gradient_model
from embeddings_jax.ops.batches import row_mask, takes
from embeddings_jax.types import Array, Batch, Fact, InputError, Model


@takes(x=2, words=2, counts=2, document=None, row=None, mask=None)
def linear_autoencoder(
    *,
    num_features: Fact[int],
    dim: int,
    tied: bool = False,
    center: bool = True,
    optimizer: optax.GradientTransformation | None = None,
    accumulate: int = 1,
) -> Model:
  """A `Model` of batches `x` [n, d] and `mask` [n], or of bags of words (`data/bags.py`).

  Args:
    num_features: d, or the number of words.
    dim: k, at most d.
    tied: the decoder is the transposed encoder.
    center: b is the mean of the rows seen so far; else it is 0.
    optimizer: by default Adam with a rate of 1e-2.
    accumulate: see `gradient_model`.

  Returns:
    `embed` gives codes [n, k]. Outputs: `reconstruct` (`original` and `reconstructed`, [n, d]),
    `loss`, and `components`: `encoder`, `decoder`, `mean`.
  """
  if not 1 <= dim <= num_features:
    raise InputError(f"linear_autoencoder: dim={dim}: must be from 1 to the {num_features} features of the data")
  optimizer = optax.adam(1e-2) if optimizer is None else optimizer

  def init_params(rng, batch):
    first, second = jax.random.split(rng)
    params = {"encoder": jax.random.normal(first, (num_features, dim)) / jnp.sqrt(num_features)}
    if not tied:
      params["decoder"] = jax.random.normal(second, (dim, num_features)) / jnp.sqrt(num_features)
    if not center:
      return params, {}
    x, mask = _rows(batch, num_features)
    return params, {"mean": mask @ x / jnp.maximum(mask.sum(), 1), "count": jnp.zeros(())}

  def parts(params, extra):
    encoder = params["encoder"]
    return encoder, params.get("decoder", encoder.T), extra.get("mean", jnp.zeros(num_features))

  def decoded(params, extra, x):
    encoder, decoder, mean = parts(params, extra)
    return mean + (x - mean) @ encoder @ decoder

  def loss_fn(params, extra, batch, rng):
    del rng
    x, mask = _rows(batch, num_features)
    squares = ((x - decoded(params, extra, x)) ** 2).sum(1)
    if center:
      count = extra["count"] + mask.sum()
      extra = {"mean": extra["mean"] + mask @ (x - extra["mean"]) / jnp.maximum(count, 1), "count": count}
    return (squares * mask).sum() / jnp.maximum(mask.sum(), 1), ({}, extra)

  def embed_fn(params, extra, batch):
    encoder, _, mean = parts(params, extra)
    return (_rows(batch, num_features)[0] - mean) @ encoder

  def reconstruct(params, extra, batch):
    x = _rows(batch, num_features)[0]
    return {"original": x, "reconstructed": decoded(params, extra, x)}

  def components(params, extra):
    return dict(zip(("encoder", "decoder", "mean"), parts(params, extra)))

  return gradient_model(init_params, loss_fn, embed_fn, optimizer, accumulate=accumulate,
                        outputs={"loss": lambda params, extra, batch: loss_fn(params, extra, batch, None)[0],
                                 "reconstruct": reconstruct, "components": components})


def _rows(batch: Batch, num_features: int) -> tuple[Float[Array, "n d"], Float[Array, " n"]]:
  """Rows and their mask, whichever kind of batch it is."""
  if "x" in batch:
    return batch["x"], row_mask(batch)
  if "words" in batch:  # Documents of an encoder.
    mask = batch["mask"]
    row, col, count = jnp.arange(mask.shape[0])[:, None], batch["words"], batch["counts"]
    x = _scattered(mask.shape[0], num_features, jnp.broadcast_to(row, col.shape), col, count)
  else:  # Blocks of documents of a source.
    mask = (batch["mask"][:, None] * (batch["document"] >= 0)).reshape(-1)
    fill = lambda row, col, count: _scattered(batch["document"].shape[1], num_features, row, col, count)
    x = jax.vmap(fill)(batch["row"], batch["col"], batch["count"]).reshape(-1, num_features)
  return x * jax.lax.rsqrt(jnp.maximum((x ** 2).sum(1, keepdims=True), 1e-30)), mask


def _scattered(num_rows: int, num_features: int, row, col, count) -> Float[Array, "n d"]:
  """log(1 + count) of the cells, dense; words that are not there (-1) are dropped."""
  col = jnp.where(col < 0, num_features, col)
  return jnp.zeros((num_rows, num_features)).at[row, col].add(jnp.log1p(count), mode="drop")
