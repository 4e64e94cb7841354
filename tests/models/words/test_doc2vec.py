"""Paragraph vectors: the gradient by a plain loop, Adagrad, inference against scipy, planted topics, bad input."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from scipy.optimize import minimize
from scipy.special import expit

from embeddings_jax.data.bags import bag_source, count_documents, from_matrix
from embeddings_jax.models.words.doc2vec import doc2vec
from embeddings_jax.ops.paragraph_vectors import draw_noise, infer, objective
from embeddings_jax.ops.word_blocks import count_words
from embeddings_jax.train.loop import train
from embeddings_jax.types import InputError


def case(seed=0):
  """Two blocks of three documents, the last of which is empty, over 7 words of 4 dimensions."""
  rng = np.random.default_rng(seed)
  counts = rng.poisson(0.8, (2, 3, 7)).astype(float)
  counts[1, 2] = 0
  cells = [np.nonzero(block) for block in counts]
  width = max(len(row) for row, _ in cells)
  padded = lambda values, dtype: jnp.asarray([np.pad(x, (0, width - len(x))) for x in values], dtype)
  row, col = (padded([cell[i] for cell in cells], jnp.int32) for i in (0, 1))
  count = padded([block[cell] for block, cell in zip(counts, cells)], jnp.float32)
  return counts, (row, col, count), rng.normal(size=(2, 3, 4)), rng.normal(size=(7, 4)), np.array([0, 2, 2, 5])


def test_loss_and_gradient_are_a_plain_loop():
  counts, cells, vectors, output, drawn = case()
  loss, (of_vectors, of_output) = jax.jit(jax.value_and_grad(
      lambda v, u: objective(v, u, *cells, jnp.asarray(drawn), 1.25, 0.3), (0, 1)))(
          jnp.asarray(vectors, jnp.float32), jnp.asarray(output, jnp.float32))
  total, slopes, words = 0.0, np.zeros_like(vectors), np.zeros_like(output)
  for b in range(2):
    for d in range(3):
      v = vectors[b, d]
      total += 0.3 / 2 * v @ v
      slopes[b, d] += 0.3 * v
      for w in range(7):
        for _ in range(int(counts[b, d, w])):
          total -= np.log(expit(v @ output[w]))
          slopes[b, d] -= expit(-v @ output[w]) * output[w]
          words[w] -= expit(-v @ output[w]) * v
          for m in drawn:
            total -= 1.25 * np.log(expit(-v @ output[m]))
            slopes[b, d] += 1.25 * expit(v @ output[m]) * output[m]
            words[m] += 1.25 * expit(v @ output[m]) * v
  np.testing.assert_allclose(loss, total / counts.sum(), rtol=1e-5)
  np.testing.assert_allclose(of_vectors, slopes / counts.sum(), rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(of_output, words / counts.sum(), rtol=1e-4, atol=1e-6)


def test_an_inferred_vector_is_the_minimum_and_no_step_rises():
  rng = np.random.default_rng(0)
  rows, noise, count = rng.normal(size=(9, 5)), 0.7 * rng.normal(size=(12, 5)), rng.integers(0, 6, 9).astype(float)

  def value(v):
    return (count @ np.logaddexp(0, -rows @ v) + 0.5 * count.sum() * np.logaddexp(0, noise @ v).sum()
            + 0.8 / 2 * v @ v)

  args = [jnp.asarray(x, jnp.float32) for x in (rows, count, noise)]
  vectors = [np.asarray(jax.jit(infer, static_argnums=(3, 4, 5))(*args, 0.5, 0.8, steps), np.float64)
             for steps in (1, 2, 3, 5, 100)]
  values = [value(np.zeros(5)), *map(value, vectors)]
  assert (np.diff(values) <= 1e-4).all()
  np.testing.assert_allclose(vectors[-1], minimize(value, np.zeros(5), tol=1e-10).x, atol=1e-4)


def test_noise_words_have_their_distribution():
  words = count_words("x", 5, np.array([100, 50, 20, 5, 1]), 0, 0.75)
  drawn = jax.vmap(lambda offset: draw_noise(jnp.asarray(words.noise), 64, offset))(jnp.arange(400) / 400)
  share = np.array([100, 50, 20, 5, 1]) ** 0.75
  np.testing.assert_allclose(np.bincount(drawn.ravel()) / drawn.size, share / share.sum(), atol=1e-3)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
  """Documents of four topics with words of their own, half of each common words; and a model after 200 steps."""
  rng = np.random.default_rng(0)
  topic = rng.integers(0, 4, 120)
  share = np.full((4, 48), 0.5 / 8)
  share[:, 8:] = 0
  for k in range(4):
    share[k, 8 + 10 * k:18 + 10 * k] = 0.05
  counts = np.stack([rng.multinomial(30, share[k]) for k in topic])
  words = [f"w{i:02}" for i in range(48)]
  table = from_matrix("planted", scipy.sparse.csr_array(counts), words)
  bags = count_documents(table, cache_dir=tmp_path_factory.mktemp("cache"))
  source = bag_source(bags, 4, blocks=8)
  model = doc2vec(vocab_size=48, num_documents=120, counts=bags.facts["counts"], dim=8, num_noise=32, subsample=0.1,
                  ridge=1.0)
  from embeddings_jax.train.mesh import make_mesh
  state = train(model, source, steps=200, steps_per_dispatch=50, mesh=make_mesh("data:1", jax.devices()[:1]))
  items = [{words[w]: float(n) for w, n in enumerate(row) if n} for row in counts]
  return model, state, bags.encoder, items, topic


def test_documents_of_a_topic_are_alike_and_their_vectors_depend_on_nothing_else(planted):
  model, state, encoder, items, topic = planted
  embed = jax.jit(model.embed)
  vectors = np.asarray(embed(state, encoder.encode(items)))
  unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
  near = (unit @ unit.T - 2 * np.eye(120)).argmax(1)
  assert np.mean(topic[near] == topic) > 0.98
  # The vectors of training are near those that are inferred.
  trained = np.asarray(state.documents, np.float64)
  cosine = (trained * unit).sum(1) / np.linalg.norm(trained, axis=1)
  assert np.median(cosine) > 0.9
  few = encoder.encode([items[5], {}, {"unknown": 3.0}])
  actual = np.asarray(embed(state, few))
  np.testing.assert_allclose(actual[0], vectors[5], atol=1e-5)
  assert not actual[1:].any()


def test_rows_move_by_adagrad(planted):
  """Documents of the batch alone, and words by the sum over all of it."""
  model, state, *_ = planted
  batch = {"row": jnp.array([[0, 0, 1]]), "col": jnp.array([[3, 20, 20]]), "count": jnp.array([[2.0, 1, 0]]),
           "document": jnp.array([[7, -1]]), "mask": jnp.ones(1)}
  new, _ = jax.jit(model.update)(state, batch, jax.random.key(0))
  moved = np.flatnonzero(np.abs(np.asarray(new.documents - state.documents)).max(1))
  assert moved.tolist() == [7]
  square = np.asarray(new.document_sums - state.document_sums)[7]
  step = np.asarray(new.documents - state.documents)[7]
  # |step|² = rate² |g|² / sum, where mean g² is what the sum grew by.
  np.testing.assert_allclose((step**2).mean(), 0.04 * square / float(new.document_sums[7]), rtol=1e-3)


def test_what_does_not_fit_is_refused():
  for options, message in ((dict(dim=0), "dim=0: must be at least 1"), (dict(ridge=0.0), "ridge=0.0"),
                           (dict(subsample=-1.0), "subsample=-1.0")):
    with pytest.raises(InputError, match=message):
      doc2vec(vocab_size=3, num_documents=2, counts=[1, 2, 3], **options)
