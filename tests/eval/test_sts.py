"""STS: scipy's correlation, cases by hand, a perfect and a random embedding, what is averaged how."""
import logging
import types

import numpy as np
import pytest
import scipy.sparse
import scipy.stats

from embeddings_jax.eval.sts import AVERAGED, average, sts
from embeddings_jax.types import InputError


def dataset(score, source=None, split=None):
  labels = {"score": np.asarray(score, np.float32)} | ({} if source is None else {"source": np.asarray(source)})
  return types.SimpleNamespace(name="made", kind="pairs", items=[(f"a{i}", f"b{i}") for i in range(len(score))],
                               labels=labels, split=split or {})


def perfect(scores):
  """The angle between the vectors of pair i says its score; their lengths say nothing."""
  def embed(sentences):
    angle = [0 if s[0] == "a" else np.radians(90 - 15 * scores[int(s[1:])]) for s in sentences]
    return np.stack([np.cos(angle), np.sin(angle)], 1) * np.arange(1, len(sentences) + 1)[:, None]
  return embed


def test_by_hand():
  # Ranks 1 2 3 4 of the scores against 1 2 4 3 of the cosines: 1 - 6 * 2 / (4 * 15).
  embed = perfect([0, 1, 5, 4])
  assert sts(embed, dataset([0, 1, 2, 3])) == {"all/spearman": pytest.approx(0.8)}


def test_is_scipys_with_ties_and_zeros():
  noise = np.random.default_rng(0)
  score = noise.integers(0, 6, 200)
  vectors = {f"{side}{i}": noise.integers(-1, 2, 3).astype(np.float32) for side in "ab" for i in range(200)}
  actual = sts(lambda sentences: np.array([vectors[s] for s in sentences]), dataset(score))["all/spearman"]
  cosine = []
  for i in range(200):
    a, b = vectors[f"a{i}"], vectors[f"b{i}"]
    size = np.linalg.norm(a) * np.linalg.norm(b)
    cosine.append(round(float(a @ b / size), 6) if size else 0.0)
  assert any(not vectors[f"a{i}"].any() for i in range(200)) and len(set(cosine)) < 50
  assert actual == pytest.approx(scipy.stats.spearmanr(cosine, score).statistic, abs=1e-9)
  sparse = sts(lambda sentences: scipy.sparse.csr_array([vectors[s] for s in sentences]), dataset(score))
  assert sparse["all/spearman"] == pytest.approx(actual, abs=1e-9)


def test_perfect_and_random():
  noise = np.random.default_rng(1)
  score = noise.uniform(0, 5, 900)
  split = {"train": np.arange(300), "dev": np.arange(300, 600), "test": np.arange(600, 900)}
  actual = sts(perfect(score), dataset(score, split=split))
  assert actual["dev/spearman"] == actual["test/spearman"] == pytest.approx(1)
  assert set(actual) == {"dev/spearman", "test/spearman", "dev/alignment", "dev/uniformity"}
  at_random = lambda sentences: noise.normal(size=(len(sentences), 50))
  assert abs(sts(at_random, dataset(score))["all/spearman"]) < 3 / np.sqrt(900)


def test_scores_or_cosines_without_variance_say_so(caplog):
  ones = lambda sentences: np.ones((len(sentences), 2))
  with caplog.at_level(logging.WARNING):
    assert np.isnan(sts(ones, dataset([1, 2, 3]))["all/spearman"])
  assert "made: all/spearman is not defined (nan): all values of the model are equal" in caplog.text

  def never(sentences):
    raise AssertionError("embedded for nothing")

  halves = {"dev": np.arange(2), "test": np.arange(2, 4)}
  for score, options, message in (
      ([3, 3], {}, "sts: all 2 scores of made, part all, are 3; nothing can be correlated"),
      ([3], {}, "sts: made, part all, has 1 pairs; a correlation needs two"),
      ([1, 2, 4.5, 4.5], dict(split=halves), "sts: all 2 scores of made, part test, are 4.5"),
      ([1, 2, 4, 4], dict(source=[*"xxyy"]), "sts: all 2 scores of made, source y, are 4")):
    with pytest.raises(InputError, match=message):
      sts(never, dataset(score, **options))


def test_alignment_and_uniformity_are_of_dev_alone():
  score = [4, 4.5, 5, 0, 5, 4]
  items = dataset(score, split={"dev": np.arange(4), "test": np.arange(4, 6)})
  vectors = {"a0": [1, 0], "b0": [-1, 0], "a1": [2, 0], "b1": [0, 3], "a2": [1, 0], "b2": [5, 0], "a3": [0, 1],
             "b3": [0, -1]}
  actual = sts(lambda sentences: np.array([vectors.get(s, [1, 1]) for s in sentences], float), items)
  assert actual["dev/alignment"] == pytest.approx((2 + 0) / 2)  # A score of 4 is not above 4.
  unit = np.array([np.array(v) / np.linalg.norm(v) for v in vectors.values()])
  distance = ((unit[:, None] - unit) ** 2).sum(-1)[~np.eye(8, dtype=bool)]
  assert actual["dev/uniformity"] == pytest.approx(np.log(np.exp(-2 * distance).mean()), rel=1e-5)


def test_sources_are_taken_together_and_one_by_one():
  """Each source is ordered rightly, or wrongly, and all together otherwise."""
  split = {"train": np.array([7]), "test": np.arange(7)}
  items = dataset([1, 2, 3, 4, 0, 1, 2, 5], [*"xxxxyyy", "x"], split)
  actual = sts(perfect([1, 2, 3, 4, 5, 4.5, 4.2, 0]), items)
  assert actual["mean/spearman"] == pytest.approx((1 - 1) / 2) and actual["wmean/spearman"] == pytest.approx(1 / 7)
  together = scipy.stats.spearmanr([1, 2, 3, 4, 0, 1, 2], [1, 2, 3, 4, 5, 4.5, 4.2]).statistic
  assert actual["all/spearman"] == pytest.approx(together)


def test_the_average_is_of_all_six_or_not_given():
  metrics = {name: float(i) for i, name in enumerate(AVERAGED)}
  assert average(metrics) == {"sts-average/all/spearman": 2.5}
  del metrics["sts-14/all/spearman"]
  assert average(metrics) == {}


def test_what_cannot_be_asked():
  with pytest.raises(InputError, match="sts: dataset 'made' has no scores, only label"):
    sts(len, types.SimpleNamespace(name="made", kind="pairs", items=[("a", "b")], labels={"label": ["x"]}, split={}))
  with pytest.raises(InputError, match="sts: dataset 'made' holds text, should hold pairs"):
    sts(len, types.SimpleNamespace(name="made", kind="text", items=["a"], labels={}, split={}))
  with pytest.raises(InputError, match="sts: the embedding of row 3 is not finite"):
    sts(lambda sentences: np.where(np.arange(len(sentences)) == 3, np.nan, 1.0)[:, None], dataset([1, 2]))


@pytest.mark.data
def test_shared_words_say_much():
  """Bags of words, without any learning, are far above chance on real pairs."""
  from sklearn.feature_extraction.text import CountVectorizer

  from embeddings_jax.data import catalog

  count = CountVectorizer(token_pattern=r"\w+").fit_transform
  benchmark = catalog.load("sts-b")
  benchmark = benchmark._replace(split={"test": benchmark.split["test"]})
  embed = lambda sentences: count(sentences).astype(np.float32)
  assert sts(embed, benchmark)["test/spearman"] == pytest.approx(0.494, abs=0.02)
  assert sts(embed, catalog.load("sts-16"))["all/spearman"] > 0.3
