"""BERT: a transformer that predicts hidden words, and whether one passage follows another.

Devlin, Chang, Lee, Toutanova 2019, "BERT: Pre-training of Deep Bidirectional Transformers for Language
Understanding", arXiv:1810.04805.

  L = - mean_{(b,p) chosen} log p(x_bp | x̃_b)  -  mean_b log p(is_next_b | x̃_b)                     (nats)

where x̃ is x with 15 % of its tokens chosen, of which 80 % become [MASK], 10 % another token, 10 % stay:

  p(x_bp | x̃_b) = softmax(E LN(gelu(W h_bp + b)) + c),     p(is_next_b | x̃_b) = softmax(U tanh(P h_b0 + q) + r)

  symbol  name                       shape
  x       tokens, segments           [batch, time], -1 past the end; segment 0 is A with its [SEP], 1 is B
  h       hidden                     [batch, time, dim], last layer
  E       encoder/token_embedding    [vocab_size, dim], shared by input and output
  W, LN, c  masked                   [dim, dim], [dim], [vocab_size]
  P, q    pooler                     [dim, dim]
  U, r    next_sentence              [dim, 2], column 0: B follows A, column 1: it does not

Only chosen positions are decoded. Masks are drawn anew for every update (`masking="dynamic"`, Liu et al. 2019), or
forever from the content of a row (`static`); `whole_words` hides words as a whole. Deviations: a row's number of
chosen tokens is rounded at random, so that 15 % are chosen exactly, and is not limited to 20; other tokens are never
special ones; dropout's mask comes from a hash; c begins with the log frequencies of the text, which Adam takes
hundreds of updates to find. Batch: `tokens`, and for pairs `segments` and `is_next`; without
`is_next` there is no second loss (RoBERTa).

Split: pair of segments | its tokens, 15 % masked or replaced | the chosen tokens; whether the second follows the
  first.

Expected: `embeddings_jax/configs/bert.py`.
"""
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jaxtyping import Array, Float, Int

from embeddings_jax.gradient import gradient_model
from embeddings_jax.nets.text_encoder import TextEncoder, text_encoder
from embeddings_jax.nets.transformer import ACTIVATIONS, RULES
from embeddings_jax.ops.batches import row_mask, takes
from embeddings_jax.ops.kernels.layer_norm import layer_norm
from embeddings_jax.ops.kernels.product import affine
from embeddings_jax.ops.masking import Masked, content_keys, mask_tokens
from embeddings_jax.ops.pooling import check_pooling, needs_layers, pool, pool_parts
from embeddings_jax.types import Fact, InputError, Model

MASKINGS = ("dynamic", "static")
HELD_OUT_RATE = 0.15  # The paper's, whatever a model learns with, so that held-out figures can be compared.


class Bert(nn.Module):
  """Trunk and heads."""

  trunk: Mapping[str, Any]

  def setup(self):
    self.encoder = text_encoder(**self.trunk)
    dim = self.trunk["dim"]
    init = nn.initializers.truncated_normal(self.trunk.get("kernel_std") or self.trunk.get("init_std", 0.02))
    dense = lambda width: lambda rng: {"kernel": init(rng, (dim, width)), "bias": jnp.zeros(width)}
    self.pooler = self.param("pooler", dense(dim))
    self.next_sentence = self.param("next_sentence", dense(2))
    self.masked = self.param("masked", lambda rng: {
        "dense": dense(dim)(rng), "norm": {"scale": jnp.ones(dim), "bias": jnp.zeros(dim)},
        "bias": jnp.zeros(self.trunk["vocab_size"])})

  def __call__(
      self,
      tokens: Int[Array, "batch time"],
      segments: Int[Array, "batch time"] | None,
      positions: Int[Array, "batch chosen"],
      deterministic: bool = True,
  ) -> tuple[Float[Array, "batch chosen vocab"], Float[Array, "batch 2"]]:
    """Logits of the tokens at `positions`, and of [is next, is not]."""
    hidden = self.encoder(tokens, segments, deterministic=deterministic)
    chosen = jnp.take_along_axis(hidden, positions[..., None], 1)
    pooled = nn.tanh(affine(hidden[:, 0], **self.pooler, dtype=hidden.dtype))
    return self.decode(chosen), affine(pooled, **self.next_sentence, dtype=pooled.dtype, result=jnp.float32)

  def decode(self, hidden: Float[Array, "*shape dim"]) -> Float[Array, "*shape vocab"]:
    """Logits of the vocabulary, float32."""
    hidden = ACTIVATIONS[self.encoder.activation](affine(hidden, **self.masked["dense"], dtype=hidden.dtype))
    hidden = layer_norm(hidden, self.masked["norm"], self.encoder.norm_epsilon, hidden.dtype)
    return self.encoder.decode(hidden, self.masked["bias"])

  def hidden(self, tokens, segments, layers=False, parts=None):
    encode = self.encoder.hidden if layers else self.encoder
    return encode(tokens, segments, parts=parts)

  def attention(self, tokens, segments):
    return self.encoder.attention(tokens, segments)


def encoder(
    *,
    vocab_size: Fact[int],
    dim: int = 768,
    num_layers: int = 12,
    num_heads: int = 12,
    mlp_dim: int | None = None,
    max_length: int = 512,
    num_segments: Fact[int] = 2,
    **others: Any,
) -> TextEncoder:
  """The network whose parameters lie under `params/encoder`; `others` are of `nets/text_encoder.py: TextEncoder`."""
  return text_encoder(**_trunk(vocab_size, dim, num_layers, num_heads, mlp_dim, max_length, num_segments), **others)


@takes(tokens=2, segments=2, is_next=None, parts=None, slots=None)
def bert(
    *,
    vocab_size: Fact[int],
    mask_id: Fact[int],
    special_ids: Fact[Sequence[int]] = (),
    counts: Fact[np.ndarray | None] = None,
    continues: Fact[np.ndarray | None] = None,
    dim: int = 768,
    num_layers: int = 12,
    num_heads: int = 12,
    mlp_dim: int | None = None,
    max_length: int = 512,
    num_segments: Fact[int] = 2,
    position_offset: int = 0,
    norm: str = "post",
    positions: str = "learned",
    activation: str = "gelu",
    norm_epsilon: float = 1e-12,
    dropout: float = 0.1,
    attention_dropout: float = 0.1,
    init_std: float = 0.02,
    kernel_std: float | None = None,
    position_init: str = "normal",
    mask_rate: float = 0.15,
    masking: str = "dynamic",
    whole_words: bool = False,
    pooling: str = "mean",
    dtype: str = "float32",
    remat: str = "none",
    unroll: int = 1,
    optimizer: optax.GradientTransformation | None = None,
    accumulate: int = 1,
    ema_decay: float | None = None,
) -> Model:
  """BERT; the defaults are those of the paper's base size.

  Args:
    vocab_size, mask_id, special_ids: Facts of the data's tokens.
    counts: [vocab_size] occurrences in the training text, whose log frequencies c begins with; None: 0.
    continues: bool [vocab_size], which tokens continue a word; for `whole_words`.
    dim, num_layers, num_heads, mlp_dim: Sizes of the transformer; `mlp_dim` is 4 dim by default.
    max_length, num_segments, position_offset, norm, positions, activation, norm_epsilon, dropout, attention_dropout,
      init_std, kernel_std, position_init, remat, unroll: see `nets/text_encoder.py`.
    mask_rate: share of the tokens that is to be predicted; of held-out text it is always .15.
    masking: `dynamic` or `static`.
    whole_words: hide all the tokens of a word.
    pooling: Pooling of `embed`; see `ops/pooling.py`.
    dtype: Data type of the computation (`float32` or `bfloat16`); parameters, normalization and losses are float32.
    optimizer: by default Adam with a rate of 1e-4.
    accumulate, ema_decay: as for `gradient_model`; parts of a batch weigh by their rows, not by their chosen tokens.
  """
  if masking not in MASKINGS:
    raise InputError(f"masking={masking!r}: must be one of {', '.join(MASKINGS)}")
  if whole_words and continues is None:
    raise InputError("whole_words: the tokenizer does not say which tokens continue a word")
  check_pooling(pooling)
  trunk = _trunk(vocab_size, dim, num_layers, num_heads, mlp_dim, max_length, num_segments) | dict(
      position_offset=position_offset, norm=norm, positions=positions, activation=activation,
      norm_epsilon=norm_epsilon, dropout=dropout, attention_dropout=attention_dropout, init_std=init_std,
      kernel_std=kernel_std, position_init=position_init, dtype=dtype, remat=remat, unroll=unroll)
  text_encoder(**trunk)  # Refuses what does not fit before anything is compiled.
  network = Bert(trunk)

  def init_params(rng, batch):
    tokens = batch["tokens"]
    params = network.init(rng, tokens, batch.get("segments"), jnp.zeros_like(tokens[:, :1]))["params"]
    if counts is not None:
      seen = jnp.asarray(counts, jnp.float32) + 1
      params["masked"]["bias"] = jnp.log(seen / seen.sum())
    return params, {"continues": jnp.asarray(continues)} if whole_words else {}

  def draw(rng, extra, tokens, rate) -> Masked:
    return mask_tokens(rng, tokens, mask_id=mask_id, vocab_size=vocab_size, special_ids=special_ids, rate=rate,
                       continues=extra["continues"] if whole_words else None)

  def still(extra, tokens, rate=HELD_OUT_RATE) -> Masked:
    """Masks that depend on the tokens alone: always those of held-out data."""
    rows = jax.vmap(lambda key, row: draw(key, extra, row[None], rate))(content_keys(tokens), tokens)
    return jax.tree.map(lambda x: x[:, 0], rows)

  def sums(params, batch, masked, deterministic=True, rngs=None):
    """name -> (sum, count) over the batch."""
    rows = row_mask(batch)
    logits, next_logits = network.apply({"params": params}, masked.tokens, batch.get("segments"), masked.positions,
                                        deterministic, rngs=rngs)
    weights = masked.weights * rows[:, None]
    error = optax.softmax_cross_entropy_with_integer_labels(logits, masked.targets)
    # The target's score is the highest: quicker on CPUs than looking for the place of the highest.
    right = jnp.take_along_axis(logits, masked.targets[..., None], -1)[..., 0] >= logits.max(-1)
    sums = {"masked_loss": ((weights * error).sum(), weights.sum()),
            "masked_accuracy": ((weights * right).sum(), weights.sum())}
    if "is_next" in batch:
      label = 1 - batch["is_next"]
      error = optax.softmax_cross_entropy_with_integer_labels(next_logits, label)
      sums["next_loss"] = ((rows * error).sum(), rows.sum())
      sums["next_accuracy"] = ((rows * (next_logits.argmax(-1) == label)).sum(), rows.sum())
      sums["next_share"] = ((rows * batch["is_next"]).sum(), rows.sum())  # Where texts are short, far from a half.
    return sums

  def means(sums):
    """Loss and metrics of such sums."""
    metrics = {name: total / jnp.maximum(count, 1) for name, (total, count) in sums.items()}
    loss = metrics["masked_loss"] + metrics.get("next_loss", 0.0)
    return loss, metrics | {"perplexity": jnp.exp(metrics["masked_loss"])}

  def loss_fn(params, extra, batch, rng):
    rng_mask, rng_dropout = jax.random.split(rng)
    tokens = batch["tokens"]
    masked = draw(rng_mask, extra, tokens, mask_rate) if masking == "dynamic" else still(extra, tokens, mask_rate)
    loss, metrics = means(sums(params, batch, masked, deterministic=False, rngs={"dropout": rng_dropout}))
    return loss, (metrics, extra)

  def held_out(params, extra, batch):
    return sums(params, batch, still(extra, batch["tokens"]))

  def hidden(params, batch, layers):
    return network.apply({"params": params}, batch["tokens"], batch.get("segments"), layers, batch.get("parts"),
                         method="hidden")

  def embed_fn(params, extra, batch):
    return pool(hidden(params, batch, needs_layers(pooling)), batch["tokens"] >= 0, pooling).astype(jnp.float32)

  def embed_packed(params, extra, batch):
    layers = hidden(params, batch, needs_layers(pooling))
    return pool_parts(layers, batch["parts"], batch["slots"].shape[1], pooling).astype(jnp.float32)

  outputs = {
      "embed_packed": embed_packed,
      "loss": lambda params, extra, batch: means(held_out(params, extra, batch))[0],
      "measures": lambda params, extra, batch: {
          name: jnp.stack(pair) for name, pair in held_out(params, extra, batch).items()},
      "hidden": lambda params, extra, batch: hidden(params, batch, True),
      "attention": lambda params, extra, batch: network.apply(
          {"params": params}, batch["tokens"], batch.get("segments"), method="attention"),
  }
  return gradient_model(init_params, loss_fn, embed_fn, optimizer or optax.adam(1e-4), accumulate=accumulate,
                        ema_decay=ema_decay, outputs=outputs, rules=RULES)


def _trunk(vocab_size, dim, num_layers, num_heads, mlp_dim, max_length, num_segments) -> dict[str, Any]:
  return dict(vocab_size=vocab_size, dim=dim, num_layers=num_layers, num_heads=num_heads, mlp_dim=mlp_dim or 4 * dim,
              max_length=max_length, num_segments=num_segments)
