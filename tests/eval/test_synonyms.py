import numpy as np
import pytest

from embeddings_jax.data import wordsets
from embeddings_jax.eval.synonyms import synonyms
from embeddings_jax.types import InputError

TABLE = {"rug": [1, 0.1], "sofa": [0.3, 1], "ottoman": [-0.2, 1], "carpet": [2, 0.1], "hallway": [0, -1],
         "far": [0, 1], "zero": [0, 0]}


def _embed(words):
  return np.array([TABLE[word] for word in words])


def test_a_rug_is_a_carpet(tmp_path):
  (tmp_path / "q.txt").write_text("rug sofa ottoman carpet hallway carpet\n\n")
  questions = wordsets.synonyms(tmp_path / "q.txt")
  assert questions == [("rug", ["sofa", "ottoman", "carpet", "hallway"], "carpet")]
  assert synonyms(_embed, questions, vocabulary=TABLE) == {"accuracy": 1, "questions": 1, "out_of_vocabulary": 0}


def test_wrong_unknown_and_tied_questions():
  questions = [("Rug", ["sofa", "carpet"], "sofa"), ("rug", ["carpet", "unheard"], "carpet"),
               ("unheard", ["carpet", "sofa"], "carpet"), ("zero", ["far", "sofa", "rug", "hallway"], "rug")]
  actual = synonyms(_embed, questions, vocabulary=TABLE)
  assert actual == {"accuracy": pytest.approx((0 + 1 / 4) / 2), "questions": 2, "out_of_vocabulary": 2}
  assert np.isnan(synonyms(_embed, [], vocabulary=TABLE)["accuracy"])


def test_random_vectors_are_at_chance():
  noise = np.random.default_rng(0)
  table = {f"w{i}": noise.normal(size=10) for i in range(5000)}
  questions = [(f"w{5 * i}", [f"w{5 * i + j}" for j in range(1, 5)], f"w{5 * i + 2}") for i in range(1000)]
  actual = synonyms(lambda words: np.array([table[w] for w in words]), questions, vocabulary=table)
  assert abs(actual["accuracy"] - 0.25) < 0.05


def test_a_file_with_tabs_has_fields_with_spaces(tmp_path):
  path = tmp_path / "q.tsv"
  path.write_text("New York\tBig Apple\tLos Angeles\tBig Apple\n")
  assert wordsets.synonyms(path) == [("New York", ["Big Apple", "Los Angeles"], "Big Apple")]


@pytest.mark.parametrize("text, message", [
    ("", "q.txt: is empty"), ("rug a b a\nrug a b c\n", "q.txt: line 2: should be a word"),
    ("rug a a\n", "line 1"), ("rug a a a\n", "line 1"), ("rug\n", "line 1")])
def test_a_bad_file_is_named_in_one_line(tmp_path, text, message):
  (tmp_path / "q.txt").write_text(text)
  with pytest.raises(InputError, match=message):
    wordsets.synonyms(tmp_path / "q.txt")
