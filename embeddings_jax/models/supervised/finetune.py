"""Fine-tuning: a head on an encoder, trained for a task with the encoder or on top of it as it is.

Devlin et al. 2019, arXiv:1810.04805, sections 3.2, 4 and 5.3; Radford et al. 2018, "Improving Language Understanding
by Generative Pre-Training", sections 3.2 and 3.3; Peters et al. 2018, arXiv:1802.05365, equation 1 (`layers="mix"`).

With h_t the encoder's vector of token t, c the vector of a text and y the target, means over the batch, in nats:

  task               prediction                                                     loss
  classification     softmax(W c + b)                                               - log p(y)
  regression         w c + b, of the scores scaled to 0 ... 1                       (y - prediction)²
  multiple_choice    softmax over the choices of w c_choice + b                     - log p(y)
  span               softmax over t of u h_t + a (start), v h_t + b (end)         mean of - log p(start), - log p(end)
  tagging            softmax(W h_t + b), t the first token of a word                - log p(y_t), mean over the words

  symbol  name              shape
  h       features          [batch, time, dim]: the last layer, or γ Σ_l softmax(s)_l h_l (`layers="mix"`), or
                            [batch, time, (layers + 1) dim]: all of them side by side (`layers="concat"`)
  c       pooled            [batch, dim]: `cls` tanh(P h_0 + q), as BERT; `mean` over tokens; `last` token, as GPT
  P, q    pooler            [dim, dim], [dim]
  W, b    head              [dim, num_classes], [num_classes]
  s, γ    head/mix          [layers + 1], []
  λ       auxiliary_weight  the loss is that of the task + λ that of the pre-training on the task's own text

The encoder's parameters lie under `params/encoder`, and what the pre-training has beside them (the pooler, with
`auxiliary_weight` its heads) under its own names, so that pretrained leaves fit in. With `normalize` the head sees c
or h_t standardized. Deviations: positions of padding are no candidates for a span; dropout's mask comes from a hash.
A frozen encoder works without dropout.

Batch: `{"inputs": tree, "targets": dict, "mask"}`. `inputs` is what the encoder reads, as `tokens` int32 [batch,
time], -1 past the end (of `multiple_choice` each array is [batch, choices, ...]), or `image`; t is a token, a frame,
a patch or a place of a map. `targets` is `label` (int32 or float32 [batch]), `start` and `end` (int32 [batch]), or
`tags` (int32 [batch, time], -1 where nothing is asked). `embed` is c; of spans and tags the mean of h; it and
`hidden` take a batch of the encoder of items too, without `inputs`.

Split: labeled example | the example | its label.

Expected: `embeddings_jax/configs/finetune.py`.
"""
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from embeddings_jax.gradient import GradientState, gradient_model
from embeddings_jax.nets.transformer import RULES
from embeddings_jax.ops.augment import augmented, compose, horizontal_flip, random_shift
from embeddings_jax.ops.batches import inputs_of, row_mask, takes
from embeddings_jax.ops.kernels.dropout import dropout as drop
from embeddings_jax.ops.kernels.product import affine
from embeddings_jax.ops.pooling import pool, reading
from embeddings_jax.types import Fact, InputError, Model

TASKS = ("classification", "regression", "multiple_choice", "span", "tagging")
POOLINGS = ("cls", "mean", "last")
LAYERS = ("last", "mix", "concat")
NORM = nn.BatchNorm(momentum=0.9, epsilon=1e-6, use_bias=False, use_scale=False)
_NEVER = -1e30


@takes(inputs=None, targets=None)
def finetune(
    *,
    encoder: nn.Module,
    task: Fact[str],
    num_classes: Fact[int] = 1,
    pooling: str = "cls",
    layers: str = "last",
    frozen: bool = False,
    normalize: bool = False,
    trained_layers: int = -1,
    shift: int = 0,
    dropout: float = 0.1,
    auxiliary: Model | None = None,
    auxiliary_weight: float = 0.0,
    layer_decay: float = 1.0,
    init_std: float = 0.02,
    optimizer: optax.GradientTransformation | None = None,
    accumulate: int = 1,
    ema_decay: float | None = None,
) -> Model:
  """A task's head on an encoder; the defaults are those of BERT.

  Args:
    encoder: has the methods `features(batch, deterministic)` -> [batch, time, dim], `layers(batch, deterministic)` ->
      [batch, layers + 1, time, dim], and `valid(batch)` -> bool [batch, time], which of the features are no padding.
      It gets the batch's `inputs` whole, with its `mask`.
    task: One of `TASKS`.
    num_classes: classes or tags.
    pooling: `cls`, `mean` or `last`; for a text's vector.
    layers: `last`, or all, the embeddings too: `mix`, their weighted mean, learnt with the head, or `concat`, side by
      side (the features of Devlin et al. 2019, section 5.3).
    frozen: train the head alone.
    normalize: BatchNorm without scale and shift in front of the head, as He et al. 2022, arXiv:2111.06377, appendix
      A.1, have it for frozen encoders, whose vectors have much in common and dimensions of unlike scales. In
      training by what is valid in the batch, else by running statistics.
    trained_layers: train of the encoder the last so many layers or blocks alone, and what follows them (He et al.
      2022, arXiv:2111.06377, figure 9); below 0: all of it. Running statistics are moved everywhere.
    shift: images are shifted by up to so many pixels and flipped at random, in training.
    dropout: Dropout rate of the head's input (none for spans, as in BERT); the encoder has its own.
    auxiliary: the model that the encoder was pretrained by, for the loss below; its hyperparameters are its own.
    auxiliary_weight: λ; Radford et al. take .5.
    layer_decay: the rate of a layer is this times that of the layer above it (Howard & Ruder 2018, arXiv:1801.06146,
      section 3.2, there 1 / 2.6); 1: all learn alike. For stacks like those of `nets/transformer.py`, and blocks; a
      frozen encoder has no use for it.
    init_std: Standard deviation of the initialization of the head's kernel.
    optimizer: by default AdamW with a rate of 2e-5.
    accumulate, ema_decay: as for `gradient_model`; of tags each part's mean counts by its sentences.
  """
  for name, value, known in (("task", task, TASKS), ("pooling", pooling, POOLINGS), ("layers", layers, LAYERS)):
    if value not in known:
      raise InputError(f"{name}={value!r}: must be one of {', '.join(known)}")
  if not hasattr(encoder, "features"):
    raise InputError(f"encoder: {type(encoder).__name__} gives no vectors of tokens; take bert, gpt, elmo or cpc")
  if pooling == "cls" and getattr(encoder, "causal", False) and task not in ("span", "tagging"):
    raise InputError("pooling='cls': the first token of a causal network sees no other; take last or mean")
  if pooling == "cls" and layers == "concat" and task not in ("span", "tagging"):
    raise InputError("layers='concat': the pooler of pooling='cls' reads one layer; take mean or last")
  if task in ("classification", "tagging") and num_classes < 2:
    raise InputError(f"num_classes={num_classes}: {task} needs at least 2")
  if auxiliary_weight < 0 or (auxiliary_weight and auxiliary is None):
    raise InputError(f"auxiliary_weight={auxiliary_weight}: must not be negative, and needs a pre-training model")
  if not 0 <= dropout < 1 or not 0 < layer_decay <= 1:
    raise InputError(f"dropout={dropout}, layer_decay={layer_decay}: must lie in [0, 1) and in (0, 1]")
  if frozen and auxiliary_weight:
    raise InputError(f"frozen: the loss of the pre-training (auxiliary_weight={auxiliary_weight}) would move nothing "
                     "that the task uses")
  if frozen and trained_layers >= 0:
    raise InputError(f"frozen: trains no layer; leave trained_layers={trained_layers} out")
  of_text = task not in ("span", "tagging")
  width = {"classification": num_classes, "tagging": num_classes, "span": 2}.get(task, 1)
  if shift < 0:
    raise InputError(f"shift={shift}: must be at least 0 pixels")
  auxiliary = auxiliary if auxiliary_weight else None

  def init_params(rng, batch):
    rng_encoder, rng_head, rng_pooler = jax.random.split(rng, 3)
    rows = encoder_rows(batch, task)
    if "tokens" not in rows and task not in ("classification", "regression"):
      raise InputError(f"task={task!r}: needs tokens, and the batch has {', '.join(batch['inputs'])}")
    if auxiliary:
      state = auxiliary.init(rng_encoder, rows)
      params, extra = dict(state.params), state.extra
    else:
      variables = dict(encoder.init(rng_encoder, rows, method="features"))
      params = {"encoder": variables.pop("params")}
      extra = {name: {"encoder": value} for name, value in variables.items()}
    shape = jax.eval_shape(lambda: encoder.apply(variables_of(params, extra), rows, method="layers")).shape
    dim = shape[-1] * (shape[1] if layers == "concat" else 1)
    dense = lambda rng, width: {"bias": jnp.zeros(width),
                                "kernel": nn.initializers.truncated_normal(init_std)(rng, (dim, width))}
    params["head"] = dense(rng_head, width)
    if layers == "mix":
      params["head"]["mix"] = {"weights": jnp.zeros(shape[1]), "gamma": jnp.ones(())}
    if of_text and pooling == "cls":
      params["pooler"] = dense(rng_pooler, dim)
    if normalize:
      statistics = NORM.init(rng_head, jnp.zeros((1, dim)), use_running_average=True)["batch_stats"]
      extra = {**extra, "batch_stats": {**extra.get("batch_stats", {}), "head": statistics}}
    return params, extra

  def variables_of(params, extra):
    """The encoder's: its parameters and, where it has some, its running statistics."""
    trunk = jax.lax.stop_gradient(params["encoder"]) if frozen else params["encoder"]
    return {"params": trunk, **{name: value["encoder"] for name, value in extra.items() if "encoder" in value}}

  def features(params, extra, rows, *, deterministic=True, rng=None) -> tuple[Float[Array, "rows time dim"], dict]:
    """Returns features, of the first token alone if only that is pooled, and the new `extra`."""
    method = "layers" if layers != "last" else reading(encoder, pooling) if of_text else "features"
    options = {"deterministic": frozen or deterministic, "rngs": {} if deterministic else {"dropout": rng}}
    variables = variables_of(params, extra)
    if options["deterministic"] or len(variables) == 1:
      vectors = encoder.apply(variables, rows, method=method, **options)
    else:
      moving = [name for name in variables if name != "params"]
      vectors, moved = encoder.apply(variables, rows, method=method, mutable=moving, **options)
      extra = {**extra, **{name: {**extra[name], "encoder": value} for name, value in moved.items()}}
    if layers == "mix":
      vectors = mixed_layers(vectors, **params["head"]["mix"])
    elif layers == "concat":
      vectors = jnp.moveaxis(vectors, 1, 2).reshape(len(vectors), vectors.shape[2], -1)
    return vectors, extra

  def valid_of(params, extra, rows) -> Bool[Array, "rows time"]:
    return encoder.apply(variables_of(params, extra), rows, method="valid")

  def pooled(params, extra, rows, hidden) -> Float[Array, "rows dim"]:
    vector = pool(hidden, valid_of(params, extra, rows), pooling if of_text else "mean")
    return nn.tanh(affine(vector, **params["pooler"], dtype=vector.dtype)) if of_text and pooling == "cls" else vector

  def predict(params, extra, batch, *, deterministic=True, rng=None) -> tuple[Array, dict]:
    """Returns the predictions of the table above, before the softmax, float32, and the new `extra`."""
    rows = encoder_rows(batch, task)
    rng_encoder, rng_head = (None, None) if deterministic else jax.random.split(rng)
    if not deterministic and "image" in rows and shift:
      change = compose(random_shift(shift), horizontal_flip())
      rows["image"] = augmented(change, jax.random.fold_in(rng_head, 1), rows["image"])
    vectors, extra = features(params, extra, rows, deterministic=deterministic, rng=rng_encoder)
    vectors = (pooled(params, extra, rows, vectors) if of_text else vectors).astype(jnp.float32)
    if normalize:
      valid = valid_of(params, extra, rows) if vectors.ndim == 3 else jnp.ones(len(vectors), bool)
      valid &= (row_mask(rows) > 0).reshape(-1, *[1] * (valid.ndim - 1))
      vectors, moved = standardized(extra["batch_stats"]["head"], vectors, valid, deterministic)
      extra = {**extra, "batch_stats": {**extra["batch_stats"], "head": moved}}
    if not deterministic and task != "span":
      vectors = drop(vectors, rng_head, dropout)
    logits = affine(vectors, params["head"]["kernel"], params["head"]["bias"])
    if task == "span":
      logits = jnp.where(valid_of(params, extra, rows)[..., None], logits, _NEVER)
    elif task == "multiple_choice":
      logits = logits.reshape(jax.tree.leaves(batch["inputs"])[0].shape[:2])
    return logits[:, 0] if task == "regression" else logits, extra

  def loss_fn(params, extra, batch, rng):
    rng, rng_auxiliary = jax.random.split(rng)
    logits, moved = predict(params, extra, batch, deterministic=False, rng=rng)
    loss, metrics = task_loss(task, logits, batch["targets"], row_mask(batch))
    if auxiliary:
      state = GradientState(jnp.zeros((), jnp.int32), params, extra, (), params)
      other = auxiliary.outputs["training_loss"](state, encoder_rows(batch, task), rng_auxiliary)
      metrics = metrics | {"task_loss": loss, "auxiliary_loss": other}
      loss = loss + auxiliary_weight * other
    return loss, (metrics, moved)

  def held_out(params, extra, batch):
    return task_loss(task, predict(params, extra, batch)[0], batch["targets"], row_mask(batch))[0]

  def embed_fn(params, extra, batch):
    rows = encoder_rows(batch, task)
    return pooled(params, extra, rows, features(params, extra, rows)[0]).astype(jnp.float32)

  outputs = {
      "loss": held_out,
      "predict": lambda params, extra, batch: predict(params, extra, batch)[0],
      "hidden": lambda params, extra, batch: encoder.apply(
          variables_of(params, extra), encoder_rows(batch, task), method="layers"),
  }
  optimizer = optimizer or optax.adamw(2e-5, weight_decay=0.01)
  if frozen:
    label = lambda params: {name: "frozen" if name == "encoder" else "trained" for name in params}
    optimizer = optax.partition({"trained": optimizer, "frozen": optax.set_to_zero()}, label)
  elif layer_decay < 1 or trained_layers >= 0:
    optimizer = optax.chain(optimizer, _by_layer(layer_decay, trained_layers))
  return gradient_model(init_params, loss_fn, embed_fn, optimizer, coupled=normalize, accumulate=accumulate,
                        ema_decay=ema_decay, outputs=outputs, rules=RULES)


def encoder_rows(batch: Mapping[str, Any], task: str) -> dict[str, Any]:
  """Returns what the encoder network reads: the whole `inputs`, each choice as a row of its own, and `mask`.

  A batch without `inputs` is one of the encoder that makes batches of items: rows already.
  """
  rows = dict(inputs_of(batch))
  if "inputs" in batch and "mask" in batch:
    rows["mask"] = batch["mask"]
  if task != "multiple_choice" or "inputs" not in batch:
    return rows
  num_choices = jax.tree.leaves(batch["inputs"])[0].shape[1]
  mask = {"mask": jnp.repeat(rows.pop("mask"), num_choices)} if "mask" in rows else {}
  return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), rows) | mask


def mixed_layers(
    hidden: Float[Array, "rows layers time dim"], weights: Float[Array, " layers"], gamma: Float[Array, ""],
) -> Float[Array, "rows time dim"]:
  """γ Σ_l softmax(s)_l h_l."""
  return gamma * jnp.einsum("l,bltd->btd", jax.nn.softmax(weights), hidden)


def standardized(
    statistics: Any, vectors: Float[Array, "*rows dim"], valid: Bool[Array, "*rows"], deterministic: bool,
) -> tuple[Float[Array, "*rows dim"], Any]:
  """BatchNorm without scale and shift: by running `statistics`, or by those of the valid vectors.

  Returns:
    The standardized vectors, and the running statistics after them.
  """
  if deterministic:
    return NORM.apply({"batch_stats": statistics}, vectors, use_running_average=True), statistics
  scaled, moved = NORM.apply({"batch_stats": statistics}, vectors, use_running_average=False, mask=valid[..., None],
                             mutable=["batch_stats"])
  return scaled, moved["batch_stats"]


def task_loss(
    task: str, predictions: Float[Array, "rows ..."], targets: Mapping[str, Any], mask: Float[Array, " rows"],
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
  """Mean loss of a task over valid rows (of `tagging`: words), nats, and its metrics.

  Args:
    task: One of `TASKS`.
    predictions: Logits or scores, as the output `predict` gives them.
    targets: `label`, `start` and `end`, or `tags`.
    mask: 1 for valid rows.
  """
  valid = mask[:, None] * (targets["tags"] >= 0) if task == "tagging" else mask
  mean = lambda x: (valid * x).sum() / jnp.maximum(valid.sum(), 1)
  entropy = optax.softmax_cross_entropy_with_integer_labels
  if task == "regression":
    return mean(jnp.square(predictions - targets["label"])), {}
  if task == "span":
    ends = [(predictions[..., i], targets[name]) for i, name in enumerate(("start", "end"))]
    right = [scores.argmax(-1) == position for scores, position in ends]
    return mean(sum(entropy(*end) for end in ends) / 2), {"accuracy": mean(right[0] & right[1])}
  label = jnp.maximum(targets["tags"], 0) if task == "tagging" else targets["label"]
  return mean(entropy(predictions, label)), {"accuracy": mean(predictions.argmax(-1) == label)}


def _by_layer(decay: float, trained: int) -> optax.GradientTransformation:
  """Multiplies updates of layer l of L (from 1) by decay^(L - l), those of what lies below, the embeddings or the
  first convolution, by decay^L; and by 0 where they are not of the last `trained` layers, unless that is below 0."""

  def update(updates, state, params=None):
    del params
    trunk: Mapping[str, Any] = updates["encoder"]
    blocks = [name for name in trunk if name.startswith("block_")]
    if "layers" not in trunk and not blocks:
      raise InputError("layer_decay, trained_layers: this encoder has no layers or blocks to tell apart")
    num = len(blocks) or len(jax.tree.leaves(trunk["layers"])[0])
    powers = decay ** jnp.arange(num - 1, -1, -1, dtype=jnp.float32)
    lowest = decay**num
    if trained >= 0:
      powers, lowest = jnp.where(jnp.arange(num) >= num - trained, powers, 0), 0.0

    def scaled(name, part):
      if name == "layers" and not blocks:
        return jax.tree.map(lambda x: powers.reshape(-1, *[1] * (x.ndim - 1)) * x, part)
      scale = 1.0 if name == "final_norm" else powers[int(name[6:])] if name in blocks else lowest
      return jax.tree.map(lambda x: scale * x, part)

    return {**updates, "encoder": {name: scaled(name, part) for name, part in trunk.items()}}, state

  return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
