"""Held-out text: sums by counts, perplexity, the unigram's loss, and no held-out part."""
import jax.numpy as jnp
import numpy as np
import pytest

from embeddings_jax.data.sources import array_source
from embeddings_jax.eval.held_out import held_out
from embeddings_jax.types import InputError

TOKENS = np.array([[0, 2, 3, 3], [0, 3, 2, -1], [0, 1, 1, 1]], np.int32)


def measure(batch):
  """Each token past the first loses its own number."""
  weight = (batch["tokens"] > 0) * batch["mask"][:, None]
  return {"loss": jnp.array([(weight * batch["tokens"]).sum(), weight.sum()]), "empty": jnp.zeros(2)}


def test_means_over_all_batches_and_the_unigram():
  source = array_source({"tokens": TOKENS}, 2, order="sequential", remainder="pad")
  counts = np.array([100, 4, 0, 9])
  metrics = held_out(None, None, measure=measure, source=source, counts=counts, special_ids=[0])
  assert metrics["validation/loss"] == pytest.approx((2 + 3 + 3 + 3 + 2 + 3) / 8)
  assert metrics["validation/perplexity"] == pytest.approx(np.exp(2))
  expected = -(3 * np.log(5 / 117) + 2 * np.log(1 / 117) + 3 * np.log(10 / 117)) / 8
  assert metrics["validation/unigram_loss"] == pytest.approx(expected)
  assert set(metrics) == {"validation/loss", "validation/perplexity", "validation/unigram_loss"}


def test_without_a_held_out_part():
  with pytest.raises(InputError, match="no held-out part"):
    held_out(None, None, measure=measure, source=None)
