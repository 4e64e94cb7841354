import numpy as np
import pytest
import scipy.stats

from embeddings_jax.eval.word_similarity import word_similarity


def _embed(table):
  return lambda words: np.array([table[word] for word in words])


def test_worked_by_hand():
  # Cosines 1, 0, -1, 0 have ranks 4, 2.5, 1, 2.5 and the ratings 4, 3, 1, 2: their covariance is 4.5 against
  # variances 4.5 and 5.
  table = {"right": [2, 0], "east": [1, 0], "up": [0, 3], "left": [-1, 0]}
  pairs = [("right", "east", 9.0), ("right", "up", 5.0), ("right", "left", 1.0), ("left", "up", 2.0)]
  result = word_similarity(_embed(table), pairs, vocabulary=table)
  assert result["spearman"] == pytest.approx(4.5 / np.sqrt(4.5 * 5))
  assert (result["pairs"], result["out_of_vocabulary"]) == (4, 0)


def test_perfect_and_reversed_order():
  angles = np.linspace(0, np.pi / 2, 20)
  table = {f"w{i}": [np.cos(a), np.sin(a)] for i, a in enumerate(angles)}
  pairs = [("w0", f"w{i}", 20.0 - i) for i in range(1, 20)]
  assert word_similarity(_embed(table), pairs, vocabulary=table)["spearman"] == pytest.approx(1)
  pairs = [(a, b, -s) for a, b, s in pairs]
  assert word_similarity(_embed(table), pairs, vocabulary=table)["spearman"] == pytest.approx(-1)


def test_random_embedding_is_at_chance():
  noise = np.random.default_rng(0)
  table = {f"w{i}": noise.normal(size=50) for i in range(2000)}
  pairs = [(f"w{2 * i}", f"w{2 * i + 1}", noise.uniform()) for i in range(1000)]
  assert abs(word_similarity(_embed(table), pairs, vocabulary=table)["spearman"]) < 3 / np.sqrt(1000)


def test_equals_scipy_with_ties():
  noise = np.random.default_rng(1)
  table = {f"w{i}": noise.integers(-1, 2, size=3) for i in range(40)}  # Few distinct cosines, zero vectors too.
  pairs = [(f"w{a}", f"w{b}", float(s)) for a, b, s in noise.integers(0, 40, (300, 3))]
  unit = {k: v / max(np.linalg.norm(v), 1e-30) for k, v in table.items()}
  cosine = [round(float(unit[a] @ unit[b]), 12) for a, b, _ in pairs]
  expected = scipy.stats.spearmanr(cosine, [s for *_, s in pairs])[0]
  assert word_similarity(_embed(table), pairs, vocabulary=table)["spearman"] == pytest.approx(expected, abs=1e-12)


def test_unknown_words_are_counted_and_case_is_tried():
  table = {"maradona": [1, 0], "football": [1, 1], "tiger": [0, 1], "Java": [1, 3]}
  seen = []

  def embed(words):
    seen.extend(words)
    return _embed(table)(words)

  pairs = [("Maradona", "football", 8.0), ("tiger", "cat", 7.0), ("Java", "Tiger", 3.0), ("x", "y", 1.0)]
  result = word_similarity(embed, pairs, vocabulary=set(table))
  assert set(seen) == set(table)
  assert (result["pairs"], result["out_of_vocabulary"]) == (2, 2)
  assert result["spearman"] == pytest.approx(-1)  # Cosines .71 and .95 for ratings 8 and 3.


def test_too_few_pairs_have_no_correlation():
  result = word_similarity(_embed({"a": [1.0]}), [("a", "a", 1.0), ("a", "b", 2.0)], vocabulary={"a"})
  assert np.isnan(result["spearman"]) and result["pairs"] == 1 and result["out_of_vocabulary"] == 1
