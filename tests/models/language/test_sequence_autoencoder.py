"""Sequence autoencoders: `transformers`' BART, known answers, what the decoder sees, planted structure, bad input."""
import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from embeddings_jax import array_source, train
from embeddings_jax.interop import huggingface_bart
from embeddings_jax.models.language.bert import encoder
from embeddings_jax.models.language.gpt import encoder as causal_encoder
from embeddings_jax.models.language.sequence_autoencoder import sequence_autoencoder
from embeddings_jax.nets.text_decoder import decoder_of, decoder_params, shifted, with_bias
from embeddings_jax.ops.likelihoods import gaussian_kl
from embeddings_jax.types import InputError

CLS, SEP, MASK = 2, 3, 4
IDS = dict(special_ids=(0, 1, 2, 3, 4), cls_id=CLS, sep_id=SEP, mask_id=MASK)
STILL = dict(dropout=0.0, attention_dropout=0.0)
TRUNK = dict(vocab_size=30, dim=16, num_layers=2, num_heads=2, mlp_dim=24, max_length=9, init_std=0.3, **STILL)
BART = dict(memory="tokens", tie="embeddings", start="end", deletion=0.0, pooling="mean")


def texts(num, length=9, vocab_size=30, seed=0):
  """Rows [CLS] text [SEP] of several lengths."""
  rng = np.random.default_rng(seed)
  tokens = np.full((num, length), -1, np.int32)
  for row, size in zip(tokens, rng.integers(2, length - 1, num)):
    row[:size + 2] = [CLS, *rng.integers(5, vocab_size, size), SEP]
  return jnp.asarray(tokens)


def started(model, tokens):
  return jax.jit(model.init)(jax.random.key(0), {"tokens": tokens})


@pytest.mark.parity
def test_logits_loss_and_gradients_are_transformers(tmp_path):
  """Both stacks with sizes of their own, an odd vocabulary, padded sources and targets; and back, bit for bit."""
  import torch
  import transformers

  torch.manual_seed(0)
  theirs = transformers.BartForConditionalGeneration(transformers.BartConfig(
      vocab_size=103, d_model=24, encoder_layers=2, decoder_layers=3, encoder_attention_heads=3,
      decoder_attention_heads=2, encoder_ffn_dim=40, decoder_ffn_dim=28, max_position_embeddings=19,
      init_std=0.2)).eval()
  with torch.no_grad():
    for value in theirs.parameters():
      if value.ndim == 1:
        value.add_(0.1 * torch.randn(value.shape))
    theirs.final_logits_bias.copy_(torch.randn(1, 103))
  theirs.save_pretrained(tmp_path / "theirs")
  hyper, others, params = huggingface_bart.read(tmp_path / "theirs")
  assert (hyper["max_length"], others["decoder_layers"], others["decoder_heads"]) == (19, 3, 2)
  random = np.random.default_rng(0)
  source = random.integers(5, 103, (3, 17)).astype(np.int32)
  targets = random.integers(5, 103, (3, 13)).astype(np.int32)
  source[1, 11:], source[2, 1:], targets[0, 7:], targets[2, 1:] = -1, -1, -1, -1
  answer = theirs(torch.tensor(np.where(source < 0, 1, source)).long(),
                  attention_mask=torch.tensor(source >= 0).long(),
                  labels=torch.tensor(np.where(targets < 0, -100, targets)).long())
  answer.loss.backward()
  gradient = {name: value.grad for name, value in theirs.named_parameters()}
  with torch.no_grad():
    for name, value in theirs.named_parameters():
      value.copy_(gradient[name])
  theirs.save_pretrained(tmp_path / "gradient")
  expected = huggingface_bart.read(tmp_path / "gradient")[2]
  trunk = encoder(**hyper)
  decoder = decoder_of(trunk, "embeddings", *(others[f"decoder_{name}"] for name in ("layers", "heads", "mlp_dim")))

  def loss_fn(params):
    memory = trunk.apply({"params": params["encoder"]}, jnp.asarray(source))
    whole = decoder_params(params["encoder"], params["decoder"], "embeddings")
    read, wanted = shifted(jnp.asarray(targets), 2)
    hidden = decoder.apply({"params": whole}, read, memory=memory, seen=jnp.asarray(source) >= 0)
    queries, table = with_bias(hidden, whole["token_embedding"], params["output"]["bias"])
    logits = queries @ table.T
    valid = wanted >= 0
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(wanted, 0))
    return (valid * losses).sum() / valid.sum(), logits

  with jax.default_matmul_precision("highest"):
    (loss, logits), actual = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))(params)
  there = np.asarray(targets) >= 0
  np.testing.assert_allclose(np.asarray(logits)[there], answer.logits.detach().numpy()[there], atol=1e-5)
  assert float(loss) == pytest.approx(answer.loss.item(), rel=1e-6)
  for (path, one), other in zip(jax.tree_util.tree_leaves_with_path({k: actual[k] for k in ("encoder", "decoder")}),
                                jax.tree.leaves({k: expected[k] for k in ("encoder", "decoder")}), strict=True):
    # A constant added to all keys changes no weight of attention.
    keys = [i for name, i in (("['qkv']['bias']", 1), ("['cross_memory']['bias']", 0)) if name in str(path)]
    one, other = (np.delete(x, keys, 1) if keys else x for x in (one, other))
    assert np.abs(one - other).max() <= 1e-4 * np.abs(other).max(), path
  huggingface_bart.write(tmp_path / "ours", hyper, others, params)
  again, report = transformers.BartForConditionalGeneration.from_pretrained(
      tmp_path / "ours", output_loading_info=True)
  assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
  again.save_pretrained(tmp_path / "again")
  back = huggingface_bart.read(tmp_path / "again")
  assert back[:2] == (hyper, others)
  chex.assert_trees_all_equal(back[2], params)


def test_a_bottleneck_as_wide_as_the_vocabulary_reaches_loss_zero(mesh_of):
  """One token a text, a vector between: nothing is lost where the vectors can differ."""
  tokens = jnp.full((12, 2), CLS).at[:, 1].set(jnp.arange(12) + 5)
  model = sequence_autoencoder(encoder=encoder(**{**TRUNK, "vocab_size": 17, "dim": 18, "num_layers": 1}), **IDS,
                               deletion=0.0, optimizer=optax.adam(1e-2))
  state = train(model, array_source({"tokens": np.asarray(tokens)}, 12), steps=400, steps_per_dispatch=100,
                mesh=mesh_of())
  assert jax.jit(model.outputs["loss"])(state, {"tokens": tokens}) < 1e-3


@pytest.mark.long
def test_without_corruption_all_vectors_let_the_decoder_copy_new_texts(mesh_of):
  """Texts of held-out words' orders come back exactly, each to its end."""
  trunk = encoder(**{**TRUNK, "vocab_size": 14, "dim": 32, "num_layers": 1, "max_length": 7, "init_std": 0.1},
                  position_init="sinusoidal")
  model = sequence_autoencoder(encoder=trunk, **IDS, **BART, optimizer=optax.adam(5e-3))
  rows = np.asarray(texts(2000, 7, 14))
  state = train(model, array_source({"tokens": rows}, 32), steps=300, steps_per_dispatch=100,
                mesh=mesh_of())
  new = texts(100, 7, 14, seed=1)
  actual = jax.jit(model.outputs["reconstruct"])(state, {"tokens": new})
  assert np.mean(np.all(np.asarray(actual["reconstructed"]) == np.asarray(new), 1)) == 1


def test_the_decoder_sees_no_future():
  """Gradients of one prediction: 0 to tokens behind it, and to no other token or place of the memory."""
  trunk = encoder(**TRUNK)
  decoder = decoder_of(trunk, "none")
  tokens = texts(2)[1:, :6]
  params = jax.jit(decoder.init)(jax.random.key(0), tokens, memory=jnp.zeros((1, 1, 16)))["params"]
  read = jax.random.normal(jax.random.key(1), (1, 6, 16))
  vectors = jax.random.normal(jax.random.key(2), (1, 4, 16))

  def prediction(table, vectors):  # Row t of the positions is a part of embedding t alone.
    hidden = decoder.apply({"params": {**params, "position_embedding": table}}, tokens, memory=vectors)
    return (hidden[0, 2] * read[0, 2]).sum()

  of_places, of_memory = jax.jit(jax.grad(prediction, (0, 1)))(params["position_embedding"], vectors)
  size = np.abs(of_places[:6]).max(1)
  assert (size[:3] > 1e-4).all() and (size[3:] == 0).all()
  assert (np.abs(of_memory).max(-1) > 1e-4).all()


def test_with_one_vector_a_prediction_knows_the_text_by_that_vector_alone():
  """Where all texts have the code 0, the loss has no gradient to the encoder, its token embeddings included."""
  tokens = texts(8)
  model = sequence_autoencoder(encoder=encoder(**TRUNK), **IDS, deletion=0.0, code_dim=3, tie="none")
  state = started(model, tokens)
  dead = {**state.params, "code": jax.tree.map(jnp.zeros_like, state.params["code"])}
  slopes = jax.jit(jax.grad(lambda params: model.outputs["training_loss"](
      state._replace(params=params), {"tokens": tokens}, jax.random.key(0))))(dead)
  assert all((np.asarray(leaf) == 0).all() for leaf in jax.tree.leaves(slopes["encoder"]))
  assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(slopes["code"]))


def test_at_beta_one_the_loss_is_minus_the_elbo():
  """By hand: the encoder's posterior, a draw, the decoder's log-likelihood of each text, the divergence."""
  trunk = encoder(**TRUNK)
  tokens, rng = texts(5), jax.random.key(3)
  options = dict(encoder=trunk, **IDS, deletion=0.0, variational=True, code_dim=4, tie="embeddings")
  model = sequence_autoencoder(**options)
  state = started(model, tokens)
  params = jax.tree.map(lambda x: x + 0.3 * jax.random.normal(jax.random.key(x.size), x.shape), state.params)
  state = state._replace(params=params)
  batch = {"tokens": tokens, "mask": jnp.array([1.0, 1, 1, 0, 1])}

  @jax.jit
  def by_hand(params):
    pooled = trunk.apply({"params": params["encoder"]}, tokens)[:, 0]
    mean, log_variance = jnp.split(pooled @ params["code"]["kernel"] + params["code"]["bias"], 2, -1)
    z = mean + jnp.exp(log_variance / 2) * jax.random.normal(jax.random.split(rng, 4)[1], mean.shape)
    memory = (z @ params["memory"]["kernel"] + params["memory"]["bias"])[:, None]
    whole = {**params["decoder"], "token_embedding": params["encoder"]["token_embedding"]}
    hidden = decoder_of(trunk, "embeddings").apply({"params": whole}, tokens[:, :-1], memory=memory)
    log_p = jax.nn.log_softmax(hidden @ whole["token_embedding"].T + params["output"]["bias"])
    log_p = jnp.take_along_axis(log_p, jnp.maximum(tokens[:, 1:], 0)[..., None], -1)[..., 0]
    return jnp.where(tokens[:, 1:] >= 0, log_p, 0).sum(1), gaussian_kl(mean, log_variance)

  log_p, kl = (np.asarray(x, np.float64)[[0, 1, 2, 4]] for x in by_hand(params))
  loss = jax.jit(model.outputs["training_loss"])(state, batch, rng)
  assert float(loss) == pytest.approx((kl.sum(1) - log_p).mean(), rel=1e-5)
  other = sequence_autoencoder(**options, beta=0.5, free_bits=2.0, kl_warmup_steps=4)
  loss = jax.jit(other.outputs["training_loss"])(state, batch, rng)  # The first of four updates: an eighth.
  assert float(loss) == pytest.approx(np.maximum(kl.mean(0), 2).sum() / 8 - log_p.mean(), rel=1e-5)


def test_a_tied_decoder_is_the_encoder_but_for_its_memory():
  """Its own parameters are those of the attention to the memory; the others are the encoder's themselves."""
  params = {}
  for tie in ("layers", "embeddings", "none"):
    model = sequence_autoencoder(encoder=encoder(**TRUNK), **IDS, tie=tie)
    params[tie] = jax.eval_shape(model.init, jax.random.key(0), {"tokens": texts(2)}).params
  tied = params["layers"]
  assert set(tied["decoder"]) == {"layers"} and set(tied["decoder"]["layers"]) == {
      "cross_norm", "cross_query", "cross_memory", "cross_out"}
  whole = decoder_params(tied["encoder"], tied["decoder"], "layers")
  assert whole["layers"]["qkv"]["kernel"] is tied["encoder"]["layers"]["qkv"]["kernel"]
  own = set(params["none"]["encoder"]) - {"segment_embedding"}
  assert set(params["none"]["decoder"]) == own and set(params["embeddings"]["decoder"]) == own - {"token_embedding"}


def test_what_does_not_fit_is_refused():
  trunk = encoder(**TRUNK)
  for options, message in (
      (dict(memory="all"), "memory='all': must be one of pooled, tokens"),
      (dict(deletion=1.0), "deletion=1.0: must lie in"),
      (dict(span_length=10.0, infilling=0.3), "longer than the texts"),
      (dict(infilling=0.3, mask_id=None), "has no mask token"), (dict(permute_sentences=True), "ends a sentence"),
      (dict(beta=-1.0), "beta=-1.0"), (dict(memory="tokens", variational=True), "use memory=pooled"),
      (dict(decoder_layers=1), "decoder_layers=1: must be 0"), (dict(tie="none", decoder_heads=3), "does not divide"),
      (dict(start="end", sep_id=None), "start=end: the tokenizer"),
      (dict(encoder=causal_encoder(vocab_size=30, dim=16, num_heads=2)), "no bidirectional text encoder")):
    with pytest.raises(InputError, match=message):
      sequence_autoencoder(**{"encoder": trunk, **IDS, **options})
  with pytest.raises(InputError, match="accumulate=2: this loss couples"):
    sequence_autoencoder(encoder=trunk, **IDS, variational=True, free_bits=0.5, accumulate=2)
  with pytest.raises(InputError, match="a Hugging Face bart cannot have position_offset=0"):
    huggingface_bart.write("unused", {**TRUNK, "norm": "post", "position_offset": 0, "num_segments": 0}, {}, {})


@pytest.mark.long
def test_a_run_is_exported_as_bart_and_loaded(tmp_path):
  """Vectors and written texts stay; a damaged directory is refused in one line."""
  from safetensors.numpy import load_file, save_file

  import embeddings_jax as ej
  from embeddings_jax.runs import sampling

  items = [f"the {a} cat sat on the {b} mat." for a in ("red", "old", "big") for b in ("soft", "thin", "warm")] * 2
  network = dict(name="bert", dim=8, num_layers=1, num_heads=2, mlp_dim=8, max_length=12, num_segments=0,
                 position_offset=2, norm_epsilon=1e-5)
  run = ej.fit("sequence_autoencoder", items, steps=1, batch_size=8, encoder=network, **BART,
               data_options={"vocab_size": 60, "max_length": 12})
  run.export(tmp_path / "bart", "huggingface")
  loaded = ej.load(tmp_path / "bart")
  np.testing.assert_array_equal(loaded.embed(items[:3], pooling="mean"), run.embed(items[:3]))
  assert sampling.reconstruct_texts(loaded, items[:3]) == sampling.reconstruct_texts(run, items[:3])
  with pytest.raises(InputError, match="has no code of an item"):
    sampling.interpolate(run, *items[:2])
  tensors = load_file(tmp_path / "bart" / "model.safetensors")
  tensors["lm_head.weight"] = tensors["model.shared.weight"] + 1
  save_file(tensors, tmp_path / "bart" / "model.safetensors")
  with pytest.raises(InputError, match="lm_head.weight is not model.shared.weight"):
    ej.load(tmp_path / "bart")
  del tensors["lm_head.weight"], tensors["model.decoder.layers.0.encoder_attn.k_proj.bias"]
  save_file(tensors, tmp_path / "bart" / "model.safetensors")
  with pytest.raises(InputError, match="lack the tensor model.decoder.layers.0.encoder_attn.k_proj.bias"):
    ej.load(tmp_path / "bart")
