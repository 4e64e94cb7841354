"""Data of generative models: the rings of Gaussians, and classes beside images."""
import numpy as np
import pytest

from embeddings_jax.data import pipelines
from embeddings_jax.data.catalog import load
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.types import InputError


@pytest.mark.parametrize("name, radius, sigma", [("ring", 1.0, 0.05), ("ring-narrow", 2.0, 0.02)])
def test_a_ring_has_eight_gaussians(name, radius, sigma):
  ring = load(name)
  assert ring.items.shape == (16384, 2) and len(ring.split["train"]) == len(ring.split["test"]) == 8192
  for mode in range(8):
    rows = ring.items[ring.labels["mode"] == mode]
    center = radius * np.array([np.cos(np.pi * mode / 4), np.sin(np.pi * mode / 4)])
    np.testing.assert_allclose(rows.mean(0), center, atol=4 * sigma / len(rows) ** 0.5)
    np.testing.assert_allclose(np.cov(rows.T), sigma**2 * np.eye(2), atol=0.12 * sigma**2)


def test_images_have_their_class_beside_them():
  items = np.arange(40, dtype=np.uint8).reshape(10, 2, 2, 1)
  dataset = Dataset("x", "images", items, labels={"kind": np.array(list("bcabcabcab"))})
  images = pipelines.function(pipelines.find("images"))
  data = images(dataset, batch_size=5, seed=0, label="kind")
  batch = data.splits["train"].batch_at(0)
  assert data.facts["num_labels"] == 3 and batch["label"].dtype == np.int32
  row = np.asarray(batch["image"])[:, 0, 0, 0] // 4
  np.testing.assert_array_equal(batch["label"], (row + 1) % 3)
  assert "label" not in images(dataset, batch_size=5, seed=0).splits["train"].batch_at(0)
  with pytest.raises(InputError, match="label=kin: unknown; did you mean kind"):
    images(dataset, batch_size=5, seed=0, label="kin")
  with pytest.raises(InputError, match="label=kind: x has no labels; leave the option out"):
    images(dataset._replace(labels={}), batch_size=5, seed=0, label="kind")
