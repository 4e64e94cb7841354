"""SimCSE: an encoder of sentences by contrast, a sentence's other view being itself under another dropout mask.

Gao, Yao, Chen 2021, "SimCSE: Simple Contrastive Learning of Sentence Embeddings", arXiv:2104.08821. In nats:

  L = -mean_i log( exp(cos(z_i, z_i+) / τ) / Σ_j [exp(cos(z_i, z_j+) / τ) + α^[j = i] exp(cos(z_i, z_j-) / τ)] )

  unsupervised  `tokens` [batch, time]: z_i and z_i+ are the same sentence under two dropout masks, in one pass
                (equation 4); there are no z-
  supervised    `tokens` [batch, 2 or 3, time]: a premise, a sentence that follows from it and, of three, one that
                contradicts it (equation 5, with the weight α of its ablation)

  symbol  name               shape
  h       features           [batch, views, time, dim], pooled to [batch, views, dim]
  z       tanh(W h + b)      [batch, views, dim]
  W, b    projection         [dim, dim], [dim]; the paper's MLP
  τ       temperature
  α       hard_weight        of a premise's own contradiction
  λ       auxiliary_weight   the loss is the above + λ that of the encoder's pre-training on the same sentences

What the paper and its code call a pooler is `pooling` and `projection` here:

  paper                       pooling           projection
  cls before pooler           cls               training      the MLP is there in training alone (unsupervised)
  cls                         cls               always        (supervised)
  avg                         mean              never
  avg of first and last       first_last_mean   never

The encoder's parameters lie under `params/encoder`, so that pretrained leaves fit in (`init_from`); the projection
is drawn anew, as in the paper. Deviation: dropout's mask comes from a hash. `alignment` and `uniformity` of the batch
(Wang & Isola 2020, `ops/uniformity.py`) are metrics.

Split: sentence | the sentence under one dropout mask | the same under another, among other sentences.

Expected: `embeddings_jax/configs/simcse.py`.
"""
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Float

from embeddings_jax.gradient import CoupledLoss, GradientState, gradient_model
from embeddings_jax.nets.text_encoder import TextEncoder
from embeddings_jax.nets.transformer import RULES
from embeddings_jax.ops.batches import row_mask, takes
from embeddings_jax.ops.contrastive import info_nce
from embeddings_jax.ops.pooling import check_pooling, needs_layers, pool, pool_parts, reading
from embeddings_jax.ops.similarity import l2_normalize
from embeddings_jax.ops.uniformity import alignment, uniformity
from embeddings_jax.types import InputError, Model

PROJECTIONS = ("training", "always", "never")


@takes(tokens=(2, 3), segments=2, parts=None, slots=None)
def simcse(
    *,
    encoder: nn.Module,
    pooling: str = "cls",
    projection: str = "training",
    temperature: float = 0.05,
    hard_weight: float = 1.0,
    auxiliary: Model | None = None,
    auxiliary_weight: float = 0.0,
    init_std: float = 0.02,
    optimizer: optax.GradientTransformation | None = None,
    accumulate: int = 1,
    ema_decay: float | None = None,
) -> Model:
  """SimCSE; the defaults are those of the unsupervised one.

  Args:
    encoder: has the methods `features(batch, deterministic)` -> [batch, time, dim] and `layers(batch, deterministic)`
      -> [batch, layers + 1, time, dim]; its dropout makes the views.
    pooling: See `ops/pooling.py`.
    projection: One of `PROJECTIONS`, see above.
    temperature: Temperature of the cosines.
    hard_weight: α.
    auxiliary: the model that the encoder was pretrained by, for the loss below; its hyperparameters are its own.
    auxiliary_weight: λ; .1 in the paper, for transfer.
    init_std: Standard deviation of the initialization of the projection's kernel.
    optimizer: by default Adam with a rate of 3e-5.
    accumulate: parts that the encoder sees one after another; negatives are those of the whole batch all the same
      (`gradient.py: CoupledLoss`).
    ema_decay: as for `gradient_model`.
  """
  check_pooling(pooling)
  if projection not in PROJECTIONS:
    raise InputError(f"projection={projection!r}: must be one of {', '.join(PROJECTIONS)}")
  if not hasattr(encoder, "features"):
    raise InputError(f"encoder: {type(encoder).__name__} gives no vectors of tokens; take bert, gpt or elmo")
  if pooling.startswith("cls") and getattr(encoder, "causal", False):
    raise InputError(f"pooling={pooling!r}: the first token of a causal network sees no other; take last or mean")
  if not temperature > 0 or not hard_weight > 0:
    raise InputError(f"temperature={temperature}, hard_weight={hard_weight}: must be above 0")
  if auxiliary_weight < 0 or (auxiliary_weight and auxiliary is None):
    raise InputError(f"auxiliary_weight={auxiliary_weight}: must not be negative, and needs a pre-training model")
  auxiliary = auxiliary if auxiliary_weight else None

  def init_params(rng, batch):
    rng_encoder, rng_projection = jax.random.split(rng)
    rows, _ = _views(batch)
    if len(batch["tokens"]) < 2:
      raise InputError("batch_size=1: a sentence alone has no other to be told from; take 2 or more")
    if batch["tokens"].ndim == 2 and not (encoder.dropout or getattr(encoder, "attention_dropout", 0)):
      raise InputError("model.encoder.dropout=0: a sentence's two views would be the same; take .1, or "
                       "pairs or triples of sentences")
    if auxiliary:
      state = auxiliary.init(rng_encoder, rows)
      params, extra = dict(state.params), state.extra
    else:
      params, extra = {"encoder": encoder.init(rng_encoder, rows, method="features")["params"]}, {}
    if projection != "never":
      dim = jax.eval_shape(lambda: encoder.apply({"params": params["encoder"]}, rows, method="features")).shape[-1]
      kernel = nn.initializers.truncated_normal(init_std)(rng_projection, (dim, dim))
      params["projection"] = {"kernel": kernel, "bias": jnp.zeros(dim)}
    return params, extra

  def vectors(params, rows, projected, **options) -> Float[Array, "rows dim"]:
    """`options`: of `encoder.apply`, for dropout."""
    hidden = encoder.apply({"params": params["encoder"]}, rows, **options, method=reading(encoder, pooling))
    return finished(params, pool(hidden, rows["tokens"] >= 0, pooling), projected)

  def finished(params, pooled, projected):
    pooled = pooled.astype(jnp.float32)
    if not projected:
      return pooled
    return nn.tanh(pooled @ params["projection"]["kernel"] + params["projection"]["bias"])

  def represent(params, extra, batch, rng):
    """Unit vectors [batch, views, dim]; of the auxiliary loss each row has the mean over its part's rows."""
    rows, num_views = _views(batch)
    rng, rng_auxiliary = jax.random.split(rng)
    z = l2_normalize(vectors(params, rows, projection != "never", deterministic=False, rngs={"dropout": rng}))
    outputs = {"z": z.reshape(-1, num_views, z.shape[-1])}
    if auxiliary:
      state = GradientState(jnp.zeros((), jnp.int32), params, extra, (), params)
      other = auxiliary.outputs["training_loss"](state, rows, rng_auxiliary)
      outputs["auxiliary"] = jnp.full(len(outputs["z"]), other)
    return outputs

  def loss_fn(params, extra, views, batch):
    z = views["z"]
    mask = row_mask(batch)
    keys = jnp.concatenate([z[:, view] for view in range(1, z.shape[1])])
    contrast = info_nce(z[:, 0], keys, mask=mask, temperature=temperature, hard_weight=hard_weight)
    metrics = {"accuracy": contrast.accuracy, "bound": contrast.bound,
               "alignment": alignment(z[:, 0], z[:, 1], mask), "uniformity": uniformity(z[:, 0], mask)}
    loss = contrast.loss
    if auxiliary:
      other = (mask * views["auxiliary"]).sum() / jnp.maximum(mask.sum(), 1)
      metrics |= {"contrastive_loss": loss, "auxiliary_loss": other}
      loss = loss + auxiliary_weight * other
    return loss, (metrics, extra)

  def embed_fn(params, extra, batch):
    return vectors(params, batch, projection == "always")

  def embed_packed(params, extra, batch):
    words = encoder.apply({"params": params["encoder"]}, batch["tokens"], batch.get("segments"), parts=batch["parts"],
                          method="hidden" if needs_layers(pooling) else "__call__")
    pooled = pool_parts(words, batch["parts"], batch["slots"].shape[1], pooling)
    return finished(params, pooled, projection == "always")

  outputs = {"hidden": lambda params, extra, batch: encoder.apply(
      {"params": params["encoder"]}, batch, method="layers")}
  if isinstance(encoder, TextEncoder):
    outputs["embed_packed"] = embed_packed
  return gradient_model(init_params, CoupledLoss(represent, loss_fn), embed_fn, optimizer or optax.adam(3e-5),
                        accumulate=accumulate, ema_decay=ema_decay, outputs=outputs, rules=RULES)


def _views(batch) -> tuple[dict[str, Array], int]:
  """Rows of the encoder, the views of an item one after another, and their number; a sentence alone comes twice."""
  tokens = batch["tokens"]
  if tokens.ndim == 2:
    tokens = jnp.stack([tokens, tokens], 1)
  rows = {"tokens": tokens.reshape(-1, tokens.shape[-1])}
  if "mask" in batch:
    rows["mask"] = jnp.repeat(batch["mask"], tokens.shape[1])
  return rows, tokens.shape[1]
