"""Transfer: features of pairs by hand, a perfect and a random embedding, where the penalty is chosen."""
import types

import numpy as np
import pytest
import scipy.sparse

from embeddings_jax.eval import transfer as module
from embeddings_jax.eval.transfer import transfer
from embeddings_jax.types import InputError

ACCURACY, MATTHEWS = "test/transfer_accuracy", "test/transfer_matthews"


def dataset(label, kind="text", dev=True, size=(200, 100, 100)):
  ends = np.cumsum(size)
  split = {part: np.arange(end - n, end) for part, n, end in zip(("train", "dev", "test"), size, ends)}
  if not dev:
    del split["dev"]
  items = [f"a{i}" if kind == "text" else (f"a{i}", f"b{i}") for i in range(ends[-1])]
  return types.SimpleNamespace(name="made", kind=kind, items=items, labels={"class": label}, split=split)


LABEL = np.random.default_rng(0).integers(0, 2, 400)


def test_features_of_pairs_by_hand():
  items = types.SimpleNamespace(kind="pairs", items=[("a", "b"), ("b", "a"), ("c", "c")])
  table = {"a": [1, 2], "b": [3, -1], "c": [0, 5]}
  embed = lambda sentences: np.array([table[s] for s in sentences])
  expected = [[2, 3, 3, -2], [0, 0, 0, 25]]
  np.testing.assert_array_equal(module._features(embed, items, np.array([0, 2])), expected)
  sparse = module._features(lambda s: scipy.sparse.csr_array(embed(s)), items, np.array([1, 2]))
  np.testing.assert_array_equal(sparse.toarray(), expected)


@pytest.mark.parametrize("dev", [True, False])
def test_perfect_and_random(dev):
  noise = np.random.default_rng(1)
  perfect = transfer(lambda s: np.eye(2)[[LABEL[int(x[1:])] for x in s]], dataset(LABEL, dev=dev))
  assert perfect[ACCURACY] == perfect[MATTHEWS] == 1
  random = transfer(lambda s: noise.normal(size=(len(s), 5)), dataset(LABEL, dev=dev))
  assert random[ACCURACY] == pytest.approx(0.5, abs=0.15) and abs(random[MATTHEWS]) < 0.3


def test_pairs_are_told_by_their_difference():
  """Equal vectors or not: neither sentence alone says it, their product does."""
  noise = np.random.default_rng(2)
  side = noise.choice([-1.0, 1.0], (400, 4))
  table = {f"a{i}": side[i] for i in range(400)} | {f"b{i}": side[i] * (1 if LABEL[i] else -1) for i in range(400)}
  actual = transfer(lambda s: np.array([table[x] for x in s]), dataset(LABEL, "pairs"))
  assert actual[ACCURACY] == 1


def test_the_penalty_is_chosen_on_dev_and_nothing_on_test(monkeypatch):
  given = []
  real = module.classifier
  monkeypatch.setattr(module, "classifier", lambda *args, **options: given.append(options) or real(*args, **options))
  noise = np.random.default_rng(3)
  table = noise.normal(size=(400, 30)) + LABEL[:, None] * 0.5
  embed = lambda s: table[[int(x[1:]) for x in s]]
  actual = transfer(embed, dataset(LABEL))
  np.testing.assert_allclose(given[0]["held_out"][0], table[200:300].astype(np.float32))
  np.testing.assert_array_equal(given[0]["held_out"][1], LABEL[200:300])
  turned = LABEL.copy()
  turned[300:] ^= 1
  assert transfer(embed, dataset(turned))[ACCURACY] == pytest.approx(1 - actual[ACCURACY])
  transfer(embed, dataset(LABEL, dev=False))
  assert given[2]["held_out"] is None


def test_what_cannot_be_asked():
  rows = types.SimpleNamespace(name="made", kind="rows", items=np.zeros((2, 3)), labels={}, split={})
  for bad in (dataset(LABEL.astype(float)), rows):
    with pytest.raises(InputError, match="transfer: dataset 'made' should have texts or pairs"):
      transfer(len, bad)
  with pytest.raises(InputError, match="the embedding of row 7 is not finite"):
    transfer(lambda s: np.where(np.arange(len(s)) == 7, np.nan, 0)[:, None], dataset(LABEL))
