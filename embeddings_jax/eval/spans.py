"""Answers to questions: the best span of a context, SQuAD's exact match and F1 (Rajpurkar et al. 2016, 2018)."""
import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

MAX_ANSWER = 30  # Tokens.
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


class Answer(NamedTuple):
  """The best answer to a question: `text`, and how much its score exceeds that of there being none."""

  text: str
  margin: float


def normalized(text: str) -> str:
  """As the task's own program compares: in small letters, without ASCII punctuation and then without articles, white
  space made single."""
  return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, right: Sequence[str]) -> float:
  """1 if the answer is one of the right ones, normalized; "" is the right one where there are none."""
  return float(normalized(answer) in _golds(right))


def token_f1(answer: str, right: Sequence[str]) -> float:
  """Most overlap of words with one of the right answers; where one of the two is empty, 1 if both are."""
  return max(_f1(normalized(answer).split(), text.split()) for text in _golds(right))


def _golds(right: Sequence[str]) -> list[str]:
  return [text for text in map(normalized, right) if text] or [""]


def _f1(words: Sequence[str], others: Sequence[str]) -> float:
  if not words or not others:
    return float(words == others)
  same = sum((Counter(words) & Counter(others)).values())
  return 2 * same / (len(words) + len(others))


def best_answers(
    logits: np.ndarray,
    offsets: np.ndarray,
    example: np.ndarray,
    contexts: Mapping[int, str],
    max_answer: int = MAX_ANSWER,
) -> dict[int, Answer]:
  """The best span of each example over its windows.

  A span of at most `max_answer` tokens of the context scores start + end; none scores start + end of a window's first
  token, the smallest over the windows (Devlin et al. 2019, section 4.3).

  Args:
    logits: [rows, length, 2], of start and end.
    offsets: [rows, length, 2], the first character of a token and the one behind its last; -1 where it is none of the
      context.
    example: [rows], whose window a row is.
    contexts: example -> text.
  """
  best, none = {}, {}
  for scores, positions, number in zip(logits, offsets, example.tolist()):
    none[number] = min(none.get(number, np.inf), float(scores[0].sum()))
    inside = np.flatnonzero(positions[:, 0] >= 0)
    if not len(inside):
      continue
    start, end = (scores[inside, i].astype(np.float64) for i in (0, 1))
    width = min(max_answer, len(inside))
    ends = np.concatenate([end, np.full(width - 1, -np.inf)])
    table = start[:, None] + np.lib.stride_tricks.sliding_window_view(ends, width)  # [token, further tokens]
    first, more = np.unravel_index(table.argmax(), table.shape)
    if number not in best or table[first, more] > best[number][0]:
      chosen = positions[inside[first], 0], positions[inside[first + more], 1]
      best[number] = (float(table[first, more]), contexts[number][chosen[0]:chosen[1]].strip())
  return {number: Answer(best[number][1], best[number][0] - none[number]) if number in best else Answer("", -np.inf)
          for number in none}


def squad_scores(
    answers: Mapping[int, Answer],
    right: Mapping[int, Sequence[str]],
    threshold: float = -np.inf,
) -> dict[str, float]:
  """`exact` and `f1`, means over the questions; an answer whose margin is not above `threshold` is none.

  Where some questions have no answer, also of those that have one and of those that have none.
  """
  texts = {number: answer.text if answer.margin > threshold else "" for number, answer in answers.items()}
  scores = {number: (exact_match(text, right[number]), token_f1(text, right[number]))
            for number, text in texts.items()}
  groups = {"": list(scores)}
  if any(not texts for texts in right.values()):
    groups |= {"answer_": [n for n in scores if right[n]], "no_answer_": [n for n in scores if not right[n]]}
  return {f"{group}{name}": float(np.mean([scores[n][i] for n in numbers]))
          for group, numbers in groups.items() if numbers for i, name in enumerate(("exact", "f1"))}


def best_threshold(answers: Mapping[int, Answer], right: Mapping[int, Sequence[str]]) -> float:
  """The threshold with the highest F1; of equal ones the smallest. All are tried."""
  numbers = sorted(answers, key=lambda n: -answers[n].margin)
  margins = np.array([answers[n].margin for n in numbers])
  gain = np.array([token_f1(answers[n].text, right[n]) - token_f1("", right[n]) for n in numbers])
  # The first k questions are answered; a threshold cannot part equal margins.
  total = np.concatenate([[0.0], np.cumsum(gain)])
  possible = np.append(np.append(True, margins[1:] != margins[:-1]), True) if len(margins) else np.array([True])
  best = np.flatnonzero(possible & np.isclose(total, total[possible].max(), rtol=0, atol=1e-9))[-1]
  return float(margins[best]) if best < len(margins) else -np.inf
