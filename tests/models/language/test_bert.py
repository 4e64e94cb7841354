"""BERT: `transformers`' logits, loss and gradients; masks; no leak; planted structure; meshes."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from embeddings_jax.models.language.bert import Bert, bert
from embeddings_jax.ops.masking import content_keys, mask_tokens
from embeddings_jax.types import InputError

SPECIAL = (0, 1, 2, 3, 4)
CLS, SEP, MASK = 2, 3, 4
TINY = dict(vocab_size=40, mask_id=MASK, special_ids=SPECIAL, dim=16, num_layers=2, num_heads=2, mlp_dim=32,
            max_length=16)


def pairs(vocab_size, rows, length, seed=0):
  """Random pairs of segments of different lengths."""
  rng = np.random.default_rng(seed)
  tokens = rng.integers(5, vocab_size, (rows, length)).astype(np.int32)
  segments = np.zeros((rows, length), np.int32)
  for i, end in enumerate(rng.integers(length // 2, length + 1, rows)):
    middle = end // 2
    tokens[i, 0] = CLS
    tokens[i, [middle, end - 1]] = SEP
    tokens[i, end:] = -1
    segments[i, middle + 1:end] = 1
  return {"tokens": jnp.asarray(tokens), "segments": jnp.asarray(segments),
          "is_next": jnp.asarray(rng.integers(0, 2, rows), jnp.int32)}


def statically_masked(tokens, vocab_size):
  """The masks that the model's deterministic outputs see."""
  draw = lambda key, row: mask_tokens(key, row[None], mask_id=MASK, vocab_size=vocab_size, special_ids=SPECIAL)
  return jax.tree.map(lambda x: x[:, 0], jax.vmap(draw)(content_keys(tokens), tokens))


@pytest.mark.parity
@pytest.mark.parametrize("vocab_size,dim,layers,heads,mlp,length", [(1003, 24, 3, 3, 40, 17), (97, 20, 1, 5, 33, 32)])
def test_logits_loss_and_gradients_are_transformers(vocab_size, dim, layers, heads, mlp, length, tmp_path):
  import torch
  from transformers import BertConfig, BertForPreTraining

  from embeddings_jax.interop import huggingface

  torch.manual_seed(0)
  peer = BertForPreTraining(BertConfig(
      vocab_size=vocab_size, hidden_size=dim, num_hidden_layers=layers, num_attention_heads=heads,
      intermediate_size=mlp, max_position_embeddings=length + 3, initializer_range=0.2)).eval()
  with torch.no_grad():
    for name, value in peer.named_parameters():
      if name.endswith("bias") or "LayerNorm" in name:
        value += 0.1 * torch.randn_like(value)
  peer.save_pretrained(tmp_path / "weights")
  _, hyper, params = huggingface.read(tmp_path / "weights")
  params = jax.tree.map(jnp.asarray, params)
  batch = pairs(vocab_size, 6, length)
  masked = statically_masked(batch["tokens"], vocab_size)
  labels = np.full(batch["tokens"].shape, -100)
  for row in range(6):
    chosen = np.asarray(masked.weights[row]) > 0
    labels[row, np.asarray(masked.positions[row])[chosen]] = np.asarray(masked.targets[row])[chosen]
  tensor = lambda x: torch.tensor(np.asarray(x).astype(np.int64))
  actual = peer(input_ids=tensor(jnp.maximum(masked.tokens, 0)), attention_mask=tensor(masked.tokens >= 0),
                token_type_ids=tensor(batch["segments"]), labels=tensor(labels),
                next_sentence_label=tensor(1 - batch["is_next"]))
  actual.loss.backward()

  with jax.default_matmul_precision("highest"):
    trunk = {key: hyper[key] for key in ("vocab_size", "dim", "num_layers", "num_heads", "mlp_dim", "max_length",
                                         "num_segments")}
    everywhere = jnp.tile(jnp.arange(length), (6, 1))
    words, follows = jax.jit(Bert(trunk).apply)({"params": params}, masked.tokens, batch["segments"], everywhere)
    valid = np.asarray(masked.tokens) >= 0
    np.testing.assert_allclose(np.asarray(words)[valid], actual.prediction_logits.detach().numpy()[valid], atol=1e-5)
    np.testing.assert_allclose(follows, actual.seq_relationship_logits.detach().numpy(), atol=1e-5)

    model = bert(mask_id=MASK, special_ids=SPECIAL, **trunk)
    state = jax.jit(model.init)(jax.random.key(0), batch)
    assert jax.tree.structure(state.params) == jax.tree.structure(params)
    loss_of = lambda params: model.outputs["loss"](state._replace(params=params), batch)
    loss, gradients = jax.jit(jax.value_and_grad(loss_of))(params)
  assert float(loss) == pytest.approx(actual.loss.item(), rel=1e-6)

  with torch.no_grad():
    for value in peer.parameters():
      value.copy_(value.grad)
  peer.save_pretrained(tmp_path / "gradients")
  expected = huggingface.read(tmp_path / "gradients")[2]

  def compare(path, ours, theirs):
    ours = np.asarray(ours)
    # Stacked layers are compared one by one; the keys' biases have no gradient but rounding.
    stacked = any(getattr(key, "key", "") == "layers" for key in path)
    for one, other in zip(ours, theirs) if stacked else [(ours, theirs)]:
      np.testing.assert_allclose(one, other, rtol=0, atol=1e-4 * np.abs(other).max(), err_msg=str(path))

  jax.tree_util.tree_map_with_path(compare, gradients, expected)


def test_a_hidden_token_is_not_seen():
  tokens = pairs(40, 8, 16)["tokens"]
  sizes = ("vocab_size", "dim", "num_layers", "num_heads", "mlp_dim", "max_length")
  network = Bert({key: TINY[key] for key in sizes})
  params = jax.jit(network.init)(jax.random.key(0), tokens, None, jnp.zeros((8, 1), jnp.int32))
  draw = jax.jit(lambda x: mask_tokens(
      jax.random.key(1), x, mask_id=MASK, vocab_size=40, special_ids=SPECIAL, rate=0.4))
  masked = draw(tokens)
  hidden = (masked.tokens == MASK) & (tokens > 4)
  assert hidden.sum() > 10
  others = jnp.where(hidden, 5 + (tokens - 4) % 35, tokens)
  again = draw(others)
  assert (again.targets != masked.targets).sum() > 10
  apply = jax.jit(network.apply)
  for one, other in zip(apply(params, masked.tokens, None, masked.positions),
                        apply(params, again.tokens, None, again.positions)):
    np.testing.assert_array_equal(one, other)


def test_masks_are_dynamic_or_for_ever():
  batch = pairs(40, 8, 16)
  for masking in ("dynamic", "static"):
    model = bert(masking=masking, **TINY | dict(num_layers=1), dropout=0.0, attention_dropout=0.0)
    state = jax.jit(model.init)(jax.random.key(0), batch)
    loss_of = jax.jit(model.outputs["training_loss"])
    first, second = (float(loss_of(state, batch, jax.random.key(seed))) for seed in (1, 2))
    if masking == "dynamic":
      assert first != second
    else:
      assert first == second == pytest.approx(float(jax.jit(model.outputs["loss"])(state, batch)), rel=1e-6)


@functools.cache
def trained():
  """A text in which each token tells the next, and B follows A where their tokens are of one half."""
  rng = np.random.default_rng(0)
  rows = 512
  half = rng.integers(0, 2, (rows, 2))
  start = rng.integers(0, 8, rows)
  tokens = np.zeros((rows, 15), np.int32)
  tokens[:, 0], tokens[:, 7], tokens[:, 14] = CLS, SEP, SEP
  for place in range(6):
    tokens[:, 1 + place] = 5 + 8 * half[:, 0] + (start + place) % 8
    tokens[:, 8 + place] = 5 + 8 * half[:, 1] + (start + 6 + place) % 8
  segments = np.repeat([[0] * 8 + [1] * 7], rows, 0).astype(np.int32)
  data = {"tokens": jnp.asarray(tokens), "segments": jnp.asarray(segments),
          "is_next": jnp.asarray((half[:, 0] == half[:, 1]).astype(np.int32))}
  model = bert(**TINY | dict(dim=32, mlp_dim=64), dropout=0.0, attention_dropout=0.0,
               optimizer=optax.adam(optax.warmup_cosine_decay_schedule(0, 6e-3, 50, 500)))
  state = jax.jit(model.init)(jax.random.key(0), data)

  @jax.jit
  def steps(state):
    def step(state, rng):
      rows_now = jax.random.randint(rng, (64,), 0, rows)
      return model.update(state, jax.tree.map(lambda x: x[rows_now], data), rng)
    return jax.lax.scan(step, state, jax.random.split(jax.random.key(1), 500))

  return model, data, *steps(state)


def test_learns_planted_structure():
  model, data, state, _ = trained()
  measures = jax.jit(model.outputs["measures"])(state, data)
  measures = {name: float(pair[0] / pair[1]) for name, pair in measures.items()}
  assert measures["masked_accuracy"] > 0.95 and measures["next_accuracy"] > 0.95
  assert measures["masked_loss"] < 0.3


def test_measures_are_sums_over_valid_rows():
  model, data, state, _ = trained()
  part = {key: value[:8] for key, value in data.items()}
  padded = {key: jnp.concatenate([value, value[:4]]) for key, value in part.items()}
  padded["mask"] = jnp.concatenate([jnp.ones(8), jnp.zeros(4)])
  one, other = (jax.jit(model.outputs["measures"])(state, batch) for batch in (part, padded))
  for name in ("masked_loss", "masked_accuracy", "next_loss", "next_accuracy", "next_share"):
    np.testing.assert_allclose(one[name], other[name], rtol=1e-5)
  loss = one["masked_loss"][0] / one["masked_loss"][1] + one["next_loss"][0] / one["next_loss"][1]
  assert float(jax.jit(model.outputs["loss"])(state, part)) == pytest.approx(float(loss), rel=1e-5)
  assert float(one["next_share"][0]) == part["is_next"].sum()
  assert float(one["masked_loss"][1]) == float(statically_masked(part["tokens"], 40).weights.sum())


def test_poolings():
  _, data, state, _ = trained()
  batch = {"tokens": data["tokens"][:4].at[0, 10:].set(-1), "segments": data["segments"][:4]}
  make = lambda pooling: bert(**TINY | dict(dim=32, mlp_dim=64), pooling=pooling)
  layers = np.asarray(jax.jit(make("mean").outputs["hidden"])(state, batch))
  for pooling, expected in (("cls", layers[:, 2, 0]), ("cls:1", layers[:, 1, 0])):
    np.testing.assert_allclose(jax.jit(make(pooling).embed)(state, batch), expected, rtol=1e-5, atol=1e-5)
  for pooling, layer in (("mean", layers[:, 2]), ("mean:0", layers[:, 0]),
                         ("first_last_mean", (layers[:, 1] + layers[:, 2]) / 2)):
    actual = np.asarray(jax.jit(make(pooling).embed)(state, batch))
    np.testing.assert_allclose(actual[0], layer[0, :10].mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(actual[1], layer[1].mean(0), rtol=1e-4, atol=1e-5)


def test_a_layer_that_is_not_there():
  _, data, state, _ = trained()
  with pytest.raises(InputError, match=r"pooling='mean:3': layers are 0 \(the embeddings\) to 2"):
    bert(**TINY | dict(dim=32, mlp_dim=64), pooling="mean:3").embed(state, data)
  with pytest.raises(InputError, match="pooling='median'"):
    bert(**TINY, pooling="median")


def test_tensor_parallel_equals_one_device(mesh_of):
  from embeddings_jax.data.sources import array_source
  from embeddings_jax.train.loop import train

  batch = pairs(40, 32, 16)
  source = array_source({key: np.asarray(value) for key, value in batch.items()}, 8)
  model = bert(**TINY, optimizer=optax.adam(1e-3))
  losses = {}
  for spec in ("data:1", "data:2,fsdp:2,model:2"):
    actual = losses[spec] = []
    state = train(model, source, steps=8, mesh=mesh_of(spec), log_every=1,
                  write=lambda step, record, actual=actual: actual.append(record["loss"]))
  np.testing.assert_allclose(*losses.values(), rtol=1e-5)
  spec = state.params["encoder"]["layers"]["qkv"]["kernel"].sharding.spec
  assert tuple(spec)[:4] == (None, "fsdp", None, "model")


def test_mistakes_are_named():
  with pytest.raises(InputError, match="masking='never'"):
    bert(masking="never", **TINY)
  with pytest.raises(InputError, match="does not say which tokens continue a word"):
    bert(whole_words=True, **TINY)
  with pytest.raises(InputError, match="dim=17"):
    bert(**TINY | {"dim": 17})
