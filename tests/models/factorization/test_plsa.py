"""Topics: EM against a plain loop and scikit-learn, the free energy, tempering, streams, and several devices."""
from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from hlo import collectives
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from embeddings_jax.data.bags import bag_source, count_documents, from_matrix
from embeddings_jax.models.factorization.plsa import plsa
from embeddings_jax.ops.sharding import DATA_AXES
from embeddings_jax.train.checkpoints import Checkpoints
from embeddings_jax.train.loop import train
from embeddings_jax.types import InputError


def planted(documents=120, words=40, topics=4, length=60, seed=0):
  """Counts of documents that mix topics with words of their own, and the mixtures."""
  noise = np.random.default_rng(seed)
  beta = np.full((topics, words), 0.02 / words)
  for k in range(topics):
    beta[k, k::topics] += noise.dirichlet(np.ones(words // topics)) * 0.98
  theta = noise.dirichlet(np.full(topics, 0.2), documents)
  counts = np.stack([noise.multinomial(length, p / p.sum()) for p in theta @ beta]).astype(np.float64)
  return counts, theta, beta


def bags_of(counts, folder):
  """Bags whose words are w000, w001, ... in the order of the vocabulary."""
  words = [f"w{i:03}" for i in range(counts.shape[1])]
  return count_documents(from_matrix("planted", scipy.sparse.csr_array(counts), words), cache_dir=folder)


def dense(bags):
  shape = len(bags.indptr) - 1, bags.facts["vocab_size"]
  return np.asarray(scipy.sparse.csr_array((bags.count, bags.col, bags.indptr), shape=shape).todense(), np.float64)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
  """Counts [120, 40], their bags and all of them as one batch of 8 blocks; document 5 is empty."""
  counts, theta, beta = planted()
  counts[5] = 0
  bags = bags_of(counts, tmp_path_factory.mktemp("cache"))
  batch = jax.tree.map(jnp.asarray, bag_source(bags).batch_at(0))
  return SimpleNamespace(bags=bags, counts=dense(bags), theta=theta, batch=batch)


def model_of(bags, **options):
  options = {"num_topics": 4, "tol": 0.0, **options}
  return plsa(vocab_size=bags.facts["vocab_size"], num_documents=bags.facts["num_documents"],
              counts=bags.facts["counts"], **options)


def parts(model, state):
  actual = model.outputs["components"](state)
  return (np.asarray(actual[name], np.float64) for name in ("beta", "theta"))


def numpy_em(counts, beta, theta, power=1.0):
  """One EM step, dense: beta [k, V], theta [D, k]."""
  joint = (theta[:, None, :] * beta.T[None]) ** power
  posterior = joint / joint.sum(2, keepdims=True)
  weighted = counts[:, :, None] * posterior
  beta = weighted.sum(0).T
  sums = weighted.sum(1)
  theta = np.where(counts.sum(1, keepdims=True) > 0, sums / np.maximum(sums.sum(1, keepdims=True), 1e-300), theta)
  return beta / beta.sum(1, keepdims=True), theta


def log_likelihood(counts, beta, theta):
  return (counts * np.log(np.maximum(theta @ beta, 1e-300))).sum()


@pytest.fixture(scope="module")
def trained(small):
  """A model, its start, and after each of 40 updates the state and the metrics."""
  model = model_of(small.bags)
  state = jax.jit(model.init)(jax.random.key(0), small.batch)
  update, states, metrics = jax.jit(model.update), [state], []
  for _ in range(40):
    state, actual = update(state, small.batch, None)
    states.append(state)
    metrics.append(jax.tree.map(float, actual))
  return model, states, metrics


def test_every_iteration_is_the_plain_loop_s(small, trained):
  model, states, metrics = trained
  beta, theta = parts(model, states[0])
  for i in range(40):
    loss = -log_likelihood(small.counts, beta, theta) / small.counts.sum()
    assert metrics[i]["loss"] == pytest.approx(loss, rel=1e-5)
    assert metrics[i]["perplexity"] == pytest.approx(np.exp(loss), rel=1e-4)
    beta, theta = numpy_em(small.counts, beta, theta)
    if i < 5 or i == 39:
      actual = parts(model, states[i + 1])
      for ours, expected in zip(actual, (beta, theta)):
        np.testing.assert_allclose(ours, expected, atol=2e-4)


def test_the_likelihood_never_falls(trained):
  losses = [metrics["loss"] for metrics in trained[2]]
  assert np.all(np.diff(losses) < 1e-6) and losses[-1] < losses[0] - 0.5


def free_energy(counts, posterior, beta, theta):
  log_joint = np.log(np.maximum(theta[:, None, :] * beta.T[None], 1e-300))
  return (counts[:, :, None] * posterior * (np.log(np.maximum(posterior, 1e-300)) - log_joint)).sum()


def posterior_of(beta, theta):
  joint = theta[:, None, :] * beta.T[None]
  return joint / joint.sum(2, keepdims=True)


def test_em_is_coordinate_ascent(small, trained):
  """L = -F + KL for any q; each half step lowers F; after the E step KL is 0."""
  model, states, _ = trained
  counts = small.counts
  q = np.random.default_rng(0).dirichlet(np.ones(4), counts.shape)
  for state, after in zip(states[:6], states[1:]):
    beta, theta = parts(model, state)
    exact = posterior_of(beta, theta)
    likelihood = log_likelihood(counts, beta, theta)
    divergence = (counts[:, :, None] * q * np.log(np.maximum(q, 1e-300) / np.maximum(exact, 1e-300))).sum()
    before = free_energy(counts, q, beta, theta)
    assert divergence > 1
    assert -before + divergence == pytest.approx(likelihood, rel=1e-9)
    expected = free_energy(counts, exact, beta, theta)
    assert expected < before and -expected == pytest.approx(likelihood, rel=1e-9)
    new = list(parts(model, after))
    lowered = free_energy(counts, exact, *new)
    assert lowered < expected
    assert -lowered < log_likelihood(counts, *new)  # The E step to come has yet to close the gap.
    q = exact


def test_planted_topics_are_found(small, trained):
  model, states, _ = trained
  beta, theta = parts(model, states[-1])
  names = small.bags.encoder.vocabulary.words
  planted_topic = np.array([int(name[1:]) % 4 for name in names])
  shares = np.stack([beta[:, planted_topic == k].sum(1) for k in range(4)])  # [planted, found]
  match = shares.argmax(0)
  assert sorted(match) == [0, 1, 2, 3] and shares.max(0).min() > 0.9
  full = [i for i in range(120) if i != 5]
  assert np.abs(theta[full] - small.theta[full][:, match]).mean() < 0.06
  weights = np.asarray(model.outputs["components"](states[-1])["weights"])
  np.testing.assert_allclose(weights, theta[full].mean(0), atol=1e-3)  # Documents of equal length.


def test_empty_documents_have_equal_shares(small, trained):
  model, states, _ = trained
  assert small.counts[5].sum() == 0
  np.testing.assert_allclose(list(parts(model, states[-1]))[1][5], 0.25)
  batch = small.bags.encoder.encode(["", "nothing known", "w000"])
  np.testing.assert_allclose(model.embed(states[-1], batch)[:2], 0.25)


def test_multiplicative_updates_of_scikit_learn_reach_the_same_likelihood(small, trained):
  """The updates of NMF with the Kullback-Leibler loss climb the same hill: from one start to one top."""
  from sklearn.decomposition import non_negative_factorization

  model, states, _ = trained
  counts = np.delete(small.counts, 5, 0)
  beta, theta = parts(model, states[0])
  scale = counts.sum(1, keepdims=True)
  w, h, _ = non_negative_factorization(
      counts, np.delete(theta, 5, 0) * scale, beta.copy(), n_components=4, init="custom", solver="mu",
      beta_loss="kullback-leibler", tol=0, max_iter=400)
  product = w @ h
  theirs = log_likelihood(counts, h, w / product.sum(1, keepdims=True)) / counts.sum()
  update, state = jax.jit(model.update), states[-1]
  for _ in range(360):
    state, metrics = update(state, small.batch, None)
  assert -float(metrics["loss"]) == pytest.approx(theirs, abs=2e-4)


def test_folding_in_finds_the_best_mixture_of_fixed_topics(small, trained):
  model, states, _ = trained
  state = states[10]
  longer = model_of(small.bags, fold_in_steps=400)
  texts = [{small.bags.encoder.vocabulary.words[w]: n for w, n in enumerate(row) if n} for row in small.counts[:6]]
  theta = np.asarray(longer.embed(state, small.bags.encoder.encode(texts)))
  beta, _ = parts(model, state)
  expected = np.full((6, 4), 0.25)
  for _ in range(400):
    joint = expected[:, None, :] * beta.T[None]
    sums = (small.counts[:6, :, None] * joint / joint.sum(2, keepdims=True)).sum(1)
    expected[:5] = (sums / np.maximum(sums.sum(1, keepdims=True), 1e-300))[:5]
  np.testing.assert_allclose(theta, expected, atol=1e-3)
  actual = longer.outputs["log_likelihood"](state, small.bags.encoder.encode(texts))
  scores = (small.counts[:6] * np.log(expected @ beta)).sum(1)
  np.testing.assert_allclose(actual, scores, rtol=1e-4, atol=1e-4)
  loss = longer.outputs["loss"](state, small.bags.encoder.encode(texts))
  assert float(loss) == pytest.approx(-scores.sum() / small.counts[:6].sum(), rel=1e-4)


def test_words_out_of_the_vocabulary_and_their_order_change_nothing(small, trained):
  model, states, _ = trained
  batch = small.bags.encoder.encode(["w003 w001 w003 unseen", "w001 w003 w003", "unseen w003 w003 w001"])
  theta = np.asarray(model.embed(states[-1], batch))
  np.testing.assert_array_equal(theta[0], theta[1])
  np.testing.assert_array_equal(theta[0], theta[2])


def test_a_tempered_step_is_the_plain_loop_s(small):
  model = model_of(small.bags, tempering=0.5)
  batch = small.batch | {"held": jnp.ones_like(small.batch["count"])}
  state = jax.jit(model.init)(jax.random.key(1), batch)
  update = jax.jit(model.update)
  for _ in range(6):  # At b = 1/2, and not to be judged.
    state = state._replace(inverse_temperature=jnp.float32(0.5), fresh=jnp.int32(1))
    beta, theta = parts(model, state)
    state, metrics = update(state, batch, None)
  loss = -log_likelihood(small.counts, beta, theta) / small.counts.sum()
  assert float(metrics["loss"]) == pytest.approx(loss, rel=1e-5)
  for ours, expected in zip(parts(model, state), numpy_em(small.counts, beta, theta, 0.5)):
    np.testing.assert_allclose(ours, expected, atol=1e-4)


def test_tempering_lowers_the_held_out_perplexity(tmp_path):
  counts, *_ = planted(documents=60, words=60, length=20, seed=1)
  bags = bags_of(counts, tmp_path)
  batch = jax.tree.map(jnp.asarray, bag_source(bags, held_out=0.2).batch_at(0))
  actual = {}
  for tempering in (1.0, 0.8):
    model = model_of(bags, tempering=tempering, num_topics=12, tol=1e-4)
    state, update, seen = jax.jit(model.init)(jax.random.key(0), batch), jax.jit(model.update), []
    while not int(state.converged) and len(seen) < 200:
      state, metrics = update(state, batch, None)
      seen.append([float(metrics[name]) for name in ("held_out_perplexity", "inverse_temperature", "perplexity")])
    assert int(state.converged) and len(seen) < 200
    actual[tempering] = np.array(seen)
  plain, tempered = actual[1.0], actual[0.8]
  stopped = len(plain)
  np.testing.assert_allclose(tempered[:stopped], plain, rtol=1e-5)  # Until it stops, tempered EM is plain EM.
  assert plain[-1, 0] >= plain[-2, 0] * (1 - 1e-3) and (np.diff(plain[:-1, 0]) < 0).all()
  assert tempered[-1, 0] < 0.8 * plain[-1, 0]
  assert (np.diff(np.log(np.unique(tempered[:, 1]))) == pytest.approx(-np.log(0.8))) and tempered[-1, 1] < 0.9


def test_a_converged_state_stays(small):
  model = model_of(small.bags, tol=0.5)
  state, update = jax.jit(model.init)(jax.random.key(0), small.batch), jax.jit(model.update)
  for _ in range(2):
    state, metrics = update(state, small.batch, None)
  assert int(state.converged) == 1 and float(metrics["converged"]) == 1
  again, metrics = update(state, small.batch, None)
  assert float(metrics["converged"]) == 1
  chex.assert_trees_all_equal(state, again)


def test_fractional_counts_are_weights(small, trained, tmp_path):
  """Half of every count is half of the evidence, which moves no maximum: the same steps."""
  half = bags_of(small.counts[:, np.argsort(small.bags.encoder.vocabulary.words)] / 2, tmp_path)
  assert half.encoder.vocabulary.words == small.bags.encoder.vocabulary.words
  model, states, metrics = trained
  batch = jax.tree.map(jnp.asarray, bag_source(half).batch_at(0))
  state, actual = jax.jit(model.update)(states[3], batch, None)
  assert float(actual["loss"]) == pytest.approx(metrics[3]["loss"], rel=1e-5)
  np.testing.assert_allclose(state.beta, states[4].beta, atol=1e-6)


def test_stepwise_em_on_a_stream_finds_the_topics(small, trained, mesh_of):
  """Its first step, of rate 1/2, is the mean of old and new sums; passes over the blocks approach EM's optimum."""
  model = model_of(small.bags, stepwise=True, power=1.0, fold_in_steps=5)
  source = bag_source(small.bags, 2, seed=1)
  batch = jax.tree.map(jnp.asarray, source.batch_at(0))
  state = model.init(jax.random.key(0), batch)
  new, _ = jax.jit(model.update)(state, batch, None)
  beta = np.asarray(state.beta, np.float64).T
  documents = np.asarray(batch["document"]).ravel()
  documents = documents[documents >= 0]
  counts = small.counts[documents]
  theta = np.full((len(documents), 4), 0.25)
  for _ in range(5):
    theta = numpy_em(counts, beta, theta)[1]
  sums = (counts[:, :, None] * posterior_of(beta, theta)).sum(0).T / counts.sum()
  mean = 0.5 * beta * 0.25 + 0.5 * sums
  np.testing.assert_allclose(new.weights, mean.sum(1), rtol=1e-4)
  np.testing.assert_allclose(new.beta, (mean / mean.sum(1, keepdims=True)).T, atol=1e-4)

  model = model_of(small.bags, stepwise=True, fold_in_steps=10)
  state = train(model, source, steps=80, seed=1, steps_per_dispatch=8, mesh=mesh_of())
  items = small.bags.encoder.encode([
      {small.bags.encoder.vocabulary.words[w]: n for w, n in enumerate(row) if n} for row in small.counts])
  loss = float(model.outputs["loss"](state, items))
  assert loss == pytest.approx(trained[2][-1]["loss"], abs=0.02)
  assert "theta" not in model.outputs["components"](state)


def test_eight_devices_equal_one(small, mesh_of):
  source = bag_source(small.bags, held_out=0.1)
  states = [train(model_of(small.bags), source, steps=15, mesh=mesh_of(spec), steps_per_dispatch=5)
            for spec in ("data:1", "data:4,fsdp:2")]
  assert states[1].theta.sharding.spec[0] == DATA_AXES
  for one, eight in zip(jax.tree.leaves(states[0]), jax.tree.leaves(states[1])):
    one, eight = np.asarray(one, np.float64), np.asarray(eight, np.float64)
    assert np.linalg.norm(one - eight) <= 1e-5 * max(np.linalg.norm(one), 1e-6)


def test_the_best_of_several_starts_is_kept(small, mesh_of, tmp_path):
  """Each start is the run with its key; on eight devices and across an interruption too."""
  source, steps = bag_source(small.bags), 12
  model, mesh = model_of(small.bags, num_init=3), mesh_of("data:1")
  state = train(model, source, steps=steps, mesh=mesh, steps_per_dispatch=4, seed=5)
  scores = []
  key = jax.random.split(jax.random.key(5))[0]
  one = model_of(small.bags)
  for start in jax.random.split(key, 3):
    single, update = one.init(start, small.batch), jax.jit(one.update)
    for _ in range(steps):
      single, _ = update(single, small.batch, None)
    scores.append(float(single.score))
  np.testing.assert_allclose(state.states.score, scores, rtol=1e-5)
  best = int(np.argmax(scores))
  assert np.ptp(scores) > 1e-3 and int(model.outputs["best_start"](state)) == best
  beta, _ = parts(model, state)
  np.testing.assert_array_equal(beta, np.asarray(state.states.beta[best].T, np.float64))

  checkpoints = Checkpoints(str(tmp_path))
  for until in (5, steps):
    again = train(model, source, steps=until, mesh=mesh, steps_per_dispatch=4, seed=5, checkpoints=checkpoints)
  checkpoints.close()
  chex.assert_trees_all_equal(again, state)

  eight = train(model, source, steps=steps, mesh=mesh_of("data:4,fsdp:2"), steps_per_dispatch=4, seed=5)
  assert eight.states.theta.sharding.spec[:2] == (None, DATA_AXES)
  np.testing.assert_allclose(eight.states.score, scores, rtol=1e-5)


@pytest.mark.parametrize("stepwise", [False, True])
def test_one_all_reduce_of_the_words_sums_and_nothing_that_grows_with_documents_or_cells(mesh_of, stepwise):
  mesh = mesh_of("data:8")
  model = plsa(vocab_size=30, num_documents=8 * 640, counts=np.ones(30), num_topics=3, stepwise=stepwise)

  def moved(documents, cells):
    shard = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.int32, sharding=NamedSharding(mesh, P("data")))
    with jax.set_mesh(mesh):
      batch = {name: shard(8, cells) for name in ("row", "col", "turned")}
      batch |= {"row_start": shard(8, documents + 1), "col_start": shard(8, 31), "document": shard(8, documents)}
      batch["count"] = jax.ShapeDtypeStruct((8, cells), jnp.float32, sharding=NamedSharding(mesh, P("data")))
      state = jax.eval_shape(model.init, jax.random.key(0), batch)
      if not stepwise:
        state = state._replace(theta=jax.ShapeDtypeStruct(state.theta.shape, jnp.float32,
                                                          sharding=NamedSharding(mesh, P("data"))))
      return collectives(jax.jit(model.update).lower(state, batch, None).compile())

  ((operation, sizes),) = moved(80, 640)
  assert operation == "all-reduce" and sum(sizes) == 4 * (30 * 3 + 4) and moved(640, 20000) == [(operation, sizes)]


@pytest.mark.parametrize("options, message", [
    (dict(num_topics=0), "num_topics=0: must be at least 1"),
    (dict(tempering=0), "tempering=0: must be above 0"),
    (dict(stepwise=True, power=0.5), r"stepwise EM converges for powers in \(0.5, 1\], not 0.5"),
    (dict(tempering=0.9, early_stopping=False), "goes by the held-out occurrences"),
    (dict(fold_in_steps=0), "fold_in_steps=0 at least 1"),
    (dict(num_init=0), "num_init=0: must be at least 1"),
    (dict(counts=np.ones(3)), r"counts of shape \(3,\) do not fit vocab_size=4"),
])
def test_impossible_options_are_refused(options, message):
  with pytest.raises(InputError, match=message):
    plsa(**{"vocab_size": 4, "num_documents": 2, "counts": np.ones(4), **options})


def test_tempering_needs_what_is_held_out(small):
  with pytest.raises(InputError, match="tempering=0.9 needs occurrences that are held out"):
    model_of(small.bags, tempering=0.9).init(jax.random.key(0), small.batch)
