import numpy as np
import pytest

from embeddings_jax.eval.spans import Answer, best_answers, best_threshold, exact_match, squad_scores, token_f1


@pytest.mark.parametrize("answer, right, exact, f1", [
    ("The Normans!", ["normans"], 1, 1),
    ("an  U.S. state", ["us state"], 1, 1),
    ("in 1066", ["1066", "in the year 1066"], 0, 0.8),  # Of several the best: 2 * 2 / (2 + 3).
    ("a", [""], 1, 1),  # Nothing is left of an article.
    ("cat cat mat", ["cat mat mat"], 0, 2 / 3),
    ("", [], 1, 1),
    ("cat", [], 0, 0),
    ("", ["cat"], 0, 0),
    ("10–20", ["1020"], 0, 0),  # A dash of Unicode is no ASCII punctuation.
])
def test_exact_match_and_f1(answer, right, exact, f1):
  assert exact_match(answer, right) == exact
  np.testing.assert_allclose(token_f1(answer, right), f1)


def test_the_best_span_is_that_of_a_double_loop():
  rng = np.random.default_rng(0)
  context = "aa bb cc dd ee ff gg hh"
  places = np.array([(3 * i, 3 * i + 2) for i in range(8)])
  logits = rng.normal(size=(3, 9, 2)).astype(np.float32)
  offsets = np.full((3, 9, 2), -1)
  offsets[0, 2:7], offsets[1, 3:8], offsets[2, 2:7] = places[:5], places[3:], places[:5]
  example = np.array([4, 4, 9])
  actual = best_answers(logits, offsets, example, {4: context, 9: context}, max_answer=3)
  for number in (4, 9):
    spans = [(logits[r, i, 0] + logits[r, j, 1], context[offsets[r, i, 0]:offsets[r, j, 1]])
             for r in np.flatnonzero(example == number) for i in range(9) for j in range(i, min(i + 3, 9))
             if offsets[r, i, 0] >= 0 and offsets[r, j, 0] >= 0]
    score, text = max(spans)
    none = min(logits[r, 0].sum() for r in np.flatnonzero(example == number))
    assert actual[number].text == text
    np.testing.assert_allclose(actual[number].margin, score - none, rtol=1e-5)


def test_scores_and_the_threshold_by_hand():
  answers = {0: Answer("cat", 3.0), 1: Answer("mat", 1.0), 2: Answer("dog", 2.0), 3: Answer("x", -1.0)}
  right = {0: ["the cat"], 1: ["mat"], 2: [], 3: []}
  everything = squad_scores(answers, right)
  assert everything == {"exact": 0.5, "f1": 0.5, "answer_exact": 1, "answer_f1": 1, "no_answer_exact": 0,
                        "no_answer_f1": 0}
  assert squad_scores(answers, right, 2.0)["f1"] == 0.75
  assert best_threshold(answers, right) == -1.0  # One wrong answer lies between the right ones.
  assert squad_scores(answers, right, -1.0)["f1"] == 0.75
  assert squad_scores({0: answers[0]}, {0: ["cat"]}) == {"exact": 1, "f1": 1}
  nothing = {0: [], 1: [], 2: [], 3: []}
  assert squad_scores(answers, nothing, best_threshold(answers, nothing))["f1"] == 1


def test_the_best_threshold_is_the_best_of_all():
  rng = np.random.default_rng(1)
  answers = {i: Answer("cat", float(margin)) for i, margin in enumerate(rng.integers(0, 10, 40))}
  right = {i: ["cat"] if rng.random() < answers[i].margin / 12 else [] for i in range(40)}
  scores = [squad_scores(answers, right, t)["f1"] for t in [-np.inf, *range(10)]]
  assert squad_scores(answers, right, best_threshold(answers, right))["f1"] == max(scores)
