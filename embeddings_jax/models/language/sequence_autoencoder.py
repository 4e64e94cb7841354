"""Denoising autoencoders of text: an encoder reads a corrupted text, a causal decoder writes the original.

  TSDAE  one vector between them   Wang, Reimers, Gurevych 2021, "TSDAE", arXiv:2104.06979
  BART   all the encoder's vectors Lewis et al. 2020, "BART", arXiv:1910.13461
  VAE    a random vector           Bowman et al. 2016, arXiv:1511.06349

  L = - mean_{(b,t)} log p(x_bt | x_b0 ... x_b,t-1, m_b),   m_b = memory of the corrupted x̃_b          (nats a token)
  L = mean_b [- sum_t log p(x_bt | ..., m_b) + β KL(q(z | x̃_b) || N(0, I))],   m_b = z W_m + c_m        (variational)

where p = softmax(h E'^T + c). At β = 1, without corruption, free bits and word dropout, the latter is minus the ELBO.

  symbol  name                          shape
  x       tokens                        [batch, time], -1 past the end
  m       memory                        [batch, 1, dim] (`pooled`) or [batch, time, dim] (`tokens`)
  h       decoder, `nets/transformer.py`  [batch, time, dim]
  E', c   the decoder's token_embedding, output/bias
  q       code                          [dim, code_dim], twice as wide if variational: mean and log variance
  W_m     memory                        [code_dim, dim]

`tie="layers"`: the decoder is the encoder's network but for the attention to the memory, as in TSDAE; `embeddings`:
they share the token embedding, as in BART; `none`. `start="first"`: the first token, [CLS], is given to the decoder
and not predicted; `end`: the decoder begins with the token that ends texts, and predicts all, as in BART.
Corruption is drawn in `update`, see `ops/sequence_corruption.py`; of held-out text it depends on the content alone.
`free_bits` λ makes the KL term sum_j max(λ, mean_b KL_j) (Kingma et al. 2016), and couples the batch.

Deviations: dropout's mask comes from a hash; c is learned, and begins with the log frequencies of the text. `embed`
is the pooled vector, or the mean of q. `decode` and `sample` write token by token without a cache.

Split: text | the text corrupted | the text.

Expected: `embeddings_jax/configs/sequence_autoencoder.py`.
"""
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jaxtyping import Array, Float

from embeddings_jax.gradient import gradient_model
from embeddings_jax.nets.text_decoder import (
  TIES,
  decoder_of,
  decoder_params,
  likeliest,
  shifted,
  untied,
  with_bias,
  write,
)
from embeddings_jax.nets.text_encoder import TextEncoder
from embeddings_jax.nets.transformer import RULES
from embeddings_jax.ops.batches import row_mask, takes
from embeddings_jax.ops.kernels.softmax import cross_entropy
from embeddings_jax.ops.likelihoods import gaussian_kl
from embeddings_jax.ops.masking import content_keys
from embeddings_jax.ops.pooling import check_pooling, needs_layers, pool, pool_parts, reading
from embeddings_jax.ops.sampling import check_sampling, draw
from embeddings_jax.ops.sequence_corruption import Noise, check_noise, corrupt
from embeddings_jax.types import Fact, InputError, Model

MEMORIES, STARTS = ("pooled", "tokens"), ("first", "end")
COLLAPSED = 0.1  # Nats of KL below which the code says nothing.
# Arguments on which parameters beside the encoder depend.
PRETRAINING = ("memory", "tie", "start", "decoder_layers", "decoder_heads", "decoder_mlp_dim", "code_dim",
               "variational")


@takes(tokens=2, segments=2, parts=None, slots=None)
def sequence_autoencoder(
    *,
    encoder: nn.Module,
    special_ids: Fact[Sequence[int]] = (),
    stop_ids: Fact[Sequence[int]] = (),
    mask_id: Fact[int | None] = None,
    cls_id: Fact[int | None] = None,
    sep_id: Fact[int | None] = None,
    counts: Fact[np.ndarray | None] = None,
    memory: str = "pooled",
    pooling: str = "cls",
    code_dim: int = 0,
    variational: bool = False,
    beta: float = 1.0,
    kl_warmup_steps: int = 0,
    free_bits: float = 0.0,
    decoder_layers: int = 0,
    decoder_heads: int = 0,
    decoder_mlp_dim: int = 0,
    tie: str = "layers",
    start: str = "first",
    deletion: float = 0.6,
    masking: float = 0.0,
    infilling: float = 0.0,
    span_length: float = 3.0,
    permute_sentences: bool = False,
    rotate: bool = False,
    word_dropout: float = 0.0,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    sample_length: int = 32,
    chunk: int = 4096,
    optimizer: optax.GradientTransformation | None = None,
    accumulate: int = 1,
    ema_decay: float | None = None,
) -> Model:
  """A denoising autoencoder of token sequences; the defaults are those of TSDAE.

  Args:
    encoder: A `TextEncoder`, as of bert.
    special_ids, stop_ids, mask_id, cls_id, sep_id: Facts of the data's tokens; `stop_ids` end sentences.
    counts: [vocab_size] occurrences in the training text, whose log frequencies c begins with; None: 0.
    memory: What the decoder attends to: `pooled`, one vector, or `tokens`.
    pooling: Pooling of the encoder's vectors; see `ops/pooling.py`.
    code_dim: Size of the code between two affine maps; 0: the pooled vector itself, or dim if variational.
    variational: Whether the code is random. Needs memory=pooled.
    beta, kl_warmup_steps, free_bits: Weight of the KL divergence, updates in which it rises from 0, and nats of each
      unit that cost nothing more.
    decoder_layers, decoder_heads, decoder_mlp_dim: Sizes of the decoder; 0: the encoder's.
    tie: `layers`, `embeddings` or `none`, see above.
    start: `first` or `end`, see above.
    deletion, masking, infilling, span_length, permute_sentences, rotate: See `ops/sequence_corruption.py: Noise`.
    word_dropout: Probability of a token that the decoder reads to become the mask token (Bowman et al. 2016).
    temperature, top_k, top_p: Options of `sample`; see `ops/sampling.py`.
    sample_length: Most tokens that `sample` and `decode` write.
    chunk: Positions whose scores a device holds at the same time.
    optimizer: By default Adam with a learning rate of 3e-5.
    accumulate, ema_decay: See `gradient_model`; parts of a batch weigh by their rows, not by their tokens.

  Returns:
    A `Model`. Outputs: `loss` and `measures`, of corrupted text; `reconstruct`, the likeliest tokens one by one from
    uncorrupted text; `decode`, of codes; `sample`, from the prior or from the texts of the batch.
  """
  for name, value, known in (("memory", memory, MEMORIES), ("tie", tie, TIES), ("start", start, STARTS)):
    if value not in known:
      raise InputError(f"{name}={value!r}: must be one of {', '.join(known)}")
  if not isinstance(encoder, TextEncoder) or encoder.causal:
    raise InputError(f"encoder: {type(encoder).__name__} is no bidirectional text encoder; take bert")
  check_pooling(pooling)
  check_sampling(temperature, top_k, top_p)
  noise = Noise(permute_sentences, infilling, span_length, masking, deletion, rotate)
  check_noise(noise, encoder.max_length, mask_id, stop_ids)
  if min(beta, kl_warmup_steps, free_bits, code_dim, sample_length - 1) < 0 or not 0 <= word_dropout < 1:
    raise InputError(f"beta={beta}, kl_warmup_steps={kl_warmup_steps}, free_bits={free_bits}, code_dim={code_dim}, "
                     f"word_dropout={word_dropout}, sample_length={sample_length}: must be at least 0, word_dropout "
                     "below 1, and sample_length 1")
  if memory == "tokens" and (variational or code_dim):
    raise InputError("memory=tokens: variational and code_dim need one vector a text; use memory=pooled")
  if word_dropout and mask_id is None:
    raise InputError(f"word_dropout={word_dropout}: the tokenizer has no mask token")
  first_id = cls_id if start == "first" else sep_id
  if start == "end" and sep_id is None:
    raise InputError("start=end: the tokenizer has no token that ends a text; use start=first")
  length = min(sample_length, encoder.max_length - 1)
  decoder = decoder_of(encoder, tie, decoder_layers, decoder_heads, decoder_mlp_dim)
  dim, code_dim = encoder.dim, code_dim or (encoder.dim if variational else 0)

  def init_params(rng, batch):
    keys = jax.random.split(rng, 4)
    tokens = batch["tokens"]
    params = {"encoder": encoder.init(keys[0], batch, method="features")["params"]}
    vectors = jnp.zeros((len(tokens), 1, dim))
    params["decoder"] = untied(decoder.init(keys[1], tokens, memory=vectors)["params"], tie)
    bias = jnp.zeros(encoder.vocab_size)
    if counts is not None:
      seen = jnp.asarray(counts, jnp.float32) + 1
      bias = jnp.log(seen / seen.sum())
    params["output"] = {"bias": bias}
    if code_dim:
      init, width = nn.initializers.truncated_normal(encoder.init_std), code_dim * (1 + variational)
      params["code"] = {"kernel": init(keys[2], (dim, width)), "bias": jnp.zeros(width)}
      params["memory"] = {"kernel": init(keys[3], (code_dim, dim)), "bias": jnp.zeros(dim)}
    return params, {"step": jnp.zeros((), jnp.int32)} if variational else {}

  def corrupted_by(rng, tokens):
    return corrupt(rng, tokens, noise, special_ids=special_ids, mask_id=mask_id, stop_ids=stop_ids)

  def encoded(params, batch, **options):
    """The encoder's vectors of the tokens, and their pooled vector or code, [B, code_dim], twice if variational."""
    how = "features" if memory == "tokens" and not needs_layers(pooling) else reading(encoder, pooling)
    hidden = encoder.apply({"params": params["encoder"]}, batch, **options, method=how)
    pooled = pool(hidden, batch["tokens"] >= 0, pooling).astype(jnp.float32)
    return hidden[:, -1] if needs_layers(pooling) else hidden, coded(params, pooled)

  def coded(params, pooled):
    return pooled @ params["code"]["kernel"] + params["code"]["bias"] if code_dim else pooled

  def mean_of(code):
    return code[..., :code_dim] if variational else code

  def recalled(params, code) -> Float[Array, "batch 1 dim"]:
    """The memory of a code."""
    return (code @ params["memory"]["kernel"] + params["memory"]["bias"] if code_dim else code)[:, None]

  def written(params, tokens, vectors, seen, **options):
    """The decoder's last layer and the table of the scores, both with the bias."""
    whole = decoder_params(params["encoder"], params["decoder"], tie)
    hidden = decoder.apply({"params": whole}, tokens, memory=vectors, seen=seen, **options)
    return with_bias(hidden, whole["token_embedding"], params["output"]["bias"])

  def terms(params, tokens, corrupted, rng_code, rng_words=None, **options):
    """log p of the predicted tokens, which are right, which are there, and the KL of each row and unit; and the loss
    for given weights of the tokens."""
    hidden, code = encoded(params, {"tokens": corrupted}, **options)
    vectors, seen, kl = hidden, corrupted >= 0, None
    if memory == "pooled":
      if variational:
        mean, log_variance = jnp.split(code, 2, -1)
        kl = gaussian_kl(mean, log_variance)
        code = mean + jnp.exp(0.5 * log_variance) * jax.random.normal(rng_code, mean.shape)
      vectors, seen = recalled(params, code), None
    read, targets = shifted(tokens, first_id if start == "end" else None)
    if rng_words is not None and word_dropout:
      lost = (jax.random.uniform(rng_words, read.shape) < word_dropout) & (jnp.arange(read.shape[1]) > 0)
      read = jnp.where(lost & (read >= 0), mask_id, read)
    queries, table = written(params, read, vectors, seen, **options)
    return lambda weight: cross_entropy(queries, table, jnp.maximum(targets, 0), weight, chunk), targets >= 0, kl

  def loss_fn(params, extra, batch, rng):
    keys = jax.random.split(rng, 4)
    tokens, rows = batch["tokens"], row_mask(batch)
    scored, valid, kl = terms(params, tokens, corrupted_by(keys[0], tokens), keys[1], keys[2], deterministic=False,
                              rngs={"dropout": keys[3]})
    valid = valid * rows[:, None]
    count, num_rows = jnp.maximum(valid.sum(), 1), jnp.maximum(rows.sum(), 1)
    loss, log_p, right = scored(valid / (num_rows if variational else count))
    nats = -(valid * log_p).sum() / count
    metrics = {"accuracy": (valid * right).sum() / count, "perplexity": jnp.exp(nats)}
    if variational:
      units = jnp.tensordot(rows, kl, 1) / num_rows
      weight = jnp.float32(beta)
      if kl_warmup_steps:
        weight = beta * jnp.minimum(1.0, (extra["step"] + 1) / kl_warmup_steps)
      metrics |= {"reconstruction": loss, "kl": units.sum(), "elbo": -loss - units.sum(), "beta": weight,
                  "collapsed": (units.sum() < COLLAPSED).astype(jnp.float32)}
      loss = loss + weight * jnp.maximum(units, free_bits).sum()
    return loss, (metrics, extra)

  def held_out(params, batch):
    """log p of the tokens, which are right, which are there, and each row's KL; the same whenever it is asked."""
    tokens = batch["tokens"]
    corrupted = jax.vmap(lambda key, row: corrupted_by(key, row[None])[0])(content_keys(tokens), tokens)
    scored, valid, kl = terms(params, tokens, corrupted, jax.random.key(0))
    valid = valid * row_mask(batch)[:, None]
    _, log_p, right = scored(valid)
    return valid * log_p, valid * right, valid, jnp.zeros(len(tokens)) if kl is None else kl.sum(1)

  def measures(params, extra, batch):
    """name -> [sum, count]."""
    log_p, right, valid, kl = held_out(params, batch)
    rows = row_mask(batch)
    sums = {"loss": (-log_p.sum(), valid.sum()), "accuracy": (right.sum(), valid.sum())}
    if variational:
      kl = (rows * kl).sum()
      sums |= {"elbo_loss": (kl - log_p.sum(), rows.sum()), "kl_loss": (kl, rows.sum())}
    return {name: jnp.stack(pair) for name, pair in sums.items()}

  def loss(params, extra, batch):
    total, count = measures(params, extra, batch)["elbo_loss" if variational else "loss"]
    return total / jnp.maximum(count, 1)

  def writing(params, vectors, seen, length, choose=likeliest):
    if first_id is None:
      raise InputError("start=first: the tokenizer has no token that begins a text; use start=end")

    def scores_at(tokens, place):
      queries, table = written(params, tokens, vectors, seen)
      return jnp.matmul(queries[:, place], table.T.astype(queries.dtype), preferred_element_type=jnp.float32)

    return write(scores_at, choose, len(vectors), length, first_id, sep_id)

  def remembered(params, batch):
    hidden, code = encoded(params, batch)
    return (recalled(params, mean_of(code)), None) if memory == "pooled" else (hidden, batch["tokens"] >= 0)

  def reconstruct(params, extra, batch):
    tokens = batch["tokens"]
    num_given = int(start == "first")
    written = writing(params, *remembered(params, batch), tokens.shape[1] - num_given)
    return {"original": tokens, "reconstructed": jnp.concatenate([tokens[:, :num_given], written], 1)}

  def decode(params, extra, codes):
    return writing(params, recalled(params, codes), None, length)

  def sample(params, extra, rng, num, batch=None):
    """Tokens [num, sample_length]: of codes from the prior, or of the batch's one text or `num` texts."""
    if batch is None and not variational:
      raise InputError("batch: a text to write anew is needed, because only a variational model has a prior")
    if batch is None:
      vectors, seen = recalled(params, jax.random.normal(rng, (num, code_dim))), None
    else:
      if len(batch["tokens"]) not in (1, num):
        raise InputError(f"num={num}: the batch has {len(batch['tokens'])} texts; give one, or one for each sample")
      vectors, seen = remembered(params, batch)
      vectors = jnp.broadcast_to(vectors, (num, *vectors.shape[1:]))
      seen = seen if seen is None else jnp.broadcast_to(seen, (num, *seen.shape[1:]))
    options = dict(temperature=temperature, top_k=top_k, top_p=top_p)
    return writing(params, vectors, seen, length,
                   lambda place, scores: draw(jax.random.fold_in(rng, place), scores, **options))

  def embed_packed(params, extra, batch):
    hidden = encoder.apply({"params": params["encoder"]}, batch["tokens"], batch.get("segments"),
                           parts=batch["parts"], method="hidden" if needs_layers(pooling) else "__call__")
    pooled = pool_parts(hidden, batch["parts"], batch["slots"].shape[1], pooling)
    return mean_of(coded(params, pooled.astype(jnp.float32)))

  outputs = {
      "loss": loss, "measures": measures, "reconstruct": reconstruct, "sample": sample,
      "embed_packed": embed_packed,
      "hidden": lambda params, extra, batch: encoder.apply({"params": params["encoder"]}, batch, method="layers")}
  if memory == "pooled":
    outputs["decode"] = decode
  counted = lambda state: state._replace(extra={"step": state.extra["step"] + 1})
  return gradient_model(
      init_params, loss_fn, lambda params, extra, batch: mean_of(encoded(params, batch)[1]),
      optimizer or optax.adam(3e-5), coupled=variational and free_bits > 0, accumulate=accumulate,
      ema_decay=ema_decay, after_update=counted if variational else None, outputs=outputs, rules=RULES)
