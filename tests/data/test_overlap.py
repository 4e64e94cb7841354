"""Sentences that training and evaluation share, however they are written."""
import pytest

from embeddings_jax.data import catalog
from embeddings_jax.data.datasets import tasks
from embeddings_jax.data.overlap import normalized, without_overlap


def test_by_hand():
  items = ["A dog runs.", ("x", "Don't   go!"), ("new", "also new", "A CAT ."), "a dog", "...", "É 3"]
  others = [("a dog runs", "other"), "don 't go", ("a-cat", "y", "z"), "?!", "é3"]
  kept, dropped = without_overlap(items, others)
  assert kept.tolist() == [3, 4] and dropped == 4
  assert normalized("Don't_go, 2!") == "dontgo2"
  assert normalized("Cafe\u0301!") == normalized("café") != normalized("cafe")
  assert normalized("की") != normalized("का")


def test_nothing_to_compare_with_drops_nothing():
  kept, dropped = without_overlap(["a", "b"], [])
  assert kept.tolist() == [0, 1] and dropped == 0
  kept, dropped = without_overlap([], ["a"])
  assert kept.tolist() == [] and kept.dtype.kind == "i" and dropped == 0


@pytest.mark.data
def test_snli_shares_captions_with_sts():
  asked = [item for name in tasks.STS for item in catalog.load(name).items]
  triples = catalog.load("snli-triples").items
  kept, dropped = without_overlap(triples, asked)
  assert (len(kept), dropped) == (5731, 152)
  known = {normalized(sentence) for pair in asked for sentence in pair}
  assert not any(normalized(sentence) in known for i in kept for sentence in triples[i])
