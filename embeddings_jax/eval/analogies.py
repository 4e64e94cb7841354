"""Analogies: is the word that is to c as b is to a the nearest to where b - a + c points?"""
import functools
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from embeddings_jax.data import wordsets
from embeddings_jax.types import Array, InputError, Lists, Metric, Protocol

METHODS = ("cosadd", "cosmul")
CHUNK = 8192  # Rows of the table whose scores are in memory at a time, ...
BLOCK = 32  # ... for this many questions.


def analogies(
    embed: Callable[[Sequence[str]], np.ndarray],
    questions: Mapping[str, Sequence[tuple[str, str, str, str]]],
    *,
    vocabulary: Collection[str],
    restrict_vocabulary: int = 30000,
    epsilon: float = 1e-3,
) -> dict[str, float]:
  """Accuracy of a : b :: c : ?, answered from the most frequent words, by two methods on unit vectors.

    3CosAdd (Mikolov, Yih & Zweig 2013)     argmax_x  cos(x, b) - cos(x, a) + cos(x, c)
    3CosMul (Levy & Goldberg 2014b, eq. 4)  argmax_x  cos'(x, b) cos'(x, c) / (cos'(x, a) + epsilon)

  with cos' = (1 + cos) / 2, their footnote 7, and epsilon = .001 as theirs (gensim: 1e-6).

  Protocol (that of word2vec's `compute-accuracy` with its threshold 30000, and of gensim's
  `evaluate_word_analogies`): only the first `restrict_vocabulary` words are asked for and can be answers. Words are
  matched without regard to case; of several forms of a word the first, so the most frequent, counts. a, b and c are
  never the answer, in none of their forms. A question with an unknown word is left out and counted in
  `out_of_vocabulary`. Ties go to the word that comes first. A zero vector has cosine 0 with all others. There is no
  split and nothing is fitted.

  The Google set (Mikolov et al. 2013a; `data/wordsets.py` has its checksum): 19,544 questions, of which 8,869 are in
  the five semantic sections and 10,675 in the nine syntactic ones, named `gram...`. Known figures, 3CosAdd: gensim's
  skip-gram on `enwiki-2015` (17 M words, a-z, d 100, 5 epochs, 30,000 words) .374; GloVe's 300-dimensional vectors of
  6 B words .774 semantic and .670 syntactic (Pennington et al. 2014, table 2); vectors drawn at random: 0.

  A file of the user's, `analogies:FILE`, has a question a line; see `data/wordsets.py`.

  Args:
    embed: words -> [num_words, dim].
    questions: section -> (a, b, c, d), d the right answer.
    vocabulary: the words that `embed` knows, in their order, the most frequent first.
    restrict_vocabulary: how many of them count; 0: all (on the command line `analogies:google-all`).
    epsilon: Epsilon of 3CosMul.

  Returns:
    `{cosadd, cosmul}/{total, semantic, syntactic, each section}/accuracy` over the questions that could be asked (nan
    where there is none), `{total, semantic, syntactic}/questions`, their number, and `out_of_vocabulary`.
  """
  words = list(vocabulary)[:restrict_vocabulary or None]
  if not words:
    raise InputError("analogies: the vocabulary is empty")
  index: dict[str, int] = {}
  form = np.array([index.setdefault(word.upper(), i) for i, word in enumerate(words)], np.int32)
  answerable, section_of, missing = [], [], 0
  for section, listed in questions.items():
    for question in listed:
      known = [index.get(word.upper(), -1) for word in question]
      if min(known) < 0:
        missing += 1
        continue
      answerable.append(known)
      section_of.append(section)
  answerable = np.array(answerable, np.int32).reshape(-1, 4)
  right = np.zeros((len(METHODS), len(answerable)), bool)
  if len(answerable):
    answers = answer(np.asarray(embed(words), np.float32), answerable[:, :3], form=form, epsilon=epsilon)
    right = np.where(answers < 0, -1, form[answers]) == answerable[:, 3]

  section_of = np.array(section_of, str)
  syntactic = np.char.startswith(section_of, "gram")
  groups = {"total": np.ones(len(answerable), bool), "semantic": ~syntactic, "syntactic": syntactic}
  metrics = {f"{name}/questions": float(rows.sum()) for name, rows in groups.items()}
  metrics["out_of_vocabulary"] = float(missing)
  if not len(answerable):
    logging.warning("analogies: accuracy is not defined (nan): the vocabulary lacks a word of all %d questions",
                    missing)
  groups |= {section: section_of == section for section in questions}
  for method, correct in zip(METHODS, right):
    for name, rows in groups.items():
      metrics[f"{method}/{name}/accuracy"] = float(correct[rows].mean()) if rows.any() else float("nan")
  return metrics


def answer(
    vectors: np.ndarray | Array,
    questions: np.ndarray,
    *,
    form: np.ndarray | None = None,
    epsilon: float = 1e-3,
) -> np.ndarray:
  """The rows that answer questions: int32 [len(METHODS), Q], -1 where no row is left to be one.

  Args:
    vectors: [V, d], of any length.
    questions: int [Q, 3], the rows a, b, c.
    form: [V] rows that are forms of the same word share a number: no form of a, b or c is an answer.
    epsilon: Epsilon of 3CosMul.
  """
  form = np.arange(len(vectors), dtype=np.int32) if form is None else form
  rows, index = np.unique(questions, return_inverse=True)
  index = index.reshape(questions.shape).astype(np.int32)
  index = np.pad(index, [(0, -len(index) % BLOCK), (0, 0)])
  answers = answer_blocks(jnp.asarray(vectors), jnp.asarray(form), jnp.asarray(rows.astype(np.int32)),
                          jnp.asarray(index), jnp.float32(epsilon))
  return np.asarray(answers)[:, :len(questions)]


@functools.partial(jax.jit, static_argnames=("chunk", "block"))
def answer_blocks(
    vectors: Array, form: Array, words: Array, questions: Array, epsilon: Array, *, chunk: int = CHUNK,
    block: int = BLOCK,
) -> Array:
  """`answer` on the device; what it needs beside the table are [W + 5 block, chunk] scores, whatever V and Q.

  Args:
    vectors: [V, d] float32.
    form: [V] int32.
    words: [W] int32, the rows that occur in questions.
    questions: [Q, 3] int32, places in `words`; `block` divides Q.
    epsilon: [] float32.
  """
  num_rows = len(vectors)
  chunk = min(chunk, num_rows)
  query, asked_form = _normalized(vectors[words]), form[words]
  blocks = questions.reshape(-1, block, 3)

  def look(i, best):
    # The last chunk begins early rather than beyond the table; a row that is seen twice changes nothing.
    first = jnp.minimum(i * chunk, num_rows - chunk)
    rows = _normalized(jax.lax.dynamic_slice_in_dim(vectors, first, chunk))
    cosine = jnp.matmul(query, rows.T, precision="highest")
    forms = jax.lax.dynamic_slice_in_dim(form, first, chunk)

    def of_block(item):
      question, value, best_row = item
      a, b, c = (cosine[question[:, k]] for k in range(3))
      taken = functools.reduce(jnp.logical_or, (forms == asked_form[question[:, k], None] for k in range(3)))
      scores = (b - a + c, (1 + b) * (1 + c) / (2 * (1 + a) + 4 * epsilon))
      scores = jnp.where(taken, -jnp.inf, jnp.stack(scores))
      highest = scores.max(-1)
      here = jnp.where(scores == highest[..., None], jnp.arange(chunk), chunk).min(-1)  # Faster than argmax on CPU.
      better = highest > value
      return jnp.where(better, highest, value), jnp.where(better, first + here, best_row)

    return jax.lax.map(of_block, (blocks, *best))

  shape = (len(blocks), len(METHODS), block)
  start = jnp.full(shape, -jnp.inf), jnp.full(shape, -1, jnp.int32)
  _, place = jax.lax.fori_loop(0, -(-num_rows // chunk), look, start)
  return place.swapaxes(0, 1).reshape(len(METHODS), -1)


def _normalized(vectors: Array) -> Array:
  return vectors / jnp.maximum(jnp.linalg.norm(vectors, axis=1, keepdims=True), 1e-30)


def _questions(name: str, data_dir: Any) -> Mapping[str, Sequence[tuple[str, ...]]]:
  """Returns the questions of a list; those of `google-all` are asked of all words, not of the most frequent alone."""
  return wordsets.analogies("google" if name == "google-all" else name, data_dir)


PROTOCOL = Protocol(
    analogies, needs=("embed", "vocabulary"), default="google",
    lists=Lists(_questions, {"google": {}, "google-all": {"restrict_vocabulary": 0}}, files=True),
    metrics={
        "accuracy": Metric(True, "fraction"), "questions": Metric(None, "count"),
        "out_of_vocabulary": Metric(None, "count"),
    })
