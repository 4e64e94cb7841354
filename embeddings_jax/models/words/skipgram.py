"""Skip-gram with the full softmax (Mikolov et al. 2013a, "Efficient Estimation of Word Representations in Vector
Space"; equations 1 and 2 of Mikolov et al. 2013b): a word predicts the words around it.

Running text is thinned by subsampling as in `sgns`. Position i of what is left predicts all j with 0 < |i - j| <= r_i
in its document, r_i uniform on 1 ... c. One update lowers the mean over all such pairs of

  -log softmax(V' v_{w_i})_{w_j},      summed over j:   n_i log sum_w exp(v_{w_i} . v'_w) - v_{w_i} . sum_j v'_{w_j}.

| paper | here | shape |
|---|---|---|
| v_w, v'_w | `params["input"]`, `params["output"]` | [V', d], V' > V, a multiple of 64 |
| c, r_i | `window`, `draws.radius` | [], [B, N] |
| t | `subsample` (`extra["keep"]`: sqrt(t / f) + t / f) | [V'] |
| n_i | `number` | [B, N] |

How it is computed: the scores of the whole vocabulary once per position, however many contexts it has, in chunks of
positions (`ops/kernels/softmax.py`); the contexts' own scores through their sum, a product with 0/1 bands. The
gradient is dense by nature, so any optimizer will do. A position costs 3 V d multiplications and V exponentials:
affordable for some 10,000 words; for larger vocabularies there is `sgns`.

Deviations from the paper: (1) it trains the softmax as a tree (hierarchical), here it is the softmax itself; (2)
windows end at the block's ends; (3) an optimizer's steps on means over batches instead of one step for each pair.

Split: window of text | a word | each word around it.

Expected: see `embeddings_jax/configs/skipgram.py`.
"""
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec as P

from embeddings_jax.gradient import gradient_model
from embeddings_jax.ops import word_blocks
from embeddings_jax.ops.batches import takes
from embeddings_jax.ops.kernels.softmax import check_affordable, weighted_log_partition
from embeddings_jax.types import Fact, InputError, Model


@takes(tokens=2)
def skipgram(
    *,
    vocab_size: Fact[int],
    counts: Fact[Any],
    optimizer: optax.GradientTransformation,
    dim: int = 100,
    window: int = 5,
    tied: bool = False,
    subsample: float = 1e-3,
    slack: float = 0.06,
    chunk: int = 512,
    max_memory: float = 4.0,
) -> Model:
  """Skip-gram with the full softmax.

  A batch is `{"tokens": int32 [B, T], "mask": [B]}`: blocks of running tokens, -1 = document boundary or padding.

  Args:
    vocab_size: number of words.
    counts: [vocab_size] occurrences in the training text.
    optimizer: its updates are added to the tables.
    dim: Dimension of the vectors.
    window: largest distance between a word and its context.
    tied: one table for words and contexts.
    subsample: threshold of the relative frequency above which tokens are thinned; 0 keeps all.
    slack: a block has room for the share of its tokens that subsampling keeps on average, plus this share; what is
      more goes untrained (the metric `overflow`).
    chunk: positions whose scores of the whole vocabulary are held at the same time.
    max_memory: GB that the full softmax may need.
  """
  for name, value in {"dim": dim, "window": window, "chunk": chunk}.items():
    if value < 1:
      raise InputError(f"skipgram: {name}={value}: must be at least 1")
  check_affordable("skipgram", vocab_size, dim, 2 - tied, chunk, max_memory)
  words = word_blocks.count_words("skipgram", vocab_size, counts, subsample, 1.0)

  def init_params(rng, batch):
    del batch
    table = word_blocks.random_table(rng, words.num_rows, vocab_size, dim)
    return ({"input": table} if tied else {"input": table, "output": jnp.zeros_like(table)},
            {"keep": jnp.asarray(words.keep)})

  def draw(extra, batch, rng, room=1.0):
    return word_blocks.draw_blocks(
        extra["keep"], None, batch, rng, vocab_size=vocab_size, window=window, room=room)

  def mean_loss(params, draws):
    """The mean over the pairs, and their number."""
    masks = word_blocks.window_masks(draws.document, draws.radius, window=window)
    query, output = word_blocks.take_rows(params["input"], draws.tokens), params["input" if tied else "output"]
    together = word_blocks.window_sums(masks, word_blocks.take_rows(output, draws.tokens))
    number = sum(masks.values())
    total = weighted_log_partition(query, output, number, vocab_size, chunk) - (query * together).sum()
    return total / jnp.maximum(number.sum(), 1), number.sum()

  def loss_fn(params, extra, batch, rng):
    draws = draw(extra, batch, rng, min(1, words.kept_share + slack))
    loss, pairs = mean_loss(params, draws)
    return loss, ({"pairs": pairs, "words": draws.words, "overflow": draws.overflow}, extra)

  def embed_fn(params, extra, batch):
    del extra
    return word_blocks.mean_of_words(params["input"], batch["tokens"], vocab_size)

  def held_out(params, extra, batch):
    # Held-out text is always seen with the same windows.
    return mean_loss(params, draw(extra, batch, jax.random.key(0)))[0]

  def components(params, extra):
    del extra
    return {name: table[:vocab_size] for name, table in params.items()}

  def draws(params, extra, batch, rng):
    del params
    return draw(extra, batch, rng)._asdict()

  rules = ((r"(^|/)(input|output)$", P("model", None)),)
  return gradient_model(init_params, loss_fn, embed_fn, optimizer,
                        outputs={"loss": held_out, "components": components, "draws": draws}, rules=rules)
