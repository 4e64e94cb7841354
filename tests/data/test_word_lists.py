"""Lists of pairs and analogies that users bring."""
import numpy as np
import pytest

from embeddings_jax.data import wordsets
from embeddings_jax.eval.analogies import analogies
from embeddings_jax.runs import evaluation
from embeddings_jax.types import InputError


@pytest.mark.parametrize("text", [
    "tiger cat 7.35\nbook paper 7.46\n", "# pairs\ntiger\tcat\t7.35\n\nbook\tpaper\t7.46\textra\n",
    "Word 1,Word 2,Human (mean)\ntiger,cat,7.35\nbook,paper,7.46\n",
    "word1\tword2\tPOS\tSimLex999\ntiger\tcat\tN\t7.35\nbook\tpaper\tN\t7.46\n"])
def test_pairs_of_words(tmp_path, text):
  (tmp_path / "a.txt").write_text(text)
  assert wordsets.word_similarity(str(tmp_path / "a.txt")) == [("tiger", "cat", 7.35), ("book", "paper", 7.46)]


@pytest.mark.parametrize("text, message", [
    ("a b 1\nc d\n", "a.txt: line 2: 'c d' should be two words and their score"),
    ("a b x\nc d nan\n", "a.txt: line 2: 'c d nan' should be two words"), ("\n", "a.txt: is empty, it has no pair")])
def test_broken_pairs_are_named(tmp_path, text, message):
  (tmp_path / "a.txt").write_text(text)
  with pytest.raises(InputError, match=message):
    wordsets.word_similarity(str(tmp_path / "a.txt"))
  with pytest.raises(InputError, match="there is no file 'ws35'; did you mean ws353. lists are ws353, ws353-sim"):
    evaluation.check("word_similarity:ws35")
  evaluation.check(f"word_similarity:{tmp_path / 'a.txt'}")


def test_analogies_without_sections_and_of_microsoft_research(tmp_path):
  (tmp_path / "a.txt").write_text("good better bad worse\n\na b c d\n")
  assert wordsets.analogies(str(tmp_path / "a.txt")) == {"all": [("good", "better", "bad", "worse"), tuple("abcd")]}
  (tmp_path / "w.questions").write_text("good better rough\nlaw laws rate\n")
  (tmp_path / "w.answers").write_text("JJ_JJR rougher\nNN_NNS rates\n")
  questions = wordsets.analogies(str(tmp_path / "w.questions"))
  assert questions == {"gram JJ_JJR": [("good", "better", "rough", "rougher")],
                       "gram NN_NNS": [("law", "laws", "rate", "rates")]}
  words = ["good", "better", "rough", "rougher", "law"]
  vectors = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 1, 1], [-1, -1, -1]], np.float32)
  metrics = analogies(lambda asked: vectors[[words.index(word) for word in asked]], questions, vocabulary=words)
  assert metrics["cosadd/syntactic/accuracy"] == 1 and metrics["syntactic/questions"] == 1
  assert metrics["out_of_vocabulary"] == 1 and metrics["cosadd/gram JJ_JJR/accuracy"] == 1


@pytest.mark.parametrize("files, message", [
    ({"w.questions": "a b c\n"}, "w.questions: w.answers is missing beside it"),
    ({"w.questions": "a b c\n", "w.answers": ""}, "has 1 questions for the 0 lines of w.answers"),
    ({"w.questions": "a b c d\n", "w.answers": "T d\n"}, "line 1: should be three words, and a tag and a word"),
    ({"w.txt": ": s\na b c\n"}, "w.txt: line 2: 'a b c' should be four words, or a line `: section`")])
def test_broken_analogies_are_named(tmp_path, files, message):
  for name, text in files.items():
    (tmp_path / name).write_text(text)
  with pytest.raises(InputError, match=message):
    wordsets.analogies(str(tmp_path / next(iter(files))))
