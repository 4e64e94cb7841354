import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from hlo import collectives
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from embeddings_jax.models.words.cbow import cbow
from embeddings_jax.ops import hierarchical
from embeddings_jax.ops.sharding import DATA_AXES
from embeddings_jax.ops.word_blocks import Draws
from embeddings_jax.train.mesh import path_name
from embeddings_jax.types import InputError

VOCAB = 50
SMALL = dict(dim=7, window=2, group=8, shared_negatives=3, slack=1.0, max_mass=1e9,
             subsample=0.02)


def _model(**changes):
  counts = np.arange(VOCAB, 0, -1) ** 2
  # With room for every token `update` and the output `draws` make the same choices.
  return cbow(**{**dict(vocab_size=VOCAB, counts=counts, **SMALL), **changes})


def _batch(seed=0, num_blocks=2, length=21):
  noise = np.random.default_rng(seed)
  tokens = noise.integers(0, VOCAB, (num_blocks, length)).astype(np.int32)
  tokens[noise.uniform(size=tokens.shape) < 0.1] = -1
  return {"tokens": jnp.asarray(tokens), "mask": jnp.ones(num_blocks)}


def _random_tables(names, num_rows=64, seed=0):
  inside = jnp.arange(num_rows)[:, None] < VOCAB
  return {name: 0.5 * inside * jax.random.normal(jax.random.key(seed + i), (num_rows, 7))
          for i, name in enumerate(names)}


def _queries(draws, window, unit, num_masked):
  """All (block, position, contexts, targets) of the draws, by plain loops over their definition."""
  document, radius = np.asarray(draws.document), np.asarray(draws.radius)
  actual = []
  for b, row in enumerate(document):
    for i in range(len(row)):
      masked = [i + s for s in range(num_masked) if i + s < len(row) and row[i + s] == row[i] >= 0]
      last = i + num_masked - 1
      reach = radius[b, i] if unit == "window" else len(row)
      context = [j for j in range(len(row)) if row[j] == row[i] >= 0 and not i <= j <= last
                 and i - reach <= j <= last + reach]
      if context:
        actual.append((b, i, context, masked))
  return actual


def _objective(tables, draws, queries, context, objective="negative_sampling", paths=()):
  """The formula of the docstring, differentiable by whole tables."""
  tokens, negatives = np.asarray(draws.tokens), draws.negatives
  output, total = tables.get("output", tables["input"]), 0.0
  weights = np.zeros((len(queries),) + tokens.shape, np.float32)
  for n, (b, _, context_of, _) in enumerate(queries):
    weights[n, b, context_of] = 1 / len(context_of) if context == "mean" else 1
  rows = tables["input"].at[tokens].get(mode="fill", fill_value=0)
  z = jnp.einsum("nbi,bid->nd", weights, rows)
  at, words = np.array([(n, tokens[q[0], t]) for n, q in enumerate(queries) for t in q[3]]).T
  if objective == "softmax":
    return -jax.nn.log_softmax(z @ output[:VOCAB].T)[at, words].sum(), len(at)
  if objective == "hierarchical_softmax":
    points, codes = (jnp.asarray(x)[words] for x in paths)
    log = jax.vmap(hierarchical.log_probability, (0, None, 0, 0))(z[at], output, points, codes)
    return -log.sum(), len(at)
  negatives = np.asarray(negatives)
  group, shared = tokens.shape[1] // negatives.shape[1], negatives.shape[2]
  total = -jax.nn.log_sigmoid((z[at] * output[words]).sum(-1)).sum()
  noise = output[np.stack([negatives[q[0], q[1] // group] for q in queries])[at]]
  return total - 5 / shared * jax.nn.log_sigmoid(-jnp.einsum("pd,pkd->pk", z[at], noise)).sum(), len(at)


FORMS = {
    "mean window": {},
    "sum document tied": dict(context="sum", context_unit="document", tied=True, num_masked=2),
    "three masked": dict(num_masked=3),
    "tree": dict(objective="hierarchical_softmax"),
}


@pytest.mark.parametrize("form", FORMS)
def test_update_is_the_gradient_of_the_written_objective(form):
  form = FORMS[form]
  model, batch, rng = _model(learning_rate=0.1, **form), _batch(), jax.random.key(3)
  tables = _random_tables(["input"] if form.get("tied") else ["input", "output"])
  state = model.init(jax.random.key(0), None)._replace(**tables)
  draws = Draws(**jax.jit(model.outputs["draws"])(state, batch, rng))
  queries = _queries(draws, 2, form.get("context_unit", "window"), form.get("num_masked", 1))
  (loss, number), gradient = jax.jit(jax.value_and_grad(
      lambda tables: _objective(tables, draws, queries, form.get("context", "mean"),
                                form.get("objective", "negative_sampling"), (state.points, state.codes)),
      has_aux=True))(tables)
  new, metrics = jax.jit(model.update)(state, batch, rng)
  assert metrics["targets"] == number > 20
  np.testing.assert_allclose(metrics["loss"], loss / number, rtol=1e-5)
  for name in gradient:
    step = (getattr(state, name) - getattr(new, name)) / 0.1
    assert jnp.abs(gradient[name]).max() > 1
    np.testing.assert_allclose(step, gradient[name], atol=2e-5 * float(jnp.abs(gradient[name]).max()))


@pytest.mark.parametrize("form", ["mean window", "sum document tied"])
def test_softmax_has_the_gradient_of_the_written_objective(form):
  form = FORMS[form]
  model = _model(objective="softmax", optimizer=optax.sgd(0.1), chunk=6, **form)
  batch, rng = _batch(), jax.random.key(3)
  tables = _random_tables(["input"] if form.get("tied") else ["input", "output"])
  state = model.init(jax.random.key(0), None)
  state = state._replace(params={**state.params, **tables})
  draws = Draws(**jax.jit(model.outputs["draws"])(state, batch, rng))
  queries = _queries(draws, 2, form.get("context_unit", "window"), form.get("num_masked", 1))
  (loss, number), gradient = jax.jit(jax.value_and_grad(
      lambda tables: _objective(tables, draws, queries, form.get("context", "mean"), "softmax"),
      has_aux=True))(tables)
  new, metrics = jax.jit(model.update)(state, batch, rng)
  np.testing.assert_allclose(metrics["loss"], loss / number, rtol=1e-5)
  for name in gradient:
    np.testing.assert_allclose((state.params[name] - new.params[name]) / 0.1, gradient[name] / number, atol=2e-6)
    assert (new.params[name][VOCAB:] == 0).all()


def test_one_step_does_what_the_formula_says():
  # Two words that are each other's context: z = v_1 predicts word 0 and z = v_0 predicts word 1.
  model = _model(objective="softmax", context="sum", subsample=0, optimizer=optax.sgd(0.01))
  state = model.init(jax.random.key(0), None)
  tables = _random_tables(["input", "output"], seed=5)
  tables["input"] = tables["input"].at[:2].set(jnp.eye(2, 7))
  state = state._replace(params=tables)
  batch = {"tokens": jnp.array([[0, 1]]), "mask": jnp.ones(1)}
  new = jax.jit(model.update)(state, batch, jax.random.key(0))[0].params
  for context, target in ((0, 1), (1, 0)):
    query = tables["input"][context]
    assert (new["input"][context] - query) @ tables["output"][target] > 0  # The query moves towards the target,
    assert (new["output"][target] - tables["output"][target]) @ query > 0  # the target towards the query,
    assert (new["output"][2:VOCAB] @ query < tables["output"][2:VOCAB] @ query).all()  # all others lose.
  np.testing.assert_array_equal(new["input"][2:], tables["input"][2:])


def test_an_undivided_gradient_is_that_of_the_sum():
  batch, rng = {"tokens": jnp.array([[3, 4, 5]]), "mask": jnp.ones(1)}, jax.random.key(0)
  steps = {}
  for undivided in (False, True):
    model = _model(undivided=undivided, subsample=0, context_unit="document")
    state = model.init(jax.random.key(0), None)._replace(**_random_tables(["input", "output"]))
    new = jax.jit(model.update)(state, batch, rng)[0]
    steps[undivided] = new.input - state.input, new.output - state.output
  np.testing.assert_allclose(steps[True][0], 2 * steps[False][0], atol=1e-6)  # Each word has two contexts.
  np.testing.assert_array_equal(steps[True][1], steps[False][1])


def test_loss_of_equal_scores():
  # The output table starts at 0, so every score is 0.
  state = _model().init(jax.random.key(0), None)
  _, metrics = jax.jit(_model().update)(state, _batch(), jax.random.key(1))
  np.testing.assert_allclose(metrics["loss"], 6 * np.log(2), rtol=1e-6)
  model = _model(objective="softmax")
  state = model.init(jax.random.key(0), None)
  held_out = jax.jit(model.outputs["loss"])
  np.testing.assert_allclose(held_out(state, _batch()), np.log(VOCAB), rtol=1e-6)


def test_masked_blocks_and_words_alone_change_nothing():
  model, batch = _model(), _batch()
  state = model.init(jax.random.key(0), None)._replace(**_random_tables(["input", "output"]))
  update = jax.jit(model.update)
  alone = jnp.full_like(batch["tokens"], -1).at[:, ::2].set(7)
  for nothing in ({**batch, "mask": jnp.zeros(2)}, {"tokens": alone, "mask": jnp.ones(2)}):
    new, metrics = update(state, nothing, jax.random.key(0))
    assert (metrics["loss"], metrics["targets"], new.step) == (0, 0, 1)
    np.testing.assert_array_equal(new.input, state.input)
    np.testing.assert_array_equal(new.output, state.output)
  new, _ = update(state, batch, jax.random.key(0))
  assert (new.input[VOCAB:] == 0).all() and (new.output[VOCAB:] == 0).all()


def test_heavy_rows_are_shortened():
  free, held = (_model(learning_rate=0.1, max_mass=mass) for mass in (1e9, 1.0))
  state = free.init(jax.random.key(0), None)._replace(**_random_tables(["input", "output"]))
  free, held = (jax.jit(model.update)(state, _batch(), jax.random.key(0))[0] for model in (free, held))
  for name in ("input", "output"):
    step, shorter = (np.asarray(getattr(new, name) - getattr(state, name)) for new in (free, held))
    lengths = np.linalg.norm(step, axis=1), np.linalg.norm(shorter, axis=1)
    moved = lengths[0] > 1e-3
    assert (lengths[1][moved] < 0.9 * lengths[0][moved]).sum() > 10
    np.testing.assert_allclose((step * shorter).sum(1)[moved], lengths[0][moved] * lengths[1][moved], rtol=1e-3)


def test_tables_are_updated_in_place():
  vocab = 20_000
  model = cbow(vocab_size=vocab, counts=np.ones(vocab), dim=16)
  state = jax.eval_shape(lambda key: model.init(key, None), jax.random.key(0))
  batches = {"tokens": jax.ShapeDtypeStruct((5, 1, 64), jnp.int32), "mask": jax.ShapeDtypeStruct((5, 1), jnp.float32)}

  def run(state, batches):
    step = lambda s, b: model.update(s, b, jax.random.fold_in(jax.random.key(0), s.step))
    return jax.lax.scan(step, state, batches)

  compiled = jax.jit(run, donate_argnums=0).lower(state, batches).compile()
  assert compiled.memory_analysis().temp_size_in_bytes < state.input.size * 4 / 2  # No second copy of either table.


def _topics():
  """[300, 256] tokens: each document of 15 words is about one of 8 topics of 12 words."""
  noise = np.random.default_rng(0)
  topic = noise.integers(0, 8, (300, 16, 1))
  tokens = (noise.integers(0, 12, (300, 16, 16)) * 8 + topic).reshape(300, 256)
  tokens[:, ::16] = -1
  return tokens.astype(np.int32)


@pytest.mark.parametrize("form", [dict(), dict(objective="softmax", context_unit="document", context="sum",
                                               tied=True, optimizer=optax.adam(0.01)),
                                  dict(objective="hierarchical_softmax")], ids=["sampled", "textbook", "tree"])
def test_words_of_a_topic_become_neighbors(form):
  tokens, vocab = _topics(), 96
  model = cbow(vocab_size=vocab, counts=np.bincount(tokens[tokens >= 0], minlength=vocab), dim=16, subsample=0,
               num_steps=600, learning_rate=0.1, **form)

  @jax.jit
  def run(state):
    key = jax.random.key(1)
    step = lambda s, x: model.update(s, {"tokens": x[None], "mask": jnp.ones(1)}, jax.random.fold_in(key, s.step))
    state, first = jax.lax.scan(step, state, jnp.asarray(tokens))
    state, second = jax.lax.scan(step, state, jnp.asarray(tokens))
    return state, first["loss"][0], second["loss"][-20:].mean()

  state, first, last = run(model.init(jax.random.key(0), None))
  vectors = np.asarray(jax.jit(model.embed)(state, {"tokens": jnp.arange(vocab)[:, None]}))
  vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
  nearest = np.argsort(-(vectors @ vectors.T) + 2 * np.eye(vocab), axis=1)[:, :11]
  assert (nearest % 8 == np.arange(vocab)[:, None] % 8).mean() > 0.99
  assert last < first - 0.5


@pytest.mark.parity
def test_cosines_agree_with_gensim():
  import gensim

  # Words on a circle: texts are about a place on it, so that similarity is graded. Frequencies fall as 1 / rank.
  vocab, length, num_blocks, epochs = 300, 512, 600, 3
  noise = np.random.default_rng(0)
  angle, frequency = noise.uniform(0, 1, vocab), 1 / np.arange(10, vocab + 10)
  rows = []
  for center in noise.uniform(0, 1, num_blocks * length // 32):
    distance = np.abs((angle - center + 0.5) % 1 - 0.5)
    share = frequency * np.exp(-((distance / 0.1) ** 2)) + 0.05 * frequency
    rows.append(noise.choice(vocab, 32, p=share / share.sum()))
  rows = np.stack(rows).astype(np.int32)
  rows[:, 0] = -1
  model = cbow(vocab_size=vocab, counts=np.bincount(rows[rows >= 0], minlength=vocab), dim=16, subsample=0.01,
               num_steps=epochs * num_blocks, undivided=True, learning_rate=0.025,
               shared_negatives=32, group=32,
               max_mass=512.0)  # 300 words: each is often in a batch.

  @jax.jit
  def run(state, batches):
    key = jax.random.key(1)
    step = lambda s, x: model.update(s, {"tokens": x, "mask": jnp.ones(1)}, jax.random.fold_in(key, s.step))
    return jax.lax.scan(step, state, batches)[0]

  state, batches = model.init(jax.random.key(0), None), jnp.asarray(rows.reshape(num_blocks, 1, length))
  for _ in range(epochs):
    state = run(state, batches)
  sentences = [[str(word) for word in row[1:]] for row in rows]
  theirs = gensim.models.Word2Vec(sentences, vector_size=16, window=5, negative=5, sg=0, cbow_mean=1, sample=0.01,
                                  min_count=1, epochs=epochs, workers=1, seed=0)

  def cosines(vectors):
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors @ vectors.T)[np.triu_indices(vocab, 1)]

  ours = cosines(np.asarray(state.input[:vocab]))
  reference = cosines(np.stack([theirs.wv[str(word)] for word in range(vocab)]))
  truth = -np.abs((angle[:, None] - angle + 0.5) % 1 - 0.5)[np.triu_indices(vocab, 1)]
  rank = lambda a, b: scipy.stats.spearmanr(a, b)[0]
  assert rank(ours, reference) > 0.9
  assert rank(ours, truth) > rank(reference, truth) - 0.04


@pytest.mark.parametrize("tied", [False, True])
def test_no_collective_moves_a_table(tied):
  mesh = jax.make_mesh((2, 2, 2), ("data", "fsdp", "model"), axis_types=(AxisType.Auto,) * 3)
  num_blocks, length, dim = 8, 32, 8
  update_rows = num_blocks * (length + 8 + length * tied)  # Of targets and noise words, and of contexts in one table.
  vocab = 64 * update_rows
  model = cbow(vocab_size=vocab, counts=np.ones(vocab), dim=dim, shared_negatives=8, group=32, tied=tied)
  state = jax.eval_shape(lambda key: model.init(key, None), jax.random.key(0))
  layout = jax.tree_util.tree_map_with_path(lambda path, _: NamedSharding(
      mesh, model.rules[0][1] if re.search(model.rules[0][0], path_name(path)) else P()), state)
  rows = NamedSharding(mesh, P(DATA_AXES))
  state = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, layout)
  batch = {"tokens": jax.ShapeDtypeStruct((num_blocks, length), jnp.int32, sharding=rows),
           "mask": jax.ShapeDtypeStruct((num_blocks,), jnp.float32, sharding=rows)}
  step = jax.jit(model.update, donate_argnums=0, out_shardings=(layout, NamedSharding(mesh, P())))
  with jax.set_mesh(mesh):
    compiled = step.lower(state, batch, jax.random.key(0)).compile()
  moved = [size for _, sizes in collectives(compiled) for size in sizes]
  assert max(moved) <= 4 * update_rows * dim < 4 * vocab * dim / 8 / 2


def test_bad_arguments_are_named():
  with pytest.raises(InputError, match="context='median': must be one of mean, sum"):
    _model(context="median")
  with pytest.raises(InputError, match="objective=hierarchical_softmax: predicts one word"):
    _model(objective="hierarchical_softmax", tied=True)
  with pytest.raises(InputError, match="num_masked=0: must be at least 1"):
    _model(num_masked=0)
  with pytest.raises(InputError, match="group=0: must be at least 1"):
    _model(group=0)
  with pytest.raises(InputError, match=r"full softmax over 5000000 words of 100 dimensions needs about 36.5 GB"):
    cbow(vocab_size=5_000_000, counts=np.ones(5_000_000), objective="softmax")


def test_the_second_layer_is_an_attention_head():
  """With the query z, the mean of the context, and the output vectors V as keys and values, a head without scaling
  gives sum_w p(w | z) V_w, p the softmax of CBOW's scores: the gradient of log p(w | z) is V_w minus that."""
  model, batch = _model(), _batch()
  state = model.init(jax.random.key(0), batch)._replace(**_random_tables(("input", "output")))
  tables = model.outputs["components"](state)
  z = model.embed(state, {"tokens": batch["tokens"], "mask": batch["mask"]})
  V = tables["output"]
  head = jax.nn.dot_product_attention(z[None, :, None], V[None, :, None], V[None, :, None], scale=1.0)[0, :, 0]
  p = jax.nn.softmax(z @ V.T)
  np.testing.assert_allclose(head, p @ V, rtol=1e-5, atol=1e-6)
  words = jnp.array([3, 41])
  log_p = lambda z: jnp.take_along_axis(jax.nn.log_softmax(z @ V.T), words[:, None], 1).sum()
  np.testing.assert_allclose(jax.grad(log_p)(z), V[words] - head, rtol=1e-5, atol=1e-6)
  means = [tables["input"][row[row >= 0]].mean(0) for row in np.asarray(batch["tokens"])]
  np.testing.assert_allclose(z, means, rtol=1e-5, atol=1e-6)
