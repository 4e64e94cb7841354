"""Latent Dirichlet allocation: scikit-learn's batch and online updates and bound, the ELBO, planted topics."""
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse

from embeddings_jax.data.bags import bag_source, count_documents, from_matrix
from embeddings_jax.models.mixtures.lda import lda
from embeddings_jax.types import InputError


@pytest.fixture(scope="module")
def small(tmp_path_factory):
  """Counts [90, 30] of three planted topics, all of them as one batch of 8 blocks; document 5 is empty."""
  rng = np.random.default_rng(0)
  beta = np.full((3, 30), 0.1 / 30)
  for k in range(3):
    beta[k, 10 * k:10 * k + 10] += 0.09
  theta = rng.dirichlet(np.full(3, 0.2), 90)
  counts = np.stack([rng.multinomial(50, p / p.sum()) for p in theta @ beta])
  counts[5] = 0
  words = [f"w{i:02}" for i in range(30)]
  bags = count_documents(from_matrix("planted", scipy.sparse.csr_array(counts), words),
                         cache_dir=tmp_path_factory.mktemp("cache"))
  order = [words.index(word) for word in bags.encoder.vocabulary.words]
  batch = jax.tree.map(jnp.asarray, bag_source(bags).batch_at(0))
  items = [{words[w]: float(n) for w, n in enumerate(row) if n} for row in counts]
  return SimpleNamespace(bags=bags, counts=counts[:, order].astype(float), theta=theta, batch=batch, items=items,
                         start=rng.gamma(100, 0.01, (30, 3)))


def model_of(small, **options):
  options = {"num_topics": 3, "tol": 0.0, "topics": small.start, "inner_steps": 500, "inner_tol": 1e-6,
             "warm_start": False, **options}
  return lda(vocab_size=30, num_documents=90, **options)


def theirs(small, **options):
  """scikit-learn's, at the same start: of topics, and of mixtures, which it draws in training."""
  from scipy.special import digamma
  from sklearn.decomposition import LatentDirichletAllocation
  peer = LatentDirichletAllocation(3, max_doc_update_iter=500, mean_change_tol=1e-6, random_state=0,
                                   total_samples=90, **options)
  peer._init_latent_vars(30)
  peer.components_ = small.start.T.copy()
  peer.exp_dirichlet_component_ = np.exp(digamma(small.start.T) - digamma(small.start.T.sum(1, keepdims=True)))
  steps = peer._e_step
  peer._e_step = lambda X, cal_sstats, random_init, parallel=None: steps(X, cal_sstats, False, parallel)
  return peer


def test_batch_updates_and_bound_are_scikit_learn_s(small):
  model, peer = model_of(small), theirs(small)
  state = jax.jit(model.init)(jax.random.key(0), small.batch)
  update, losses = jax.jit(model.update), []
  for _ in range(8):
    mixtures, _ = peer._e_step(small.counts, cal_sstats=False, random_init=False)
    expected = peer._approx_bound(small.counts, mixtures, sub_sampling=False)
    state, metrics = update(state, small.batch, jax.random.key(0))
    losses.append(float(metrics["loss"]))
    assert -losses[-1] == pytest.approx(expected / small.counts.sum(), rel=1e-3)
    peer._em_step(small.counts, total_samples=90, batch_update=True)
    np.testing.assert_allclose(state.topics, peer.components_.T, rtol=1e-3, atol=1e-3)
  assert (np.diff(losses) < 1e-5).all()
  vectors = jax.jit(model.embed)(state, small.bags.encoder.encode(small.items))
  np.testing.assert_allclose(vectors, peer.transform(small.counts), atol=1e-3)
  np.testing.assert_allclose(vectors[5], 1 / 3, atol=1e-6)  # Nothing is known of an empty document.
  # The planted topics and mixtures.
  beta = np.asarray(model.outputs["components"](state)["beta"])
  assert np.mean(np.sort(beta, 1)[:, -10:].sum(1)) > 0.85
  best = np.asarray(vectors).argmax(1)
  agree = [np.bincount(best[small.theta.argmax(1) == k], minlength=3).max() for k in range(3)]
  assert sum(agree) > 0.9 * 90


def test_online_updates_are_scikit_learn_s(small):
  """Batches of two of eight blocks, in their order."""
  peer = theirs(small, learning_method="online", learning_offset=4.0, learning_decay=0.8)
  model = model_of(small, online=True, offset=4.0, power=0.8)
  source = bag_source(small.bags, 2, blocks=8, seed=3)
  state = jax.jit(model.init)(jax.random.key(0), small.batch)
  update = jax.jit(model.update)
  peer.n_batch_iter_ = 0
  for step in range(4):
    batch = source.batch_at(step)
    rows = batch["document"][batch["document"] >= 0]
    state, _ = update(state, jax.tree.map(jnp.asarray, batch), jax.random.key(0))
    peer._em_step(small.counts[rows], total_samples=90, batch_update=False)
    np.testing.assert_allclose(state.topics, peer.components_.T, rtol=2e-3, atol=2e-3)


def test_with_a_warm_start_the_bound_never_falls_and_ends_no_lower(small):
  """A turn or two of the E step an update will do."""
  losses = {}
  for warm, turns in ((True, 2), (False, 500)):
    model = model_of(small, warm_start=warm, inner_steps=turns)
    state = jax.jit(model.init)(jax.random.key(0), small.batch)
    update, actual = jax.jit(model.update), []
    for _ in range(60):
      state, metrics = update(state, small.batch, jax.random.key(0))
      actual.append(float(metrics["loss"]))
    losses[warm] = np.array(actual)
  assert (np.diff(losses[True]) < 1e-6).all() and losses[True][-1] < losses[False][-1] + 1e-3
  with pytest.raises(InputError, match="room for 24 of 90 documents, and batch updates need all"):
    model.init(jax.random.key(0), bag_source(small.bags, 2, blocks=8).batch_at(0))


def test_a_document_s_mixture_depends_on_it_alone(small):
  model = model_of(small, inner_tol=1e-3)
  state = jax.jit(model.init)(jax.random.key(0), small.batch)
  embed = jax.jit(model.embed)
  together = embed(state, small.bags.encoder.encode(small.items[:7]))
  alone = embed(state, small.bags.encoder.encode(small.items[3:4]))
  np.testing.assert_allclose(alone[0], together[3], atol=1e-6)


def test_what_does_not_fit_is_refused():
  for options, message in ((dict(num_topics=0), "num_topics=0"), (dict(alpha=-1.0), "alpha=-1.0"),
                           (dict(online=True, power=0.3), "power=0.3"),
                           (dict(topics=np.ones((4, 2)), num_topics=3), r"topics to start from: of shape \[4, 2\]")):
    with pytest.raises(InputError, match=message):
      lda(vocab_size=4, num_documents=2, **options)
