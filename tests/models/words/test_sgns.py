import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hlo import collectives
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from embeddings_jax.models.words.sgns import sgns
from embeddings_jax.ops.sharding import DATA_AXES
from embeddings_jax.ops.word_blocks import Draws
from embeddings_jax.train.mesh import path_name
from embeddings_jax.types import InputError

VOCAB = 50
SMALL = dict(dim=7, window=2, tile=4, tiles_per_group=2, shared_negatives=3, slack=1.0)


def _model(**changes):
  counts = np.arange(VOCAB, 0, -1) ** 2
  # With room for every token `update` and the output `draws` make the same choices.
  return sgns(**{**dict(vocab_size=VOCAB, counts=counts, **SMALL), **changes})


def _batch(seed=0, num_blocks=3, length=29):
  noise = np.random.default_rng(seed)
  tokens = noise.integers(0, VOCAB, (num_blocks, length)).astype(np.int32)
  tokens[noise.uniform(size=tokens.shape) < 0.1] = -1
  return {"tokens": jnp.asarray(tokens), "mask": jnp.ones(num_blocks)}


def _trained_state(model, seed=0):
  """A state whose two tables are far from their start, so that no gradient vanishes."""
  state = model.init(jax.random.key(seed), None)
  inside = jnp.arange(len(state.input))[:, None] < VOCAB
  tables = 0.5 * jax.random.normal(jax.random.key(seed + 1), (2,) + state.input.shape) * inside
  return state._replace(input=tables[0], output=tables[1])


def _draws(model, state, batch, rng):
  return Draws(**jax.jit(model.outputs["draws"])(state, batch, rng))


def _pairs(draws, window):
  """All (block, position, context) of the draws, by plain loops over their definition."""
  tokens, document, radius = (np.asarray(x) for x in (draws.tokens, draws.document, draws.radius))
  size = tokens.shape[1]
  return [(b, i, j) for b in range(len(tokens)) for i in range(size) for j in range(size)
          if i != j and abs(i - j) <= min(radius[b, i], window) and document[b, i] == document[b, j] >= 0]


def _objective(tables, draws, pairs, num_negatives=5):
  """The formula of the docstring with explicit pairs, differentiable by whole tables."""
  tokens, negatives = np.asarray(draws.tokens), np.asarray(draws.negatives)
  group, shared = tokens.shape[1] // negatives.shape[1], negatives.shape[2]
  block, center, context = np.array(pairs).T
  v = tables["input"][tokens[block, center]]
  total = -jax.nn.log_sigmoid((v * tables["output"][tokens[block, context]]).sum(-1)).sum()
  noise = tables["output"][negatives[block, center // group]]
  return total - num_negatives / shared * jax.nn.log_sigmoid(-jnp.einsum("pd,pkd->pk", v, noise)).sum()


def _loss_and_gradient(state, draws, pairs):
  tables = {"input": state.input, "output": state.output}
  return jax.jit(jax.value_and_grad(lambda tables: _objective(tables, draws, pairs)))(tables)


def test_update_is_the_gradient_of_the_written_objective():
  model, batch, rng = _model(learning_rate=0.1, max_mass=1e9), _batch(), jax.random.key(3)
  state = _trained_state(model)
  draws = _draws(model, state, batch, rng)
  pairs = _pairs(draws, 2)
  loss, gradient = _loss_and_gradient(state, draws, pairs)
  new, metrics = jax.jit(model.update)(state, batch, rng)
  assert metrics["pairs"] == len(pairs) > 50
  np.testing.assert_allclose(metrics["loss"], loss / len(pairs), rtol=1e-5)
  for name in gradient:
    step = (getattr(state, name) - getattr(new, name)) / 0.1
    assert jnp.abs(gradient[name]).max() > 1
    np.testing.assert_allclose(step, gradient[name], atol=2e-5 * float(jnp.abs(gradient[name]).max()))


def test_heavy_rows_are_shortened_by_their_mass():
  model, batch, rng = _model(learning_rate=0.1, max_mass=20.0), _batch(), jax.random.key(3)
  state = _trained_state(model)
  draws = _draws(model, state, batch, rng)
  pairs = _pairs(draws, 2)
  _, gradient = _loss_and_gradient(state, draws, pairs)
  mass = {"input": np.zeros(len(state.input)), "output": np.zeros(len(state.input))}
  for b, i, j in pairs:
    mass["input"][draws.tokens[b, i]] += 1 + 5
    mass["output"][draws.tokens[b, j]] += 1
    for word in np.asarray(draws.negatives[b, i // 8]):
      mass["output"][word] += 5 / 3
  new, _ = jax.jit(model.update)(state, batch, rng)
  for name in mass:
    scale = np.minimum(1, 20 / np.maximum(mass[name], 1e-9))
    assert (scale < 1).sum() > 5 and (scale == 1).sum() > 5
    step = (getattr(state, name) - getattr(new, name)) / 0.1
    np.testing.assert_allclose(step, scale[:, None] * gradient[name], atol=1e-4)


def test_loss_of_equal_scores_is_six_log_two():
  # The output table starts at 0, so every score is 0 and each of a pair's 1 + 5 terms is log 2.
  model = _model()
  state = model.init(jax.random.key(0), None)
  # Optimized, as users run it (`conftest.py` asks for quick compilation): vector sums round less.
  update = jax.jit(model.update, compiler_options={"xla_backend_optimization_level": 3})
  _, metrics = update(state, _batch(), jax.random.key(1))
  np.testing.assert_allclose(metrics["loss"], 6 * np.log(2), rtol=1e-6)
  held_out = jax.jit(model.outputs["loss"])(state, _batch())
  np.testing.assert_allclose(held_out, 6 * np.log(2), rtol=1e-6)


def test_kept_tokens_stay_in_order_and_documents_apart():
  model, batch = _model(subsample=0.02), _batch(num_blocks=8, length=100)
  draws = _draws(model, _trained_state(model), batch, jax.random.key(0))
  for row, kept, document in zip(np.asarray(batch["tokens"]), np.asarray(draws.tokens), np.asarray(draws.document)):
    size = (document >= 0).sum()
    assert 0 < size < 100 and (document[size:] == -1).all() and (kept[size:] == VOCAB).all()
    texts = np.split(row, np.flatnonzero(row < 0))
    for number, text in enumerate(texts):
      whole, part = [w for w in text if w >= 0], kept[document == number]
      rest = iter(whole)
      assert all(word in rest for word in part)  # A subsequence of that document and of no other.


def test_no_gradient_crosses_a_document_boundary():
  model = _model(subsample=0, num_negatives=0)
  state = _trained_state(model)
  batch = {"tokens": jnp.array([[1, 2, 3, -1, 4, 5, 6, -1, 7]]), "mask": jnp.ones(1)}
  draws = _draws(model, state, batch, jax.random.key(0))
  assert draws.document.tolist()[0][:8] == [0, 0, 0, 1, 1, 1, 2, -1]
  before = jax.jit(model.update)(state, batch, jax.random.key(0))[0]
  changed = state._replace(output=state.output.at[4:7].add(1))  # Another second document ...
  after = jax.jit(model.update)(changed, batch, jax.random.key(0))[0]
  np.testing.assert_array_equal(before.input[1:4], after.input[1:4])  # ... is not seen by the first,
  assert (before.input[4:7] != after.input[4:7]).any(1).all()
  np.testing.assert_array_equal(before.input[7], state.input[7])  # and a word alone has no pairs.


def test_subsampling_radius_and_noise_have_their_distributions():
  counts = np.array([6000, 2500, 1000, 400, 90, 10])
  model = sgns(vocab_size=6, counts=counts, subsample=0.01, window=5, dim=2)
  state = model.init(jax.random.key(0), None)
  length, num_blocks = 2048, 60
  tokens = np.tile(np.arange(length) % 6, (num_blocks, 1)).astype(np.int32)
  draws = _draws(model, state, {"tokens": tokens, "mask": np.ones(num_blocks)}, jax.random.key(1))

  frequency = counts / counts.sum()
  keep = np.minimum(1, np.sqrt(0.01 / frequency) + 0.01 / frequency)
  kept = np.bincount(np.asarray(draws.tokens).ravel(), minlength=7)[:6]
  offered = np.bincount(tokens.ravel())
  error = np.sqrt(offered * keep * (1 - keep))
  assert (np.abs(kept - offered * keep) <= 3 * error).all()
  assert (kept[keep == 1] == offered[keep == 1]).all() and (keep == 1).sum() == 2

  def agrees(values, share):
    seen = np.bincount(values, minlength=len(share))
    assert len(seen) == len(share)
    share = share / share.sum()
    assert (np.abs(seen - len(values) * share) <= 3 * np.sqrt(len(values) * share * (1 - share))).all()

  agrees(np.asarray(draws.radius).ravel() - 1, np.ones(5))
  agrees(np.asarray(draws.negatives).ravel(), counts**0.75)


def test_shares_of_noise_words_are_those_of_the_distribution():
  counts = np.random.default_rng(0).pareto(1, 100_000) + 1
  counts[0], counts[7] = 1e10, 0  # In 24-bit floats the shares of the others, near 1e-7, would be multiples of 6e-8.
  noise = sgns(vocab_size=100_000, counts=counts, dim=2).init(jax.random.key(0), None).noise
  share = np.diff(np.asarray(noise, np.float64), prepend=0) / 2**32
  expected = counts**0.75 / (counts**0.75).sum()
  np.testing.assert_allclose(share[:100_000], expected, rtol=0, atol=1.01 * 2**-32)
  assert share[7] == 0 and (share[100_000:] == 0).all() and expected[1:].min() < 1e-7


def test_noise_words_are_one_from_each_part_of_the_distribution():
  counts = np.arange(40, 0, -1) ** 2.0
  model = sgns(vocab_size=40, counts=counts, subsample=0, shared_negatives=8, dim=2)
  state = model.init(jax.random.key(0), None)
  batch = {"tokens": np.zeros((20, 256), np.int32), "mask": np.ones(20)}
  drawn = np.asarray(_draws(model, state, batch, jax.random.key(1)).negatives).reshape(-1, 8)
  reach = np.cumsum(counts**0.75) / (counts**0.75).sum() * 8
  first, last = np.searchsorted(reach, np.arange(8), "right"), np.searchsorted(reach, np.arange(1, 9))
  assert (drawn >= first).all() and (drawn <= last).all()
  assert (drawn.min(0) == first).all() and (drawn.max(0)[:-1] == last[:-1]).all()  # The very last are too rare.


def test_no_row_past_the_vocabulary_moves():
  model = _model(learning_rate=1.0)
  state = model.init(jax.random.key(0), None)
  assert state.input.shape == (64, 7) and (state.input[:VOCAB] != 0).any(1).all()
  for i in range(20):
    state, _ = jax.jit(model.update)(state, _batch(i), jax.random.key(i))
  assert (state.output[:VOCAB] != 0).any(1).all()
  assert (state.input[VOCAB:] == 0).all() and (state.output[VOCAB:] == 0).all()


def test_masked_blocks_change_nothing():
  model, batch = _model(), _batch(num_blocks=4)
  state = _trained_state(model)
  nothing = {**batch, "mask": jnp.zeros(4)}
  new, metrics = jax.jit(model.update)(state, nothing, jax.random.key(0))
  assert (metrics["loss"], metrics["pairs"], metrics["words"], new.step) == (0, 0, 0, 1)
  np.testing.assert_array_equal(new.input, state.input)
  np.testing.assert_array_equal(new.output, state.output)
  # A block that is padding does what a block of boundaries does.
  half = {**batch, "mask": jnp.array([1, 1, 0, 0])}
  empty = {"tokens": batch["tokens"].at[2:].set(-1), "mask": jnp.ones(4)}
  a, b = (jax.jit(model.update)(state, x, jax.random.key(0))[0] for x in (half, empty))
  np.testing.assert_array_equal(a.input, b.input)
  np.testing.assert_array_equal(a.output, b.output)


def test_tiles_are_only_a_layout():
  # A block of 32 positions with one set of noise words, cut into tiles of 4, 16 and 32.
  batch, rng, new = _batch(), jax.random.key(0), []
  for tile in (4, 16, 32):
    model = _model(tile=tile, tiles_per_group=32 // tile)
    new.append(jax.jit(model.update)(_trained_state(model), batch, rng))
  assert jnp.abs(new[0][0].input - _trained_state(_model()).input).max() > 0.01
  for other in new[1:]:
    chex.assert_trees_all_close(new[0], other, atol=1e-5, rtol=1e-5)


def test_bfloat16_rounds_the_factors_only():
  steps = {}
  for dtype in ("float32", "bfloat16"):
    model = _model(dtype=dtype)
    state = _trained_state(model)
    new, _ = model.update(state, _batch(), jax.random.key(3))
    assert new.input.dtype == new.output.dtype == jnp.float32
    steps[dtype] = np.asarray(new.input - state.input)
  error = np.abs(steps["bfloat16"] - steps["float32"]).max() / np.abs(steps["float32"]).max()
  assert 1e-5 < error < 1e-2  # bfloat16 has 8 bits.


def test_update_is_closed_and_traced_once_in_a_scan():
  model = _model(num_steps=10)
  state = model.init(jax.random.key(0), None)
  chex.clear_trace_counter()  # It knows functions by their source.

  @chex.assert_max_traces(n=1)
  def update(state, x):
    return model.update(state, {"tokens": x[0], "mask": jnp.ones(3)}, x[1])

  batches = jnp.stack([_batch(i)["tokens"] for i in range(10)]), jax.random.split(jax.random.key(0), 10)
  run = jax.jit(lambda state: jax.lax.scan(update, state, batches), donate_argnums=0)
  single = jax.tree.map(jnp.copy, state)
  new, metrics = run(state)
  aval = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype, x.aval.weak_type), tree)
  assert aval(new) == aval(single)
  np.testing.assert_allclose(metrics["learning_rate"], 0.025 * (1 - np.arange(10) / 10 * (1 - 1e-4)), rtol=1e-5)
  for i in range(10):
    single, _ = jax.jit(model.update)(single, {"tokens": batches[0][i], "mask": jnp.ones(3)}, batches[1][i])
  np.testing.assert_allclose(new.input, single.input, atol=1e-6)


def test_tables_are_updated_in_place():
  vocab, length = 20_000, 64
  model = sgns(vocab_size=vocab, counts=np.ones(vocab), dim=16)
  state = jax.eval_shape(lambda key: model.init(key, None), jax.random.key(0))
  batches = {"tokens": jax.ShapeDtypeStruct((5, 1, length), jnp.int32),
             "mask": jax.ShapeDtypeStruct((5, 1), jnp.float32)}

  def run(state, batches):
    step = lambda s, b: model.update(s, b, jax.random.fold_in(jax.random.key(0), s.step))
    return jax.lax.scan(step, state, batches)

  compiled = jax.jit(run, donate_argnums=0).lower(state, batches).compile()
  table_bytes = state.input.size * 4
  assert compiled.memory_analysis().temp_size_in_bytes < table_bytes / 2  # No second copy of either table.


def test_tokens_without_room_are_counted():
  counts = np.r_[np.full(4, 10**6), np.ones(46)]  # Of the frequent words some 4 % stay, of the rare ones all.
  model = sgns(vocab_size=VOCAB, counts=counts, subsample=1e-4, slack=0.25, tile=8, dim=4)
  state = model.init(jax.random.key(0), None)
  rare = {"tokens": jnp.full((2, 160), 10), "mask": jnp.ones(2)}
  usual = {"tokens": jnp.full((2, 160), 1), "mask": jnp.ones(2)}
  room = 48  # (.02 + .25) * 160 = 43.4, rounded up to tiles of 8.
  _, metrics = jax.jit(model.update)(state, rare, jax.random.key(0))
  assert (metrics["words"], metrics["overflow"]) == (320, 2 * (160 - room))
  assert 0 < metrics["pairs"] <= 2 * 10 * room
  _, metrics = jax.jit(model.update)(state, usual, jax.random.key(0))
  assert (metrics["words"], metrics["overflow"]) == (320, 0)


def test_embed_is_the_mean_of_the_valid_words():
  model = _model()
  state = _trained_state(model)
  batch = {"tokens": jnp.array([[3, -1, -1], [3, 5, -1], [-1, -1, -1], [VOCAB, 4, 10**6]])}
  vectors = np.asarray(jax.jit(model.embed)(state, batch))
  expected = [state.input[3], (state.input[3] + state.input[5]) / 2, np.zeros(7), state.input[4]]
  np.testing.assert_allclose(vectors, expected, atol=1e-6)
  tables = model.outputs["components"](state)
  assert tables["input"].shape == tables["output"].shape == (VOCAB, 7)


def test_words_of_a_topic_become_neighbors():
  num_topics, per_topic, length = 8, 12, 256
  vocab = num_topics * per_topic
  noise = np.random.default_rng(0)
  topic = noise.integers(0, num_topics, (300, length // 16, 1))
  tokens = (noise.integers(0, per_topic, (300, length // 16, 16)) * num_topics + topic).reshape(300, length)
  tokens[:, ::16] = -1  # Each text of 15 words is a document with one topic.
  model = sgns(vocab_size=vocab, counts=np.bincount(tokens[tokens >= 0], minlength=vocab), dim=16, window=5,
               num_steps=600, subsample=0, learning_rate=0.05)

  @jax.jit
  def run(state):
    batches = jnp.asarray(tokens.astype(np.int32)).reshape(300, 1, length)
    key = jax.random.key(1)
    step = lambda s, x: model.update(s, {"tokens": x, "mask": jnp.ones(1)}, jax.random.fold_in(key, s.step))
    state, first = jax.lax.scan(step, state, batches)
    state, second = jax.lax.scan(step, state, batches)
    return state, first["loss"][0], second["loss"][-20:].mean()

  state, first, last = run(model.init(jax.random.key(0), None))
  vectors = np.array(state.input[:vocab])
  vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
  nearest = np.argsort(-(vectors @ vectors.T) + 2 * np.eye(vocab), axis=1)[:, :per_topic - 1]
  assert (nearest % num_topics == np.arange(vocab)[:, None] % num_topics).mean() > 0.99
  assert last < first - 0.5
  # An embedding that has learnt nothing finds a neighbor of the same topic in 11 of 95 cases.
  vectors = np.random.default_rng(1).normal(size=(vocab, 16))
  nearest = np.argsort(-(vectors @ vectors.T), axis=1)[:, :per_topic - 1]
  assert (nearest % num_topics == np.arange(vocab)[:, None] % num_topics).mean() < 0.25


@pytest.mark.parity
def test_cosines_agree_with_gensim():
  import gensim

  # Words on a circle: texts are about a place on it, so that similarity is graded. Frequencies fall as 1 / rank.
  vocab, length, num_blocks, epochs = 300, 512, 600, 2
  noise = np.random.default_rng(0)
  angle, frequency = noise.uniform(0, 1, vocab), 1 / np.arange(10, vocab + 10)
  rows = []
  for center in noise.uniform(0, 1, num_blocks * length // 32):
    distance = np.abs((angle - center + 0.5) % 1 - 0.5)
    share = frequency * np.exp(-((distance / 0.1) ** 2)) + 0.05 * frequency
    rows.append(noise.choice(vocab, 32, p=share / share.sum()))
  rows = np.stack(rows).astype(np.int32)
  rows[:, 0] = -1
  model = sgns(vocab_size=vocab, counts=np.bincount(rows[rows >= 0], minlength=vocab), dim=16, subsample=0.01,
               num_steps=epochs * num_blocks, max_mass=512.0)  # 300 words: each is often in a batch.

  @jax.jit
  def run(state, batches):
    key = jax.random.key(1)
    step = lambda s, x: model.update(s, {"tokens": x, "mask": jnp.ones(1)}, jax.random.fold_in(key, s.step))
    return jax.lax.scan(step, state, batches)[0]

  state, batches = model.init(jax.random.key(0), None), jnp.asarray(rows.reshape(num_blocks, 1, length))
  for _ in range(epochs):
    state = run(state, batches)
  sentences = [[str(word) for word in row[1:]] for row in rows]
  theirs = gensim.models.Word2Vec(sentences, vector_size=16, window=5, negative=5, sg=1, sample=0.01, min_count=1,
                                  epochs=epochs, workers=1, seed=0)

  def cosines(vectors):
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors @ vectors.T)[np.triu_indices(vocab, 1)]

  ours = cosines(np.asarray(state.input[:vocab]))
  reference = cosines(np.stack([theirs.wv[str(word)] for word in range(vocab)]))
  truth = -np.abs((angle[:, None] - angle + 0.5) % 1 - 0.5)[np.triu_indices(vocab, 1)]
  rank = lambda a, b: scipy.stats.spearmanr(a, b)[0]
  assert rank(ours, reference) > 0.94
  assert rank(ours, truth) > rank(reference, truth) - 0.04  # Measured: .87 and .89.


def _mesh(shape):
  return jax.make_mesh(shape, ("data", "fsdp", "model"), axis_types=(AxisType.Auto,) * 3,
                       devices=jax.devices()[:np.prod(shape)])


def _compiled(model, mesh, num_blocks, length):
  rule = re.compile(model.rules[0][0])
  state = jax.eval_shape(lambda key: model.init(key, None), jax.random.key(0))
  layout = jax.tree_util.tree_map_with_path(
      lambda path, _: NamedSharding(mesh, model.rules[0][1] if rule.search(path_name(path)) else P()), state)
  rows = NamedSharding(mesh, P(DATA_AXES))
  batch = {"tokens": jax.ShapeDtypeStruct((num_blocks, length), jnp.int32, sharding=rows),
           "mask": jax.ShapeDtypeStruct((num_blocks,), jnp.float32, sharding=rows)}
  state = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, layout)
  step = jax.jit(model.update, donate_argnums=0, out_shardings=(layout, NamedSharding(mesh, P())))
  with jax.set_mesh(mesh):
    return step.lower(state, batch, jax.random.key(0)).compile(), layout, rows


@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 2, 2), (1, 1, 8)])
def test_eight_devices_equal_one(shape):
  model = _model(num_steps=20)
  mesh = _mesh(shape)
  step, layout, rows = _compiled(model, mesh, 8, 29)
  one = _trained_state(model)
  many = jax.tree.map(jax.device_put, jax.tree.map(jnp.copy, one), layout)
  start = one.input
  for i in range(10):
    batch, rng = _batch(i, 8), jax.random.key(i)
    one, expected = jax.jit(model.update)(one, batch, rng)
    many, metrics = step(many, jax.tree.map(lambda x: jax.device_put(x, rows), batch), rng)
    np.testing.assert_allclose(metrics["loss"], expected["loss"], rtol=1e-5)
    assert metrics["pairs"] == expected["pairs"]
  assert jnp.linalg.norm(one.input - start) > 1
  for name in ("input", "output"):
    assert getattr(many, name).sharding.is_equivalent_to(getattr(layout, name), 2)
    np.testing.assert_allclose(getattr(many, name), getattr(one, name), atol=1e-5)


@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 2, 2), (1, 1, 8)])
def test_no_collective_moves_a_table(shape):
  num_blocks, length, dim = 8, 32, 8
  update_rows = num_blocks * (length + 2 * 5 + 8)  # Rows of a batch's tiles: positions, their halo, noise words.
  vocab = 64 * update_rows
  model = sgns(vocab_size=vocab, counts=np.ones(vocab), dim=dim, shared_negatives=8, tile=32)
  compiled = _compiled(model, _mesh(shape), num_blocks, length)[0]
  moved = [size for _, sizes in collectives(compiled) for size in sizes]
  assert max(moved) <= 4 * update_rows * dim  # The updates themselves; a table, or an eighth of one, is far more.
  assert max(moved) < 4 * vocab * dim / 8 / 2


def test_bad_arguments_are_named():
  with pytest.raises(InputError, match=r"counts of shape \(3,\).*vocab_size=4"):
    sgns(vocab_size=4, counts=np.ones(3))
  with pytest.raises(InputError, match="all counts are 0"):
    sgns(vocab_size=4, counts=np.zeros(4))
  with pytest.raises(InputError, match="shared_negatives=0: must be at least 1"):
    sgns(vocab_size=4, counts=np.ones(4), shared_negatives=0)
  with pytest.raises(InputError, match="dtype=.float16.: must be one of"):
    sgns(vocab_size=4, counts=np.ones(4), dtype="float16")
  with pytest.raises(InputError, match="window=40 exceeds tile=22"):
    sgns(vocab_size=4, counts=np.ones(4), window=40)


def test_the_hierarchical_softmax_learns_and_has_its_loss():
  """Equal scores cost log 2 a turn; training lowers the loss on text in which a word is known from its neighbors."""
  model = _model(loss="hierarchical_softmax", learning_rate=0.2, max_mass=8.0, subsample=0)
  tokens = (np.arange(29) + np.array([[0], [7], [20]])) % VOCAB
  batch = {"tokens": jnp.asarray(tokens, jnp.int32), "mask": jnp.ones(3)}
  state = model.init(jax.random.key(0), batch)
  lengths = (np.asarray(state.codes)[:VOCAB] >= 0).sum(1)
  draws = _draws(model, state, batch, jax.random.key(1))
  pairs = np.array(_pairs(draws, SMALL["window"]))
  turns = lengths[np.asarray(draws.tokens)[pairs[:, 0], pairs[:, 1]]]  # A center is predicted from its context.
  update = jax.jit(model.update)
  _, metrics = update(state, batch, jax.random.key(1))
  np.testing.assert_allclose(metrics["loss"], np.log(2) * turns.mean(), rtol=1e-5)
  first = jax.jit(model.outputs["loss"])(state, batch)
  for step in range(200):
    state, _ = update(state, batch, jax.random.key(step))
  assert jax.jit(model.outputs["loss"])(state, batch) < 0.75 * first
