import numpy as np
import pytest

from embeddings_jax.data import wordsets
from embeddings_jax.eval.categorization import categorization, purity


def test_purity_by_hand():
  # Clusters {a a b}, {b c}: 2 and 1 of 5.
  assert purity(np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 1, 2])) == pytest.approx(3 / 5)


def test_perfect_reversed_and_random_vectors():
  noise = np.random.default_rng(0)
  words = [(f"w{i}", "abcd"[i % 4]) for i in range(80)]
  center = {name: noise.normal(size=20) for name in "abcd"}
  # Lengths differ by far: only directions count.
  table = {word: noise.uniform(0.1, 10) * (center[name] + 0.1 * noise.normal(size=20)) for word, name in words}
  actual = categorization(lambda ws: np.array([table[w] for w in ws]), [*words, ("unheard", "e")], vocabulary=table)
  assert actual == {"all/kmeans/purity": 1, "all/kmeans/purity/std": 0, "all/agglomerative/purity": 1, "words": 80,
                    "out_of_vocabulary": 1}
  actual = categorization(lambda ws: noise.normal(size=(len(ws), 20)), words, vocabulary=table)
  assert 0 < actual["all/kmeans/purity/std"] < 0.1
  assert actual["all/kmeans/purity"] < 0.55 and actual["all/agglomerative/purity"] < 0.55
  assert np.isnan(categorization(lambda ws: ws, words, vocabulary={})["all/kmeans/purity"])


def test_words_in_other_case_are_found():
  table = {"lion": [1, 0], "dog": [1, 0.1], "car": [0, 1], "van": [0.1, 1]}
  words = [("Lion", "animal"), ("dog", "animal"), ("Car", "thing"), ("van", "thing")]
  actual = categorization(lambda ws: np.array([table[w] for w in ws]), words, vocabulary=table)
  assert actual["words"] == 4 and actual["all/kmeans/purity"] == 1


@pytest.mark.data
def test_sets_have_the_sizes_of_their_papers():
  sizes = {name: (len(words), len({category for _, category in words}))
           for name, words in ((name, wordsets.categorization(name)) for name in wordsets.CATEGORIZATION)}
  assert sizes == {"ap": (402, 21), "bless": (200, 17), "essli-2008": (45, 9)}
  assert wordsets.categorization("ap")[0] == ("acne", "illness")
