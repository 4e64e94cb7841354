"""Likelihood bounds: a uniform model has 8 bits per dimension, names have the split and k, collapse is warned of."""
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.sources import array_source
from embeddings_jax.eval import likelihood as module
from embeddings_jax.eval.likelihood import likelihood

X = np.random.default_rng(0).integers(0, 256, (230, 5, 4, 1)).astype(np.uint8)


def encode(items):
  return {"image": np.asarray(items), "mask": np.ones(len(items), np.float32)}


def evaluate(bound, split, **options):
  embed = lambda items: np.stack([np.asarray(items).mean((1, 2, 3)), np.zeros(len(items))], 1)
  return likelihood(embed, Dataset("x", "images", X, split=split), bound=bound, encode=encode, **options)


def uniform(batch, rng, num):
  return jnp.full(len(batch["image"]), -20 * np.log(256))


def test_a_uniform_model_of_bytes_has_8_bits():
  actual = evaluate(uniform, {"test": np.arange(200)})
  assert actual["test/elbo"] == pytest.approx(-20 * np.log(256))
  assert actual["test/elbo_bits_per_dim"] == pytest.approx(8, abs=1e-6)
  assert actual["test/bound_k50_bits_per_dim"] == pytest.approx(8, abs=1e-6)
  assert actual["test/active_units"] == 1


def test_means_over_images_and_draws_of_their_own():
  """Each batch has its key; padding counts for nothing; k reaches the bound."""
  def bound(batch, rng, num):
    return jnp.asarray(batch["image"], jnp.float32).mean((1, 2, 3)) + num + jax.random.uniform(rng)

  draws = [float(jax.random.uniform(jax.random.fold_in(jax.random.key(3), i))) for i in range(3)]
  actual = evaluate(bound, {}, seed=3, num_samples=7)
  expected = X.mean() + (100 * draws[0] + 100 * draws[1] + 30 * draws[2]) / 230
  assert actual["all/elbo"] == pytest.approx(expected + 1, rel=1e-5)
  assert actual["all/bound_k7"] == pytest.approx(expected + 7, rel=1e-5)


def test_large_splits_are_cut_and_say_so(monkeypatch):
  monkeypatch.setattr(module, "MAX_ITEMS", 150)
  assert "test_150/elbo" in evaluate(uniform, {"test": np.arange(200)})
  source = array_source({"image": X}, 50, order="sequential", remainder="pad")
  assert "validation_150/elbo" in evaluate(uniform, {}, source=source)


@pytest.mark.parametrize("kl,warns", [(0.05, True), (5.0, False)])
def test_collapse_is_warned_of(kl, warns, caplog):
  measure = lambda batch: {"kl_loss": jnp.stack([kl * batch["mask"].sum(), batch["mask"].sum()])}
  with caplog.at_level(logging.WARNING):
    actual = evaluate(uniform, {"test": np.arange(120)}, measure=measure)
  assert actual["test/kl"] == pytest.approx(kl) and ("KL warm-up" in caplog.text) == warns
