"""Heads on an encoder: against `transformers`, by exact zeros, and on a rule that was planted."""
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from embeddings_jax import array_source, train
from embeddings_jax.models.autoencoders.mae import encoder as mae_encoder
from embeddings_jax.models.contrastive.cpc import encoder as cpc_encoder
from embeddings_jax.models.language.bert import bert, encoder
from embeddings_jax.models.supervised.finetune import finetune
from embeddings_jax.nets import resnet
from embeddings_jax.types import InputError

V, T = 40, 12
TRUNK = dict(vocab_size=V, dim=16, num_layers=2, num_heads=2, mlp_dim=32, max_length=T)


def rows(num=64, seed=0, choices=()):
  """Random texts of 4 to T tokens; the first is always 1."""
  rng = np.random.default_rng(seed)
  tokens = rng.integers(5, V, (num, *choices, T)).astype(np.int32)
  tokens[..., 0] = 1
  lengths = rng.integers(4, T + 1, (num, *choices, 1))
  return {"tokens": np.where(np.arange(T) < lengths, tokens, -1), "segments": np.zeros_like(tokens)}


def batch_of(task, num=8):
  batch = rows(num, choices=(3,) if task == "multiple_choice" else ())
  rng = np.random.default_rng(1)
  if task == "tagging":
    tags = np.where(batch["tokens"] >= 0, rng.integers(0, 3, (num, T)), -1)
    tags[:, 0] = -1
    return supervised(batch, tags=tags.astype(np.int32))
  if task == "span":
    return supervised(batch, start=np.full(num, 1, np.int32), end=np.full(num, 3, np.int32))
  label = rng.random(num).astype(np.float32) if task == "regression" else rng.integers(0, 3, num).astype(np.int32)
  return supervised(batch, label=label)


def supervised(inputs, **targets):
  return {"inputs": inputs, "targets": targets}


@pytest.fixture(scope="module")
def planted():
  """Texts, and whether the token 7 is among them."""
  data = rows(512)
  data["tokens"][::2, 3] = 7
  return supervised(data, label=(data["tokens"] == 7).any(1).astype(np.int32))


def test_learns_whether_a_token_occurs(planted):
  model = finetune(encoder=encoder(**TRUNK, dropout=0.0, attention_dropout=0.0), task="classification", num_classes=2,
                   layers="mix", dropout=0.0, optimizer=optax.adam(5e-3))
  state = train(model, array_source(planted, 64), steps=200, steps_per_dispatch=100)
  fresh = rows(256, seed=5)
  fresh["tokens"][::2, 2] = 7
  logits = np.asarray(jax.jit(model.outputs["predict"])(state, fresh))
  assert (logits.argmax(1) == (fresh["tokens"] == 7).any(1)).all()
  assert np.ptp(np.asarray(state.params["head"]["mix"]["weights"])) > 0.1


def test_a_frozen_encoder_stays_bit_for_bit_and_the_head_learns(planted):
  model = finetune(encoder=encoder(**TRUNK), task="classification", num_classes=2, frozen=True,
                   layer_decay=0.5, optimizer=optax.adamw(1e-2, weight_decay=0.1))
  first = jax.jit(model.init)(jax.random.key(0), jax.tree.map(lambda x: jnp.asarray(x[:8]), planted))
  state, update = first, jax.jit(model.update)
  for step in range(5):
    rows_of_step = slice(8 * step, 8 * step + 8)
    batch = jax.tree.map(lambda x, rows=rows_of_step: x[rows], planted)
    state, _ = update(state, batch, jax.random.key(step))
  chex.assert_trees_all_equal(first.params["encoder"], state.params["encoder"])
  assert not np.array_equal(first.params["head"]["kernel"], state.params["head"]["kernel"])
  head = sum(x.size for name in ("head", "pooler") for x in jax.tree.leaves(first.params[name]))
  assert sum(x.size for x in jax.tree.leaves(first.opt_state)) <= 2 * head + 2  # No moments of the encoder.


@pytest.mark.parametrize("task", ["classification", "tagging"])
def test_layers_side_by_side_are_standardized_before_the_head(task):
  """In training by the batch's valid rows, of tags its valid tokens; then by the running statistics."""
  model = finetune(encoder=encoder(**TRUNK), task=task, num_classes=3, pooling="mean", layers="concat", frozen=True,
                   normalize=True, dropout=0.0, optimizer=optax.sgd(0.1))
  batch = jax.tree.map(jnp.asarray, batch_of(task)) | {"mask": jnp.array([1, 1, 1, 1, 1, 1, 0, 0.0])}
  state = jax.jit(model.init)(jax.random.key(0), batch)
  new, metrics = jax.jit(model.update)(state, batch, jax.random.key(1))
  hidden = np.asarray(model.outputs["hidden"](state, batch))  # [rows, layers, time, dim]
  token = np.asarray(batch["inputs"]["tokens"] >= 0)
  side = np.moveaxis(hidden, 1, 2).reshape(*token.shape, -1)
  if task == "classification":
    side = (side * token[..., None]).sum(1) / token.sum(1)[:, None]
    known, label = side[:6], batch["targets"]["label"][:6]
  else:
    known, asked = side[:6][token[:6]], np.asarray(batch["targets"]["tags"] >= 0) & (np.arange(8) < 6)[:, None]
    label = batch["targets"]["tags"][asked]
  mean, variance = known.mean(0), known.var(0)
  head = state.params["head"]
  assert head["kernel"].shape == (3 * TRUNK["dim"], 3)

  def logits(mean, variance):
    actual = (side - mean) / np.sqrt(variance + 1e-6) @ head["kernel"]
    return actual[:6] if task == "classification" else actual[asked]

  expected = optax.softmax_cross_entropy_with_integer_labels(logits(mean, variance), label).mean()
  np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-4)
  moved = new.extra["batch_stats"]["head"]
  np.testing.assert_allclose(moved["mean"], 0.1 * mean, rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(moved["var"], 0.9 + 0.1 * variance, rtol=1e-4)
  after = state._replace(extra=new.extra)
  expected = logits(0.1 * mean, 0.9 + 0.1 * variance)
  found = np.asarray(model.outputs["predict"](after, batch))
  np.testing.assert_allclose(found[:6] if task == "classification" else found[asked], expected, rtol=1e-4, atol=1e-5)


def test_an_update_is_the_sum_of_both_losses_gradients_and_slower_in_lower_layers():
  trunk = TRUNK | dict(dropout=0.0, attention_dropout=0.0)
  pretraining = bert(**trunk, mask_id=4, special_ids=(0, 1, 2, 3, 4))
  make = lambda **options: finetune(
      encoder=encoder(**trunk), task="classification", num_classes=3, dropout=0.0, auxiliary=pretraining,
      optimizer=optax.sgd(1.0), **options)
  both, task = make(auxiliary_weight=0.5, layer_decay=0.25), make()
  batch = jax.tree.map(jnp.asarray, batch_of("classification"))
  rng, state = jax.random.key(3), jax.jit(both.init)(jax.random.key(0), batch)

  def losses(params):
    other = jax.random.split(rng)[1]
    at = state._replace(params=params)
    first, second = task.outputs["loss"](at, batch), pretraining.outputs["training_loss"](at, batch["inputs"], other)
    return first + 0.5 * second, (first, second, both.outputs["loss"](at, batch))

  new, metrics = jax.jit(both.update)(state, batch, rng)
  (loss, values), gradients = jax.jit(jax.value_and_grad(losses, has_aux=True))(state.params)
  assert np.abs(gradients["masked"]["bias"]).max() > 1e-4  # The pre-training's own head learns too.
  factors = {"head": 1, "pooler": 1, "masked": 1, "encoder/token_embedding": 0.25**2,
             "encoder/layers/up": np.reshape([0.25, 1], (2, 1, 1)),
             "encoder/layers/qkv": np.reshape([0.25, 1], (2, 1, 1, 1, 1))}
  for path, factor in factors.items():
    at = lambda tree, path=path: functools.reduce(lambda node, key: node[key], path.split("/"), tree)
    for old, after, gradient in zip(*(jax.tree.leaves(at(tree)) for tree in (state.params, new.params, gradients))):
      if old.ndim == np.ndim(factor) or np.ndim(factor) == 0:
        np.testing.assert_allclose(after - old, -factor * gradient, atol=2e-5)
  np.testing.assert_allclose([metrics[name] for name in ("task_loss", "auxiliary_loss", "task_loss")], values,
                             rtol=1e-5)  # The last: what is evaluated is the task's loss alone.
  np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)


@pytest.mark.parametrize("task", ["multiple_choice", "span"])
def test_padding_and_padded_rows_change_nothing(task):
  model = finetune(encoder=encoder(**TRUNK | dict(max_length=T + 4)), task=task, num_classes=3)
  batch = batch_of(task)
  state = jax.jit(model.init)(jax.random.key(0), batch)
  both = jax.jit(lambda *args: (model.outputs["loss"](*args), model.outputs["predict"](*args)))
  longer = batch | {"inputs": {
      k: np.concatenate([v, np.full((*v.shape[:-1], 4), 0 if k == "segments" else -1, v.dtype)], -1)
      for k, v in batch["inputs"].items()}}
  padded = jax.tree.map(lambda v: np.concatenate([v, v[:1]]), longer) | {"mask": np.r_[np.ones(8), 0].astype("f")}
  (loss, short), (loss_of_padded, long) = (jax.tree.map(np.asarray, both(state, b)) for b in (batch, padded))
  np.testing.assert_allclose(loss_of_padded, loss, rtol=1e-5)
  if task == "span":
    valid = batch["inputs"]["tokens"] >= 0
    np.testing.assert_allclose(long[:8, :T][valid], short[valid], atol=1e-5)
    assert (long[:8][longer["inputs"]["tokens"] < 0] < -1e29).all()
  else:
    np.testing.assert_allclose(long[:8], short, atol=1e-5)
    assert short.shape == (8, 3)


def test_clips_are_classified_by_the_mean_of_their_valid_contexts():
  network = cpc_encoder(channels=(6, 8), kernel_sizes=(6, 4), strides=(4, 2), context_dim=10)
  model = finetune(encoder=network, task="classification", num_classes=3, pooling="mean", dropout=0.0)
  rng = np.random.default_rng(0)
  lengths = np.array([60, 34, 5], np.int32)  # Frames: 6, 3, and one of silence at the end.
  clips = {"signal": rng.integers(-9000, 9000, (3, 60)).astype(np.int16), "length": lengths}
  batch = supervised(clips, label=np.array([0, 1, 2], np.int32)) | {"mask": np.ones(3, np.float32)}
  state = jax.jit(model.init)(jax.random.key(0), batch)
  actual = jax.jit(model.outputs["predict"])(state, batch)
  silent = np.where(np.arange(60) < lengths[:, None], clips["signal"], 0)
  _, context = jax.jit(network.apply)({"params": state.params["encoder"]}, silent)
  means = np.stack([np.mean(row[:count], 0) for row, count in zip(np.asarray(context), (6, 3, 1))])
  np.testing.assert_allclose(actual, means @ state.params["head"]["kernel"] + state.params["head"]["bias"], atol=1e-5)
  longer = {"inputs": clips | {"signal": np.pad(clips["signal"], ((0, 0), (0, 30)), constant_values=99)}}
  np.testing.assert_allclose(jax.jit(model.outputs["predict"])(state, longer), actual, atol=1e-5)
  with pytest.raises(InputError, match="task='tagging': needs tokens, and the batch has length, signal"):
    finetune(encoder=network, task="tagging", num_classes=3).init(jax.random.key(0), batch)


@pytest.mark.parametrize("options, message", [
    (dict(task="parsing"), "task='parsing': must be one of classification"),
    (dict(task="tagging", num_classes=1), "num_classes=1: tagging needs at least 2"),
    (dict(pooling="max"), "pooling='max'"),
    (dict(auxiliary_weight=0.5), "needs a pre-training model"),
    (dict(layer_decay=0.0), "layer_decay=0.0"),
    (dict(encoder=nn.LayerNorm()), "LayerNorm gives no vectors of tokens"),
    (dict(layers="concat"), "layers='concat': the pooler of pooling='cls' reads one layer"),
    (dict(normalize=True, accumulate=2), "accumulate=2: this loss couples the examples"),
])
def test_mistakes_are_told(options, message):
  with pytest.raises(InputError, match=message):
    finetune(**dict(encoder=encoder(**TRUNK), task="classification", num_classes=2) | options)


@pytest.mark.parity
@pytest.mark.parametrize("task, name", [
    ("classification", "Sequence"), ("regression", "Sequence"), ("tagging", "Token"), ("span", "Question"),
    ("multiple_choice", "Multiple")])
def test_heads_are_those_of_transformers(task, name, tmp_path):
  import torch
  from transformers import BertConfig
  from transformers.models.bert import modeling_bert

  from embeddings_jax.interop import huggingface

  torch.manual_seed(0)
  config = BertConfig(vocab_size=V, hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=20,
                      max_position_embeddings=T, num_labels=1 if task == "regression" else 3,
                      initializer_range=0.3, problem_type="regression" if task == "regression" else None)
  if task == "span":
    config.num_labels = 2
  theirs = {"Sequence": modeling_bert.BertForSequenceClassification,
            "Token": modeling_bert.BertForTokenClassification,
            "Question": modeling_bert.BertForQuestionAnswering,
            "Multiple": modeling_bert.BertForMultipleChoice}[name](config).eval()
  theirs.save_pretrained(tmp_path)
  kind, hyper, params = huggingface.read(tmp_path)
  assert kind == "bert"
  weights = {key: value.detach().numpy() for key, value in theirs.named_parameters()}
  head = "qa_outputs" if task == "span" else "classifier"
  params = dict(params) | {"head": {"kernel": weights[f"{head}.weight"].T, "bias": weights[f"{head}.bias"]}}

  batch = batch_of(task)
  texts, targets = batch["inputs"], batch["targets"]
  texts["segments"] = np.where(np.arange(T) > 5, 1, 0) * np.ones_like(texts["tokens"])
  if task == "span":  # They let padding be an answer.
    texts["tokens"] = np.maximum(texts["tokens"], 5)
  model = finetune(encoder=encoder(**hyper), task=task, num_classes=3)
  state = jax.jit(model.init)(jax.random.key(0), batch)
  params = {name: params[name] for name in state.params}
  assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, state.params)
  state = state._replace(params=jax.tree.map(jnp.asarray, params))
  as_torch = lambda x: torch.tensor(np.asarray(x), dtype=torch.float32 if x.dtype == np.float32 else torch.long)
  inputs = {"input_ids": as_torch(np.maximum(texts["tokens"], 0)), "token_type_ids": as_torch(texts["segments"]),
            "attention_mask": as_torch((texts["tokens"] >= 0).astype(np.int64))}
  labels = {"span": {"start_positions": "start", "end_positions": "end"}, "tagging": {"labels": "tags"}}
  for key, ours in labels.get(task, {"labels": "label"}).items():
    inputs[key] = as_torch(np.where(targets[ours] < 0, -100, targets[ours]) if task == "tagging" else targets[ours])
  with torch.no_grad():
    expected = theirs(**inputs)
  asked = lambda *args: (model.outputs["predict"](*args), model.outputs["loss"](*args))
  actual, loss = jax.tree.map(np.asarray, jax.jit(asked)(state, batch))
  if task == "span":
    logits = np.stack([expected.start_logits.numpy(), expected.end_logits.numpy()], -1)
  else:
    logits = expected.logits.numpy().reshape(actual.shape)
  valid = texts["tokens"] >= 0 if task in ("span", "tagging") else slice(None)
  np.testing.assert_allclose(actual[valid], logits[valid], atol=1e-5)
  np.testing.assert_allclose(loss, expected.loss.item(), rtol=2e-6)


def pictures(num=12, size=16):
  rng = np.random.default_rng(0)
  return supervised({"image": jnp.asarray(rng.integers(0, 256, (num, size, size, 3)), jnp.uint8)},
                    label=jnp.asarray(rng.integers(0, 3, num), jnp.int32))


def moved(model, batch):
  state = jax.jit(model.init)(jax.random.key(0), batch)
  new, metrics = jax.jit(model.update)(state, batch, jax.random.key(1))
  return state, new, metrics


def same(one, other):
  return all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))


def test_a_network_with_running_statistics_moves_them_in_training_alone():
  """The loss is that of the batch's own statistics, the predictions those of the running ones."""
  net, batch = resnet.encoder(depth=8, width=4), pictures()
  model = finetune(encoder=net, task="classification", num_classes=3, pooling="mean", dropout=0.0,
                   optimizer=optax.sgd(0.1))
  state, new, metrics = moved(model, batch)
  variables = {"params": state.params["encoder"], "batch_stats": state.extra["batch_stats"]["encoder"]}
  features, expected = net.apply(variables, batch["inputs"], deterministic=False, method="features",
                                 mutable=["batch_stats"])
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
               new.extra["batch_stats"]["encoder"], expected["batch_stats"])
  logits = features.mean(1) @ state.params["head"]["kernel"]
  loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch["targets"]["label"]).mean()
  np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-4)
  still = net.apply(variables, batch["inputs"], method="features").mean(1)
  np.testing.assert_allclose(model.embed(state, batch), still, rtol=1e-4, atol=1e-5)
  frozen = finetune(encoder=net, task="classification", num_classes=3, pooling="mean", frozen=True)
  state, new, _ = moved(frozen, batch)
  assert same(state.extra, new.extra) and same(state.params["encoder"], new.params["encoder"])


@pytest.mark.parametrize("network", [pytest.param("resnet", marks=pytest.mark.long), "vit"])
def test_the_last_blocks_alone_are_trained(network):
  batch = pictures(6)
  net = resnet.encoder(depth=8, width=4) if network == "resnet" else mae_encoder(
      patch_size=8, dim=16, num_layers=3, num_heads=2, mlp_dim=32)
  for trained in (0, 1, 3):
    model = finetune(encoder=net, task="classification", num_classes=3, pooling="mean", dropout=0.0,
                     trained_layers=trained, optimizer=optax.adamw(1e-2, weight_decay=0.1))
    state, new, _ = moved(model, batch)
    old, trunk = state.params["encoder"], new.params["encoder"]
    for layer in range(3):
      before, after = ((tree[f"block_{layer}"] if network == "resnet" else
                        [leaf[layer] for leaf in jax.tree.leaves(tree["layers"])]) for tree in (old, trunk))
      assert same(before, after) == (layer < 3 - trained)
    lowest = "stem" if network == "resnet" else "patch_embedding"
    assert same(old[lowest], trunk[lowest])
    assert not same(state.params["head"], new.params["head"])


def test_pictures_are_shifted_and_flipped_in_training_alone():
  batch = pictures(6)
  losses = []
  for shift in (0, 2):
    model = finetune(encoder=resnet.encoder(depth=8, width=4), task="classification", num_classes=3, pooling="mean",
                     dropout=0.0, shift=shift)
    state, _, metrics = moved(model, batch)
    losses.append((float(metrics["loss"]), float(model.outputs["loss"](state, batch))))
  assert losses[0][0] != losses[1][0] and losses[0][1] == losses[1][1]


@pytest.mark.parametrize("options, expected", [
    (dict(frozen=True, trained_layers=2), "frozen: trains no layer"), (dict(shift=-1), "shift=-1")])
def test_mistakes_of_partial_training(options, expected):
  with pytest.raises(InputError, match=expected):
    finetune(encoder=resnet.encoder(depth=8), task="classification", num_classes=3, pooling="mean", **options)


def test_an_encoder_without_layers_has_no_last_ones():
  signals = supervised({"signal": jnp.zeros((4, 64), jnp.uint8)}, label=jnp.zeros(4, jnp.int32))
  model = finetune(encoder=cpc_encoder(inputs="bytes", channels=4, kernel_sizes=(4,), strides=(4,), context_dim=4),
                   task="classification", num_classes=2, pooling="mean", trained_layers=1)
  with pytest.raises(InputError, match="no layers or blocks"):
    moved(model, signals)
