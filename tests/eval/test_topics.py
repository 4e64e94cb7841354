"""Topics: cases worked by hand, perfect and random ones, and scipy-free loops."""
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse

from embeddings_jax.data.encoders.bags import BagEncoder
from embeddings_jax.data.words import Vocabulary
from embeddings_jax.eval import topics as lib
from embeddings_jax.eval.topics import diversity, npmi, perplexity, topics, windows
from embeddings_jax.types import InputError


def table(*documents, size=4):
  return scipy.sparse.csr_array([[float(i in document) for i in range(size)] for document in documents])


def test_npmi_worked_by_hand():
  presence = table({0, 1}, {0, 1}, {0, 2}, {3})
  # p(0) = 3/4, p(1) = 1/2, p(0, 1) = 1/2: log(4/3) / log 2.
  assert npmi(np.array([[0, 1]]), presence) == pytest.approx(np.log(4 / 3) / np.log(2))
  assert npmi(np.array([[1, 2]]), presence) == -1  # They never meet.
  # Topics count alike, and so do pairs: p(0, 2) = 1/4 gives log(4/3) / log 4.
  third = np.log(4 / 3) / np.log(4)
  expected = np.mean([np.log(4 / 3) / np.log(2), third, -1])
  assert npmi(np.array([[0, 1, 2]]), presence) == pytest.approx(expected)
  assert npmi(np.array([[0, 1], [2, 0]]), presence) == pytest.approx((np.log(4 / 3) / np.log(2) + third) / 2)
  assert npmi(np.array([[0, 1]]), table({0, 1}, {0, 1})) == 1
  assert npmi(np.array([[0, 1]]), table({0, 1}, {2})) == pytest.approx(1)  # Always and only together.


def test_independent_words_get_nothing():
  presence = scipy.sparse.csr_array((np.random.default_rng(0).random((20000, 20)) < 0.3).astype(float))
  assert npmi(np.arange(20).reshape(2, 10), presence) == pytest.approx(0, abs=0.01)


def test_windows_are_those_of_a_loop():
  noise = np.random.default_rng(0)
  tokens = [noise.integers(0, 7, n) for n in (0, 3, 10, 25)]
  wanted = np.array([[1, 2], [2, 5]])
  expected = []
  for document in tokens:
    for i in range(max(len(document) - 3, 1)):
      expected.append([float(w in document[i:i + 4] and w in wanted) for w in range(7)])
  np.testing.assert_array_equal(windows(tokens, 7, wanted, 4).todense(), expected)


def test_diversity():
  assert diversity(np.array([[0, 1], [2, 3]])) == 1
  assert diversity(np.array([[0, 1], [1, 0]])) == 0.5


VOCABULARY = Vocabulary([f"w{i}" for i in range(8)], np.full(8, 5))


def test_perplexity_of_uniform_and_of_right_topics():
  bags = [(np.array([0, 1]), np.array([40.0, 40])), (np.array([4, 5]), np.array([30.0, 30]))]
  half = np.repeat(np.eye(2) / 4, 4, axis=1)
  actual = perplexity(lambda items: np.full((len(items), 2), 0.5), bags, half, VOCABULARY)
  assert actual["perplexity"] == pytest.approx(8) and actual["unigram/perplexity"] == pytest.approx(8)
  # Of the first four words or of the last, by the words that are shown.
  embed = lambda items: np.array([[float("w0" in item), float("w4" in item)] for item in items])
  assert perplexity(embed, bags, half, VOCABULARY)["perplexity"] == pytest.approx(4)
  exact = np.array([[0.5, 0.5, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0.5, 0.5, 0, 0]])
  assert perplexity(embed, bags, exact, VOCABULARY)["perplexity"] == pytest.approx(2)
  assert np.isnan(perplexity(embed, [(np.zeros(0, int), np.zeros(0))] * 2, exact, VOCABULARY)["perplexity"])


def test_each_occurrence_is_shown_or_hidden():
  seen = []
  embed = lambda items: seen.extend(items) or np.ones((len(items), 1))
  right = np.array([[0.2, 0.8] + [0] * 6])
  actual = perplexity(embed, [(np.array([0, 1]), np.array([1000.0, 0.5]))], right, VOCABULARY, seed=1)
  hidden = 1000 - seen[0]["w0"], 0.5 - seen[0].get("w1", 0)
  assert 400 < hidden[0] < 600 and hidden[1] in (0, 0.5)
  expected = np.exp(-(hidden[0] * np.log(0.2) + hidden[1] * np.log(0.8)) / sum(hidden))
  assert actual["perplexity"] == pytest.approx(expected)


def test_the_protocol_on_a_perfect_and_on_a_random_model():
  """Two groups of words that never meet; the topics are the groups, or noise."""
  noise = np.random.default_rng(0)
  words = [f"{group}{i}" for i in range(30) for group in "ab"]
  encoder = BagEncoder(Vocabulary(words, np.full(60, 9)), "lower")
  group = noise.integers(0, 2, 400)
  texts = [" ".join(f"{'ab'[g]}{i}" for i in noise.integers(0, 30, 40)) for g in group]
  dataset = SimpleNamespace(items=texts, split={"train": np.arange(300), "test": np.arange(300, 400)})
  perfect = np.array([[w.startswith(g) / 30 for w in words] for g in "ab"])
  embed = lambda items: np.array([[any(w[0] == g for w in item) for g in "ab"] for item in items], float)
  actual = topics(embed, dataset, topics=perfect, encoder=encoder)
  assert actual.keys() == {"npmi", "npmi_window", "diversity", "test/perplexity", "test/unigram/perplexity"}
  assert actual["diversity"] == 1 and actual["npmi"] > 0.4 and actual["npmi_window"] > 0.1
  assert actual["test/perplexity"] == pytest.approx(30) and actual["test/unigram/perplexity"] == pytest.approx(60)
  random = noise.dirichlet(np.ones(60), 2)
  worse = topics(lambda items: np.full((len(items), 2), 0.5), dataset, topics=random, encoder=encoder)
  assert worse["npmi"] < 0 and worse["npmi_window"] < 0 and worse["test/perplexity"] > 60
  assert worse["diversity"] < 1
  counted = SimpleNamespace(items=[dict.fromkeys(text.split(), 1) for text in texts], split={})
  actual = topics(embed, counted, topics=perfect, encoder=encoder)
  assert "npmi_window" not in actual and actual["all/perplexity"] == pytest.approx(30)
  with pytest.raises(InputError, match=r"the topics are \[2, 59\], and the vocabulary has 60 words"):
    topics(embed, dataset, topics=perfect[:, 1:], encoder=encoder)
  assert lib.top_words(np.array([[0.1, 0.5, 0.5]]), 2).tolist() == [[1, 2]]
