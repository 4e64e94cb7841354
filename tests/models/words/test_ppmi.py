import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from hlo import collectives
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from embeddings_jax.data.sources import array_source
from embeddings_jax.models.words import ppmi as ppmi_module
from embeddings_jax.models.words.ppmi import ppmi
from embeddings_jax.ops.lanczos import orthonormal
from embeddings_jax.runs import build, inference, presets
from embeddings_jax.train.loop import train
from embeddings_jax.types import InputError

PARK = ("The girl walks to her dog to the park. It can take a long time to park your car in NYC. "
        "The dog park is always crowded on Saturdays.")
LIKE = "I like deep learning . I like NLP . I enjoy flying ."


def cells(counts, padding=0):
  """A batch of the non-zero cells of a dense matrix, with padding after them, and the facts."""
  row, col = np.nonzero(counts)
  extend = lambda x: np.pad(x, (0, padding))
  batch = {"row": extend(row.astype(np.int32)), "col": extend(col.astype(np.int32)),
           "count": extend(counts[row, col].astype(np.float32)), "mask": extend(np.ones(len(row), np.float32))}
  facts = dict(vocab_size=len(counts), marginals=counts.sum(1), context_marginals=counts.sum(0), total=counts.sum(),
               symmetric=bool((counts == counts.T).all()))
  return batch, facts


def counted(n=24, seed=0, symmetric=True, density=0.4):
  rng = np.random.default_rng(seed)
  counts = np.where(rng.random((n, n)) < density, rng.integers(1, 50, (n, n)), 0).astype(float)
  return counts + counts.T if symmetric else counts


def run(model, batch, updates=1):
  batch = jax.tree.map(jnp.asarray, batch)
  state, metrics = model.init(jax.random.key(0), batch), None
  update = jax.jit(model.update)
  for _ in range(updates):
    state, metrics = update(state, batch, None)
  return state, metrics


def dense(counts, similarity, shift=1.0, smoothing=1.0):
  """The formulas of the papers, cell by cell."""
  total, out = counts.sum(), np.zeros(counts.shape)
  context = counts.sum(0) ** smoothing / (counts.sum(0) ** smoothing).sum()
  for i, j in zip(*np.nonzero(counts)):
    ratio = counts[i, j] / total / (counts[i].sum() / total * context[j])
    pmi = np.log(ratio) - np.log(shift)
    out[i, j] = {"ppmi": max(pmi, 0), "pmi": pmi, "ratio": ratio, "log": np.log(1 + counts[i, j]),
                 "raw": counts[i, j]}[similarity]
  return out


@pytest.mark.parametrize("similarity,symmetric,options", [
    ("ppmi", True, dict(shift=2.0, smoothing=0.75)), ("pmi", True, dict(smoothing=1.0)),
    ("ratio", False, dict(smoothing=0.75)), ("log", False, {}), ("raw", True, {})])
def test_full_rank_gives_the_matrix_back(similarity, symmetric, options):
  """And M itself is the papers': the factors' product is compared with a loop over the cells."""
  counts = counted(symmetric=symmetric)
  batch, facts = cells(counts, padding=5)
  model = ppmi(**facts, dim=24, num_oversamples=3, block=8, blocks=4, similarity=similarity, **options)
  state, metrics = run(model, batch)
  expected = dense(counts, similarity, **options)
  there = batch["mask"] > 0
  values = jax.jit(model.outputs["similarities"])(state, jax.tree.map(jnp.asarray, batch))
  np.testing.assert_allclose(values[there], expected[batch["row"], batch["col"]][there], rtol=1e-4, atol=1e-5)
  assert (values[~there] == 0).all()
  product = np.asarray((state.left * state.values) @ state.right.T)
  np.testing.assert_allclose(product, expected, atol=2e-5 * np.abs(expected).max())
  values = np.linalg.svd(expected, compute_uv=False)
  np.testing.assert_allclose(state.values[:24], values, atol=1e-5 * values[0])
  assert float(metrics["loss"]) < 1e-5 and float(metrics["converged"]) == 1
  # The factors as vectors: p = 1/2 on both sides.
  actual = model.outputs["components"](state)
  np.testing.assert_allclose(actual["input"] @ actual["output"].T, expected, atol=2e-5 * np.abs(expected).max())


def planted(n=400, rank=12, seed=0, noise=0.3):
  """Counts around a product of positive factors, as a sparse symmetric matrix."""
  rng = np.random.default_rng(seed)
  factor = rng.gamma(0.3, size=(n, rank)) * rng.lognormal(0, 1, (n, 1))
  mean = factor @ factor.T
  counts = rng.poisson(mean / mean.mean() * noise).astype(float)
  return np.triu(counts) + np.triu(counts, 1).T + np.eye(n)


PLANTED = dict(dim=20, block=8, blocks=5, num_oversamples=6, smoothing=0.75)


@pytest.fixture(scope="module")
def converged():
  batch, facts = cells(planted())
  model = ppmi(**facts, **PLANTED, tol=1e-3)
  metrics = []
  state = train(model, array_source(without_mask(batch)), steps=30, mesh=one_device(), log_every=1,
                write=lambda step, record: metrics.append(record))
  return state, metrics, model, batch


def without_mask(batch):
  return {name: value for name, value in batch.items() if name != "mask"}


def one_device():
  from embeddings_jax.train.mesh import make_mesh
  return make_mesh("data:1", jax.devices()[:1])


def test_values_and_spaces_are_those_of_svds(converged):
  state, metrics, _, _ = converged
  expected = dense(planted(), "ppmi", smoothing=0.75)
  left, values, right = scipy.sparse.linalg.svds(scipy.sparse.csr_array(expected), k=20)
  np.testing.assert_allclose(state.values[:20], values[::-1], rtol=1e-5)
  for ours, theirs in ((state.left, left), (state.right, right.T)):
    # Cosines of the angles between the spaces; the 20th direction is the smallest settled.
    cosines = np.linalg.svd(np.asarray(ours)[:, :20].T @ theirs, compute_uv=False)
    assert cosines.min() > 1 - 1e-5
  explained = (values ** 2).sum() / (expected ** 2).sum()
  assert metrics[-1]["loss"] == pytest.approx(1 - explained, abs=1e-5)
  residual = np.linalg.norm(expected.T @ np.asarray(state.left) - np.asarray(state.right * state.values), axis=0)
  expected = float((residual / np.asarray(state.values))[:20].max())
  assert metrics[-1]["residual"] == pytest.approx(expected, rel=0.1, abs=1e-5)


def test_it_ends_when_it_has_converged_and_then_stays(converged):
  state, metrics, model, batch = converged
  assert 2 < len(metrics) < 20 and metrics[-1]["residual"] < 1e-3 < metrics[0]["residual"]
  losses = [record["loss"] for record in metrics]
  assert all(new <= old + 1e-6 for old, new in zip(losses, losses[1:]))  # A cycle only widens the span.
  again, _ = jax.jit(model.update)(state, jax.tree.map(jnp.asarray, batch), None)
  chex.assert_trees_all_equal(state, again)


@pytest.mark.parametrize("mesh", [
    pytest.param("data:4,fsdp:2", marks=pytest.mark.long), "model:8"])  # The former as in `test_contract.py`.
def test_eight_devices_find_the_same(converged, mesh, mesh_of):
  expected, losses, model, batch = converged
  actual = []
  state = train(model, array_source(without_mask(batch)), steps=30, mesh=mesh_of(mesh), log_every=1,
                write=lambda step, record: actual.append(record["loss"]))
  np.testing.assert_allclose(actual[:5], [record["loss"] for record in losses[:5]], atol=1e-5)
  np.testing.assert_allclose(state.values[:20], expected.values[:20], rtol=1e-5)
  product = lambda state: np.asarray((state.left * state.values)[:, :20] @ np.asarray(state.right)[:, :20].T)
  np.testing.assert_allclose(product(state), product(expected), atol=2e-3 * np.abs(product(expected)).max())


def test_products_with_a_matrix_that_is_not_symmetric(mesh_of, monkeypatch):
  """Several chunks of scattered cells, on one device and on eight."""
  monkeypatch.setattr(ppmi_module, "CHUNK", 16)
  counts = counted(40, symmetric=False, density=0.1)
  batch, facts = cells(counts)
  model = ppmi(**facts, dim=5, block=8, blocks=6, num_oversamples=0, similarity="log", tol=0.0)
  values = np.linalg.svd(np.log1p(counts), compute_uv=False)
  for mesh in ("data:1", "data:8"):
    state = train(model, array_source(without_mask(batch)), steps=1, mesh=mesh_of(mesh))
    np.testing.assert_allclose(state.values, values[:5], rtol=1e-5)


def test_the_eigen_form_takes_the_largest_eigenvalues():
  parity = np.arange(60) % 2
  counts = planted(60, 5) + 30 * (parity[:, None] != parity)  # Words that stand with the others have a negative one.
  matrix = dense(counts, "log")
  values, vectors = np.linalg.eigh(matrix)
  batch, facts = cells(counts)
  model = ppmi(**facts, dim=6, block=4, blocks=4, similarity="log", factorization="eigen", tol=1e-4)
  state, metrics = run(model, batch, updates=8)
  assert -values[0] > 3 * values[-2], "no negative one is in the way"
  np.testing.assert_allclose(state.values[:6], values[::-1][:6], rtol=1e-4)
  actual = model.outputs["components"](state)
  best = (vectors[:, -6:] * values[-6:]) @ vectors[:, -6:].T
  np.testing.assert_allclose(actual["input"] @ actual["output"].T, best, atol=1e-3 * np.abs(best).max())
  assert float(metrics["converged"]) == 1


def test_vectors_powers_and_means():
  batch, facts = cells(counted())
  make = lambda **options: ppmi(**facts, dim=4, block=8, blocks=4, similarity="log", smoothing=1.0, **options)
  state, _ = run(make(), batch)
  left, right, values = (np.asarray(x)[..., :4] for x in (state.left, state.right, state.values))
  tokens = {"tokens": jnp.array([[3, -1], [3, 5], [-1, -1]])}
  expected = {"w": left * values, "w+c": (left + right) * values, "both": np.hstack([left * values, right * values])}
  for vectors, table in expected.items():
    rows = np.stack([table[3], (table[3] + table[5]) / 2, 0 * table[3]])
    np.testing.assert_allclose(make(vectors=vectors, power=1.0).embed(state, tokens), rows, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(make(power=0.0).embed(state, tokens)[0], left[3], rtol=1e-6)


def test_orthonormal_knows_the_rank():
  rng = np.random.default_rng(0)
  basis = np.linalg.qr(rng.normal(size=(50, 6)))[0].astype(np.float32)
  new = rng.normal(size=(50, 2)).astype(np.float32)
  x = np.concatenate([new * 1e3, basis[:, :2], new @ [[1.0], [2]], np.zeros((50, 1))], 1).astype(np.float32)
  actual = np.asarray(orthonormal(jnp.asarray(x), jnp.asarray(basis)))
  lengths = np.sort(np.linalg.norm(actual, axis=0))
  np.testing.assert_allclose(lengths, [0, 0, 0, 0, 1, 1], atol=1e-5)
  np.testing.assert_allclose(basis.T @ actual, 0, atol=1e-6)
  inside = new - basis @ (basis.T @ new)
  np.testing.assert_allclose(actual @ (actual.T @ inside), inside, atol=1e-4)


def test_words_with_the_same_contexts_get_the_same_vector():
  """Two groups of words, each with the other's words around it."""
  group = np.arange(40) % 2
  counts = np.where(group[:, None] != group, 20.0, 1.0)
  batch, facts = cells(counts)
  state, _ = run(ppmi(**facts, dim=2, block=4, blocks=3), batch)
  table = np.asarray(ppmi(**facts, dim=2).embed(state, {"tokens": jnp.arange(40)[:, None]}))
  table = table / np.linalg.norm(table, axis=1, keepdims=True)
  cosine, same = table @ table.T, group[:, None] == group
  assert cosine[same].min() > 0.999 and cosine[~same].max() < 0.1


def test_no_collective_moves_the_cells(mesh_of):
  """Only products [V, b] cross devices, whatever the number of cells."""
  vocab, block = 64, 8
  facts = dict(vocab_size=vocab, marginals=np.ones(vocab), context_marginals=np.ones(vocab), total=64.0)
  model = ppmi(**facts, dim=8, block=block, blocks=2)
  mesh = mesh_of("data:8")

  def moved(num_cells):
    with jax.set_mesh(mesh):
      shape = lambda dtype: jax.ShapeDtypeStruct((num_cells,), dtype, sharding=NamedSharding(mesh, P("data")))
      batch = {"row": shape(jnp.int32), "col": shape(jnp.int32), "count": shape(jnp.float32),
               "mask": shape(jnp.float32)}
      state = jax.eval_shape(model.init, jax.random.key(0), batch)
      compiled = jax.jit(model.update).lower(state, batch, None).compile()
      return sorted(size for _, sizes in collectives(compiled) for size in sizes)

  sizes = moved(8 * 4096)
  assert sizes == moved(8 * 512) and max(sizes) == 4 * vocab * block


def test_a_text_and_a_matrix_from_files(tmp_path):
  """The worked case from a text file, and the same counts as a matrix of the user's own."""
  (tmp_path / "like.txt").write_text(LIKE)
  config = presets.load_config("ppmi", "tiny")
  config.data.update(dict(name=str(tmp_path / "like.txt"), normalize="spaces", boundaries="sentence", min_count=1,
                          window=1))
  data = build.prepare(config, data_dir=None, cache_dir=tmp_path)
  facts, place = data.facts, data.encoder.vocabulary.index
  assert facts["vocab_size"] == 8 and facts["total"] == 20 and facts["num_rows"] == facts["num_cells"] == 18
  assert facts["marginals"][[place["like"], place["."]]].tolist() == [4, 3]
  batch = data.splits["train"].batch_at(0)
  assert set(batch) == {"row", "col", "count", "mask"} and (np.diff(batch["row"]) >= 0).all()

  table = scipy.sparse.coo_array((batch["count"], (batch["row"], batch["col"])), shape=(8, 8))
  scipy.sparse.save_npz(tmp_path / "matrix.npz", table)
  (tmp_path / "vocabulary.txt").write_text("".join(f"{word}\n" for word in data.encoder.names))
  config.data.name = str(tmp_path / "matrix.npz")
  own = build.prepare(config, data_dir=None, cache_dir=tmp_path)
  for name in batch:
    np.testing.assert_array_equal(own.splits["train"].batch_at(0)[name], batch[name])
  assert own.encoder.names == data.encoder.names and own.facts["symmetric"]
  np.testing.assert_array_equal(own.facts["marginals"], facts["marginals"])
  assert own.encoder.encode(["NLP"])["tokens"].tolist() == [[place["NLP"]]]
  presets.set_pipeline(config, "word_blocks")
  with pytest.raises(InputError, match="holds matrix"):
    build.prepare(config, data_dir=None, cache_dir=tmp_path)


def test_ratios_of_sliding_windows(tmp_path):
  """The issue's worked case, from text to M: p(i, j) / (p(i) p(j))."""
  (tmp_path / "park.txt").write_text(PARK)
  config = presets.load_config("ppmi", "tiny")
  config.data.update(dict(name=str(tmp_path / "park.txt"), boundaries="sentence", min_count=1, counting="windows",
                          window=4))
  data = build.prepare(config, data_dir=None, cache_dir=tmp_path)
  config.model.update(dict(dim=data.facts["vocab_size"], similarity="ratio", smoothing=1.0))
  state, _ = run(build.make_model(config, data.facts, 1), data.splits["train"].batch_at(0))
  product, place = np.asarray((state.left * state.values) @ state.right.T), data.encoder.vocabulary.index
  for first, second, ratio in (("dog", "park", 1.25), ("dog", "the", 2.5), ("park", "crowded", 1 / 1.2),
                               ("girl", "park", 0)):
    assert product[place[first], place[second]] == pytest.approx(ratio, abs=1e-3)


def test_bad_arguments_are_named():
  facts = dict(vocab_size=4, marginals=np.ones(4), context_marginals=np.ones(4), total=4.0)
  for options, words in ((dict(dim=5), "dim=5: must be from 1 to the 4 words"), (dict(similarity="pppmi"), "pppmi"),
                         (dict(factorization="qr"), "factorization='qr'"), (dict(vectors="c"), "vectors='c'"),
                         (dict(factorization="eigen"), "smoothing=1"), (dict(shift=0.0), "shift=0.0"),
                         (dict(block=0), "block=0: must be at least 1")):
    with pytest.raises(InputError, match=re.escape(words)):
      ppmi(**facts, **{"dim": 2, **options})


@pytest.mark.data
@pytest.mark.long
def test_word_similarity_on_real_text(tmp_path):
  """A tenth of the Wikipedia sample is enough to be far above chance; the whole reaches .68."""
  from embeddings_jax.data import wordsets
  from embeddings_jax.eval.word_similarity import word_similarity

  config = presets.load_config("ppmi", "small")
  config.data.update(dict(max_documents=650))
  config.model.update(dict(dim=50))
  data = build.prepare(config, data_dir=None, cache_dir=tmp_path)
  state = train(build.make_model(config, data.facts, 2), data.splits["train"], steps=2, mesh=one_device())
  embed = inference.embedder(build.make_model(config, data.facts, 2), state, data.encoder)
  actual = word_similarity(embed, wordsets.word_similarity("ws353", None), vocabulary=data.encoder.vocabulary)
  assert actual["spearman"] > 0.4
