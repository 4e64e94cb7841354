"""The linear autoencoder learns the subspace of PCA, on rows and on bags of words."""
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.linalg import subspace_angles
from sklearn.decomposition import PCA

from embeddings_jax.data.bags import bag_source, count_documents
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.sources import array_source
from embeddings_jax.models.autoencoders.linear_autoencoder import linear_autoencoder
from embeddings_jax.train.loop import train
from embeddings_jax.types import InputError

D, K = 12, 3


@pytest.fixture(scope="module")
def rows():
  rng = np.random.default_rng(0)
  x = rng.normal(size=(300, D)) * np.where(np.arange(D) < K, [3, 2.5, 2] + [0.5] * (D - K), 0.5)
  return (x @ np.linalg.qr(rng.normal(size=(D, D)))[0] + 5).astype(np.float32)


@pytest.fixture(scope="module")
def trained(rows):
  """Models and states, tied and not."""
  actual = {}
  for tied in (False, True):
    model = linear_autoencoder(num_features=D, dim=K, tied=tied, optimizer=optax.adam(optax.cosine_decay_schedule(
        3e-2, 800)))
    actual[tied] = model, train(model, array_source({"x": rows}), steps=800, steps_per_dispatch=100)
  return actual


@pytest.mark.parametrize("tied", [False, True])
def test_its_subspace_is_that_of_pca(rows, trained, tied):
  model, state = trained[tied]
  reference = PCA(K).fit(rows.astype(np.float64))
  parts = {name: np.asarray(value) for name, value in model.outputs["components"](state).items()}
  angles = subspace_angles(parts["decoder"].T, reference.components_.T)
  assert np.degrees(angles.max()) < 0.5
  assert np.degrees(subspace_angles(parts["encoder"], reference.components_.T).max()) < 0.5
  best = np.square(rows - reference.inverse_transform(reference.transform(rows))).sum(1).mean()
  assert float(model.outputs["loss"](state, {"x": jnp.asarray(rows)})) == pytest.approx(best, rel=1e-3)
  np.testing.assert_allclose(parts["encoder"] @ parts["decoder"], reference.components_.T @ reference.components_,
                             atol=1e-2)
  if tied:
    np.testing.assert_allclose(parts["encoder"].T @ parts["encoder"], np.eye(K), atol=1e-2)
  codes = model.embed(state, {"x": jnp.asarray(rows[:4])})
  np.testing.assert_allclose(codes, (rows[:4] - parts["mean"]) @ parts["encoder"], atol=1e-4)


def test_the_best_code_of_fixed_weights_is_by_their_pseudo_inverse(rows, trained):
  """For a decoder D the encoder D^+ leaves least, on any data; where the code is white and spans the components, that
  of an encoder W is the decoder W^+, too."""
  model, state = trained[False]
  batch = {"x": jnp.asarray(rows)}
  loss = jax.jit(lambda params: model.outputs["loss"](state._replace(params=params), batch))
  decoder = np.random.default_rng(1).normal(size=(K, D)).astype(np.float32)
  best = {"decoder": jnp.asarray(decoder), "encoder": jnp.asarray(np.linalg.pinv(decoder))}
  slope = jax.grad(loss)(best)
  assert np.abs(slope["encoder"]).max() < 1e-3 * np.abs(jax.grad(loss)({**best, "encoder": 2 * best["encoder"]})[
      "encoder"]).max()
  for seed in range(3):
    other = best["encoder"] + 0.05 * jax.random.normal(jax.random.key(seed), (D, K))
    assert float(loss({**best, "encoder": other})) > float(loss(best))

  centered = rows - rows.mean(0)
  turn = np.random.default_rng(2).normal(size=(K, K))
  encoder = PCA(K).fit(rows).components_.T @ turn  # Any basis of the span.
  fitted = np.linalg.lstsq(centered @ encoder, centered, rcond=None)[0]
  np.testing.assert_allclose(fitted, np.linalg.pinv(encoder), atol=1e-3)


def test_bags_of_words(tmp_path):
  """The update sees blocks as the encoder makes them of texts; word order does not matter."""
  noise = np.random.default_rng(0)
  texts = [" ".join(noise.choice([f"w{i}" for i in range(20)], 12)) for _ in range(30)] + [""]
  bags = count_documents(Dataset("texts", "text", texts, fingerprint="linear_autoencoder"), cache_dir=tmp_path)
  source = bag_source(bags, blocks=8)
  model = linear_autoencoder(num_features=source.facts["num_features"], dim=2, center=False)
  blocks = jax.tree.map(jnp.asarray, source.batch_at(0))
  state = model.init(jax.random.key(0), blocks)
  encoded = jax.tree.map(jnp.asarray, bags.encoder.encode(texts))
  loss = model.outputs["loss"]
  assert float(loss(state, blocks)) == pytest.approx(float(loss(state, encoded)), rel=1e-5)
  table = np.zeros((31, 20))
  for i, text in enumerate(texts):
    for word in text.split():
      table[i, bags.encoder.vocabulary.index[word]] += 1
  x = np.log1p(table)
  x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-30)
  np.testing.assert_allclose(model.embed(state, encoded), x @ np.asarray(state.params["encoder"]), atol=1e-5)
  assert not np.asarray(model.embed(state, encoded))[30].any()
  turned = bags.encoder.encode([" ".join(text.split()[::-1]) for text in texts])
  np.testing.assert_array_equal(model.embed(state, jax.tree.map(jnp.asarray, turned)), model.embed(state, encoded))
  trained = train(model, source, steps=60, steps_per_dispatch=20)
  assert float(loss(trained, encoded)) < 0.8 * float(loss(state, encoded))


def test_on_bags_of_words_it_is_latent_semantic_analysis(tmp_path):
  """Without a center, its decoder spans the first right singular vectors of the weighted counts, LSA's, and leaves
  what they leave."""
  noise = np.random.default_rng(3)
  topic = lambda i: noise.choice([f"w{j}" for j in range(6 * (i % 3), 6 * (i % 3) + 8)], 15 + 5 * (i % 3))
  bags = count_documents(Dataset("texts", "text", [" ".join(topic(i)) for i in range(60)], fingerprint="topics"),
                         cache_dir=tmp_path)
  model = linear_autoencoder(num_features=len(bags.encoder.vocabulary.words), dim=3, center=False,
                             optimizer=optax.adam(optax.cosine_decay_schedule(3e-2, 600)))
  source = bag_source(bags, blocks=8)
  state = train(model, source, steps=600, steps_per_dispatch=100)
  batch = jax.tree.map(jnp.asarray, source.batch_at(0))
  weighted = np.asarray(model.outputs["reconstruct"](state, batch)["original"], np.float64)
  _, values, basis = np.linalg.svd(weighted, full_matrices=False)
  assert values[2] > 1.5 * values[3]
  decoder = np.asarray(model.outputs["components"](state)["decoder"])
  assert np.degrees(subspace_angles(decoder.T, basis[:3].T).max()) < 0.5
  rows = (np.linalg.norm(weighted, axis=1) > 0).sum()
  assert float(model.outputs["loss"](state, batch)) == pytest.approx((values[3:]**2).sum() / rows, rel=1e-3)


def test_more_dimensions_than_features_are_refused():
  with pytest.raises(InputError, match="dim=13: must be from 1 to the 12 features"):
    linear_autoencoder(num_features=12, dim=13)
