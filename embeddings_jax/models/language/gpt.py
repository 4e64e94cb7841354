"""GPT: a transformer that predicts the next token from those before it.

Radford, Narasimhan, Salimans, Sutskever 2018, "Improving Language Understanding by Generative Pre-Training";
`norm="pre"` is GPT-2's (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners").

  L = - mean_{(b,t): t > 0, token} log p(u_bt | u_b0 ... u_b,t-1)                                      (nats)
  p(u | u_b0 ... u_b,t-1) = softmax(h_b,t-1 E^T),   h = transformer(E[u] + P)

  symbol  name                         shape
  u       tokens                       [batch, time], -1 past the end
  h       hidden                       [batch, time, dim], last layer (after the last norm, where there is one)
  E       encoder/token_embedding      [vocab_size, dim], shared by input and output
  P       encoder/position_embedding   [max_length, dim]

The scores of the vocabulary are held for `chunk` positions at a time (`ops/kernels/softmax.py: cross_entropy`).
Deviations: dropout's mask comes from a hash; GPT-2's smaller start of the residual layers is left out. Batch:
`tokens`; the first of a row is read and not predicted. `perplexity` is exp(loss). `embed` is the mean of the last
layer over tokens. `sample` resumes from the batch's tokens, [batch, sample_length], -1 after the token `end_id`.

Split: text | the tokens before a position | the token there.

Expected: `embeddings_jax/configs/gpt.py`.
"""
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Float, Int

from embeddings_jax.gradient import gradient_model
from embeddings_jax.nets.text_encoder import TextEncoder, text_encoder
from embeddings_jax.nets.transformer import RULES
from embeddings_jax.ops.batches import row_mask, takes
from embeddings_jax.ops.kernels.softmax import cross_entropy
from embeddings_jax.ops.pooling import check_pooling, needs_layers, pool, pool_parts
from embeddings_jax.ops.sampling import check_sampling, draw
from embeddings_jax.types import Fact, InputError, Model


class Gpt(nn.Module):
  """The trunk; its token embedding is the decoder."""

  trunk: Mapping[str, Any]

  def setup(self):
    self.encoder = text_encoder(**self.trunk)

  def __call__(self, tokens, deterministic=True):
    return self.encoder(tokens, deterministic=deterministic)

  def hidden(self, tokens, layers=False, parts=None):
    encode = self.encoder.hidden if layers else self.encoder
    return encode(tokens, parts=parts)

  def scores(self, tokens: Int[Array, "batch time"], last: Int[Array, " batch"]) -> Float[Array, "batch vocab"]:
    """Returns scores of the token that follows position `last` of each row."""
    hidden = self.encoder(tokens)
    return self.encoder.decode(jnp.take_along_axis(hidden, last[:, None, None], 1)[:, 0])

  def logits(self, tokens: Int[Array, "batch time"]) -> Float[Array, "batch time vocab"]:
    """Returns logits of the next token at all positions at once."""
    return self.encoder.decode(self.encoder(tokens))

  def attention(self, tokens):
    return self.encoder.attention(tokens)


def encoder(
    *,
    vocab_size: Fact[int],
    dim: int = 768,
    num_layers: int = 12,
    num_heads: int = 12,
    mlp_dim: int | None = None,
    max_length: int = 512,
    norm: str = "post",
    activation: str = "gelu_tanh",
    norm_epsilon: float = 1e-5,
    **others: Any,
) -> TextEncoder:
  """The network whose parameters lie under `params/encoder`; `others` are of `nets/text_encoder.py: TextEncoder`."""
  return text_encoder(**_trunk(vocab_size, dim, num_layers, num_heads, mlp_dim, max_length) | others | dict(
      norm=norm, activation=activation, norm_epsilon=norm_epsilon))


@takes(tokens=2, parts=None, slots=None)
def gpt(
    *,
    vocab_size: Fact[int],
    end_id: Fact[int | None] = None,
    dim: int = 768,
    num_layers: int = 12,
    num_heads: int = 12,
    mlp_dim: int | None = None,
    max_length: int = 512,
    norm: str = "post",
    positions: str = "learned",
    activation: str = "gelu_tanh",
    norm_epsilon: float = 1e-5,
    dropout: float = 0.1,
    attention_dropout: float = 0.1,
    pooling: str = "mean",
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    sample_length: int = 50,
    chunk: int = 4096,
    dtype: str = "float32",
    remat: str = "none",
    unroll: int = 1,
    optimizer: optax.GradientTransformation | None = None,
    accumulate: int = 1,
    ema_decay: float | None = None,
) -> Model:
  """A causal language model; the defaults are those of the paper.

  Args:
    vocab_size, end_id: Facts of the data's tokens; `end_id` stands between documents and ends what is sampled.
    dim, num_layers, num_heads, mlp_dim: Sizes of the transformer; `mlp_dim` is 4 dim by default.
    max_length, norm, positions, activation, norm_epsilon, dropout, attention_dropout, remat, unroll: see
      `nets/transformer.py`.
    pooling: Pooling of `embed`; see `ops/pooling.py`.
    temperature, top_k, top_p: Options of `sample`; see `ops/sampling.py`.
    sample_length: tokens that `sample` adds.
    chunk: positions whose scores a device holds at the same time.
    dtype: Data type of the computation (`float32` or `bfloat16`); parameters, normalization and losses are float32.
    optimizer: by default Adam with a rate of 2.5e-4.
    accumulate, ema_decay: as for `gradient_model`.
  """
  check_pooling(pooling)
  check_sampling(temperature, top_k, top_p)
  trunk = _trunk(vocab_size, dim, num_layers, num_heads, mlp_dim, max_length) | dict(
      norm=norm, positions=positions, activation=activation, norm_epsilon=norm_epsilon, dropout=dropout,
      attention_dropout=attention_dropout, dtype=dtype, remat=remat, unroll=unroll)
  text_encoder(**trunk)  # Refuses what does not fit before anything is compiled.
  network = Gpt(trunk)

  def init_params(rng, batch):
    return network.init(rng, batch["tokens"])["params"], {}

  def predicted(params, batch, deterministic=True, rngs=None):
    """The loss, and for each token but a row's first: log-likelihood, whether it was foreseen, 1 if it is a token."""
    tokens = batch["tokens"]
    targets, valid = tokens[:, 1:], (tokens[:, 1:] >= 0) * row_mask(batch)[:, None]
    hidden = network.apply({"params": params}, tokens, deterministic, rngs=rngs)
    weight = valid / jnp.maximum(valid.sum(), 1)
    table = params["encoder"]["token_embedding"]
    return *cross_entropy(hidden[:, :-1], table, jnp.maximum(targets, 0), weight, chunk), valid

  def loss_fn(params, extra, batch, rng):
    loss, _, right, valid = predicted(params, batch, deterministic=False, rngs={"dropout": rng})
    accuracy = (right * valid).sum() / jnp.maximum(valid.sum(), 1)
    return loss, ({"accuracy": accuracy, "perplexity": jnp.exp(loss)}, extra)

  def measures(params, extra, batch):
    """name -> [sum, count] over the predicted tokens."""
    _, log_likelihood, right, valid = predicted(params, batch)
    sums = {"loss": -(log_likelihood * valid).sum(), "accuracy": (right * valid).sum()}
    return {name: jnp.stack([total, valid.sum()]) for name, total in sums.items()}

  def log_likelihood(params, extra, batch):
    _, log_probs, _, valid = predicted(params, batch)
    return log_probs * valid

  def hidden(params, batch, layers):
    return network.apply({"params": params}, batch["tokens"], layers, batch.get("parts"),
                         method="hidden")

  def embed_fn(params, extra, batch):
    return pool(hidden(params, batch, needs_layers(pooling)), batch["tokens"] >= 0, pooling).astype(jnp.float32)

  def sample(params, extra, rng, num, batch=None):
    """Tokens [num, sample_length] that continue the prompt of one row or of `num`; without one a new document."""
    if batch is None and end_id is None:
      raise InputError("batch: a prompt is needed, because the tokenizer has no token between documents")
    prompt = jnp.full((1, 1), end_id) if batch is None else batch["tokens"]
    length = prompt.shape[1]
    if len(prompt) not in (1, num):
      raise InputError(f"num={num}: the batch has {len(prompt)} prompts; give one, or one for each sample")
    prompt = jnp.broadcast_to(prompt, (num, length))
    if length + sample_length > max_length + 1:
      raise InputError(f"a prompt of {length} tokens and sample_length={sample_length}: the model knows positions up "
                       f"to {max_length}; shorten one of them")
    # Nothing is fed that comes after the token to be drawn: attention is causal, so padding may stand there.
    tokens = jnp.pad(prompt, ((0, 0), (0, sample_length - 1)), constant_values=-1)
    lengths = (prompt >= 0).sum(1)

    def one(i, carry):
      tokens, drawn, ended = carry
      at = lengths + i
      scores = network.apply({"params": params}, jnp.maximum(tokens, 0), jnp.maximum(at - 1, 0), method="scores")
      token = draw(jax.random.fold_in(rng, i), scores, temperature=temperature, top_k=top_k, top_p=top_p)
      token = jnp.where(ended, -1, token)
      if end_id is not None:
        ended |= token == end_id
      tokens = tokens.at[jnp.arange(num), at].set(token, mode="drop")
      return tokens, drawn.at[:, i].set(token), ended

    start = tokens, jnp.full((num, sample_length), -1, jnp.int32), jnp.zeros(num, bool)
    return jax.lax.fori_loop(0, sample_length, one, start)[1]

  def embed_packed(params, extra, batch):
    layers = hidden(params, batch, needs_layers(pooling))
    return pool_parts(layers, batch["parts"], batch["slots"].shape[1], pooling).astype(jnp.float32)

  outputs = {
      "embed_packed": embed_packed,
      "loss": lambda params, extra, batch: predicted(params, batch)[0],
      "log_likelihood": log_likelihood,
      "measures": measures,
      "hidden": lambda params, extra, batch: hidden(params, batch, True),
      "attention": lambda params, extra, batch: network.apply(
          {"params": params}, batch["tokens"], method="attention"),
      "sample": sample,
  }
  return gradient_model(init_params, loss_fn, embed_fn, optimizer or optax.adam(2.5e-4), accumulate=accumulate,
                        ema_decay=ema_decay, outputs=outputs, rules=RULES)


def _trunk(vocab_size, dim, num_layers, num_heads, mlp_dim, max_length) -> dict[str, Any]:
  return dict(vocab_size=vocab_size, dim=dim, num_layers=num_layers, num_heads=num_heads, mlp_dim=mlp_dim or 4 * dim,
              max_length=max_length, num_segments=0, position_offset=0, embedding_norm=False, causal=True)
