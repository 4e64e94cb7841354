"""Recurrent language model: the next token from a state that reads one token after another.

Mikolov, Karafiat, Burget, Cernocky, Khudanpur 2010, "Recurrent neural network based language model" (rnn); Zaremba,
Sutskever, Vinyals 2014, "Recurrent Neural Network Regularization", arXiv:1409.2329 (lstm, dropout, streams);
Inan, Khosravi, Socher 2017, arXiv:1611.01462 (tied embeddings).

  L = - mean_{(b,t): t > 0, token} log p(u_bt | u_b0 ... u_b,t-1, s_b)                                 (nats)
  p(u | ...) = softmax(E (P h_b,t-1) + c),   h_bt, s_bt = cell(E[u_bt], s_b,t-1)

  symbol  name                          shape
  u       tokens                        [batch, time], -1 past the end
  h, s    `nets/recurrent_stack.py`     [batch, cell_dim], [batch, layers, states, cell_dim]
  E       token_embedding               [vocab_size, dim], shared by input and output
  P       output                        [cell_dim, dim]; not where both are equal
  c       bias                          [vocab_size]

Truncated backpropagation through time: row b of a batch continues row b of the last one (`token_streams`), whose last
state is `extra["carry"]`; gradients end at the batch's first token. Before the token `end_id`, which stands between
documents, and where the batch's `begins` is 1, the state is zero; so it is before texts to evaluate or to embed.
Deviations: dropout is independent at each time; c begins with the log frequencies of the text. Batch: `tokens`, of
which the first of a row is read and not predicted, and `begins` [batch]. `sample` reads a prompt once, then a token
a step.

Split: text | the tokens before a position | the token there.

Expected: `embeddings_jax/configs/lstm_lm.py`.
"""
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax.sharding import PartitionSpec as P
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from embeddings_jax.gradient import gradient_model
from embeddings_jax.nets.recurrent_stack import CELLS, RecurrentStack, zero_carry
from embeddings_jax.nets.text_decoder import with_bias
from embeddings_jax.ops.batches import row_mask, takes
from embeddings_jax.ops.kernels.softmax import cross_entropy
from embeddings_jax.ops.pooling import check_pooling, needs_layers, pool
from embeddings_jax.ops.sampling import check_sampling, draw
from embeddings_jax.ops.sharding import DATA_AXES
from embeddings_jax.types import Fact, InputError, Model

RULES = ((r"carry", P(DATA_AXES)), (r"token_embedding", P("model", "fsdp")))


class RecurrentLanguageModel(nn.Module):
  """Token ids and a state to vectors in the space of the embeddings, and a state; arguments: see `lstm_lm`."""

  vocab_size: int
  dim: int
  cell_dim: int
  num_layers: int
  cell: str
  end_id: int | None
  dropout: float
  dtype: DTypeLike
  unroll: int

  @nn.compact
  def __call__(
      self, tokens: Int[Array, "batch time"], carry: Float[Array, "batch layers states cell_dim"],
      deterministic: bool = True,
  ) -> tuple[Float[Array, "batch time dim"], Float[Array, "batch layers states cell_dim"]]:
    init = nn.initializers.normal(self.dim**-0.5)
    table = self.param("token_embedding", init, (self.vocab_size, self.dim))
    self.param("bias", nn.initializers.zeros, (self.vocab_size,))
    drop = nn.Dropout(self.dropout)
    stack = RecurrentStack(self.cell, self.cell_dim, self.num_layers, self.dropout, self.dtype, self.unroll,
                           name="stack")
    x = drop(table[jnp.maximum(tokens, 0)], deterministic)
    kept = None if self.end_id is None else tokens != self.end_id
    x, carry = stack(x, carry, kept=kept, valid=tokens >= 0, deterministic=deterministic)
    x = drop(x, deterministic)
    if self.cell_dim != self.dim:
      x = nn.Dense(self.dim, use_bias=False, dtype=self.dtype, name="output")(x)
    return x.astype(self.dtype), carry


@takes(tokens=2, begins=None)
def lstm_lm(
    *,
    vocab_size: Fact[int],
    end_id: Fact[int | None] = None,
    counts: Fact[np.ndarray | None] = None,
    cell: str = "lstm",
    dim: int = 650,
    cell_dim: int = 0,
    num_layers: int = 2,
    dropout: float = 0.5,
    pooling: str = "mean",
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    sample_length: int = 50,
    chunk: int = 4096,
    dtype: str = "float32",
    unroll: int = 1,
    optimizer: optax.GradientTransformation | None = None,
    accumulate: int = 1,
    ema_decay: float | None = None,
) -> Model:
  """A recurrent language model; the defaults are the medium size of Zaremba et al. 2014.

  Args:
    vocab_size, end_id: Facts of the data's tokens; `end_id` stands between documents and ends what is sampled.
    counts: [vocab_size] occurrences in the training text, whose log frequencies c begins with; None: 0.
    cell: `rnn`, `gru` or `lstm`.
    dim: Size of the embeddings.
    cell_dim: Size of the cells' state; 0: `dim`.
    num_layers: Layers of cells.
    dropout: Dropout rate of the embeddings, between layers, and of the output.
    pooling: Pooling of `embed` over the last layer: `mean`, `max` or `last`.
    temperature, top_k, top_p: Options of `sample`; see `ops/sampling.py`.
    sample_length: Tokens that `sample` adds.
    chunk: Positions whose scores a device holds at the same time.
    dtype: Data type of the products (`float32` or `bfloat16`).
    unroll: Times in an iteration of the compiled loop.
    optimizer: By default Adam with a learning rate of 1e-3.
    accumulate: 1: a part of a batch has no state of its own to go on from.
    ema_decay: See `gradient_model`.
  """
  if cell not in CELLS:
    raise InputError(f"cell={cell!r}: must be one of {', '.join(CELLS)}")
  if check_pooling(pooling) == "cls" or needs_layers(pooling):
    raise InputError(f"pooling={pooling!r}: the first token sees no other; take mean, max or last")
  check_sampling(temperature, top_k, top_p)
  if accumulate != 1:
    raise InputError(f"accumulate={accumulate}: each row continues its own state, which parts of a batch have not; "
                     "use a smaller batch_size, or more devices")
  for name, value in dict(dim=dim, num_layers=num_layers, sample_length=sample_length, cell_dim=cell_dim + 1).items():
    if value < 1:
      raise InputError(f"{name}={value}: must be at least 1")
  if not 0 <= dropout < 1:
    raise InputError(f"dropout={dropout}: must lie in [0, 1)")
  width = cell_dim or dim
  network = RecurrentLanguageModel(vocab_size, dim, width, num_layers, cell, end_id, dropout, jnp.dtype(dtype),
                                   unroll)
  zeros = lambda num: zero_carry(num, cell, width, num_layers)

  def init_params(rng, batch):
    tokens = batch["tokens"]
    params = network.init(rng, tokens[:, :1], zeros(len(tokens)))["params"]
    if counts is not None:
      seen = jnp.asarray(counts, jnp.float32) + 1
      params["bias"] = jnp.log(seen / seen.sum())
    return params, {"carry": zeros(len(tokens))}

  def predicted(params, batch, carry, deterministic=True, rngs=None):
    """The loss; for each token but a row's first: log-likelihood, whether it was foreseen, 1 if it is a token; and
    the state behind the last token but one."""
    tokens = batch["tokens"]
    targets, valid = tokens[:, 1:], (tokens[:, 1:] >= 0) * row_mask(batch)[:, None]
    hidden, carry = network.apply({"params": params}, tokens[:, :-1], carry, deterministic, rngs=rngs)
    queries, table = with_bias(hidden, params["token_embedding"], params["bias"])
    weight = valid / jnp.maximum(valid.sum(), 1)
    return *cross_entropy(queries, table, jnp.maximum(targets, 0), weight, chunk), valid, carry

  def loss_fn(params, extra, batch, rng):
    carry = extra["carry"]
    if "begins" in batch:
      carry = jnp.where(batch["begins"][:, None, None, None] > 0, 0.0, carry)
    loss, _, right, valid, carry = predicted(params, batch, carry, deterministic=False, rngs={"dropout": rng})
    accuracy = (right * valid).sum() / jnp.maximum(valid.sum(), 1)
    return loss, ({"accuracy": accuracy, "perplexity": jnp.exp(loss)}, {"carry": jax.lax.stop_gradient(carry)})

  def from_zero(params, batch):
    return predicted(params, batch, zeros(len(batch["tokens"])))

  def measures(params, extra, batch):
    """name -> [sum, count] over the predicted tokens."""
    _, log_likelihood, right, valid, _ = from_zero(params, batch)
    sums = {"loss": -(log_likelihood * valid).sum(), "accuracy": (right * valid).sum()}
    return {name: jnp.stack([total, valid.sum()]) for name, total in sums.items()}

  def log_likelihood(params, extra, batch):
    _, log_probs, _, valid, _ = from_zero(params, batch)
    return log_probs * valid

  def embed_fn(params, extra, batch):
    tokens = batch["tokens"]
    hidden, _ = network.apply({"params": params}, tokens, zeros(len(tokens)))
    return pool(hidden, tokens >= 0, pooling).astype(jnp.float32)

  def sample(params, extra, rng, num, batch=None):
    """Tokens [num, sample_length] that continue the prompt of one row or of `num`; without one a new document."""
    if batch is None and end_id is None:
      raise InputError("batch: a prompt is needed, because the tokenizer has no token between documents")
    prompt = jnp.full((1, 1), end_id, jnp.int32) if batch is None else batch["tokens"]
    if len(prompt) not in (1, num):
      raise InputError(f"num={num}: the batch has {len(prompt)} prompts; give one, or one for each sample")
    prompt = jnp.broadcast_to(prompt, (num, prompt.shape[1]))
    hidden, carry = network.apply({"params": params}, prompt, zeros(num))

    def one(state, step):
      last, carry, ended = state
      queries, table = with_bias(last, params["token_embedding"], params["bias"])
      scores = jnp.matmul(queries, table.T.astype(queries.dtype), preferred_element_type=jnp.float32)
      token = draw(jax.random.fold_in(rng, step), scores, temperature=temperature, top_k=top_k, top_p=top_p)
      token = jnp.where(ended, -1, token)
      if end_id is not None:
        ended |= token == end_id
      hidden, carry = network.apply({"params": params}, token[:, None], carry)
      return (hidden[:, 0], carry, ended), token

    last = pool(hidden, prompt >= 0, "last")
    _, drawn = jax.lax.scan(one, (last, carry, jnp.zeros(num, bool)), jnp.arange(sample_length))
    return drawn.T

  outputs = {"loss": lambda params, extra, batch: from_zero(params, batch)[0], "log_likelihood": log_likelihood,
             "measures": measures, "sample": sample}
  return gradient_model(init_params, loss_fn, embed_fn, optimizer or optax.adam(1e-3), ema_decay=ema_decay,
                        outputs=outputs, rules=RULES)
