"""DeepCluster: learns the clusters of its own features.

Caron, Bojanowski, Joulin, Douze 2018, "Deep Clustering for Unsupervised Learning of Visual Features",
arXiv:1807.05520. Images are clustered by k-means on their features after every epoch, and the next pass predicts the
clusters. With z_i the features of image i and y_i its cluster (equations 1 and 2), in nats:

  pass 0:   z_i of the untrained trunk are collected, nothing else moves
  between:  u = the leading whitened components of z, divided by their lengths;   y = k-means(u);   g is drawn anew
  later:    L = -Σ_i w(y_i) log softmax(g(f(x_i)))_{y_i} / Σ_i w(y_i),   w = 1 / the number of images in the cluster

  symbol  name            shape
  f       encoder         [batch, h, w, dim], the trunk's last map; z is its mean over `grid` x `grid` cells
  g       projector       [batch, num_clusters]
  z       extra/bank      [num_rows, grid² dim], of each image in the pass under way, by its `number`
  y       extra/labels    int32 [num_rows]; -1: the image has not been seen

Weights in the loss stand for the paper's even sampling of clusters. An empty cluster moves beside the center of
another one, drawn by its size, as the paper splits large ones. `loss="supcon"` pulls features of one cluster together
instead (`ops/contrastive.py: supervised_contrastive`), without g. k-means runs in the update that ends a pass
(`lax.cond`), on the bank that every device has whole. Deviations: features of an epoch are those at the time of their
batch, not those after it; the trunk is any encoder, on colors and not on Sobel's edges.
`agreement` is the normalized mutual information of the clusters of the last two passes.

Split: image | the image, distorted | its cluster in an earlier epoch.

Expected: `embeddings_jax/configs/deepcluster.py`.
"""
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Float, Int

from embeddings_jax.gradient import gradient_model
from embeddings_jax.nets.pretext import (
  PretextNetwork,
  applied,
  cross_entropy,
  embedder,
  feature_map,
  forgetful,
  started,
)
from embeddings_jax.nets.siamese import Mlp, check_images
from embeddings_jax.nets.transformer import RULES
from embeddings_jax.ops.augment import augmented, compose, horizontal_flip, random_shift
from embeddings_jax.ops.batches import row_mask, takes
from embeddings_jax.ops.contrastive import supervised_contrastive
from embeddings_jax.ops.feature_maps import pooled
from embeddings_jax.ops.similarity import l2_normalize
from embeddings_jax.types import Fact, InputError, Model

LOSSES = ("softmax", "supcon")


@takes(image=4)
def deepcluster(
    *,
    encoder: nn.Module,
    num_rows: Fact[int],
    steps_per_epoch: Fact[int],
    num_clusters: int = 10_000,
    num_components: int = 256,
    num_turns: int = 20,
    cluster_every: int = 1,
    loss: str = "softmax",
    temperature: float = 0.1,
    shift: int = 4,
    hidden_dims: Sequence[int] = (),
    grid: int = 1,
    embed_layer: str = "",
    embed_grid: int = 1,
    optimizer: optax.GradientTransformation | None = None,
    ema_decay: float | None = None,
) -> Model:
  """Learns its own clusters.

  Args:
    encoder: Trunk; has `features(batch, deterministic)` of `image`.
    num_rows: Number of training images; filled in from the dataset.
    steps_per_epoch: Updates of an epoch; filled in from the dataset.
    num_clusters: Number of clusters.
    num_components: Whitened principal components that are clustered; at most the features' number.
    num_turns: Turns of k-means.
    cluster_every: Passes between clusterings; small datasets need several, as the head starts anew each time.
    loss: `softmax` over clusters, or `supcon`.
    temperature: Temperature of `supcon`.
    shift: Images are shifted by up to so many pixels and flipped at random; 0: neither.
    hidden_dims: Hidden layers of g.
    grid: Cells per side over which the last map is averaged for z.
    embed_layer: Block that is embedded, as `block_3`; "" for the last.
    embed_grid: Cells per side over which that block is averaged.
    optimizer: Adam with a learning rate of 1e-3 by default.
    ema_decay: See `gradient_model`.
  """
  if loss not in LOSSES:
    raise InputError(f"loss={loss!r}: must be one of {', '.join(LOSSES)}")
  if not 2 <= num_clusters <= num_rows:
    raise InputError(f"num_clusters={num_clusters}: must be from 2 to the {num_rows} training images")
  if min(num_components, num_turns, cluster_every, grid) < 1 or shift < 0 or not temperature > 0:
    raise InputError(f"num_components={num_components}, num_turns={num_turns}, "
                     f"cluster_every={cluster_every}, grid={grid}, shift={shift}, temperature={temperature}: must be "
                     "at least 1, 1, 1, 1 and 0, and above 0")
  network = _Clustered(encoder, Mlp((*hidden_dims, num_clusters)), grid=grid)
  change = compose(random_shift(shift), horizontal_flip()) if shift else None
  embed_fn, layers = embedder(encoder, embed_layer, embed_grid)

  def init_params(rng, batch):
    check_images(encoder, batch)
    params, extra = started(network, rng, batch, method="features_and_logits")
    features = jax.eval_shape(lambda: network.apply({"params": params, **extra}, batch,
                                                    method="features_and_logits"))[0]
    return params, {**extra, "bank": jnp.zeros((num_rows, features.shape[1])),
                    "labels": jnp.full(num_rows, -1, jnp.int32), "agreement": jnp.zeros(())}

  def predicted(params, extra, batch, rng, network=network):
    images = augmented(change, rng, batch["image"]) if change else batch["image"]
    return applied(network, params, extra, {"image": images, "mask": row_mask(batch)}, deterministic=False,
                   method="features_and_logits")

  def loss_fn(params, extra, batch, rng):
    if "number" not in batch:
      raise InputError("deepcluster: the batch has no 'number' of each image; take pipeline=numbered_images")
    number, mask = batch["number"], row_mask(batch)
    (features, logits), extra = predicted(params, extra, batch, rng)
    # Padding is written nowhere.
    row = jnp.where(mask > 0, number, num_rows)
    bank = extra["bank"].at[row].set(jax.lax.stop_gradient(features), mode="drop")
    label = extra["labels"][number]
    sizes = cluster_sizes(extra["labels"], num_clusters)
    weight = mask * (label >= 0) / jnp.maximum(sizes[label], 1)
    total = jnp.maximum(weight.sum(), 1e-30)
    if loss == "supcon":
      value = supervised_contrastive(l2_normalize(features), label, mask=mask * (label >= 0), temperature=temperature)
    else:
      value = (weight * cross_entropy(logits, jnp.maximum(label, 0))).sum() / total
    hit = (weight * (logits.argmax(-1) == label)).sum() / total
    metrics = {"accuracy": hit, "empty_clusters": (sizes == 0).mean(), "agreement": extra["agreement"]}
    return value, (metrics, {**extra, "bank": bank})

  def reassigned(state, rng):
    """The state after k-means on the bank: new labels, a new head g, and no memory of it in the optimizer."""
    rng_clusters, rng_head = jax.random.split(rng)
    labels = clustered(rng_clusters, whitened(state.extra["bank"], num_components), num_clusters, num_turns)
    agreement = mutual_information(state.extra["labels"], labels, num_clusters)
    extra = {**state.extra, "labels": labels, "agreement": agreement}
    if loss == "supcon":
      return state._replace(extra=extra)
    head = fresh_head(rng_head, state.params["projector"])
    opt_state = jax.tree_util.tree_map_with_path(
        lambda path, x: jnp.zeros_like(x) if "projector" in jax.tree_util.keystr(path) else x, state.opt_state)
    return state._replace(params={**state.params, "projector": head}, extra=extra, opt_state=opt_state)

  def after_update(state):
    epochs, rest = jnp.divmod(state.step, steps_per_epoch)
    ends = (rest == 0) & ((epochs - 1) % cluster_every == 0)
    rng = jax.random.fold_in(jax.random.key(0), state.step)  # k-means' draws follow from the step alone.
    return jax.lax.cond(ends, lambda state: reassigned(state, rng), lambda state: state, state)

  def calibrated(params, extra, batch):
    return predicted(params, extra, batch, jax.random.key(0), forgetful(network))[1]

  outputs = {"layers": layers, "calibrated": calibrated,
             "components": lambda params, extra: {"labels": extra["labels"]}}
  return gradient_model(init_params, loss_fn, embed_fn, optimizer or optax.adam(1e-3), coupled=True,
                        ema_decay=ema_decay, after_update=after_update, outputs=outputs, rules=RULES)


class _Clustered(PretextNetwork):
  """The network, which gives z beside g."""

  def features_and_logits(self, batch, *, deterministic: bool = True):
    z = pooled(feature_map(self.encoder, batch, deterministic), self.grid)
    return z, self.projector(z, batch.get("mask"), deterministic=deterministic)


def cluster_sizes(labels: Int[Array, " n"], num: int) -> Float[Array, " {num}"]:
  """Returns the number of rows of each cluster; -1 is none."""
  return jnp.zeros(num).at[jnp.where(labels >= 0, labels, num)].add(1.0, mode="drop")


def whitened(bank: Float[Array, "n dim"], num: int) -> Float[Array, "n components"]:
  """Returns the leading principal components, each with variance 1, in rows of length 1."""
  around = bank - bank.mean(0)
  covariance = jnp.matmul(around.T, around, precision="highest") / len(bank)
  values, axes = jnp.linalg.eigh(covariance)
  values, axes = values[::-1][:num], axes[:, ::-1][:, :num]
  # Directions in which nothing varies would be noise.
  scale = jnp.where(values > 1e-6 * values[0], 1 / jnp.sqrt(jnp.maximum(values, 1e-30)), 0)
  return l2_normalize(jnp.matmul(around, axes * scale, precision="highest"))


def clustered(rng: Array, rows: Float[Array, "n dim"], num: int, num_turns: int) -> Int[Array, " n"]:
  """Returns the clusters of k-means from random rows; in each turn empty ones start again beside a random row of a
  cluster drawn by its size."""
  rng_start, rng_turns = jax.random.split(rng)
  square = jnp.square(rows).sum(1)

  def assigned(centers):
    products = jnp.matmul(rows, centers.T, precision="highest")
    return (square[:, None] - 2 * products + jnp.square(centers).sum(1)).argmin(1).astype(jnp.int32)

  def turn(centers, rng):
    rng_rows, rng_noise = jax.random.split(rng)
    labels = assigned(centers)
    sizes = cluster_sizes(labels, num)
    means = jnp.zeros_like(centers).at[labels].add(rows) / jnp.maximum(sizes, 1)[:, None]
    # A uniform row is of a cluster drawn by its size.
    others = means[labels[jax.random.randint(rng_rows, (num,), 0, len(rows))]]
    others = others + 1e-2 * jax.random.normal(rng_noise, others.shape) * rows.std()
    return jnp.where(sizes[:, None] > 0, means, others), None

  start = rows[jax.random.choice(rng_start, len(rows), (num,), replace=False)]
  centers, _ = jax.lax.scan(turn, start, jax.random.split(rng_turns, num_turns))
  return assigned(centers)


def mutual_information(old: Int[Array, " n"], new: Int[Array, " n"], num: int) -> Float[Array, ""]:
  """Returns the mutual information of two clusterings by the geometric mean of their entropies, 0 to 1; rows of
  which the old cluster is not known are left out."""
  known = old >= 0
  pair = jnp.where(known, old * num + new, num * num)
  _, index, counts = jnp.unique(pair, return_inverse=True, return_counts=True, size=len(old), fill_value=num * num)
  total = jnp.maximum(known.sum(), 1)
  log_joint = jnp.log(counts[index] / total)
  log_old = jnp.log(jnp.maximum(cluster_sizes(old, num), 1)[old] / total)
  log_new = jnp.log(jnp.maximum(cluster_sizes(jnp.where(known, new, -1), num), 1)[new] / total)
  mean = lambda x: jnp.where(known, x, 0).sum() / total
  entropies = mean(-log_old) * mean(-log_new)
  return jnp.where(entropies > 0, mean(log_joint - log_old - log_new) / jnp.sqrt(jnp.maximum(entropies, 1e-30)), 0.0)


def fresh_head(rng: Array, head):
  """Returns a head with new kernels, zero biases and unit scales."""
  leaves, tree = jax.tree_util.tree_flatten_with_path(head)
  init = nn.initializers.lecun_normal()

  def one(number, path, x):
    name = path[-1].key
    return init(jax.random.fold_in(rng, number), x.shape) if name == "kernel" else jnp.full_like(x, name == "scale")

  return jax.tree.unflatten(tree, [one(number, path, x) for number, (path, x) in enumerate(leaves)])
