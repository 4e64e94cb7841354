"""Phrases: scores by hand and by gensim, joining from the left, passes, the command."""
import gzip

import numpy as np
import pytest
from commands import call

from embeddings_jax.data.phrases import join_phrases, joined, phrase_scores
from embeddings_jax.types import InputError

LINES = [line.split() for line in ("new york is large", "new york times", "new york is new", "york is old")]


def test_scores_by_hand():
  """13 words; "new york" occurs 3 times, new 4 and york 4 times."""
  actual = phrase_scores(LINES, min_count=2)
  assert actual == {("new", "york"): (3 - 2) / (4 * 4) * 14, ("york", "is"): (3 - 2) / (4 * 3) * 14}


def word2phrase(worda_count, wordb_count, bigram_count, len_vocab, min_count, corpus_word_count):
  """The scorer that gensim is given; it has to be found by its name."""
  return (bigram_count - min_count) / (worda_count * wordb_count) * corpus_word_count


@pytest.mark.parity
def test_scores_and_phrases_are_gensims():
  from gensim.models.phrases import Phrases

  noise = np.random.default_rng(0)
  lines = [[f"w{i}" for i in noise.zipf(1.5, 12) if i < 40] for _ in range(400)]

  reference = Phrases(lines, min_count=3, threshold=1.2, scoring=word2phrase, delimiter="_")
  scores = phrase_scores(lines, min_count=3)
  expected = reference.find_phrases(lines)
  assert expected and expected == pytest.approx(
      {"_".join(pair): score for pair, score in scores.items() if score > 1.2})
  assert [list(joined(line, scores, 1.2)) for line in lines] == [reference[line] for line in lines]


def test_later_passes_join_phrases():
  lines = [["a", "b", "c"]] * 3 + [["x", "y"]] * 30
  one, two = (list(join_phrases(lambda: lines, passes=passes, min_count=1, threshold=4)) for passes in (1, 2))
  assert one[0] == ["a_b", "c"] and two[0] == ["a_b_c"]
  with pytest.raises(InputError, match="passes=0, min_count=5, threshold=100.0: must be at least 1"):
    next(join_phrases(lambda: lines, passes=0))


def test_the_command(tmp_path):
  source, output = tmp_path / "corpus.txt", tmp_path / "phrases.txt.gz"
  source.write_text("Hot dog stand.\n\nA hot dog\n" * 4 + "it is cold and the cat sleeps\n" * 30)
  done = call("phrases", f"--input={source}", f"--output={output}", "--min_count=2", "--threshold=16")
  assert done.returncode == 0, done.stderr
  assert gzip.decompress(output.read_bytes()).decode().split("\n")[:3] == ["hot_dog stand", "", "a hot_dog"]
  missing = call("phrases", f"--input={tmp_path / 'none.txt'}", f"--output={tmp_path / 'o.txt'}")
  assert missing.returncode == 2 and "none.txt" in missing.stderr and not (tmp_path / "o.txt").exists()
