"""Latent semantic analysis: scipy's singular values, the worked cases, in memory and by batches from the disk."""
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hlo import collectives
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from scipy.sparse.linalg import svds
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from embeddings_jax.data.bags import bag_source, count_documents
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.models.factorization.lsa import lsa
from embeddings_jax.train.loop import train
from embeddings_jax.train.mesh import make_mesh
from embeddings_jax.types import InputError


def bags_of(texts, cache_dir):
  key = hashlib.sha256("\n".join(texts).encode()).hexdigest()
  return count_documents(Dataset("texts", "text", texts, fingerprint=key), normalize="spaces", cache_dir=cache_dir)


def solve(bags, *, batch_size=0, blocks=8, passes=20, mesh=None, **options):
  """`(model, state, records, source)`."""
  source = bag_source(bags, batch_size, blocks=blocks)
  facts = {name: source.facts[name] for name in ("vocab_size", "num_documents", "document_frequency", "entropy",
                                                 "steps_per_epoch")}
  model = lsa(**facts, **options)
  records = []
  state = train(model, source, steps=passes * facts["steps_per_epoch"], log_every=1,
                mesh=mesh or make_mesh("data:1", jax.devices()[:1]),
                write=lambda step, record: records.append(record))
  return model, state, records, source


def encoded(bags, texts):
  return jax.tree.map(jnp.asarray, bags.encoder.encode(texts))


def counts_of(bags):
  table = np.zeros((bags.facts["num_documents"], bags.facts["vocab_size"]))
  table[np.repeat(np.arange(len(table)), np.diff(bags.indptr)), bags.col] = bags.count
  return table


def weighted(counts, weighting, unit):
  """The formulas, on a dense matrix."""
  n, frequency = len(counts), (counts > 0).sum(0)
  logs = np.log(np.where(counts > 0, counts, 1))
  if weighting == "tf-idf":
    table = np.where(counts > 0, 1 + logs, 0) * (1 + np.log((1 + n) / (1 + frequency)))
  elif weighting == "log-entropy":
    share = counts / counts.sum(0)
    entropy = -(share * np.log(np.where(share > 0, share, 1))).sum(0)
    table = np.log1p(counts) * (1 - entropy / np.log(n))
  else:
    table = counts
  return table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-30) if unit else table


@pytest.fixture(scope="module")
def texts():
  """120 documents about four subjects, some words of which are everywhere; the last one is empty."""
  noise = np.random.default_rng(0)
  made = []
  for i in range(119):
    words = [f"s{i % 4}w{j}" for j in noise.zipf(1.6, 30) % 16] + [f"c{j}" for j in noise.integers(0, 12, 12)]
    made.append(" ".join(noise.permutation(words)))
  return made + [""]


@pytest.fixture(scope="module")
def bags(texts, tmp_path_factory):
  return bags_of(texts, tmp_path_factory.mktemp("lsa"))


SMALL = dict(dim=6, block=6, basis=40, num_oversamples=6, tol=1e-4)


@pytest.fixture(scope="module")
def actual(bags):
  return solve(bags, **SMALL)


def test_values_and_vectors_are_those_of_scipy_and_scikit_learn(bags, actual, texts):
  model, state, records, _ = actual
  matrix = weighted(counts_of(bags), "tf-idf", True)
  values = np.sort(svds(matrix, k=6)[1])[::-1]
  np.testing.assert_allclose(state.values, values, rtol=1e-5)
  assert records[-1]["converged"] == 1 and records[-1]["residual"] < 1e-4
  assert records[-1]["loss"] == pytest.approx(1 - (values ** 2).sum() / 119, abs=1e-5)
  reference = TruncatedSVD(6, algorithm="arpack").fit(matrix)
  np.testing.assert_allclose(np.abs(state.components @ reference.components_.T), np.eye(6), atol=1e-3)
  vectors = np.asarray(model.embed(state, encoded(bags, texts)))
  signs = np.sign((state.components * reference.components_).sum(1))
  np.testing.assert_allclose(vectors, reference.transform(matrix) * signs, atol=1e-3)
  assert not vectors[-1].any()  # The empty one.
  loss = float(model.outputs["loss"](state, encoded(bags, texts)))
  assert loss == pytest.approx(records[-1]["loss"], abs=1e-5)


@pytest.mark.parametrize("weighting,unit", [("tf-idf", False), ("log-entropy", True), ("count", False)])
def test_weights_are_those_of_the_formulas(bags, texts, weighting, unit):
  """In training, and of documents that come later."""
  model, state, _, source = solve(bags, passes=1, weighting=weighting, unit=unit, **SMALL)
  batch = jax.tree.map(jnp.asarray, source.batch_at(0))
  values = np.asarray(jax.jit(model.outputs["weighted"])(state, batch))
  document = np.take_along_axis(np.asarray(batch["document"]), np.asarray(batch["row"]), 1)
  there = np.asarray(batch["count"]) > 0
  expected = weighted(counts_of(bags), weighting, unit)
  np.testing.assert_allclose(values[there], expected[document[there], batch["col"][there]], rtol=1e-4, atol=1e-6)
  assert not values[~there].any()
  np.testing.assert_allclose(model.embed(state, encoded(bags, texts)), expected @ np.asarray(state.components).T,
                             atol=2e-5 * np.abs(expected).max() * 10)
  if weighting == "tf-idf":
    theirs = TfidfVectorizer(vocabulary=bags.encoder.vocabulary.words, token_pattern=r"\S+", sublinear_tf=True,
                             norm=None).fit_transform(texts).toarray()
    np.testing.assert_allclose(theirs, expected, rtol=1e-6)


def test_batches_from_the_disk_give_the_same(bags, actual):
  _, state, records, _ = solve(bags, batch_size=2, passes=60, **SMALL)
  np.testing.assert_allclose(state.values, actual[1].values, rtol=1e-5)
  np.testing.assert_allclose(state.components, actual[1].components, atol=1e-3)
  assert records[-1]["converged"] == 1
  # A pass is 4 batches, and 40 // 6 passes fill the basis.
  assert all(record["loss"] == 1 for record in records[:23]) and records[23]["loss"] < 1


@pytest.mark.parametrize("batch_size", [0, 8])
def test_eight_devices_find_the_same(bags, actual, mesh_of, batch_size):
  _, state, _, _ = solve(bags, batch_size=batch_size, passes=60, mesh=mesh_of("data:4,model:2"), **SMALL)
  np.testing.assert_allclose(state.values, actual[1].values, rtol=1e-5)
  np.testing.assert_allclose(state.components, actual[1].components, atol=1e-3)


def test_no_collective_grows_with_the_documents(mesh_of):
  vocab = 48
  model = lsa(vocab_size=vocab, num_documents=10_000, document_frequency=np.ones(vocab), entropy=np.zeros(vocab),
              dim=4, block=4, basis=16, num_oversamples=2)
  mesh = mesh_of("data:8")

  def moved(cells, documents):
    with jax.set_mesh(mesh):
      shape = lambda size, dtype=jnp.int32: jax.ShapeDtypeStruct(
          (8, size) if size else (8,), dtype, sharding=NamedSharding(mesh, P("data")))
      batch = {"row": shape(cells), "col": shape(cells), "count": shape(cells, jnp.float32),
               "row_start": shape(documents + 1), "turned": shape(cells), "col_start": shape(vocab + 1),
               "mask": shape(0, jnp.float32)}
      state = jax.eval_shape(model.init, jax.random.key(0), batch)
      compiled = jax.jit(model.update).lower(state, batch, None).compile()
    return sorted(size // 4 for _, sizes in collectives(compiled) for size in sizes)

  sizes = moved(512, 64)
  assert sizes == moved(4096, 640) and sizes[-1] == vocab * 4 and len(sizes) <= 2  # The products, and |A|^2.


GREETINGS = ["boat ocean"] * 2 + ["ocean sail sail"] + ["sail harbour"] * 2 + ["proof lemma"] * 3


def test_documents_without_a_common_word_are_near_by_way_of_a_third(tmp_path):
  bags = bags_of(GREETINGS, tmp_path)
  model, state, _, _ = solve(bags, dim=2, block=4, basis=8, num_oversamples=0, weighting="count", unit=True)
  texts = ["boat", "harbour", "lemma"]
  assert not (weighted(np.eye(3), "count", True) @ np.eye(3)[0])[1]  # In words their product is 0.
  near = np.array(model.embed(state, encoded(bags, texts)))
  near /= np.linalg.norm(near, axis=1, keepdims=True)
  cosine = near @ near.T
  assert cosine[0, 1] > 0.99 and np.abs(cosine[:2, 2]).max() < 1e-3


def test_powers_put_the_values_on_either_side(bags, texts):
  """All products of documents and words are the matrix's entries at full rank; with p = 0, Z = U and Y = S V': the
  words' are A'A, and the documents' basis is orthonormal; with p = 1 the documents' are A A'."""
  # As many vectors as words: the whole of A.
  rank = min(bags.facts["vocab_size"], 119)
  matrix = weighted(counts_of(bags), "tf-idf", True)
  _, state, _, _ = solve(bags, dim=rank, block=16, basis=rank + 48, num_oversamples=0, tol=0.0, passes=2)
  sides = {}
  for power in (0.0, 0.5, 1.0):
    model = lsa(**{name: bags.facts[name] for name in ("vocab_size", "num_documents", "document_frequency",
                                                       "entropy")},
                dim=rank, basis=rank + 48, num_oversamples=0, power=power)
    documents = np.asarray(model.embed(state, encoded(bags, texts)))
    words = np.asarray(model.outputs["components"](state)["words"])
    np.testing.assert_allclose(documents @ words.T, matrix, atol=2e-3)
    sides[power] = documents, words
  np.testing.assert_allclose(sides[0.0][1] @ sides[0.0][1].T, matrix.T @ matrix, atol=1e-4)
  np.testing.assert_allclose(sides[1.0][0] @ sides[1.0][0].T, matrix @ matrix.T, atol=1e-4)
  np.testing.assert_allclose(sides[0.0][0][:, :20].T @ sides[0.0][0][:, :20], np.eye(20), atol=1e-3)
  np.testing.assert_allclose(sides[1.0][1][:, :20].T @ sides[1.0][1][:, :20], np.eye(20), atol=1e-3)

  # The loading vectors' products and distances approach those of the data's columns, the more of them are taken.
  loadings = sides[0.0][1]
  distance = lambda rows: np.linalg.norm(rows[:, None] - rows[None], axis=2)
  for table, expected in ((lambda y: y @ y.T, matrix.T @ matrix), (distance, distance(matrix.T))):
    errors = [np.abs(table(loadings[:, :k]) - expected).mean() for k in (1, 4, 16, rank)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 1e-3 < 0.05 * errors[0]


def test_words_that_are_unknown_and_their_order_change_nothing(bags, actual, texts):
  model, state, _, _ = actual
  turned = [" ".join(["unheard-of", *text.split()[::-1]]) for text in texts]
  np.testing.assert_array_equal(model.embed(state, encoded(bags, turned)), model.embed(state, encoded(bags, texts)))


@pytest.mark.parametrize("options, message", [
    (dict(dim=200), "lsa: dim=200: must be from 1 to 76, for there are 120 documents of 76 words"),
    (dict(weighting="tfidf"), "must be one of tf-idf, log-entropy, count"),
    (dict(basis=100), "basis=100: must be at least 126")])
def test_what_cannot_be_is_said(options, message):
  with pytest.raises(InputError, match=message):
    lsa(**{**dict(vocab_size=76, num_documents=120, document_frequency=np.ones(76), entropy=np.ones(76)), "dim": 70,
           **({"dim": 100, "vocab_size": 300} if "basis" in options else {}), **options})


@pytest.mark.parity
def test_singular_values_are_gensims(bags, actual):
  from gensim.matutils import Dense2Corpus
  from gensim.models import LsiModel

  matrix = weighted(counts_of(bags), "tf-idf", True)
  theirs = LsiModel(Dense2Corpus(matrix, documents_columns=False), num_topics=6, power_iters=20, extra_samples=60)
  np.testing.assert_allclose(actual[1].values, theirs.projection.s[:6], rtol=1e-4)
