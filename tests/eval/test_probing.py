"""Probes find the layer in which something was planted."""
import numpy as np
import pytest

from embeddings_jax.data.dataset import Dataset
from embeddings_jax.eval import probing as module
from embeddings_jax.eval.probing import probing
from embeddings_jax.types import InputError

L, D = 3, 8  # Layers above the embeddings, width.


@pytest.fixture(autouse=True)
def short(monkeypatch):
  monkeypatch.setattr(module, "STEPS", 20)
  monkeypatch.setattr(module, "RATE", 1e-2)


def dataset(tag_of, num=240):
  rng = np.random.default_rng(0)
  items = [tuple(f"w{i}" for i in rng.integers(0, 20, 5)) for _ in range(num)]
  tags = np.empty(num, object)
  tags[:] = [tag_of(words) for words in items]
  split = {"train": np.arange(160), "dev": np.arange(160, 200), "test": np.arange(200, num)}
  return Dataset("d", "words", items, labels={"tags": tags}, split=split)


def hidden_at(layer, kinds):
  """Vectors of noise; from `layer` on the word's kind is written into them. The word w0 is not known."""
  def hidden(sentences):
    rng = np.random.default_rng(1)
    words = [word for sentence in sentences for word in sentence]
    vectors = rng.normal(size=(len(words), L + 1, D)).astype(np.float32)
    kind = np.array([int(word[1:]) % kinds for word in words])
    vectors[np.arange(len(words)), layer:, :] += 3 * np.eye(D)[kind][:, None]
    return vectors, np.array([word != "w0" for word in words])
  return hidden


def test_finds_the_layer_where_the_tag_is():
  data = dataset(lambda words: tuple(f"t{int(word[1:]) % 4}" for word in words))
  actual = probing(None, data, hidden=hidden_at(2, 4), untrained=hidden_at(L + 1, 4))
  for layer in range(L + 1):
    for kind in ("layer", "cumulative"):
      score = actual[f"test/{kind}_{layer}/accuracy"]
      assert score > 0.9 if layer >= 2 else score < 0.45, (kind, layer)
  assert actual["expected_layer"] == pytest.approx(2, abs=0.3)
  assert 2 < actual["center_of_gravity"] < 3
  mix = [actual[f"mix_{layer}"] for layer in range(L + 1)]
  assert sum(mix) == pytest.approx(1) and min(mix[2:]) > 2 * max(mix[:2])
  assert actual["test/untrained/accuracy"] < 0.45 and 0.2 < actual["test/majority/accuracy"] < 0.45


def test_of_entities_the_type_is_asked():
  """Types that the entity's mean tells; tags outside of entities are not asked about."""
  def tags(words):
    kind = int(words[1][1:]) % 2
    return ("O", f"B-k{kind}", f"I-k{kind}", "O", "O")

  actual = probing(None, dataset(tags), hidden=hidden_at(0, 2))
  assert actual["test/layer_0/accuracy"] > 0.65  # The second word of an entity says nothing.
  assert actual["test/majority/accuracy"] < 0.65


def test_what_is_no_such_data_set_is_refused():
  with pytest.raises(InputError, match="should have tagged words and the parts train, dev and test"):
    probing(None, dataset(lambda words: ("a",) * 5)._replace(split={}), hidden=hidden_at(0, 2))
  with pytest.raises(InputError, match="fewer than two classes"):
    probing(None, dataset(lambda words: ("a",) * 5), hidden=hidden_at(0, 2))
