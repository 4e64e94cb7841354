import jax
import jax.numpy as jnp
import numpy as np
import pytest

from embeddings_jax.eval.analogies import analogies, answer, answer_blocks
from embeddings_jax.types import InputError


def _embed(table):
  return lambda words: np.array([table[word] for word in words], np.float32)


# Axes: walk, eat, -ing, -ed.
WORDS = {"walking": [1, 0, 1, 0], "walked": [1, 0, 0, 1], "eating": [0, 1, 1, 0], "ate": [0, 1, 0, 1],
         "walk": [1, 0, 0, 0], "eat": [0, 1, 0.1, 0.1], "nothing": [0, 0, 0, 0]}


def test_walking_is_to_walked_as_eating_is_to_ate():
  questions = {"gram7-past-tense": [("walking", "walked", "eating", "ate")],
               "tense": [("walked", "walking", "ate", "eating"), ("walking", "walked", "eating", "eat")]}
  actual = analogies(_embed(WORDS), questions, vocabulary=WORDS)
  assert actual["total/questions"] == 3 and actual["syntactic/questions"] == 1 and actual["out_of_vocabulary"] == 0
  for method in ("cosadd", "cosmul"):
    assert actual[f"{method}/total/accuracy"] == pytest.approx(2 / 3)
    assert actual[f"{method}/semantic/accuracy"] == actual[f"{method}/tense/accuracy"] == 0.5
    assert actual[f"{method}/syntactic/accuracy"] == actual[f"{method}/gram7-past-tense/accuracy"] == 1


def test_the_words_of_the_question_are_no_answers_in_any_form():
  # b - a + c is c itself: without the exclusion the answer would be c or its other form.
  table = {"a": [1, 0], "b": [1, 0], "c": [0, 1], "C": [0, 1], "d": [0.5, 1]}
  assert analogies(_embed(table), {"s": [("a", "b", "c", "d")]}, vocabulary=table)["cosadd/total/accuracy"] == 1
  assert answer(np.array([[1, 0], [1, 0], [0, 1.0]]), np.array([[0, 1, 2]])).tolist() == [[-1], [-1]]


def test_case_restriction_and_unknown_words():
  table = {"Walking": [1, 0, 1, 0], "walked": [1, 0, 0, 1], "EATING": [0, 1, 1, 0], "Ate": [0, 1, 0, 1],
           "ate": [0, -1, 0, -1], "late": [0, 1, 0, 1]}
  question = ("walking", "Walked", "eating", "ATE")  # "Ate" comes before "ate", so it is the one.
  asked = {"s": [question, ("walking", "walked", "eating", "unheard"), ("late", "late", "late", "late")]}
  actual = analogies(_embed(table), asked, vocabulary=table, restrict_vocabulary=4)
  assert (actual["total/questions"], actual["out_of_vocabulary"]) == (1, 2)
  assert actual["cosadd/total/accuracy"] == 1
  actual = analogies(_embed(table), asked, vocabulary=table, restrict_vocabulary=3)
  assert actual["total/questions"] == 0 and np.isnan(actual["cosadd/total/accuracy"])
  assert analogies(_embed(table), asked, vocabulary=table, restrict_vocabulary=0)["total/questions"] == 2
  with pytest.raises(InputError, match="vocabulary is empty"):
    analogies(_embed(table), asked, vocabulary={})


def _loop(vectors, questions, epsilon):
  """The written formulas, question by question, in float64."""
  unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
  actual = []
  for a, b, c in questions:
    cosine = [unit @ unit[row] for row in (a, b, c)]
    shifted = [(1 + x) / 2 for x in cosine]
    scores = [cosine[1] - cosine[0] + cosine[2], shifted[1] * shifted[2] / (shifted[0] + epsilon)]
    for score in scores:
      score[[a, b, c]] = -np.inf
    actual.append([int(score.argmax()) for score in scores])
  return np.array(actual).T


@pytest.mark.parametrize("chunk", [7, 50, 64])
def test_equals_a_plain_loop_for_every_chunk(chunk):
  noise = np.random.default_rng(0)
  vectors, questions = noise.normal(size=(50, 8)) * 3, noise.integers(0, 50, (24, 3))
  actual = answer_blocks(jnp.asarray(vectors, jnp.float32), jnp.arange(50), jnp.arange(50), jnp.asarray(questions),
                         jnp.float32(0.1), chunk=chunk, block=8)
  np.testing.assert_array_equal(actual, _loop(vectors, questions, 0.1))
  assert (actual[0] != actual[1]).any()  # The two methods differ somewhere.


def test_random_vectors_answer_nothing():
  noise = np.random.default_rng(1)
  words = [f"w{i}" for i in range(1000)]
  vectors = noise.normal(size=(1000, 20))
  asked = {"s": [tuple(words[i] for i in row) for row in noise.integers(0, 1000, (500, 4))]}
  assert analogies(lambda names: vectors, asked, vocabulary=words)["cosadd/total/accuracy"] < 0.02


def test_the_google_set_over_400000_words_fits_into_4_gb():
  """Compiled, not run: table, arguments and temporaries together."""
  shape = jax.ShapeDtypeStruct
  compiled = answer_blocks.lower(shape((400000, 300), jnp.float32), shape((400000,), jnp.int32),
                                 shape((905,), jnp.int32), shape((19552, 3), jnp.int32),
                                 shape((), jnp.float32)).compile()
  memory = compiled.memory_analysis()
  assert memory.temp_size_in_bytes < 200e6
  assert memory.argument_size_in_bytes + memory.temp_size_in_bytes + memory.output_size_in_bytes < 1e9


@pytest.fixture(scope="module")
def planted():
  """Words as sums of two parts and noise, some in two forms, and questions about them."""
  noise = np.random.default_rng(2)
  first, second = noise.normal(size=(40, 24)), noise.normal(size=(30, 24))
  words = [f"w{i}x{j}" for i in range(40) for j in range(30)]
  vectors = (first[:, None] + second).reshape(-1, 24) + 0.7 * noise.normal(size=(1200, 24))
  order = noise.permutation(1200)
  words = [words[i].upper() if i % 9 == 0 else words[i] for i in order]
  vectors = vectors[order].astype(np.float32)
  for i in range(0, 1200, 50):
    words[i] = words[i + 25].capitalize()
  sections = {}
  for section, size in (("family", 150), ("gram1-x", 150)):
    i, j, k, m = noise.integers(0, 30, (4, size))
    sections[section] = [(f"w{a}x{b}", f"w{a}x{d}", f"W{c}X{b}", f"w{c}x{d}") for a, b, c, d in zip(i, j, k, m)]
  return words, vectors, sections


@pytest.mark.parity
@pytest.mark.parametrize("restriction", [0, 700])
def test_equals_gensim(planted, tmp_path, restriction):
  from gensim.models import KeyedVectors

  words, vectors, sections = planted
  theirs = KeyedVectors(24)
  theirs.add_vectors(words, vectors)
  path = tmp_path / "questions.txt"
  path.write_text("".join(f": {name}\n" + "".join(" ".join(q) + "\n" for q in listed)
                          for name, listed in sections.items()))
  total, each = theirs.evaluate_word_analogies(str(path), restrict_vocab=restriction or 10**6)
  ours = analogies(lambda names: vectors[:len(names)], sections, vocabulary=words, restrict_vocabulary=restriction)
  assert 0.2 < total < 0.8
  assert ours["cosadd/total/accuracy"] == total
  for section in each[:2]:
    right, wrong = len(section["correct"]), len(section["incorrect"])
    assert ours[f"cosadd/{section['section']}/accuracy"] == right / (right + wrong)
  assert ours["total/questions"] == len(each[2]["correct"]) + len(each[2]["incorrect"])


@pytest.mark.parity
def test_cosmul_equals_gensim(planted):
  from gensim.models import KeyedVectors

  words, vectors, _ = planted
  theirs = KeyedVectors(24)
  theirs.add_vectors(words, vectors)
  questions = np.random.default_rng(3).integers(0, len(words), (60, 3))
  expected = [theirs.most_similar_cosmul([words[b], words[c]], [words[a]], topn=1)[0][0] for a, b, c in questions]
  assert [words[i] for i in answer(vectors, questions, epsilon=1e-6)[1]] == expected
