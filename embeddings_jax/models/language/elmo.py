"""ELMo: words in their context, from a forward and a backward language model over spellings.

Peters, Neumann, Iyyer, Gardner, Clark, Lee, Zettlemoyer 2018, "Deep contextualized word representations",
arXiv:1802.05365.

  L = - 1/2 mean_t log p(w_t | w_1 ... w_{t-1}) - 1/2 mean_t log p(w_t | w_{t+1} ... w_T)              (nats)

Both directions share the network that reads a word's characters and the softmax over words, not the LSTMs, of which
the second adds its input to its output. A task's vector of word t is γ Σ_j s_j h_tj, s = softmax of free weights over

  h_t0 = [x_t; x_t],   h_tj = [forward h_tj; backward h_tj]

  symbol  name                                shape
  x_t     encoder/words                       [batch, time, dim]; `nets/characters.py`
  h_tj    encoder/forward_i, encoder/backward_i, output `hidden`  [batch, num_layers + 1, time, 2 dim]
  p       softmax/kernel, softmax/bias        [vocab_size, dim], [vocab_size]

Batch: `characters` [batch, time, places] (0 where there is no word), `tokens` int32 [batch, time] (what the words are
in the vocabulary, -1 where there is none). A sentence stands between the words BEGIN and END; the forward model does
not predict BEGIN, nor the backward one END. `embed` is the mean over words of the mean over layers, [2 dim].

Deviations: states start at zero in every window of running text (the paper's are carried from one to the next); the
softmax is over all words, or in training over `num_samples` of them, whose scores are weighted so that the partition
function is estimated without bias (the paper's sampler lowers the target's score as well).

Split: sentence | the words before, and those after, a word | the word.

Expected: `embeddings_jax/configs/elmo.py`.
"""
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Integer

from embeddings_jax.gradient import gradient_model
from embeddings_jax.nets.characters import CharacterNetwork
from embeddings_jax.nets.recurrent import LSTM
from embeddings_jax.ops.batches import row_mask, takes
from embeddings_jax.ops.kernels.softmax import cross_entropy, sampled_cross_entropy
from embeddings_jax.ops.pooling import pool
from embeddings_jax.types import Fact, InputError, Model

NUM_CHARACTERS = 262
BEGIN, END, UNKNOWN = 0, 1, 2  # The first of the vocabulary; the words begin with the unknown one.
FILTERS = ((1, 32), (2, 32), (3, 64), (4, 128), (5, 256), (6, 512), (7, 1024))


class Encoder(nn.Module):
  """The trunk: words and both directions."""

  dim: int
  cell_dim: int
  num_layers: int
  character_dim: int
  filters: Sequence[tuple[int, int]]
  num_highway: int
  clip: float
  dropout: float
  dtype: DTypeLike

  def setup(self):
    self.words = CharacterNetwork(NUM_CHARACTERS, self.character_dim, self.filters, self.num_highway, self.dim,
                                  self.dtype)
    layers = lambda reverse: [LSTM(self.cell_dim, self.dim, self.clip, self.clip, reverse, self.dtype)
                              for _ in range(self.num_layers)]
    self.forward, self.backward = layers(False), layers(True)
    self.drop = nn.Dropout(self.dropout)

  def __call__(
      self,
      characters: Integer[Array, "batch time places"],
      valid: Bool[Array, "batch time"] | None = None,
      deterministic: bool = True,
  ) -> Float[Array, "batch layers time size"]:
    """All layers, float32, size = 2 dim: the forward and the backward half."""
    x = self.words(characters).astype(jnp.float32)
    layers = [jnp.concatenate([x, x], -1)]
    halves = [x, x]
    for depth, pair in enumerate(zip(self.forward, self.backward)):
      new = [lstm(self.drop(half, deterministic), valid) for lstm, half in zip(pair, halves)]
      halves = [half + out for half, out in zip(halves, new)] if depth else new
      layers.append(jnp.concatenate(halves, -1))
    return jnp.stack(layers, 1)

  def layers(self, batch: Mapping[str, Any], deterministic: bool = True) -> Float[Array, "batch layers time size"]:
    return self(batch["characters"], batch["tokens"] >= 0, deterministic)

  def features(self, batch: Mapping[str, Any], deterministic: bool = True) -> Float[Array, "batch time size"]:
    """The mean over layers."""
    return self.layers(batch, deterministic).mean(1)

  def valid(self, batch: Mapping[str, Any]) -> Bool[Array, "batch time"]:
    """Which words are no padding."""
    return batch["tokens"] >= 0


class Elmo(nn.Module):
  """Trunk and softmax."""

  trunk: Mapping[str, Any]
  vocab_size: int

  def setup(self):
    self.encoder = Encoder(**self.trunk)
    dim = self.trunk["dim"]
    self.softmax = self.param("softmax", lambda rng: {
        "kernel": jax.random.normal(rng, (self.vocab_size, dim)) * dim**-0.5, "bias": jnp.zeros(self.vocab_size)})
    self.drop = nn.Dropout(self.trunk["dropout"])

  def __call__(self, batch: Mapping[str, Any], deterministic: bool = True):
    """The last states of both directions, [batch, time, dim + 1] with a 1 for the bias, and the table of words."""
    last = self.drop(self.encoder.layers(batch, deterministic)[:, -1], deterministic)
    halves = jnp.split(last, 2, axis=-1)
    ones = jnp.ones((*last.shape[:2], 1))
    table = jnp.concatenate([self.softmax["kernel"], self.softmax["bias"][:, None]], 1)
    return [jnp.concatenate([half, ones], -1) for half in halves], table

  def layers(self, batch: Mapping[str, Any]):
    return self.encoder.layers(batch)


def encoder(
    *,
    dim: int = 512,
    cell_dim: int = 4096,
    num_layers: int = 2,
    character_dim: int = 16,
    filters: Sequence[Sequence[int]] = FILTERS,
    num_highway: int = 2,
    clip: float = 3.0,
    dropout: float = 0.1,
    dtype: str = "float32",
) -> Encoder:
  """The network whose parameters lie under `params/encoder`."""
  return Encoder(**_trunk(dim, cell_dim, num_layers, character_dim, filters, num_highway, clip, dropout, dtype))


@takes(characters=3, tokens=2)
def elmo(
    *,
    vocab_size: Fact[int],
    dim: int = 512,
    cell_dim: int = 4096,
    num_layers: int = 2,
    character_dim: int = 16,
    filters: Sequence[Sequence[int]] = FILTERS,
    num_highway: int = 2,
    clip: float = 3.0,
    dropout: float = 0.1,
    num_samples: int = 0,
    chunk: int = 4096,
    dtype: str = "float32",
    optimizer: optax.GradientTransformation | None = None,
    accumulate: int = 1,
    ema_decay: float | None = None,
) -> Model:
  """ELMo's bidirectional language model; the defaults are the paper's.

  Args:
    vocab_size: words that are predicted.
    dim: Dimension of words, of the projected states and of the softmax.
    cell_dim: Dimension of the LSTMs' cells.
    num_layers: LSTMs of each direction.
    character_dim, filters, num_highway: see `nets/characters.py`.
    clip: bound of the entries of cells and states; 0: none.
    dropout: on the input of each LSTM and on the last output.
    num_samples: words that stand for the vocabulary in the training loss (the paper: 8,192); 0: all of them.
    chunk: positions whose scores a device holds at the same time.
    dtype: Data type of the products (`float32` or `bfloat16`); parameters, states and losses are float32.
    optimizer: by default the paper's Adagrad with a rate of 0.2.
    accumulate, ema_decay: as for `gradient_model`.
  """
  trunk = _trunk(dim, cell_dim, num_layers, character_dim, filters, num_highway, clip, dropout, dtype)
  if not 0 <= num_samples < vocab_size:
    raise InputError(f"num_samples={num_samples}: must be at least 0 and less than vocab_size={vocab_size}")
  network = Elmo(trunk, vocab_size)
  widest = max(width for width, _ in trunk["filters"])

  def init_params(rng, batch):
    if batch["characters"].shape[-1] < widest:
      raise InputError(f"filters={trunk['filters']}: one is wider than a word's {batch['characters'].shape[-1]} "
                       "characters (data.max_characters)")
    return network.init(rng, batch)["params"], {}

  def directions(params, batch, deterministic=True, rngs=None):
    """(queries [B, T - 1, d], targets [B, T - 1], weight [B, T - 1]) of both, and the table."""
    tokens, rows = batch["tokens"], row_mask(batch)
    (ahead, back), table = network.apply({"params": params}, batch, deterministic, rngs=rngs)
    words = (tokens[:, 1:] >= 0) & (tokens[:, :-1] >= 0)

    def one(queries, targets, mark):
      return queries, jnp.maximum(targets, 0), (words & (targets != mark)) * rows[:, None]

    return (one(ahead[:, :-1], tokens[:, 1:], BEGIN), one(back[:, 1:], tokens[:, :-1], END)), table

  def loss_fn(params, extra, batch, rng):
    rng_dropout, rng_samples = jax.random.split(rng)
    pair, table = directions(params, batch, deterministic=False, rngs={"dropout": rng_dropout})
    losses = []
    for i, (queries, targets, weight) in enumerate(pair):
      weight = weight / jnp.maximum(weight.sum(), 1)
      if num_samples:
        losses.append(sampled_cross_entropy(jax.random.fold_in(rng_samples, i), queries, table, targets, weight,
                                            num_samples))
      else:
        losses.append(cross_entropy(queries, table, targets, weight, chunk)[0])
    loss = (losses[0] + losses[1]) / 2
    return loss, ({"forward_loss": losses[0], "backward_loss": losses[1], "perplexity": jnp.exp(loss)}, extra)

  def likelihoods(params, batch):
    pair, table = directions(params, batch)
    return [(cross_entropy(queries, table, targets, weight, chunk)[1], weight) for queries, targets, weight in pair]

  def measures(params, extra, batch):
    """name -> [sum, count] over predicted words, without sampling."""
    sums = [jnp.stack([-(logp * weight).sum(), weight.sum()]) for logp, weight in likelihoods(params, batch)]
    return {"loss": sums[0] + sums[1], "forward_loss": sums[0], "backward_loss": sums[1]}

  def held_out(params, extra, batch):
    losses = [-(logp * weight).sum() / jnp.maximum(weight.sum(), 1) for logp, weight in likelihoods(params, batch)]
    return (losses[0] + losses[1]) / 2

  def hidden(params, batch):
    return network.apply({"params": params}, batch, method="layers")

  def embed_fn(params, extra, batch):
    tokens = batch["tokens"]
    words = tokens >= UNKNOWN
    words |= (tokens >= 0) & ~words.any(1, keepdims=True)
    return pool(hidden(params, batch).mean(1), words, "mean")

  outputs = {
      "loss": held_out,
      "measures": measures,
      "hidden": lambda params, extra, batch: hidden(params, batch),
  }
  return gradient_model(init_params, loss_fn, embed_fn, optimizer or optax.adagrad(0.2), accumulate=accumulate,
                        ema_decay=ema_decay, outputs=outputs)


def _trunk(dim, cell_dim, num_layers, character_dim, filters, num_highway, clip, dropout, dtype) -> dict[str, Any]:
  """Checked arguments of `Encoder`."""
  for name, value in dict(dim=dim, cell_dim=cell_dim, num_layers=num_layers, character_dim=character_dim).items():
    if value < 1:
      raise InputError(f"{name}={value}: must be at least 1")
  if not filters or any(len(pair) != 2 or min(pair) < 1 for pair in filters):
    raise InputError(f"filters={filters}: must be pairs of a width and a number, both at least 1")
  if not 0 <= dropout < 1:
    raise InputError(f"dropout={dropout}: must be from 0 to less than 1")
  return dict(dim=dim, cell_dim=cell_dim, num_layers=num_layers, character_dim=character_dim,
              filters=tuple(map(tuple, filters)), num_highway=num_highway, clip=clip, dropout=dropout,
              dtype=jnp.dtype(dtype))
