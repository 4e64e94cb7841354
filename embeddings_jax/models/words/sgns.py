"""Skip-gram with negative sampling (Mikolov et al. 2013b, "Distributed Representations of Words and Phrases and
their Compositionality").

Running text w_1 ... w_T is thinned by subsampling frequent words: word w with relative frequency f(w) stays with
probability sqrt(t / f) + t / f (as in the C program; the paper prints 1 - sqrt(t / f) as the probability to go).
Position i of what is left looks at all j with 0 < |i - j| <= r_i in its document, r_i uniform on 1 ... c. One update
lowers, over the n_i pairs of each position and for K noise words m ~ P_n(w) = unigram(w)^{3/4} / Z that a group of
neighboring positions shares,

  L = - sum_i [ sum_j log sigma(v_{w_i} . v'_{w_j}) + (k n_i / K) sum_m log sigma(-v_{w_i} . v'_m) ].

For K = k n_i and a group of one position this is the paper's equation 4; sharing leaves its expectation unchanged.

| paper | here | shape |
|---|---|---|
| v_w, v'_w | `state.input`, `state.output` | [V', d], V' > V, a multiple of 64 |
| c, r_i | `window`, `draws.radius` | [], [B, N] |
| t | `subsample` (`state.keep`: sqrt(t / f) + t / f) | [V'] |
| k | `num_negatives` | [] |
| K, m | `shared_negatives`, `draws.negatives` | [], [B, N / group, K] |
| P_n | `state.noise`: cumulative, in units of 2**-32 | [V'] |

How it is computed: each row of a batch is a block of running tokens. What subsampling leaves is moved to its front
and cut into tiles, see `ops/skipgram.py`. On CPU it is fastest where tile + 2 c + K is a multiple of 16.

Deviations from the C program. (1) All pairs of a batch see the tables of its start, as if each row's gradients were
summed before one large step; where that step would overshoot it is shortened: the summed gradient of a row is scaled
by min(1, max_mass / mass), mass = the weight of the row's pairs and noise words in the batch. Without it frequent
words diverge already in batches of 1,024 words (rows grew to 100 times their length). Beyond 4,096 words it costs
quality: WordSim-353 after one epoch of 17 M words .53 at 4,096 and .49 at 16,384. (2) K noise words are shared by a
group, one from each K-th of P_n in the order of frequency (systematic sampling: the same expectation with less
variance; SimLex-999 after five epochs .304 instead of .296). Fewer of them, or larger groups, cost quality before
they cost loss: with independent ones it was .278 for 6 a group of 16 positions, .255 for 16 a group of 88. (3) A
noise word equal to the pair's own context is not redrawn. (4) Windows end at the block's ends.

Subwords (Bojanowski et al. 2017, "Enriching Word Vectors with Subword Information", fastText): with the fact `ngrams`
(`pipeline=ngram_blocks`) the vector of a word is a mean over rows of a table, its own and those of its character
n-grams,

  v_w = 1/|G_w| sum_{g in G_w} z_g,

and a word out of the vocabulary is the mean of its n-grams. As in fastText each z_g takes the step of v_w undivided,
so that v_w moves as far as without subwords; the gradient of the formula has 1/|G_w| of that. The paper prints the
sum for the mean.

| paper | here | shape |
|---|---|---|
| z_g | `state.input`: V' rows of words, then those of n-grams | [V' + buckets, d] |
| G_w | `state.members` | [V', M] |

Split: window of text | a word | each word around it, told from noise words.

Expected: see `embeddings_jax/configs/sgns.py`.
"""
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from embeddings_jax.ops import hierarchical, skipgram, subwords, word_blocks
from embeddings_jax.ops.batches import takes
from embeddings_jax.ops.skipgram import Skipgram
from embeddings_jax.types import Array, Fact, InputError, Model


class SgnsState(NamedTuple):
  """Tables, and what the vocabulary's counts determine.

  Attributes:
    step: [] int32, updates made.
    input: [V', d] word vectors v; rows past the vocabulary stay 0.
    output: [V', d] context vectors v'.
    keep: [V'] probability that subsampling keeps a token (above 1: always), 0 past the vocabulary.
    noise: [V'] uint32, 2**32 sum_{u <= w} P_n(u).
    points, codes: [V', 40], paths in the Huffman tree, -1 behind their ends; () with negative sampling.
    members: [V', M] int32, with subwords the rows of `input` that a word is the mean of, V for nothing; else ().
  """

  step: Array
  input: Array
  output: Array
  keep: Array
  noise: Array
  points: Any = ()
  codes: Any = ()
  members: Any = ()


@takes(tokens=2, ngrams=None)
def sgns(
    *,
    vocab_size: Fact[int],
    counts: Fact[Any],
    num_steps: Fact[int | None] = None,
    ngrams: Fact[Any] = None,
    num_buckets: Fact[int] = 0,
    dim: int = 100,
    window: int = 5,
    loss: str = "negative_sampling",
    num_negatives: int = 5,
    subsample: float = 1e-3,
    negative_power: float = 0.75,
    learning_rate: float | Callable[[Array], Array] = 0.025,
    shared_negatives: int = 16,
    tile: int = 22,
    tiles_per_group: int = 1,
    max_mass: float = 128.0,
    slack: float = 0.06,
    dtype: str = "float32",
) -> Model:
  """Skip-gram with negative sampling.

  A batch is `{"tokens": int32 [B, T], "mask": [B]}`: blocks of running tokens, -1 = document boundary or padding.

  Args:
    vocab_size: number of words.
    counts: [vocab_size] occurrences in the training text.
    num_steps: updates of the whole run, for the linear decay.
    ngrams: [vocab_size, most] n-grams of each word, -1 for none; None: words have no subwords.
    num_buckets: rows of n-grams.
    dim: Dimension of the vectors.
    window: largest distance between a word and its context.
    loss: `negative_sampling` or `hierarchical_softmax` (`ops/hierarchical.py`), where `output` are the tree's nodes.
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
    dtype: Data type of the factors of the products, float32 or bfloat16; sums, tables and steps are float32.
  """
  words = word_blocks.count_words("sgns", vocab_size, counts, subsample, negative_power)
  options = Skipgram(vocab_size, words.num_rows, window, num_negatives, shared_negatives, tile, tiles_per_group,
                     max_mass, dtype)
  skipgram.check("sgns", options, dim)
  sampled = loss == "negative_sampling"
  if not sampled and loss != "hierarchical_softmax":
    raise InputError(f"sgns: loss={loss!r}: must be one of negative_sampling, hierarchical_softmax")
  if ngrams is not None and not sampled:
    raise InputError(f"sgns: loss={loss}: subwords need negative_sampling")
  paths = () if sampled else hierarchical.huffman_paths(np.asarray(counts), words.num_rows)
  depth = 0 if sampled else int((paths[0] >= 0).sum(1).max())
  schedule = word_blocks.linear_decay(learning_rate, num_steps)

  def init(rng, batch):
    del batch
    if ngrams is None:
      first, rest = word_blocks.random_table(rng, words.num_rows, vocab_size, dim), {}
    else:
      first = subwords.random_table(rng, words.num_rows, num_buckets, vocab_size, dim)
      rest = {"members": jnp.asarray(subwords.members_of(np.asarray(ngrams), words.num_rows))}
    return SgnsState(
        step=jnp.zeros((), jnp.int32), input=first, output=jnp.zeros((words.num_rows, dim)),
        keep=jnp.asarray(words.keep), noise=jnp.asarray(words.noise),
        **dict(zip(("points", "codes"), map(jnp.asarray, paths))), **rest)

  def members(state):
    return None if ngrams is None else state.members

  def draw(state, batch, rng, room=1.0):
    return word_blocks.draw_blocks(
        state.keep, state.noise if sampled else None, batch, rng, vocab_size=vocab_size, window=window,
        shared_negatives=shared_negatives, group=options.group, room=room)

  def update(state, batch, rng):
    draws = draw(state, batch, rng, min(1, words.kept_share + slack))
    rate = jnp.asarray(schedule(state.step), jnp.float32)
    tables = state.input, state.output
    if sampled:
      tables, value, pairs = skipgram.negative_step(tables, draws, rate, options, members(state))
    else:
      tables, value, pairs = hierarchical.step(tables, state.points, state.codes, draws, rate, options, depth)
    new = state._replace(step=state.step + 1, input=tables[0], output=tables[1])
    return new, {"loss": value, "pairs": pairs, "words": draws.words, "overflow": draws.overflow,
                 "learning_rate": rate}

  def embed(state, batch):
    tokens = batch["tokens"]
    if ngrams is None:
      return word_blocks.mean_of_words(state.input, tokens, vocab_size)
    listed = batch["ngrams"] if "ngrams" in batch else jnp.full((*tokens.shape, 1), -1)
    return subwords.mean_of_texts(state.input, state.members, tokens, listed, vocab_size)

  def held_out(state, batch):
    # Held-out text is always seen with the same windows and noise words.
    draws = draw(state, batch, jax.random.key(0))
    tables = state.input, state.output
    if sampled:
      return skipgram.negative_loss(tables, draws, options, members(state))
    return hierarchical.mean_loss(tables, state.points, state.codes, draws, options, depth)

  def components(state):
    vectors = (state.input[:vocab_size] if ngrams is None
               else subwords.word_vectors(state.input, state.members, vocab_size))
    return {"input": vectors, "output": state.output[:vocab_size]}

  def draws(state, batch, rng):
    return draw(state, batch, rng)._asdict()

  rules = ((r"(^|/)(input|output)$", P("model", None)),)
  return Model(init, update, embed, {"loss": held_out, "components": components, "draws": draws}, rules)
