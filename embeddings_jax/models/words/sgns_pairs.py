"""Skip-gram with negative sampling on pairs of a word and any context (Levy & Goldberg 2014, "Dependency-Based Word
Embeddings").

Contexts need not be words: in a parsed sentence the contexts of a word are its modifiers and its head, each with the
relation; in running text they may be words with their positions. Over the pairs (w, c) of a batch, with K noise
contexts m ~ count(c)^{3/4} / Z that a group of pairs shares, an update lowers

  L = - mean_{(w, c)} [ log sigma(v_w . u_c) + (k / K) sum_m log sigma(-v_w . u_m) ].

| symbol | code | shape |
|---|---|---|
| v_w | `state.input`, `embed` | [V', d], V' > V, a multiple of 64 |
| u_c | `state.output` | [C', d] |
| k, K | `num_negatives`, `shared_negatives` | [] |

Deviations from the authors' program word2vecf: noise contexts are shared by the pairs of a group, and all pairs of a
batch see the tables of its start, see `models/words/sgns.py`.

Split: pair of a word and its context | the word | the context, told from noise contexts.

Expected: see `embeddings_jax/configs/sgns_pairs.py`.
"""
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Float

from embeddings_jax.ops import word_blocks
from embeddings_jax.ops.batches import row_mask, takes
from embeddings_jax.types import Array, Fact, InputError, Model


class PairState(NamedTuple):
  """Tables of words and contexts, and the noise distribution.

  Attributes:
    step: [] int32, updates made.
    input: [V', d] vectors of the words; rows past the vocabulary stay 0.
    output: [C', d] vectors of the contexts.
    noise: [C'] uint32, 2**32 sum_{u <= c} P_n(u).
  """

  step: Array
  input: Array
  output: Array
  noise: Array


@takes(word=1, context=1, tokens=2)
def sgns_pairs(
    *,
    vocab_size: Fact[int],
    num_contexts: Fact[int],
    context_counts: Fact[Any],
    num_steps: Fact[int | None] = None,
    dim: int = 100,
    num_negatives: int = 5,
    negative_power: float = 0.75,
    learning_rate: float | Callable[[Array], Array] = 0.025,
    shared_negatives: int = 16,
    group: int = 16,
    max_mass: float = 128.0,
) -> Model:
  """Skip-gram with negative sampling on given pairs.

  A batch is `{"word": int32 [B], "context": int32 [B], "mask": [B]}`; `embed` takes `tokens` int32 [n, T].

  Args:
    vocab_size: Number of words.
    num_contexts: Number of contexts.
    context_counts: Occurrences of each context, [num_contexts].
    num_steps: Updates of the whole run, for the linear decay.
    dim: Dimension of the vectors.
    num_negatives: Weight of the noise contexts, per pair (the paper's k).
    negative_power: Exponent of the contexts' frequencies in the noise distribution.
    learning_rate: A schedule, or the start of a linear decay to 1e-4 of it over `num_steps`.
    shared_negatives: Noise contexts drawn for each group.
    group: Pairs that share them; divides the batch.
    max_mass: Most pairs' worth of gradient that one batch may add to a row; see `models/words/sgns.py`.
  """
  for name, value in {"dim": dim, "shared_negatives": shared_negatives, "group": group}.items():
    if value < 1:
      raise InputError(f"sgns_pairs: {name}={value}: must be at least 1")
  contexts = word_blocks.count_words("sgns_pairs", num_contexts, context_counts, 0, negative_power)
  num_rows = (vocab_size // word_blocks.ROW_MULTIPLE + 1) * word_blocks.ROW_MULTIPLE
  schedule = word_blocks.linear_decay(learning_rate, num_steps)
  weight = num_negatives / shared_negatives

  def init(rng, batch):
    del batch
    return PairState(jnp.zeros((), jnp.int32), word_blocks.random_table(rng, num_rows, vocab_size, dim),
                     jnp.zeros((contexts.num_rows, dim)), jnp.asarray(contexts.noise))

  def arranged(state, batch, rng):
    """Words and contexts [groups, group], noise contexts [groups, K], and the pairs' mask [groups, group]."""
    if len(batch["word"]) % group:
      raise InputError(f"sgns_pairs: group={group}: does not divide the batch of {len(batch['word'])} pairs")
    word, context, mask = (x.reshape(-1, group) for x in (batch["word"], batch["context"], row_mask(batch)))
    return word, context, word_blocks.noise_words(state.noise, rng, 0, (len(word), shared_negatives)), mask

  def update(state, batch, rng):
    word, context, noise, mask = arranged(state, batch, rng)
    v, u, n = (word_blocks.take_rows(table, ids) for table, ids in (
        (state.input, word), (state.output, context), (state.output, noise)))
    loss, (of_v, of_u, of_n) = jax.value_and_grad(total_loss, (0, 1, 2))(v, u, n, mask, weight)
    rate = jnp.asarray(schedule(state.step), jnp.float32)
    size = lambda ids, mass, rows: word_blocks.step_sizes(rows, ids, mass, rate, max_mass)[..., None]
    noise_mass = jnp.broadcast_to(weight * mask.sum(1, keepdims=True), noise.shape)
    ids, mass = jnp.concatenate([context, noise], 1), jnp.concatenate([mask, noise_mass], 1)
    words = word_blocks.add_rows(state.input, word, -size(word, (1 + num_negatives) * mask, num_rows) * of_v)
    output = word_blocks.add_rows(state.output, ids, -size(ids, mass, contexts.num_rows) * jnp.concatenate(
        [of_u, of_n], 1))
    pairs = mask.sum()
    return state._replace(step=state.step + 1, input=words, output=output), {
        "loss": loss / jnp.maximum(pairs, 1), "pairs": pairs, "learning_rate": rate}

  def loss(state, batch):
    # Held-out pairs always see the same noise.
    word, context, noise, mask = arranged(state, batch, jax.random.key(0))
    return total_loss(state.input[word], state.output[context], state.output[noise], mask, weight) / jnp.maximum(
        mask.sum(), 1)

  def embed(state, batch):
    return word_blocks.mean_of_words(state.input, batch["tokens"], vocab_size)

  def components(state):
    return {"input": state.input[:vocab_size], "output": state.output[:num_contexts]}

  return Model(init, update, embed, {"loss": loss, "components": components},
               ((r"(^|/)(input|output)$", P("model", None)),))


def total_loss(v: Float[Array, "g n d"], u: Float[Array, "g n d"], noise: Float[Array, "g k d"],
               mask: Float[Array, "g n"], weight: float) -> Float[Array, ""]:
  """Returns the sum of the loss over valid pairs, nats.

  Args:
    v, u: Vectors of the words and of their contexts.
    noise: Vectors of the noise contexts of each group.
    mask: 1 for valid pairs.
    weight: k / K.
  """
  seen = jax.nn.softplus(-(v * u).sum(-1))
  drawn = jax.nn.softplus(jnp.einsum("gnd,gkd->gnk", v, noise)).sum(-1)
  return (mask * (seen + weight * drawn)).sum()
