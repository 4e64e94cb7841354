"""The protocol on tasks whose predictions are made by hand."""
import types

import numpy as np
import pytest

from embeddings_jax.eval.finetuning import finetuning


def ask(kind, arrays, logits, **task):
  task = {"name": "t", "kind": kind, "parts": {part: None for part in ("train", *arrays)}, "labels": ()} | task
  tables = {id(given): np.asarray(table, np.float32) for given, table in zip(arrays.values(), logits)}
  return finetuning(None, None, task=types.SimpleNamespace(**task), encoded=arrays,
                    predict=lambda given: tables[id(given)])


def test_classes():
  label = np.array([0, 0, 1, 1])
  actual = ask("classification", {"dev": {"targets": {"label": label}}}, [np.eye(2)[[0, 1, 1, 1]]],
               labels=("bad", "good"))
  assert actual == pytest.approx({"t/dev/accuracy": 0.75, "t/dev/matthews": 1 / np.sqrt(3), "t/dev/macro_f1": 11 / 15,
                                  "t/dev/f1": 0.8})


def test_scores():
  label = np.array([0, 0.5, 1], np.float32)
  actual = ask("regression", {"test": {"targets": {"label": label}}}, [[-7, 1, 100]])
  assert actual["t/test/spearman"] == pytest.approx(1) and actual["t/test/pearson"] < 0.99


def test_tags_that_are_cut_off_count():
  labels = ("B-a", "I-a", "O")
  arrays = {"example": np.array([1, 0]), "word_starts": np.array([[1, 3, -1], [2, -1, -1]])}
  logits = np.zeros((2, 4, 3))
  logits[0, 1, 0] = logits[0, 3, 1] = logits[1, 2, 2] = 1
  actual = ask("tagging", {"test": arrays}, [logits], labels=labels, targets=[np.array([2]), np.array([0, 1, 1])])
  # Guessed: B-a I-a (cut off: O); right: B-a I-a I-a.
  assert actual["t/test/accuracy"] == 0.75 and actual["t/test/f1"] == 0
  actual = ask("tagging", {"test": arrays}, [logits], labels=labels, targets=[np.array([2]), np.array([0, 1, 2])])
  assert actual["t/test/accuracy"] == 1 and actual["t/test/f1"] == 1
  plain = ask("tagging", {"test": arrays}, [logits], labels=("x", "y", "z"),
              targets=[np.array([2]), np.array([0, 1, 0])])
  assert plain == {"t/test/accuracy": 1.0}


def test_the_threshold_for_no_answer_is_that_of_dev():
  items = [("q", "cat mat")] * 4
  targets = [((0, "cat"),), (), ((4, "mat"),), ()]
  offsets = np.tile([[[-1, -1], [0, 3], [4, 7]]], (2, 1, 1))
  part = lambda first: {"example": np.array([first, first + 1]), "offsets": offsets}
  # Margins over "no answer": dev 4 (right) and 1 (there is none), test 3 (right) and 2 (there is none).
  cat, mat = np.array([[0, 0], [1, 1], [-9, -9]]), np.array([[0, 0], [-9, -9], [1, 1]])
  dev, test = np.stack([2 * cat, cat / 2]), np.stack([1.5 * mat, mat])
  actual = ask("span", {"test": part(2), "dev": part(0)}, [test, dev], items=items, targets=targets)
  assert actual["t/dev/threshold"] == actual["t/test/threshold"] == 1
  assert actual["t/dev/exact"] == 1 and actual["t/test/exact"] == 0.5
  assert actual["t/test/answer_f1"] == 1 and actual["t/test/no_answer_f1"] == 0
