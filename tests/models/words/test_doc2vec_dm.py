"""Paragraph vectors with a distributed memory: the gradient by a plain loop, gensim, inference, planted topics."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit

from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.document_blocks import document_source
from embeddings_jax.data.encoders import load_encoder
from embeddings_jax.data.pipelines.document_words import document_words
from embeddings_jax.data.text import tokenize
from embeddings_jax.models.words.doc2vec import doc2vec
from embeddings_jax.ops.paragraph_vectors import dm_contexts, dm_infer, dm_objective
from embeddings_jax.train.loop import train
from embeddings_jax.train.mesh import make_mesh
from embeddings_jax.types import InputError

WINDOW = 2


def value_of(vectors, inputs, output, row, tokens, weight, drawn, noise_weight, ridge, window=WINDOW):
  """L, and the gradients of the three tables, by plain loops over the formula."""
  total, slopes = 0.0, [np.zeros_like(x) for x in (vectors, inputs, output)]
  for b, d in np.ndindex(*vectors.shape[:2]):
    total += ridge / 2 * vectors[b, d] @ vectors[b, d]
    slopes[0][b, d] += ridge * vectors[b, d]
  for b, i in zip(*np.nonzero(weight)):
    near = [j for j in range(row.shape[1]) if 0 < abs(i - j) <= window and row[b, j] == row[b, i]]
    scale = 1 / (1 + sum(weight[b, j] for j in near))
    z = scale * (vectors[b, row[b, i]] + sum(weight[b, j] * inputs[tokens[b, j]] for j in near))
    terms = [(tokens[b, i], 1.0, -1), *((m, noise_weight, 1) for m in drawn)]
    of_z = np.zeros_like(z)
    for word, share, sign in terms:
      total += weight[b, i] * share * np.logaddexp(0, sign * z @ output[word])
      error = weight[b, i] * share * sign * expit(sign * z @ output[word])
      of_z += error * output[word]
      slopes[2][word] += error * z
    slopes[0][b, row[b, i]] += scale * of_z
    for j in near:
      slopes[1][tokens[b, j]] += scale * weight[b, j] * of_z
  return total / weight.sum(), [slope / weight.sum() for slope in slopes]


def case():
  """Two blocks, of three documents and of two, over 7 words of 4 dimensions; word 7 is padding."""
  rng = np.random.default_rng(0)
  row = np.array([[0, 0, 0, 0, 1, 1, 1, 2, 2, 2], [0, 0, 0, 2, 2, 2, 2, 2, -1, -1]])
  tokens = np.where(row < 0, 7, rng.integers(0, 7, row.shape))
  weight = np.where(row < 0, 0, rng.uniform(0.2, 1, row.shape))
  return rng.normal(size=(2, 3, 4)), rng.normal(size=(8, 4)), rng.normal(size=(8, 4)), row, tokens, weight


def test_loss_and_gradients_are_a_plain_loop():
  vectors, inputs, output, row, tokens, weight = case()
  drawn = np.array([0, 2, 2, 5])

  def objective(tables):
    contexts = dm_contexts(tables[1][tokens], jnp.asarray(row), jnp.asarray(weight, jnp.float32), WINDOW)
    return dm_objective(tables[0], contexts, tables[2], jnp.asarray(row), jnp.asarray(tokens),
                        jnp.asarray(weight, jnp.float32), jnp.asarray(drawn), 1.25, 0.3)

  tables = [jnp.asarray(x, jnp.float32) for x in (vectors, inputs, output)]
  loss, slopes = jax.jit(jax.value_and_grad(objective))(tables)
  expected, expected_slopes = value_of(vectors, inputs, output, row, tokens, weight, drawn, 1.25, 0.3)
  np.testing.assert_allclose(loss, expected, rtol=1e-5)
  for slope, other in zip(slopes, expected_slopes):
    assert np.abs(other).max() > 0.01
    np.testing.assert_allclose(slope, other, rtol=1e-4, atol=1e-6)


def test_an_inferred_vector_is_the_minimum_and_no_step_rises():
  _, inputs, output, row, tokens, weight = (x[:1] if x.ndim == 2 and len(x) == 2 else x for x in case())
  row = np.where(row >= 0, 0, -1)
  drawn = np.array([0, 2, 2, 5, 6])
  value = lambda v: value_of(v.reshape(1, 1, 4), inputs, output, row, tokens, weight, drawn, 0.5, 0.1)[0]
  f32 = lambda x: jnp.asarray(x, jnp.float32)
  contexts = jax.tree.map(lambda x: x[0], dm_contexts(f32(inputs)[tokens], jnp.asarray(row), f32(weight), WINDOW))
  infer = jax.jit(dm_infer, static_argnums=(4, 5, 6))
  vectors = [np.asarray(infer(contexts, f32(output)[tokens[0]], f32(weight)[0], f32(output)[drawn], 0.5, 0.1, steps),
                        np.float64) for steps in (1, 2, 4, 60)]
  assert (np.diff([value(np.zeros(4)), *map(value, vectors)]) <= 1e-6).all()
  np.testing.assert_allclose(vectors[-1], minimize(value, np.zeros(4), tol=1e-10).x, atol=1e-3)


def in_steps(tables, ids, slope, rate):
  """Tables after a step at each position of a document, window 1, each term of the mean getting all of the query's
  gradient, as gensim does; `slope(documents, words, output, i)` are those of the tables."""
  for i in range(len(ids)):
    number = 1 + (i > 0) + (i < len(ids) - 1)
    tables = [x - rate * n * g for x, n, g in zip(tables, (number, number, 1), slope(*tables, i))]
  return tables


def tabulated(x):
  """gensim's logistic function, from a table."""
  x = (int((x + 6) * 83) / 1000 * 2 - 1) * 6
  return np.exp(x) / (np.exp(x) + 1)


@pytest.mark.parity
def test_gensim_takes_the_same_steps():
  """Exactly, but that it tabulates the logistic function, and that all noise is made one word."""
  from gensim.models.doc2vec import Doc2Vec, TaggedDocument
  words = ["a", "b", "c", "d", "b", "a"]
  theirs = Doc2Vec(vector_size=5, window=1, min_count=1, dm=1, dm_mean=1, negative=1, sample=0, workers=1, seed=1,
                   alpha=0.3, min_alpha=0.3)
  theirs.build_vocab([TaggedDocument(words, [0]), TaggedDocument(["z"], [1])])
  noise = theirs.wv.key_to_index["z"]
  theirs.cum_table[:] = [0 if i < noise else 2**31 - 1 for i in range(len(theirs.cum_table))]
  rng = np.random.default_rng(0)
  tables = [rng.normal(size=x.shape) for x in (theirs.dv.vectors, theirs.wv.vectors, theirs.syn1neg)]
  theirs.dv.vectors[:], theirs.wv.vectors[:], theirs.syn1neg[:] = tables
  theirs.train([TaggedDocument(words, [0])], total_examples=1, epochs=1)
  ids = np.array([theirs.wv.key_to_index[word] for word in words])

  def plain(sigmoid, documents, inputs, output, i):
    near = [j for j in (i - 1, i + 1) if 0 <= j < len(ids)]
    z = (documents[0] + inputs[ids[near]].sum(0)) / (1 + len(near))
    slopes = [np.zeros_like(x) for x in (documents, inputs, output)]
    errors = {ids[i]: sigmoid(z @ output[ids[i]]) - 1, noise: sigmoid(z @ output[noise])}
    of_z = sum(error * output[word] for word, error in errors.items()) / (1 + len(near))
    slopes[0][0] += of_z
    np.add.at(slopes[1], ids[near], of_z)
    for word, error in errors.items():
      slopes[2][word] += error * z
    return slopes

  @jax.jit
  def ours(documents, inputs, output, i):
    tables = [jnp.asarray(x, jnp.float32) for x in (documents, inputs, output)]
    row, ones = jnp.zeros((1, len(ids)), jnp.int32), jnp.ones((1, len(ids)))

    def objective(tables):
      contexts = dm_contexts(tables[1][ids][None], row, ones, 1)
      return dm_objective(tables[0][None, :1], contexts, tables[2], row, jnp.asarray(ids)[None],
                          (jnp.arange(len(ids)) == i)[None].astype(jnp.float32), jnp.array([noise]), 1.0, 0.0)

    return jax.grad(objective)(tables)

  for x, y in zip(in_steps(tables, ids, lambda *a: plain(tabulated, *a), 0.3),
                  (theirs.dv.vectors, theirs.wv.vectors, theirs.syn1neg)):
    np.testing.assert_allclose(x, y, atol=1e-6)
  for x, y in zip(in_steps(tables, ids, lambda *a: plain(expit, *a), 0.3),
                  in_steps(tables, ids, ours, 0.3)):
    np.testing.assert_allclose(x, y, atol=1e-6)


def planted(num_documents=96, length=24):
  """Documents of three topics: half of the words are common to all, half one of 8 of the topic."""
  rng = np.random.default_rng(0)
  topic = rng.integers(0, 3, num_documents)
  words = np.where(rng.random((num_documents, length)) < 0.5, rng.integers(0, 6, (num_documents, length)),
                   6 + 8 * topic[:, None] + rng.integers(0, 8, (num_documents, length)))
  texts = [" ".join(f"w{w:02}" for w in line) for line in words]
  return Dataset("planted", "text", texts, fingerprint="planted"), topic


def test_blocks_have_the_words_of_every_document_in_order(tmp_path):
  dataset, _ = planted(10, 5)
  items = [*dataset.items, "w00", "unknown"]
  tokens = tokenize(dataset._replace(items=items, fingerprint="p2"), normalize="lower", min_count=2,
                    cache_dir=tmp_path)
  encoder = tokens.encoder
  for resident in (True, False):
    source = document_source(tokens, 2, blocks=4, resident=resident)
    seen = {}
    for step in range(source.facts["steps_per_epoch"]):
      batch = source.batch_at(step)
      for words, row, documents in zip(batch["tokens"], batch["row"], batch["document"]):
        assert ((words < 0) == (row < 0)).all()
        seen |= {int(d): words[row == r].tolist() for r, d in enumerate(documents) if d >= 0}
    expected = [[w for w in line if w >= 0] for line in encoder.encode(items)["tokens"].tolist()]
    assert [seen[i] for i in range(12)] == expected and source.facts["num_empty"] == 1
  with pytest.raises(InputError, match="blocks=4: must be at least 1, and a multiple of batch_size=3"):
    document_source(tokens, 3, blocks=4)


def test_documents_of_a_topic_are_alike_and_their_vectors_depend_on_nothing_else(tmp_path):
  dataset, topic = planted()
  data = document_words(dataset, batch_size=4, seed=0, cache_dir=str(tmp_path), blocks=8)
  model = doc2vec(dm=True, dim=6, window=2, num_noise=128, subsample=0, ridge=0.5,
                  **{name: data.facts[name] for name in ("vocab_size", "num_documents", "counts")})
  state = train(model, data.splits["train"], steps=200, steps_per_dispatch=100,
                mesh=make_mesh("data:1", jax.devices()[:1]))
  data.encoder.save(tmp_path / "encoder")
  encoder = load_encoder(tmp_path / "encoder")
  embed = jax.jit(model.embed)
  vectors = np.asarray(embed(state, encoder.encode(dataset.items)))
  unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
  near = (unit @ unit.T - 2 * np.eye(len(unit))).argmax(1)
  assert np.mean(topic[near] == topic) > 0.95
  # The vectors of training are near those that are inferred.
  trained = np.asarray(state.documents, np.float64)
  assert np.median((trained * unit).sum(1) / np.linalg.norm(trained, axis=1)) > 0.9
  few = np.asarray(embed(state, encoder.encode([dataset.items[5], "", "unknown", "w00 " * 90])))
  np.testing.assert_allclose(few[0], vectors[5], atol=1e-4)
  assert not few[1:3].any() and few[3].any()


def test_bags_are_refused_by_name():
  model = doc2vec(vocab_size=3, num_documents=2, counts=[1, 2, 3], dm=True)
  state = jax.eval_shape(lambda key: model.init(key, {}), jax.random.key(0))
  batch = {"words": jnp.zeros((2, 3), jnp.int32), "counts": jnp.ones((2, 3))}
  with pytest.raises(InputError, match="doc2vec: the batch has no 'tokens', expected 'tokens': integers, ids"):
    jax.eval_shape(model.embed, state, batch)
