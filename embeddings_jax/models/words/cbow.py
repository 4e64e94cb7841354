"""Continuous bag of words (Mikolov et al. 2013a, "Efficient Estimation of Word Representations in Vector Space";
negative sampling from Mikolov et al. 2013b): a word is predicted from the words around it.

Running text is thinned by subsampling as in `sgns`. Position i of the rest has a context C_i of n_i words, a query

  z_i = sum_{j in C_i} v_{w_j}   (`context="sum"`)      or the same divided by n_i   (`context="mean"`),

and the targets S_i: `num_masked` words from i on (as far as their document goes; usually i alone), none of them in
C_i. With `context_unit="window"`, C_i are the words of i's document up to r_i before the targets and up to r_i after
them, r_i uniform on 1 ... c; with "sentence" or "document" it is the whole run of words between two boundaries (or
ends of the block), without the targets. What the boundaries stand for is the data's choice: lines, documents; so the
two names are one computation. One update lowers, over all positions that have a context,

  negative sampling: L = - sum_i sum_{t in S_i} [ log sigma(z_i . v'_{w_t}) + (k / K) sum_m log sigma(-z_i . v'_m) ]
  softmax:           L = - sum_i sum_{t in S_i} log softmax(V' z_i)_{w_t}
  hierarchical softmax, of one masked word: L = - sum_i log p(w_i | z_i), see `ops/hierarchical.py`

with K noise words m ~ P_n(w) = unigram(w)^{3/4} / Z that a group of neighboring positions shares (in expectation k
noise words per target). `tied=True` has one table, v' = v: with `objective="softmax"` and `context="sum"` it is the
textbook form.

| paper | here | shape |
|---|---|---|
| v_w, v'_w | `input`, `output` | [V', d], V' > V, a multiple of 64 |
| c, r_i | `window`, `draws.radius` | [], [B, N] |
| t (threshold) | `subsample` (`keep`: sqrt(t / f) + t / f) | [V'] |
| k | `num_negatives` | [] |
| K, m | `shared_negatives`, `draws.negatives` | [], [B, N / group, K] |
| P_n | `noise`: cumulative, in units of 2**-32 | [V'] |

How it is computed: rows are gathered once per position, contexts are summed by shifting them along the positions (or
over documents), steps are scattered once. With negative sampling a dense gradient of a table never exists, and a step
is word2vec's, the rate times the sum over the batch; the full softmax has a dense gradient by nature, here of the
mean over targets, and takes any optimizer.

Deviations from the C program. (1) The gradient is that of the formula: where the context is a mean, a context word
gets 1 / n_i of the query's gradient. The C program and gensim's `cbow_mean=1` pass it on undivided, which
`undivided=True` does too; Irsoy, Benton & Stratos 2021 ("Corrected CBOW performs as well as skip-gram") show it to
explain much of CBOW's bad name. The divided gradient wants a larger rate: .1 instead of .025. (2) All positions of a
batch see the tables of its start, and the summed step of a row is shortened by min(1, max_mass / mass), see
`ops.word_blocks.step_sizes`. Batches of 8,192 words at max_mass 128 and rate .1, or of 16,384 at 64 and .15,
diverged; the defaults, 8,192 at 32, leave room. (3) A noise word that equals the target is not redrawn. (4) Windows
end at the block's ends.

Split: window of text | the words around a word | the word.

Expected: see `embeddings_jax/configs/cbow.py`.
"""
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import PartitionSpec as P
from jaxtyping import Float

from embeddings_jax.gradient import gradient_model
from embeddings_jax.ops import hierarchical, word_blocks
from embeddings_jax.ops.batches import takes
from embeddings_jax.ops.kernels.softmax import check_affordable, weighted_log_partition
from embeddings_jax.ops.word_blocks import Draws, minus_log, shifted, transposed
from embeddings_jax.types import Array, Fact, InputError, Model

CHOICES = {"objective": ("negative_sampling", "softmax", "hierarchical_softmax"), "context": ("mean", "sum"),
           "context_unit": ("window", "sentence", "document")}


class CbowState(NamedTuple):
  """Tables, and what the vocabulary's counts determine (with negative sampling or hierarchical softmax).

  Attributes:
    step: [] int32, updates made.
    input: [V', d] word vectors v; rows past the vocabulary stay 0.
    output: [V', d] target vectors v', or those of the inner nodes of the Huffman tree; () where they are tied to v.
    keep: [V'] probability that subsampling keeps a token (above 1: always), 0 past the vocabulary.
    noise: [V'] uint32, 2**32 sum_{u <= w} P_n(u).
    points, codes: [V', 40], paths in the Huffman tree; () without it.
  """

  step: Array
  input: Array
  output: Any
  keep: Array
  noise: Array
  points: Any = ()
  codes: Any = ()


@takes(tokens=2)
def cbow(
    *,
    vocab_size: Fact[int],
    counts: Fact[Any],
    num_steps: Fact[int | None] = None,
    dim: int = 100,
    objective: str = "negative_sampling",
    context: str = "mean",
    context_unit: str = "window",
    undivided: bool = False,
    tied: bool = False,
    num_masked: int = 1,
    window: int = 5,
    num_negatives: int = 5,
    subsample: float = 1e-3,
    negative_power: float = 0.75,
    learning_rate: float | Callable[[Array], Array] = 0.1,
    optimizer: optax.GradientTransformation | None = None,
    shared_negatives: int = 16,
    group: int = 104,
    max_mass: float = 32.0,
    slack: float = 0.06,
    chunk: int = 512,
    max_memory: float = 4.0,
) -> Model:
  """Continuous bag of words.

  A batch is `{"tokens": int32 [B, T], "mask": [B]}`: blocks of running tokens, -1 = document boundary or padding.

  Args:
    vocab_size: number of words.
    counts: [vocab_size] occurrences in the training text.
    num_steps: updates of the whole run, for the linear decay.
    dim: Dimension of the vectors.
    objective: `negative_sampling`, `hierarchical_softmax`, or `softmax` over the whole vocabulary.
    context: `mean` or `sum` of the context's vectors.
    context_unit: `window`, or `sentence` or `document`: all words between two boundaries of the data.
    undivided: with a mean, and not the full softmax, give each context word the query's whole gradient, as gensim
      does.
    tied: one table for contexts and targets.
    num_masked: consecutive words that are hidden from a context and predicted from it.
    window: largest distance between the masked words and their context.
    num_negatives: weight of the noise words, per target (the paper's k).
    subsample: threshold of the relative frequency above which tokens are thinned; 0 keeps all.
    negative_power: exponent of the unigram distribution for noise words.
    learning_rate: Except for the full softmax a schedule, or the start of a linear decay to 1e-4 of it over
      `num_steps`.
    optimizer: Optimizer of the softmax; by default SGD with `learning_rate`.
    shared_negatives: noise words that a group of positions shares.
    group: positions of a group.
    max_mass: most targets' worth of gradient that one batch may add to a row (not the full softmax).
    slack: a block has room for the share of its tokens that subsampling keeps on average, plus this share; what is
      more goes untrained (the metric `overflow`).
    chunk: positions whose scores of the whole vocabulary are held at the same time (softmax).
    max_memory: GB that the full softmax may need.
  """
  options = {"objective": objective, "context": context, "context_unit": context_unit}
  for name, value in options.items():
    if value not in CHOICES[name]:
      raise InputError(f"cbow: {name}={value!r}: must be one of {', '.join(CHOICES[name])}")
  for name, value in {"dim": dim, "window": window, "group": group, "shared_negatives": shared_negatives,
                      "num_masked": num_masked, "chunk": chunk}.items():
    if value < 1:
      raise InputError(f"cbow: {name}={value}: must be at least 1")
  sampled, tree = objective == "negative_sampling", objective == "hierarchical_softmax"
  if tree and (tied or num_masked > 1):
    raise InputError("cbow: objective=hierarchical_softmax: predicts one word, with a table of its own for the tree; "
                     "use tied=False and num_masked=1")
  words = word_blocks.count_words("cbow", vocab_size, counts, subsample, negative_power)
  paths = hierarchical.huffman_paths(np.asarray(counts), words.num_rows) if tree else ()
  if objective == "softmax":
    check_affordable("cbow", vocab_size, dim, 2 - tied, chunk, max_memory)
  room = min(1, words.kept_share + slack)
  schedule = word_blocks.linear_decay(learning_rate, num_steps)

  def draw(keep, noise, batch, rng, room=1.0) -> Draws:
    return word_blocks.draw_blocks(
        keep, noise, batch, rng, vocab_size=vocab_size, window=window, group=group,
        shared_negatives=shared_negatives, room=room)

  sums_of = functools.partial(context_sums, context=context, context_unit=context_unit, window=window,
                              num_masked=num_masked)
  score = functools.partial(sampled_scores, num_masked=num_masked, num_negatives=num_negatives)

  def tables(rng):
    first = word_blocks.random_table(rng, words.num_rows, vocab_size, dim)
    return first, () if tied else jnp.zeros((words.num_rows, dim))

  def embed_rows(table, batch):
    return word_blocks.mean_of_words(table, batch["tokens"], vocab_size)

  rules = ((r"(^|/)(input|output)$", P("model", None)),)

  # ---- The full softmax: a dense gradient and any optimizer.

  def softmax_init(rng, batch):
    del batch
    first, second = tables(rng)
    return {"input": first, "output": second}, {
        "keep": jnp.asarray(words.keep)}

  def softmax_loss(params, extra, batch, rng, room=room):
    draws = draw(extra["keep"], None, batch, rng, room)
    output = params["input"] if tied else params["output"]
    total_of, _, scale = sums_of(draws)
    query = scale[..., None] * total_of(word_blocks.take_rows(params["input"], draws.tokens))
    rows, predicted = word_blocks.take_rows(output, draws.tokens), targets(draws, scale, num_masked)
    total = weighted_log_partition(query, output, sum(predicted), vocab_size, chunk)
    for s, valid in enumerate(predicted):
      total -= (valid * (query * shifted(rows, s, 0)).sum(-1)).sum()
    number = sum(predicted).sum()
    metrics = {"targets": number, "words": draws.words, "overflow": draws.overflow}
    return total / jnp.maximum(number, 1), (metrics, extra)

  if objective == "softmax":
    held_out = lambda params, extra, batch: softmax_loss(params, extra, batch, jax.random.key(0), 1.0)[0]
    listed = lambda params, extra: {
        name: table[:vocab_size] for name, table in params.items() if not isinstance(table, tuple)}
    drawn = lambda params, extra, batch, rng: draw(extra["keep"], None, batch, rng)._asdict()
    return gradient_model(
        softmax_init, softmax_loss, lambda params, extra, batch: embed_rows(params["input"], batch),
        optax.sgd(schedule) if optimizer is None else optimizer,
        outputs={"loss": held_out, "components": listed, "draws": drawn}, rules=rules)

  # ---- Negative sampling and hierarchical softmax: rows are gathered and scattered.

  depth = int((paths[0] >= 0).sum(1).max()) if tree else 0

  def init(rng, batch):
    del batch
    return CbowState(jnp.zeros((), jnp.int32), *tables(rng), jnp.asarray(words.keep),
                     jnp.asarray(words.noise), *map(jnp.asarray, paths))

  def path_terms(state, draws, total_of, scale):
    """Returns where a word is predicted, [B, N] of 0 and 1, and the terms of hierarchical softmax."""
    (predicted,) = targets(draws, scale, 1)
    query = scale[..., None] * total_of(word_blocks.take_rows(state.input, draws.tokens))
    return predicted, hierarchical.query_terms(
        word_blocks.computed_once(query), state.output, state.points[:, :depth], state.codes[:, :depth], draws.tokens,
        predicted > 0)

  def update(state, batch, rng):
    draws = draw(state.keep, state.noise if sampled else None, batch, rng, room)
    total_of, spread, scale = sums_of(draws)
    share = ((scale > 0) if undivided else scale)[..., None]
    flat = lambda x, tail=(): x.reshape((x.shape[0], -1) + tail)

    # What is written: ids of rows, their terms of the objective, and minus its gradient; the output table's first.
    if tree:
      number, terms = path_terms(state, draws, total_of, scale)
      number = number.sum()
      written = [(flat(terms.path), flat(terms.turns), flat(terms.grad_path, (dim,)))]
      mass, grad_query, loss = share * terms.turns.sum(-1, keepdims=True), terms.grad_query, terms.loss / jnp.maximum(
          number, 1)
    else:
      scores = score(state.input, state.input if tied else state.output, draws, total_of, scale)
      grad_query, from_targets, from_noise = sampled_gradients(scores, draws)
      predicted, each, loss = scores.predicted, scores.noise_weight, scores.loss
      number = sum(predicted).sum()
      mass = (1 + num_negatives) * share * sum(predicted)[..., None]
      written = [(draws.tokens, sum(shifted(valid, -s, 0) for s, valid in enumerate(predicted)), from_targets),
                 (flat(draws.negatives), flat(jnp.broadcast_to(each.sum(2), draws.negatives.shape)),
                  flat(from_noise, (dim,)))]
    contexts = [(draws.tokens, spread(mass)[..., 0], spread(share * grad_query))]
    rate = jnp.asarray(schedule(state.step), jnp.float32)

    def moved(table, parts):
      """One scatter after all the gathers, so that XLA updates the table in place."""
      ids, weight, gradient = (jnp.concatenate(x, 1) for x in zip(*parts))
      size = word_blocks.step_sizes(words.num_rows, ids, weight, rate, max_mass)
      return word_blocks.add_rows(table, ids, size[..., None] * gradient)

    new = (moved(state.input, contexts + written), ()) if tied else (
        moved(state.input, contexts), moved(state.output, written))
    metrics = {"loss": loss, "targets": number, "words": draws.words, "overflow": draws.overflow,
               "learning_rate": rate}
    return state._replace(step=state.step + 1, input=new[0], output=new[1]), metrics

  def loss(state, batch):
    # Held-out text is always seen with the same windows and noise words.
    draws = draw(state.keep, state.noise if sampled else None, batch, jax.random.key(0))
    total_of, _, scale = sums_of(draws)
    if tree:
      predicted, terms = path_terms(state, draws, total_of, scale)
      return terms.loss / jnp.maximum(predicted.sum(), 1)
    return score(state.input, state.input if tied else state.output, draws, total_of, scale).loss

  def components(state):
    return {"input": state.input[:vocab_size]} | ({} if tied else {"output": state.output[:vocab_size - tree]})

  def draws(state, batch, rng):
    return draw(state.keep, state.noise if sampled else None, batch, rng)._asdict()

  return Model(init, update, lambda state, batch: embed_rows(state.input, batch),
               {"loss": loss, "components": components, "draws": draws}, rules)


def context_sums(
    draws: Draws, *, context: str, context_unit: str, window: int, num_masked: int,
) -> tuple[Callable[[Array], Array], Callable[[Array], Array], Float[Array, "B N"]]:
  """Returns the sum over contexts, its transpose, and the scale that makes a sum the query z.

  The sum is a linear function from the positions' rows [B, N, d] to [B, N, d]. The scale is 0 where there is no
  context.
  """
  if context_unit == "window":
    masks = word_blocks.window_masks(draws.document, draws.radius, window=window, span=num_masked)
    number = sum(masks.values())
    total = lambda rows: word_blocks.window_sums(masks, rows)
    spread = lambda x: word_blocks.window_spread(masks, x)
  else:
    total = lambda rows: word_blocks.document_sums(draws.document, rows, num_masked)
    spread = lambda x: jax.linear_transpose(total, x)(x)[0]  # It has the shape of its argument.
    number = total((draws.document >= 0)[..., None].astype(jnp.float32))[..., 0]
  return total, spread, jnp.where(number > 0, 1 / jnp.maximum(number, 1) if context == "mean" else 1.0, 0)


def targets(draws: Draws, scale: Float[Array, "B N"], num_masked: int) -> list[Float[Array, "B N"]]:
  """Returns for each masked word s: 1 where position i has a context and predicts word i + s, else 0."""
  return [((shifted(draws.document, s, -1) == draws.document) & (draws.document >= 0) & (scale > 0)
           ).astype(jnp.float32) for s in range(num_masked)]


class Scores(NamedTuple):
  """Queries against their targets and noise words.

  Attributes:
    target_rows, noise_rows: Rows of the output table, [B, N, d] and [B, groups, k, d].
    query: z, [B, N, d].
    predicted: See `targets`.
    noise_weight: [B, groups, N / groups, 1], the weight of each shared noise word.
    errors: 1 - sigma(z . v') of each masked word, [B, N], 0 where it is not predicted.
    noise_errors: sigma(z . v'_noise) times the weight, [B, groups, N / groups, k].
    loss: Mean over targets.
  """

  target_rows: Array
  noise_rows: Array
  query: Array
  predicted: list[Array]
  noise_weight: Array
  errors: list[Array]
  noise_errors: Array
  loss: Array


def sampled_scores(
    table: Array, output: Array, draws: Draws, total_of: Callable[[Array], Array], scale: Array, *,
    num_masked: int, num_negatives: int,
) -> Scores:
  """Returns the scores of negative sampling; `total_of` and `scale` are those of `context_sums`."""
  target_rows, noise_rows = (word_blocks.take_rows(output, x) for x in (draws.tokens, draws.negatives))
  query = word_blocks.computed_once(scale[..., None] * total_of(word_blocks.take_rows(table, draws.tokens)))
  predicted = targets(draws, scale, num_masked)
  accepted = [jax.nn.sigmoid((query * shifted(target_rows, s, 0)).sum(-1)) for s in range(num_masked)]
  weight = grouped(sum(predicted)[..., None], draws) * (num_negatives / draws.negatives.shape[-1])
  refused = jax.nn.sigmoid(-jnp.einsum("bgid,bgdk->bgik", grouped(query, draws), transposed(noise_rows)))
  loss = sum((valid * minus_log(right)).sum() for valid, right in zip(predicted, accepted))
  loss = (loss + (weight * minus_log(refused)).sum()) / jnp.maximum(sum(predicted).sum(), 1)
  errors = [valid * (1 - right) for valid, right in zip(predicted, accepted)]
  return Scores(target_rows, noise_rows, query, predicted, weight, errors, weight * (1 - refused), loss)


def sampled_gradients(scores: Scores, draws: Draws) -> tuple[Array, Array, Array]:
  """Returns minus the gradient of the summed loss for queries and targets' rows [B, N, d], and the noise words'."""
  grad_query = -jnp.einsum("bgik,bgkd->bgid", scores.noise_errors, scores.noise_rows).reshape(scores.query.shape)
  for s, error in enumerate(scores.errors):
    grad_query += error[..., None] * shifted(scores.target_rows, s, 0)
  from_targets = sum(shifted(error[..., None] * scores.query, -s, 0) for s, error in enumerate(scores.errors))
  from_noise = -jnp.einsum("bgki,bgid->bgkd", transposed(scores.noise_errors), grouped(scores.query, draws))
  return grad_query, from_targets, from_noise


def grouped(x: Array, draws: Draws) -> Array:
  """[B, N, ...] -> [B, groups, N / groups, ...]."""
  return x.reshape((x.shape[0], draws.negatives.shape[1], -1) + x.shape[2:])
