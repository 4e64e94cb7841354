"""CPC: no leak from the future, padding counts for nothing, planted structure is learnt, eight devices equal one."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from embeddings_jax.eval.linear_probe import probe_accuracy
from embeddings_jax.models.contrastive.cpc import cpc, encoder
from embeddings_jax.nets.conv import StridedConv, num_frames, receptive_field
from embeddings_jax.nets.recurrent import GRU
from embeddings_jax.types import InputError

SMALL = dict(channels=(8, 12), kernel_sizes=(6, 4), strides=(4, 2), context_dim=16, num_predictions=3)


def _jitted(model):
  return model._replace(init=jax.jit(model.init), update=jax.jit(model.update), embed=jax.jit(model.embed),
                        outputs={name: jax.jit(fn) for name, fn in model.outputs.items()})


def _batch(num=4, length=120, inputs="waveform", seed=0):
  rng = np.random.default_rng(seed)
  if inputs == "bytes":
    return {"signal": rng.integers(0, 256, (num, length)).astype(np.uint8)}
  return {"signal": rng.integers(-9000, 9000, (num, length)).astype(np.int16)}


def test_gru_equals_flax_cell():
  x = jax.random.normal(jax.random.key(0), (3, 7, 5))
  params = GRU(4).init(jax.random.key(1), x)["params"]
  params = jax.tree.map(lambda p: p + 0.1 * jax.random.normal(jax.random.key(2), p.shape), params)  # No zero biases.
  kernels = {f"i{g}": {"kernel": k, "bias": b} for g, k, b in zip(
      "rzn", jnp.split(params["input"]["kernel"], 3, 1), jnp.split(params["input"]["bias"], 3))}
  kernels |= {f"h{g}": {"kernel": k} for g, k in zip("rzn", jnp.split(params["recurrent"], 3, 1))}
  kernels["hn"]["bias"] = params["candidate_bias"]
  expected = nn.RNN(nn.GRUCell(4)).apply({"params": {"cell": kernels}}, x)
  np.testing.assert_allclose(GRU(4).apply({"params": params}, x), expected, atol=1e-6)


@pytest.mark.parity
def test_gru_equals_torch():
  import torch

  reference = torch.nn.GRU(5, 4, batch_first=True)
  weights = {k: v.detach().numpy() for k, v in reference.named_parameters()}
  bias = weights["bias_ih_l0"] + np.concatenate([weights["bias_hh_l0"][:8], np.zeros(4, np.float32)])
  params = {"input": {"kernel": weights["weight_ih_l0"].T, "bias": bias}, "recurrent": weights["weight_hh_l0"].T,
            "candidate_bias": weights["bias_hh_l0"][8:]}
  x = np.random.default_rng(0).normal(size=(3, 7, 5)).astype(np.float32)
  # torch: n = tanh(W_n x + b_in + r * (U_n h + b_hn)), the same form.
  expected = reference(torch.tensor(x))[0].detach()
  np.testing.assert_allclose(GRU(4).apply({"params": params}, jnp.asarray(x)), expected, atol=1e-6)


def test_conv_equals_a_loop_over_windows():
  x = np.random.default_rng(0).normal(size=(2, 23, 3)).astype(np.float32)
  conv = StridedConv((4,), (5,), (2,), norm=False)
  params = conv.init(jax.random.key(0), jnp.asarray(x))
  kernel = np.asarray(params["params"]["conv_0"]["kernel"])
  expected = np.stack([np.einsum("bkc,kcf->bf", x[:, t:t + 5], kernel) for t in range(0, 19, 2)], 1)
  np.testing.assert_allclose(conv.apply(params, jnp.asarray(x)), np.maximum(expected, 0), atol=1e-5)


@pytest.mark.parametrize("kernel_sizes, strides, expected", [
    ((10, 8, 4, 4, 4), (5, 4, 2, 2, 2), (465, 160)), ((6, 4), (4, 2), (18, 8)), ((3,), (5,), (3, 5))])
def test_frames_and_receptive_field(kernel_sizes, strides, expected):
  field, hop = receptive_field(kernel_sizes, strides)
  assert (field, hop) == expected
  lengths = np.arange(0, 4 * field)
  expected = np.maximum(0, (lengths - field) // hop + 1)
  np.testing.assert_array_equal(num_frames(jnp.asarray(lengths), kernel_sizes, strides), expected)
  assert [num_frames(int(n), kernel_sizes, strides) for n in lengths] == expected.tolist()


def test_defaults_are_the_papers():
  state = jax.eval_shape(cpc().init, jax.random.key(0), {"signal": jnp.zeros((2, 20480), jnp.int16)})
  shapes = jax.tree.map(jnp.shape, state.params)
  assert [shapes["encoder"]["conv"][f"conv_{i}"]["kernel"] for i in range(5)] == [
      (10, 1, 512), (8, 512, 512), (4, 512, 512), (4, 512, 512), (4, 512, 512)]
  assert shapes["encoder"]["gru"]["recurrent"] == (256, 768)
  assert shapes["predictor"] == (12, 256, 512)
  assert jax.eval_shape(cpc().embed, state, {"signal": jnp.zeros((2, 20480), jnp.int16)}).shape == (2, 512)


@pytest.mark.parametrize("time", [0, 5])
def test_context_sees_nothing_beyond_its_receptive_field(time):
  network = encoder(channels=(8, 12), kernel_sizes=(6, 4), strides=(4, 2), context_dim=16)
  signal = jnp.asarray(_batch()["signal"], jnp.float32)
  params = jax.jit(network.init)(jax.random.key(0), signal)
  gradient = jax.jit(jax.grad(lambda x: network.apply(params, x)[1][:, time].sum()))(signal)
  end = 18 + 8 * time  # Receptive field and hop.
  np.testing.assert_array_equal(gradient[:, end:], 0)
  assert np.abs(gradient[:, end - 8:end]).max() > 0


def test_backwards_is_forwards_on_reversed_signals():
  """With codes of one element each, of any lengths; codes of padding stay behind."""
  hyper = dict(channels=(8, 12), kernel_sizes=(1, 1), strides=(1, 1), context_dim=16, num_predictions=3)
  lengths = np.array([30, 21, 17, 30], np.int32)
  batch = _batch(4, 30) | {"length": lengths}
  reverse = np.array(batch["signal"])
  for row, length in zip(reverse, lengths):
    row[:length] = row[:length][::-1]
  models = [_jitted(cpc(direction=direction, **hyper)) for direction in ("forward", "backward")]
  state = models[0].init(jax.random.key(0), batch)
  loss, other = models[1].outputs["loss"](state, batch), models[0].outputs["loss"](state, batch | {"signal": reverse})
  np.testing.assert_allclose(loss, other, rtol=1e-5)
  assert abs(loss - models[0].outputs["loss"](state, batch)) > 1e-4
  np.testing.assert_allclose(models[1].embed(state, batch), models[0].embed(state, batch | {"signal": reverse}),
                             rtol=1e-4, atol=1e-5)
  with pytest.raises(InputError, match="direction=.back.: must be one of forward, backward"):
    cpc(direction="back", **hyper)


def test_a_context_backwards_sees_nothing_of_the_past():
  network = encoder(channels=(8, 12), kernel_sizes=(6, 4), strides=(4, 2), context_dim=16, direction="backward")
  signal = jnp.asarray(_batch()["signal"], jnp.float32)
  params = jax.jit(network.init)(jax.random.key(0), signal)
  frames = num_frames(120, (6, 4), (4, 2))
  gradient = jax.jit(jax.grad(lambda x: network.apply(params, x)[1][:, frames - 1 - 5].sum()))(signal)
  np.testing.assert_array_equal(gradient[:, :8 * 5], 0)
  assert np.abs(gradient[:, 8 * 5:8 * 6]).max() > 0 and np.abs(gradient[:, -20:]).max() > 0


@pytest.mark.parametrize("inputs, direction", [("waveform", "forward"), ("bytes", "forward"), ("bytes", "backward")])
def test_padding_counts_for_nothing(inputs, direction):
  model = _jitted(cpc(inputs=inputs, direction=direction, **SMALL))
  batch = _batch(4, 120, inputs)
  state = model.init(jax.random.key(0), batch)
  lengths = np.array([120, 77, 18, 5], np.int32)
  embedding = np.asarray(model.embed(state, batch | {"length": lengths}))
  other = {"signal": np.where(np.arange(120) < lengths[:, None], batch["signal"], 99).astype(batch["signal"].dtype)}
  np.testing.assert_array_equal(model.embed(state, other | {"length": lengths}), embedding)
  wider = {"signal": np.pad(batch["signal"], ((0, 0), (0, 40)), constant_values=77), "length": lengths}
  np.testing.assert_allclose(model.embed(state, wider), embedding, atol=1e-6)
  for row, length in enumerate(lengths):  # One by one, without padding.
    alone = {"signal": batch["signal"][row:row + 1, :length]}
    np.testing.assert_allclose(model.embed(state, alone)[0], embedding[row], atol=1e-6)
  assert np.isfinite(embedding).all() and embedding.shape == (4, 32)


@pytest.mark.parametrize("negatives", ["same", "other", "all", "group"])
def test_padded_rows_and_frames_leave_the_loss_alone(negatives):
  model = _jitted(cpc(negatives=negatives, **SMALL))
  batch = _batch(6)
  state = model.init(jax.random.key(0), batch)
  loss = lambda batch: model.outputs["loss"](state, batch)
  batch["group"] = np.array([0, 1, 0, 1, 1, 0], np.int32)
  rows = batch | {"mask": np.array([1, 1, 1, 1, 0, 0], np.float32)}
  np.testing.assert_allclose(loss(rows), loss({name: value[:4] for name, value in batch.items()}), rtol=1e-6)
  # The last 40 elements are padding in all rows: equal to windows that are shorter.
  frames = batch | {"length": np.full(6, 80, np.int32)}
  np.testing.assert_allclose(loss(frames), loss(batch | {"signal": batch["signal"][:, :80]}), rtol=1e-6)
  noise = frames | {"signal": np.concatenate([batch["signal"][:, :80], batch["signal"][::-1, 80:]], 1)}
  np.testing.assert_array_equal(loss(noise), loss(frames))


def test_metrics_and_outputs():
  model = _jitted(cpc(**SMALL))
  batch = _batch()
  state = model.init(jax.random.key(0), batch)
  assert set(state.params) == {"encoder", "predictor"}
  new, metrics = model.update(state, batch, jax.random.key(0))
  assert jax.tree.map(jnp.shape, new) == jax.tree.map(jnp.shape, state)
  num_times = num_frames(120, SMALL["kernel_sizes"], SMALL["strides"])
  np.testing.assert_allclose(metrics["log_num_candidates"], np.log(4 + num_times - 1), rtol=1e-6)
  bounds = model.outputs["bound"](state, batch)
  np.testing.assert_allclose(bounds, [metrics[f"bound_{k}"] for k in (1, 2, 3)], rtol=1e-5)
  np.testing.assert_allclose(metrics["loss"], metrics["log_num_candidates"] - bounds.mean(), rtol=1e-5)
  assert model.outputs["hidden"](state, batch).shape == (4, 1, num_times, 16)
  assert model.outputs["frames"](state, batch).shape == (4, num_times, 12)


def test_bfloat16_computes_near_float32():
  batch = _batch()
  exact, rough = _jitted(cpc(**SMALL)), _jitted(cpc(dtype="bfloat16", **SMALL))
  state = rough.init(jax.random.key(0), batch)
  assert {x.dtype for x in jax.tree.leaves(state.params)} == {jnp.dtype("float32")}
  losses = [model.outputs["loss"](state, batch) for model in (exact, rough)]
  assert losses[1].dtype == jnp.float32
  np.testing.assert_allclose(*losses, rtol=0.03)


IMAGES = dict(inputs="images", patch_size=4, channels=(6, 8), kernel_sizes=(3, 3), strides=(1, 2), context_dim=10,
              num_predictions=2)


def _pictures(num=3, height=10, width=8, seed=0):
  return {"image": np.random.default_rng(seed).integers(0, 256, (num, height, width, 1)).astype(np.uint8)}


@pytest.fixture(scope="module")
def pictures():
  """Four rows and three columns of patches, a jitted model and its first state."""
  model = _jitted(cpc(negatives="group", temperature=0.7, **IMAGES))
  batch = _pictures()
  return model, model.init(jax.random.key(0), batch), batch


def test_rows_below_do_not_reach_the_context():
  network = encoder(**{name: value for name, value in IMAGES.items() if name != "num_predictions"})
  image = jnp.asarray(_pictures()["image"], jnp.float32)
  params = jax.jit(network.init)(jax.random.key(0), image)
  columns = 3
  gradient = jax.jit(jax.vmap(jax.grad(lambda x, row: jnp.square(network.apply(params, x)[1][:columns, row]).sum()),
                              (None, 0)))(image, jnp.arange(4))
  for row in range(4):
    end = 2 * row + 4
    np.testing.assert_array_equal(gradient[row, :, end:], 0)
    np.testing.assert_array_equal(gradient[row, 1:], 0)  # Of the other images, too.
    assert (np.abs(gradient[row, 0, :end]).max((1, 2)) > 0).all()


def test_loss_of_images_equals_a_loop_over_patches(pictures):
  model, state, batch = pictures
  network = encoder(**{name: value for name, value in IMAGES.items() if name != "num_predictions"})
  frames, context = jax.jit(network.apply)({"params": state.params["encoder"]}, batch["image"])
  z, c = (np.asarray(x, np.float64).reshape(3, 3, 4, -1).swapaxes(1, 2) for x in (frames, context))
  codes = np.asarray(model.outputs["frames"](state, batch))
  np.testing.assert_allclose(codes, z, atol=1e-6)  # [image, row, column, channels]
  np.testing.assert_allclose(model.embed(state, batch), codes.mean((1, 2)), atol=1e-6)
  steps = []
  for k, kernel in enumerate(np.asarray(state.params["predictor"], np.float64), 1):
    losses = []
    for image in range(3):
      for row in range(4 - k):
        for column in range(3):
          query = c[image, row, column] @ kernel / 0.7
          scores = {(i, j): query @ z[image, i, j] for i in range(4) for j in range(3) if i == row + k or j == column}
          losses.append(np.log(np.exp(list(scores.values())).sum()) - scores[row + k, column])
    steps.append(np.mean(losses))
  np.testing.assert_allclose(model.outputs["loss"](state, batch), np.mean(steps), rtol=1e-5)


def test_padded_images_leave_the_loss_alone(pictures):
  model, state, batch = pictures
  more = {"image": np.concatenate([batch["image"], batch["image"][:1]]), "mask": np.array([1, 1, 1, 0], np.float32)}
  np.testing.assert_allclose(model.outputs["loss"](state, more), model.outputs["loss"](state, batch),
                             rtol=1e-6)


SENTENCES = dict(inputs="sentences", vocab_size=40, embedding_dim=6, channels=(7, 8), kernel_sizes=(3, 2),
                 strides=(1, 1), context_dim=10, num_predictions=2, negatives="other")


def _documents(num=6, num_sentences=5, length=6, seed=0):
  """Documents of 4 topics, each with ten words of its own; the second has three sentences."""
  rng = np.random.default_rng(seed)
  label = rng.integers(0, 4, num)
  tokens = 10 * label[:, None, None] + rng.integers(0, 10, (num, num_sentences, length))
  tokens = np.where(np.arange(length) < rng.integers(1, length + 1, (num, num_sentences, 1)), tokens, -1)
  tokens[1, 3:] = -1
  return {"tokens": tokens.astype(np.int32)}, label


def test_sentences_are_read_by_themselves_and_padding_counts_for_nothing():
  model = _jitted(cpc(**SENTENCES))
  batch, _ = _documents()
  state = model.init(jax.random.key(0), batch)
  codes = np.asarray(model.outputs["frames"](state, batch))
  flat = batch["tokens"].reshape(-1, 6)
  texts = {"tokens": np.pad(flat, ((0, 0), (0, 4)), constant_values=-1)}
  np.testing.assert_allclose(model.embed(state, texts), codes.reshape(-1, 8), atol=1e-6)
  np.testing.assert_array_equal(codes[1, 3:], 0)  # Without a token.
  words = np.asarray(model.outputs["hidden"](state, {"tokens": flat[:1]}))[0, 0]
  np.testing.assert_allclose(words[flat[0] >= 0].mean(0), codes[0, 0], atol=1e-6)
  # What follows in the document does not reach the contexts before it.
  network = encoder(**{name: value for name, value in SENTENCES.items()
                       if name not in ("num_predictions", "negatives")})
  other = batch["tokens"].copy()
  other[:, 3:] = np.where(other[:, 3:] >= 0, (other[:, 3:] + 1) % 40, -1)
  contexts = [jax.jit(network.apply)({"params": state.params["encoder"]}, tokens)[1]
              for tokens in (batch["tokens"], other)]
  np.testing.assert_array_equal(contexts[0][:, :3], contexts[1][:, :3])
  assert (np.abs(contexts[0] - contexts[1])[0, 3:] > 0).any(-1).all()
  # Sentences that are not there are neither predicted nor candidates, nor are padded rows.
  loss = lambda batch: model.outputs["loss"](state, batch)
  more = {"tokens": np.pad(batch["tokens"], ((0, 1), (0, 2), (0, 3)), constant_values=-1),
          "mask": np.array([1, 1, 1, 1, 1, 1, 0], np.float32)}
  np.testing.assert_allclose(loss(more), loss(batch), rtol=1e-6)


def test_sentences_of_a_topic_are_told_by_it():
  model = _jitted(cpc(optimizer=optax.adam(1e-2), **SENTENCES | dict(
      num_predictions=1, embedding_dim=16, channels=(16,), kernel_sizes=(3,), strides=(1,))))
  batch, _ = _documents(64)
  state = model.init(jax.random.key(0), batch)
  for step in range(80):
    state, metrics = model.update(state, _documents(64, seed=step)[0], jax.random.key(0))
  # Four topics carry at most log 4 = 1.39 nats, and a sentence has nothing else to be told by.
  assert 1.0 < metrics["bound_1"] < 1.5, metrics
  texts, y = _documents(400, seed=99)
  x = np.asarray(model.embed(state, {"tokens": texts["tokens"][:, 0]}))
  assert probe_accuracy(x[:200], y[:200], x[200:], y[200:], penalties=(1e-2,)) > 0.95


def _tones(num, seed, length=480):
  """A sequence has a pitch of its own (of 4) and keeps it; the phase and the noise differ."""
  rng = np.random.default_rng(seed)
  label = rng.integers(0, 4, num)
  frequency = np.array([0.05, 0.07, 0.09, 0.11])[label, None]
  wave = np.sin(2 * np.pi * (frequency * np.arange(length) + rng.random((num, 1))))
  return (3000 * (wave + rng.normal(size=wave.shape))).astype(np.int16), label


def test_learns_planted_structure():
  model = cpc(channels=(16, 16), kernel_sizes=(16, 4), strides=(8, 2), context_dim=16, num_predictions=2,
              negatives="other", optimizer=optax.adam(5e-3))
  model = _jitted(model)
  train, _ = _tones(512, 0)
  state = model.init(jax.random.key(0), {"signal": train[:32]})
  x, y = _tones(400, 1)

  def probe(state):
    features = np.asarray(model.embed(state, {"signal": x}))
    return probe_accuracy(features[:40], y[:40], features[40:], y[40:], penalties=(1e-2,))

  untrained = probe(state)
  for step in range(150):
    rows = np.random.default_rng(step).integers(0, 512, 32)
    state, metrics = model.update(state, {"signal": train[rows]}, jax.random.key(0))
  # Four equally frequent classes carry log 4 = 1.39 nats, the phase adds to them.
  assert metrics["bound_1"] > 0.9
  assert probe(state) > max(0.95, untrained + 0.05), (untrained, probe(state))


@pytest.mark.parametrize("negatives", [
    "group", pytest.param("all", marks=pytest.mark.long), pytest.param("other", marks=pytest.mark.long)])
def test_eight_devices_equal_one(negatives):
  model = cpc(negatives=negatives, optimizer=optax.adam(1e-3), **SMALL | dict(num_predictions=2))
  batches = [_batch(16, 120, seed=seed) | {"mask": np.arange(16) < 15, "group": np.arange(16, dtype=np.int32) % 3}
             for seed in range(5)]
  losses = []
  for shape in (1, 1, 1), (8, 1, 1):
    mesh = jax.make_mesh(shape, ("data", "fsdp", "model"), axis_types=(jax.sharding.AxisType.Auto,) * 3,
                         devices=jax.devices()[:int(np.prod(shape))])
    with jax.set_mesh(mesh):
      rows, everywhere = NamedSharding(mesh, P(("data", "fsdp"))), NamedSharding(mesh, P())
      state = jax.jit(model.init, out_shardings=everywhere)(jax.random.key(0), batches[0])
      update = functools.partial(jax.jit, out_shardings=everywhere)(model.update)
      losses.append([])
      for batch in batches:
        state, metrics = update(state, jax.device_put(batch, rows), jax.random.key(0))
        losses[-1].append(float(metrics["loss"]))
  np.testing.assert_allclose(losses[1], losses[0], atol=1e-5)


@pytest.mark.parametrize("kwargs, message", [
    (dict(inputs="text"), "inputs='text'"),
    (dict(inputs="images", patch_size=0), "patch_size=0"),
    (dict(inputs="sentences", channels=8, kernel_sizes=(3,), strides=(1,)), "sentences need a vocabulary"),
    (dict(negatives="none"), "negatives='none'"),
    (dict(channels=(8, 8)), "must be equally many"),
    (dict(strides=(5, 4)), "must be equally many"),
    (dict(accumulate=2), "couples the examples"),
])
def test_wrong_arguments_get_one_clear_line(kwargs, message):
  with pytest.raises(InputError, match=message):
    cpc(**kwargs)


def test_short_windows_are_refused():
  model = cpc(**SMALL)
  batch = jax.tree.map(jnp.asarray, _batch(length=30))
  with pytest.raises(InputError, match="windows of 30 elements give 2 frames"):
    jax.eval_shape(lambda: model.update(model.init(jax.random.key(0), batch), batch, jax.random.key(0)))
  model = cpc(**IMAGES | dict(num_predictions=4))
  with pytest.raises(InputError, match=r"image of \[3, 10, 8, 1\] give 4 rows of patches, too few to predict 4"):
    images = jax.tree.map(jnp.asarray, _pictures())
    jax.eval_shape(lambda: model.update(model.init(jax.random.key(0), images), images, jax.random.key(0)))
