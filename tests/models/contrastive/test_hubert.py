"""HuBERT: units, spans, the loss of hidden frames alone, by hand; what the network may see; planted structure."""
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from embeddings_jax import array_source, train
from embeddings_jax.data.units import deltas, lloyd, mfcc_with_deltas, nearest
from embeddings_jax.eval.unit_usage import usage
from embeddings_jax.models.contrastive.hubert import encoder, hubert
from embeddings_jax.ops.span_masks import span_mask
from embeddings_jax.runs import build, frames, presets
from embeddings_jax.types import InputError

NETWORK = dict(channels=(6, 8), kernel_sizes=(6, 4), strides=(4, 4), dim=8, num_layers=1, num_heads=2, mlp_dim=16,
               position_kernel=5, dropout=0.0)
MODEL = dict(**NETWORK, num_units=5, code_dim=4, mask_rate=0.1, span_length=4)


def signals(num=3, length=330, seed=0):
  rng = np.random.default_rng(seed)
  return {"signal": jnp.asarray(rng.normal(size=(num, length)) * 3000, jnp.int16),
          "units": jnp.asarray(rng.integers(0, 5, (num, 21)), jnp.int32)}


def test_deltas_are_slopes_of_least_squares():
  frames = np.random.default_rng(0).normal(size=(9, 3))
  expected = [np.polyfit(np.arange(-2, 3), frames[t - 2:t + 3], 1)[0] for t in range(2, 7)]
  np.testing.assert_allclose(deltas(frames)[2:7], expected, rtol=1e-5, atol=1e-6)
  rows = mfcc_with_deltas(np.random.default_rng(0).integers(-900, 900, 8000).astype(np.int16), 8000, 160)
  assert rows.shape == (50, 39)
  np.testing.assert_allclose(rows[:48, 13:26], deltas(rows[:48, :13].repeat(2, 0))[::2], atol=9)  # Of half as many.


def test_clusters_are_those_of_scikit_learn():
  """From k-means++: the planted clusters; on noise as good a minimum as the best of its starts, within 3 %."""
  from sklearn.cluster import KMeans

  rng = np.random.default_rng(0)
  planted = rng.integers(0, 6, 600)
  rows = (3 * rng.normal(size=(6, 4)))[planted] + 0.1 * rng.normal(size=(600, 4))
  units = nearest(rows, lloyd(rng, rows, 6, 20))
  assert len({*zip(planted.tolist(), units.tolist())}) == 6
  noise = rng.normal(size=(200, 3))
  cost = lambda centers: np.square(noise - centers[nearest(noise, centers)]).sum()
  best = min(cost(lloyd(np.random.default_rng(seed), noise, 5, 50)) for seed in range(5))
  assert best < 1.03 * KMeans(5, n_init=5, random_state=0).fit(noise).inertia_


def test_spans_are_whole_and_have_their_share():
  """By the hypergeometric distribution of starts, away from the ends; padding is never hidden."""
  valid = jnp.arange(200) < jnp.array([200] * 300 + [60] * 100)[:, None]
  hidden = np.asarray(jax.jit(lambda key: span_mask(key, valid, 0.08, 10))(jax.random.key(0)))
  assert not hidden[~np.asarray(valid)].any()
  for row in hidden:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], row, [0]]).astype(int)))
    assert (edges[1::2] - edges[::2]).min() >= 10
  # Of 191 places 15 or 16 are drawn; a frame is seen if none of ten is among them.
  seen = [np.prod([1 - count / (191 - i) for i in range(10)]) for count in (15, 16)]
  assert abs(hidden[:300, 20:180].mean() - (1 - 0.72 * seen[0] - 0.28 * seen[1])) < 0.005
  short = np.asarray(span_mask(jax.random.key(0), jnp.arange(8) < jnp.array([[6], [1], [8]]), 0.5, 8))
  assert short.sum(1).tolist() == [5, 0, 7] and not short[0, 5]


def test_the_loss_is_of_hidden_frames_alone():
  """By hand, from the network's vectors; another unit at a frame that is seen changes nothing."""
  model, network, batch, rng = hubert(**MODEL), encoder(**NETWORK), signals(), jax.random.key(3)
  batch["mask"] = jnp.array([1.0, 0.0, 1.0])
  state = jax.jit(model.init)(jax.random.key(0), batch)
  time = 20  # Frames of 330 samples.
  hidden = np.asarray(span_mask(jax.random.split(rng)[0], jnp.ones((3, time), bool), 0.1, 4))
  h = np.asarray(network.apply({"params": state.params["encoder"]}, batch, jnp.asarray(hidden)), np.float64)
  a = h @ np.asarray(state.params["projection"]["kernel"], np.float64) + state.params["projection"]["bias"]
  e = np.asarray(state.params["units"], np.float64)
  cosines = (a / np.linalg.norm(a, axis=-1, keepdims=True)) @ (e / np.linalg.norm(e, axis=-1, keepdims=True)).T
  log_p = 10 * cosines - np.log(np.exp(10 * cosines).sum(-1, keepdims=True))
  rows = [(b, t) for b in (0, 2) for t in range(time) if hidden[b, t]]
  expected = -np.mean([log_p[b, t, batch["units"][b, t]] for b, t in rows])
  loss = jax.jit(model.outputs["training_loss"])
  assert float(loss(state, batch, rng)) == pytest.approx(expected, rel=1e-4)
  seen = jnp.asarray(~np.pad(hidden, ((0, 0), (0, 1))))
  other = {**batch, "units": jnp.where(seen, (batch["units"] + 1) % 5, batch["units"])}
  assert float(loss(state, other, rng)) == float(loss(state, batch, rng))


def test_hidden_frames_are_not_seen():
  """The gradient of a prediction to samples that only hidden frames see is 0; to others it is not."""
  network = encoder(**NETWORK)
  signal = signals(1)["signal"].astype(jnp.float32)
  hidden = (jnp.arange(20) >= 5) & (jnp.arange(20) < 12)
  params = jax.jit(network.init)(jax.random.key(0), {"signal": signal})
  read = jax.random.normal(jax.random.key(1), (8,))
  slope = np.asarray(jax.jit(jax.grad(lambda signal: network.apply(
      params, {"signal": signal}, hidden[None])[0, 8] @ read))(signal))[0]
  # Frame t sees the samples 16 t to 16 t + 18.
  assert (slope[16 * 4 + 18:16 * 12] == 0).all() and np.abs(slope[:70]).max() > 0 and np.abs(slope[200:320]).max() > 0


def test_padding_changes_no_vector():
  model, batch = hubert(**MODEL), signals(2)
  state = jax.jit(model.init)(jax.random.key(0), batch)
  embed = jax.jit(model.embed)
  noisy = {"signal": batch["signal"], "length": jnp.array([330, 200])}
  alone = embed(state, {"signal": batch["signal"][1:, :200]})
  np.testing.assert_allclose(embed(state, noisy)[1], alone[0], atol=1e-5)
  short = embed(state, {"signal": jnp.zeros((1, 3), jnp.int16)})
  assert np.isfinite(short).all() and not short[0, 8:].any()


@pytest.mark.long
def test_learns_hidden_units_from_what_is_around_them(mesh_of):
  """Each signal is a tone, and all its frames have the unit of its pitch."""
  rng = np.random.default_rng(0)
  level = rng.integers(0, 5, 400)
  period = np.array([3, 5, 8, 13, 21])[level][:, None]
  wave = np.sin(2 * np.pi * (np.arange(330) + rng.uniform(0, 99, (400, 1))) / period)
  batch = {"signal": (9000 * wave).astype(np.int16),
           "units": np.tile(level[:, None], (1, 21)).astype(np.int32)}
  model = hubert(**MODEL, optimizer=optax.adam(1e-2))
  state = train(model, array_source(batch, 32), steps=100, steps_per_dispatch=1, mesh=mesh_of())
  sums = jax.jit(model.outputs["measures"])(state, {name: jnp.asarray(value) for name, value in batch.items()})
  assert sums["masked_accuracy"][0] / sums["masked_accuracy"][1] > 0.9  # By guessing .2.


@pytest.mark.long
def test_units_of_a_layer_are_clusters_of_its_vectors(tmp_path):
  import embeddings_jax as ej

  config = presets.load_config("hubert", "tiny")
  config.data.update(dict(num_units=4, window_length=2400))
  run = ej.fit("hubert", "syllables", preset="tiny", steps=1, workdir=str(tmp_path / "run"))
  vectors, checksum = frames.vectors_of(str(tmp_path / "run"), 1, 160)
  signal = np.random.default_rng(0).integers(-900, 900, 30 * 160 + 100).astype(np.int16)
  padded = np.pad(signal, (0, frames.PIECE * 160 - len(signal)))[None]
  expected = jax.jit(run.model.outputs["hidden"])(run.state, {"signal": padded})[0, 1, :31]
  np.testing.assert_allclose(vectors(signal), expected, atol=1e-5)
  config.data.units = f"{tmp_path / 'run'}:1"
  data = build.prepare(config, data_dir=None, cache_dir=str(tmp_path / "cache"))
  assert set(np.unique(data.splits["train"].batch_at(0)["units"])) <= set(range(4)) and len(checksum) == 64
  for units, message in ((f"{tmp_path / 'run'}:7", "the layers are 0 to 1"), ("run", "must be mfcc, or RUN:LAYER")):
    config.data.units = units
    with pytest.raises(InputError, match=message):
      build.prepare(config, data_dir=None, cache_dir=str(tmp_path / "cache"))


def test_usage_by_hand():
  actual = usage(np.array([0, 0, 1, 2, 3]), np.array([0, 0, 0, 2, 4]))
  assert actual["accuracy"] == 0.6 and actual["coverage"] == 0.5
  assert (actual["predicted_units"], actual["held_out_units"]) == (3, 4)
  assert actual["predicted_perplexity"] == pytest.approx(np.exp(-(0.6 * np.log(0.6) + 0.4 * np.log(0.2))))


def test_what_does_not_fit_is_refused():
  for options, message in (
      (dict(mask_rate=0.0), "mask_rate=0.0"), (dict(hop_length=20), "a frame every 16 samples, the units"),
      (dict(temperature=0.0), "temperature=0.0"), (dict(embed_layer=3), "embed_layer=3: the layers are 0 to 1"),
      (dict(num_heads=3), "heads must divide dim")):
    with pytest.raises(InputError, match=message):
      hubert(**{**MODEL, **options})
  with pytest.raises(InputError, match="span_length=30: windows of 330 samples have 20 frames"):
    hubert(**{**MODEL, "span_length": 30}).init(jax.random.key(0), signals())
