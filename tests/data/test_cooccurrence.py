"""Co-occurrence counts: two worked cases, a plain double loop, memory limits, interruption."""
import collections
import itertools
import os
import signal
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from embeddings_jax.data.cooccurrence import count_cooccurrences
from embeddings_jax.types import InputError

PARK = ("the girl walks to her dog to the park", "it can take a long time to park your car in nyc",
        "the dog park is always crowded on saturdays")
LIKE = ("I like deep learning .", "I like NLP .", "I enjoy flying .")


def ids(sentences):
  """`(stream with -1 between sentences, words in the order of their ids)`."""
  words = sorted({word for sentence in sentences for word in sentence.split()})
  runs = [[words.index(word) for word in sentence.split()] for sentence in sentences]
  return np.array([i for run in runs for i in [*run, -1]][:-1], np.int32), words


def corpus(num_tokens=1500, vocab_size=60, seed=0, boundary=0.05):
  """Zipfian noise; some documents are shorter than any window and some are empty."""
  rng = np.random.default_rng(seed)
  tokens = rng.choice(vocab_size, num_tokens, p=(share := 1 / np.arange(1, vocab_size + 1)) / share.sum())
  return np.where(rng.random(num_tokens) < boundary, -1, tokens).astype(np.int32)


def runs_of(tokens):
  return [list(run) for wall, run in itertools.groupby(tokens.tolist(), lambda t: t < 0) if not wall]


def by_pairs(tokens, window, weighting, symmetric):
  """The definition, as a double loop."""
  counts = collections.Counter()
  for run in runs_of(tokens):
    for i, j in itertools.combinations(range(len(run)), 2):
      if j - i <= window:
        weight = 1 / (j - i) if weighting == "distance" else 1
        counts[run[i], run[j]] += weight
        if symmetric:
          counts[run[j], run[i]] += weight
  return counts


def by_windows(tokens, window):
  """`(counts, windows that hold a word, windows)`."""
  counts, marginals, total = collections.Counter(), collections.Counter(), 0
  for run in runs_of(tokens):
    for start in range(max(1, len(run) - window + 1)):
      total += 1
      held = set(run[start:start + window])
      marginals.update(held)
      counts.update(itertools.permutations(held, 2))
  return counts, marginals, total


def as_dict(actual):
  return {(r, c): n for r, c, n in zip(actual.row.tolist(), actual.col.tolist(), actual.count.tolist())}


def check_layout(actual, vocab_size):
  key = actual.row.astype(np.int64) * vocab_size + actual.col
  assert (np.diff(key) > 0).all() and actual.facts["num_cells"] == len(key)
  assert (actual.row.dtype, actual.col.dtype, actual.count.dtype) == (np.int32, np.int32, np.float32)
  np.testing.assert_array_equal(actual.indptr, np.searchsorted(actual.row, np.arange(vocab_size + 1)))


def test_sliding_windows_of_the_worked_case(tmp_path):
  tokens, words = ids(PARK)
  actual = count_cooccurrences(tokens, len(words), key="park", counting="windows", window=4, cache_dir=tmp_path)
  counts, place = as_dict(actual), {word: i for i, word in enumerate(words)}
  marginals, total = actual.facts["marginals"], actual.facts["total"]
  assert total == 20
  assert [marginals[place[w]] for w in ("dog", "park", "crowded", "the")] == [6, 8, 3, 4]
  expected = {("dog", "park"): (3, 1.25), ("dog", "the"): (3, 2.5), ("park", "the"): (2, 1.25),
              ("park", "crowded"): (1, 1 / 24 * 20)}
  for (first, second), (count, ratio) in expected.items():
    for a, b in ((first, second), (second, first)):
      assert counts[place[a], place[b]] == count
      assert count * total / (marginals[place[a]] * marginals[place[b]]) == pytest.approx(ratio)
  check_layout(actual, len(words))


def test_distance_one_of_the_worked_case(tmp_path):
  tokens, words = ids(LIKE)
  actual = count_cooccurrences(tokens, len(words), key="like", window=1, cache_dir=tmp_path)
  counts, place = as_dict(actual), {word: i for i, word in enumerate(words)}
  sums = dict(zip(words, actual.facts["marginals"]))
  assert sums == {"I": 3, "like": 4, "enjoy": 2, "deep": 2, "learning": 2, "NLP": 2, "flying": 2, ".": 3}
  assert counts[place["I"], place["like"]] / sums["I"] == pytest.approx(2 / 3)
  assert actual.facts["total"] == 20 and len(counts) == actual.facts["num_cells"] == 18


@pytest.mark.parametrize("weighting,symmetric,window", [("distance", True, 7), ("none", False, 3),
                                                        ("distance", False, 40)])
def test_pairs_equal_a_double_loop(tmp_path, weighting, symmetric, window):
  tokens = corpus()
  actual = count_cooccurrences(tokens, 60, key="k", window=window, weighting=weighting, symmetric=symmetric,
                               cache_dir=tmp_path)
  expected = by_pairs(tokens, window, weighting, symmetric)
  assert as_dict(actual).keys() == expected.keys()
  np.testing.assert_allclose([as_dict(actual)[pair] for pair in expected], list(expected.values()), rtol=1e-6)
  dense = np.zeros((60, 60))
  dense[tuple(zip(*expected))] = list(expected.values())
  np.testing.assert_allclose(actual.facts["marginals"], dense.sum(1), rtol=1e-6)
  np.testing.assert_allclose(actual.facts["context_marginals"], dense.sum(0), rtol=1e-6)
  assert actual.facts["total"] == pytest.approx(dense.sum(), rel=1e-6)
  check_layout(actual, 60)


@pytest.mark.parametrize("window", [2, 5])
def test_windows_equal_a_double_loop(tmp_path, window):
  tokens = corpus()
  actual = count_cooccurrences(tokens, 60, key="k", window=window, counting="windows", cache_dir=tmp_path)
  counts, marginals, total = by_windows(tokens, window)
  assert as_dict(actual) == counts
  assert actual.facts["total"] == total
  assert dict(enumerate(actual.facts["marginals"])) == {i: marginals[i] for i in range(60)}


def same(one, other):
  for name in ("row", "col", "count", "indptr"):
    np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
  for name in ("marginals", "context_marginals", "total"):
    np.testing.assert_array_equal(one.facts[name], other.facts[name])


LARGE = dict(num_tokens=200_000, vocab_size=3000, boundary=0.001)


@pytest.mark.parametrize("counting", ["pairs", "windows"])
def test_the_memory_limit_is_held_and_changes_no_bit(tmp_path, counting):
  tokens = corpus(**LARGE)
  count = lambda memory: count_cooccurrences(tokens, 3000, key="k", window=8, counting=counting, memory=memory,
                                             cache_dir=tmp_path / str(memory))
  expected = count(1 << 30)
  memory = 5 << 20
  tracemalloc.start()
  actual = count(memory)
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert peak <= memory
  same(actual, expected)


def test_a_killed_count_goes_on_and_ends_alike(tmp_path):
  """Killed in the text and then in the merge; what was finished is not made again."""
  arguments = dict(key="k", window=8, memory=5 << 20)
  script = f"""
import os, signal, sys
sys.path.insert(0, {os.path.dirname(__file__)!r})
from test_cooccurrence import LARGE, corpus, count_cooccurrences
def report(done, total):
  if done >= float(sys.argv[1]) * total: os.kill(os.getpid(), signal.SIGKILL)
count_cooccurrences(corpus(**LARGE), 3000, cache_dir={str(tmp_path / 'a')!r}, report=report, **{arguments})
"""
  for share in ("0.5", "0.9"):
    done = subprocess.run([sys.executable, "-c", script, share], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
  work, = (tmp_path / "a").glob("*.work")
  assert len(list(work.glob("run-*.npy"))) > 2 and (work / "journal.npz").exists()
  made, seen = {path: path.stat().st_mtime_ns for path in work.glob("run-*.npy")}, []

  def report(done, total):
    if not seen:
      assert {path: path.stat().st_mtime_ns for path in work.glob("run-*.npy")} == made
    seen.append(done / total)

  actual = count_cooccurrences(corpus(**LARGE), 3000, cache_dir=tmp_path / "a", report=report, **arguments)
  assert seen[0] > 0.9 and seen[-1] == 1
  assert not work.exists()
  same(actual, count_cooccurrences(corpus(**LARGE), 3000, cache_dir=tmp_path / "b", **arguments))


def test_sums_larger_than_a_record_and_two_words(tmp_path):
  tokens = np.zeros(300_000, np.int32)  # With five million ids a record has 18 bits for the weight.
  tokens[1] = 4_999_999
  actual = count_cooccurrences(tokens, 5_000_000, key="k", window=1, weighting="none", cache_dir=tmp_path)
  assert as_dict(actual) == {(0, 0): 2 * 299_997, (0, 4_999_999): 2, (4_999_999, 0): 2}


@pytest.mark.parametrize("tokens,options,words", [
    ([-1, 0, -1], {}, "corpus of 1 words"),
    ([0, 1, 2], dict(window=4), "shorter than window=4"),
    ([0, -1, 1, -1, 2], dict(window=2), "no two words stand together"),
    ([0, 1, 2], dict(window=1, memory=1000), "give at least"),
    ([0, 1, 2], dict(window=1, weighting="square"), "weighting='square'"),
    ([0, 1, 2], dict(window=1, counting="bags"), "counting='bags'"),
    ([0, 1, 2], dict(window=1, counting="windows"), "window=1"),
    ([0, 1, 2], dict(window=2, counting="windows", symmetric=False), "no order"),
])
def test_errors_are_clear(tmp_path, tokens, options, words):
  with pytest.raises(InputError, match=words) as error:
    count_cooccurrences(np.array(tokens, np.int32), 3, key="k", cache_dir=tmp_path, **options)
  assert "\n" not in str(error.value)


def test_the_memory_that_an_error_names_is_enough(tmp_path):
  tokens = corpus()
  with pytest.raises(InputError, match="give at least") as error:
    count_cooccurrences(tokens, 60, key="k", memory=1, cache_dir=tmp_path)
  needed = int(str(error.value).split("at least ")[1].split()[0])
  same(count_cooccurrences(tokens, 60, key="k", memory=needed << 20, cache_dir=tmp_path / "a"),
       count_cooccurrences(tokens, 60, key="k", cache_dir=tmp_path / "b"))


def test_tokens_beyond_the_vocabulary_are_refused_before_compiled_code_counts_them(tmp_path):
  tokens = np.array([0, 1, 2, 1, 1 << 30, 0], np.int32)
  with pytest.raises(InputError, match="token 1073741824 is beyond the vocabulary of 3 words; .* are damaged"):
    count_cooccurrences(tokens, 3, key="k", window=2, cache_dir=tmp_path)
