"""Skip-gram with negative sampling (Mikolov et al. 2013b, "Distributed Representations of Words and Phrases and
their Compositionality").

Running text w_1 ... w_T is thinned by subsampling frequent words: word w with relative frequency f(w) stays with
probability sqrt(t / f) + t / f (as in the C program; the paper prints 1 - sqrt(t / f) as the probability to go).
Position i of what is left looks at all j with 0 < |i - j| <= r_i in its document, r_i uniform on 1 ... c. One update
lowers, over the n_i pairs of each position and for K noise words m ~ P_n(w) = unigram(w)^{3/4} / Z that a group of
neighbouring positions shares,

  L = - sum_i [ sum_j log sigma(v_{w_i} . v'_{w_j}) + (k n_i / K) sum_m log sigma(-v_{w_i} . v'_m) ].

For K = k n_i and a group of one position this is the paper's equation 4; sharing leaves its expectation unchanged.

| paper | here | shape |
|---|---|---|
| v_w, v'_w | `state.input`, `state.output` | [V', d], V' = vocabulary padded to a multiple of 64 |
| c, r_i | `window`, `draws.radius` | [], [B, N] |
| t | `subsample` (`state.keep`: sqrt(t / f) + t / f) | [V'] |
| k | `num_negatives` | [] |
| K, m | `shared_negatives`, `draws.negatives` | [], [B, N / group, K] |
| P_n | `state.noise`: cumulative, in units of 2**-32 | [V'] |

How it is computed: each row of a batch is a block of running tokens. What subsampling leaves is moved to its front,
the rows of both tables are gathered once per position, windows are scored as tiles (`tile` positions by
`tile` + 2 c contexts) by matrix products, gradients are added up per position and scattered once. A dense gradient of
a table never exists.

Deviations from the C program. (1) All pairs of a batch see the tables of its start, as if each row's gradients were
summed before one large step; where that step would overshoot it is shortened: the summed gradient of a row is scaled
by min(1, max_mass / mass), mass = the weight of the row's pairs and noise words in the batch. Without it frequent
words diverge already in batches of 1,024 words (rows grew to 100 times their length). Beyond 4,096 words it costs
quality: WordSim-353 after one epoch of 17 M words .53 at 4,096 and .49 at 16,384. (2) A noise word equal to the
pair's own context is not redrawn. (3) Windows end at the block's ends.

Expected: see `experiments/configs/sgns.py`.
"""
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import PartitionSpec as P

from embeddings_jax.ops.sharding import DATA_AXES, constrain
from embeddings_jax.types import Array, InputError, Model

ROW_MULTIPLE = 64  # Tables are padded to this, so that their rows can be split over `model`.


class SgnsState(NamedTuple):
  """Tables, and what the vocabulary's counts determine.

  Attributes:
    step: [] int32, updates made.
    input: [V', d] word vectors v; rows past the vocabulary stay 0.
    output: [V', d] context vectors v'.
    keep: [V'] probability that subsampling keeps a token (above 1: always), 0 past the vocabulary.
    noise: [V'] uint32, upper ends of the words' shares of [0, 2**32) in the noise distribution.
  """

  step: Array
  input: Array
  output: Array
  keep: Array
  noise: Array


class Draws(NamedTuple):
  """One batch after all random choices: B blocks of N positions, the kept tokens at the front.

  Attributes:
    tokens: [B, N] int32, V' where there is none.
    document: [B, N] int32, number of the document in the block, -1 where there is no token.
    radius: [B, N] int32.
    negatives: [B, N / group, K] int32.
    words: [] float32, raw tokens behind the draws, before subsampling.
    overflow: [] float32, kept tokens for which a block had no room.
  """

  tokens: Array
  document: Array
  radius: Array
  negatives: Array
  words: Array
  overflow: Array


def sgns(
    *,
    vocab_size: int,
    counts: Any,
    num_steps: int | None = None,
    dim: int = 100,
    window: int = 5,
    num_negatives: int = 5,
    subsample: float = 1e-3,
    negative_power: float = 0.75,
    learning_rate: float | Callable[[Array], Array] = 0.025,
    shared_negatives: int = 32,
    tile: int = 32,
    tiles_per_group: int = 1,
    max_mass: float = 128.0,
    slack: float = 0.06,
) -> Model:
  """Skip-gram with negative sampling.

  A batch is `{"tokens": int32 [B, T], "mask": [B]}`: blocks of running tokens, -1 = document boundary or padding.

  Args:
    vocab_size: number of words.
    counts: [vocab_size] occurrences in the training text.
    num_steps: updates of the whole run, for the linear decay.
    dim: of the vectors.
    window: largest distance between a word and its context.
    num_negatives: weight of the noise words, per pair (the paper's k).
    subsample: threshold of the relative frequency above which tokens are thinned; 0 keeps all.
    negative_power: exponent of the unigram distribution for noise words.
    learning_rate: a schedule, or the start of a linear decay to 1e-4 of it over `num_steps`.
    shared_negatives: noise words drawn per group of positions; more of them lower the noise.
    tile: positions scored by one matrix product.
    tiles_per_group: tiles that share their noise words.
    max_mass: most pairs' worth of gradient that one batch may add to a row; see the docstring above.
    slack: a block has room for the share of its tokens that subsampling keeps on average, plus this share; what is
      more goes untrained (the metric `overflow`).
  """
  counts = np.asarray(counts, np.float64)
  if vocab_size < 1 or counts.shape != (vocab_size,):
    raise InputError(f"sgns: counts of shape {counts.shape} do not fit vocab_size={vocab_size}")
  if not counts.sum() > 0:
    raise InputError("sgns: all counts are 0, so there is no noise distribution")
  for name, value in {"dim": dim, "window": window, "tile": tile, "shared_negatives": shared_negatives,
                      "tiles_per_group": tiles_per_group}.items():
    if value < 1:
      raise InputError(f"sgns: {name}={value}: must be at least 1")
  if window > tile:
    raise InputError(f"sgns: window={window} exceeds tile={tile}; raise config.model.tile")
  num_rows = -(-vocab_size // ROW_MULTIPLE) * ROW_MULTIPLE
  group = tile * tiles_per_group
  shape = {"window": window, "num_negatives": num_negatives, "tile": tile}
  kept_share = float((counts * np.minimum(1, _keep_probability(counts, subsample))).sum() / counts.sum())
  keep, noise = _keep_probability(counts, subsample), _noise_bounds(counts, negative_power)
  if callable(learning_rate):
    schedule = learning_rate
  elif num_steps:
    schedule = optax.linear_schedule(learning_rate, learning_rate * 1e-4, num_steps)
  else:
    schedule = optax.constant_schedule(learning_rate)

  def init(rng, batch):
    del batch
    vectors = jax.random.uniform(rng, (num_rows, dim), jnp.float32, -0.5 / dim, 0.5 / dim)
    return SgnsState(
        step=jnp.zeros((), jnp.int32),
        input=jnp.where(jnp.arange(num_rows)[:, None] < vocab_size, vectors, 0),
        output=jnp.zeros((num_rows, dim), jnp.float32),
        keep=jnp.asarray(np.pad(keep, (0, num_rows - vocab_size)), jnp.float32),
        noise=jnp.asarray(np.pad(noise, (0, num_rows - vocab_size), mode="edge"), jnp.uint32))

  def draw(state, batch, rng, room=1.0) -> Draws:
    """Draws all that is random; `room` is the share of a block's tokens that have a place."""
    keep_rng, radius_rng, noise_rng = jax.random.split(rng, 3)
    tokens = batch["tokens"]
    num_blocks, length = tokens.shape
    size = -(-math.ceil(length * room) // group) * group
    valid = (tokens >= 0) & (batch["mask"][:, None] > 0)
    uniform = jax.random.uniform(keep_rng, tokens.shape)
    kept = valid & (uniform < state.keep.at[tokens].get(mode="fill", fill_value=0, wrap_negative_indices=False))
    # The place of a kept token is the number of kept ones before it; the others fall off the end.
    place = jnp.where(kept, jnp.cumsum(kept, 1) - 1, size)
    document = jnp.cumsum(tokens < 0, 1)

    def compact(values, place, empty):
      return jnp.full(size, empty, jnp.int32).at[place].set(values, mode="drop")

    draws = Draws(
        tokens=jax.vmap(compact, (0, 0, None))(tokens, place, num_rows),
        document=jax.vmap(compact, (0, 0, None))(document, place, -1),
        radius=1 + jnp.floor(window * jax.random.uniform(radius_rng, (num_blocks, size))).astype(jnp.int32),
        negatives=jnp.minimum(vocab_size - 1, jnp.searchsorted(
            state.noise, jax.random.bits(noise_rng, (num_blocks, size // group, shared_negatives), jnp.uint32),
            side="right")).astype(jnp.int32),
        words=valid.sum(dtype=jnp.float32),
        overflow=(kept & (place >= size)).sum(dtype=jnp.float32))
    return draws._replace(**constrain(
        {k: getattr(draws, k) for k in ("tokens", "document", "radius", "negatives")}, P(DATA_AXES)))

  def update(state, batch, rng):
    draws = draw(state, batch, rng, min(1, kept_share + slack))
    loss, gradient, weight = gradients(*gather_rows(state, draws), draws, **shape)
    rate = jnp.asarray(schedule(state.step), jnp.float32)
    pairs = weight.pairs.sum()

    # One gather feeds one scatter, so that XLA updates each table in place. Rows and ids are small: gathered by
    # every device, they spare an all-reduce of whole tables.
    outputs = [_joined(*x) for x in ((draws.tokens, draws.negatives), (weight.output, weight.negative),
                                     (gradient.output, gradient.negative))]
    new_input = add_rows(state.input, *constrain((draws.tokens, weight.input, gradient.input), P()), rate)
    new_output = add_rows(state.output, *constrain(tuple(outputs), P()), rate)
    metrics = {"loss": loss / jnp.maximum(pairs, 1), "pairs": pairs, "words": draws.words,
               "overflow": draws.overflow, "learning_rate": rate}
    return state._replace(step=state.step + 1, input=new_input, output=new_output), metrics

  def gather_rows(state, draws):
    take = lambda table, ids: table.at[ids].get(mode="fill", fill_value=0)
    inputs, outputs = take(state.input, draws.tokens), take(state.output, _joined(draws.tokens, draws.negatives))
    size = draws.tokens.shape[1]
    return inputs, outputs[:, :size], outputs[:, size:].reshape(draws.negatives.shape + (dim,))

  def add_rows(table, ids, weight, gradient, rate):
    """`table - rate * (sum of each row's gradients, shortened where its mass exceeds max_mass)`."""
    mass = jnp.zeros(num_rows).at[ids].add(weight, mode="drop")
    scale = rate * jnp.minimum(1, max_mass / jnp.maximum(mass, 1e-9))
    scale = scale.at[ids].get(mode="fill", fill_value=0)
    return table.at[ids].add(-scale[..., None] * gradient, mode="drop")

  def embed(state, batch):
    tokens = batch["tokens"]
    valid = (tokens >= 0) & (tokens < vocab_size)
    rows = state.input.at[jnp.where(valid, tokens, num_rows)].get(mode="fill", fill_value=0)
    return rows.sum(-2) / jnp.maximum(valid.sum(-1, keepdims=True), 1)

  def loss(state, batch, rng):
    del rng  # Held-out text is always seen with the same windows and noise words.
    draws = draw(state, batch, jax.random.key(0))
    total, _, weight = gradients(*gather_rows(state, draws), draws, **shape)
    return total / jnp.maximum(weight.pairs.sum(), 1)

  def components(state, batch, rng):
    del batch, rng
    return {"input": state.input[:vocab_size], "output": state.output[:vocab_size]}

  def draws(state, batch, rng):
    return draw(state, batch, rng)._asdict()

  rules = ((r"(^|/)(input|output)$", P("model", None)),)
  return Model(init, update, embed, {"loss": loss, "components": components, "draws": draws}, rules)


class Gradient(NamedTuple):
  """Of the objective by the gathered rows: [B, N, d], [B, N, d] and [B, groups, K, d]."""

  input: Array
  output: Array
  negative: Array


class Weight(NamedTuple):
  """How many pairs and noise words went into each row of `Gradient`; `pairs` [B, N] is the paper's n_i."""

  pairs: Array
  input: Array
  output: Array
  negative: Array


def gradients(
    inputs: Array, outputs: Array, noise: Array, draws: Draws, *, window: int, num_negatives: int, tile: int,
) -> tuple[Array, Gradient, Weight]:
  """The objective (a sum), its gradient by the gathered rows, and the weight behind each of them.

  Args:
    inputs: [B, N, d] rows of the input table at `draws.tokens`.
    outputs: [B, N, d] rows of the output table there.
    noise: [B, groups, K, d] rows of the output table at `draws.negatives`.
    draws: the random choices.
    window, num_negatives: c and k.
    tile: positions of a matrix product; divides the group.
  """
  num_blocks, size, dim = inputs.shape
  num_groups, shared = noise.shape[1:3]
  group = size // num_groups
  tiled = lambda x: x.reshape((num_blocks, size // tile, tile) + x.shape[2:])
  centre, context = tiled(inputs), _with_halo(tiled(outputs), window, 0)

  here, there = tiled(draws.document), _with_halo(tiled(draws.document), window, -1)
  distance = jnp.arange(tile + 2 * window) - window - jnp.arange(tile)[:, None]
  paired = (here[..., None] == there[..., None, :]) & (here >= 0)[..., None] & (distance != 0)
  paired &= jnp.abs(distance) <= tiled(draws.radius)[..., None]
  paired = paired.astype(jnp.float32)

  right = jax.nn.sigmoid(jnp.einsum("btid,btjd->btij", centre, context))
  error = paired * (right - 1)
  positive_loss = (paired * _minus_log(right)).sum()
  pairs = paired.sum(-1).reshape(num_blocks, size)
  grad_centre = jnp.einsum("btij,btjd->btid", error, context).reshape(inputs.shape)
  grad_context = _fold_halo(jnp.einsum("btji,btid->btjd", _turned(error), centre), window).reshape(outputs.shape)

  grouped = inputs.reshape(num_blocks, num_groups, group, dim)
  each = pairs.reshape(num_blocks, num_groups, group, 1) * (num_negatives / shared)
  right = jax.nn.sigmoid(-jnp.einsum("bgid,bgkd->bgik", grouped, noise))
  error = each * (1 - right)
  negative_loss = (each * _minus_log(right)).sum()
  grad_centre += jnp.einsum("bgik,bgkd->bgid", error, noise).reshape(inputs.shape)
  grad_noise = jnp.einsum("bgki,bgid->bgkd", _turned(error), grouped)

  weight = Weight(
      pairs=pairs,
      input=(1 + num_negatives) * pairs,
      output=_fold_halo(paired.sum(-2)[..., None], window).reshape(num_blocks, size),
      negative=jnp.broadcast_to(each.sum(2), noise.shape[:3]))
  return positive_loss + negative_loss, Gradient(grad_centre, grad_context, grad_noise), weight


def _with_halo(x: Array, window: int, fill: float) -> Array:
  """[B, tiles, tile, ...] -> [B, tiles, tile + 2 window, ...]: each tile with the ends of its neighbours."""
  edge = [(0, 0)] * (x.ndim - 2)
  left = jnp.pad(x[:, :-1, -window:], [(0, 0), (1, 0)] + edge, constant_values=fill)
  right = jnp.pad(x[:, 1:, :window], [(0, 0), (0, 1)] + edge, constant_values=fill)
  return jnp.concatenate([left, x, right], 2)


def _fold_halo(x: Array, window: int) -> Array:
  """The transpose of `_with_halo`: adds what fell on a halo to the tile that it was taken from."""
  tile = x.shape[2] - 2 * window
  left = jnp.pad(x[:, 1:, :window], [(0, 0), (0, 1), (tile - window, 0), (0, 0)])
  right = jnp.pad(x[:, :-1, -window:], [(0, 0), (1, 0), (0, tile - window), (0, 0)])
  return x[:, :, window:-window] + left + right


def _minus_log(probability: Array) -> Array:
  # Cheaper than softplus of the score, and finite (87) where the probability underflows.
  return -jnp.log(jnp.maximum(probability, jnp.finfo(jnp.float32).tiny))


def _turned(x: Array) -> Array:
  # XLA would fold the transpose into the product, whose form without one is 1.4 times as fast on CPU.
  return jax.lax.optimization_barrier(x.swapaxes(-1, -2))


def _joined(positions: Array, negatives: Array) -> Array:
  """[B, N, ...] and [B, groups, K, ...] -> [B, N + groups K, ...]."""
  flat = negatives.reshape((negatives.shape[0], -1) + negatives.shape[3:])
  return jnp.concatenate([positions, flat], 1)


def _keep_probability(counts: np.ndarray, subsample: float) -> np.ndarray:
  if not subsample:
    return np.full(len(counts), 2.0)
  ratio = subsample * counts.sum() / np.maximum(counts, 1)
  return np.sqrt(ratio) + ratio


def _noise_bounds(counts: np.ndarray, power: float) -> np.ndarray:
  # 32-bit integers: floats would distort the words whose share is near 2**-24.
  share = np.where(counts > 0, counts, 0) ** power
  bounds = np.cumsum(share) / math.fsum(share)
  return np.minimum(np.round(bounds * 2.0**32), 2.0**32 - 1).astype(np.uint32)
