"""Senses of words: by hand, one vector a word, clusters, the embedded sentences, files."""
import numpy as np
import pytest

from embeddings_jax.data import senses
from embeddings_jax.eval.polysemy import polysemy, separation
from embeddings_jax.figures.senses import distances
from embeddings_jax.types import InputError


def test_bank_has_ten_sentences_of_each_sense():
  actual = senses.load("bank")
  assert len(actual) == len({" ".join(item.words) for item in actual}) == 20
  assert [sum(item.sense == sense for item in actual) for sense in ("money", "river")] == [10, 10]
  assert all(item.words[item.place] == "bank" for item in actual)


def test_a_model_of_words_has_one_vector_for_all_senses():
  vector = np.random.default_rng(0).normal(size=(1, 50)).astype(np.float32)
  actual = polysemy(lambda words: vector, senses.load("bank"), vocabulary={"bank": 0})
  assert actual == {"within": 0, "between": 0, "auc": 0.5, "nearest_accuracy": pytest.approx(9 / 19)}
  with pytest.raises(InputError, match="the model knows none of bank"):
    polysemy(lambda words: vector, senses.load("bank"), vocabulary={"shore": 0})


def test_layers_are_asked_one_by_one_at_the_word_s_place():
  """The second layer is the sense itself, the first is noise."""
  items = senses.load("bank")
  rng = np.random.default_rng(0)
  total = sum(len(item.words) for item in items)
  vectors, place = rng.normal(size=(total, 2, 8)), 0
  for item in items:
    vectors[place + item.place, 1] = [1, 0, 0, 0, 0, 0, 0, 0] if item.sense == "river" else [0, 2, 0, 0, 0, 0, 0, 0]
    place += len(item.words)
  actual = polysemy(None, items, hidden=lambda sentences: (vectors, np.ones(total, bool)))
  assert actual["layer_1/within"] == 0 and actual["layer_1/between"] == pytest.approx(1)
  assert actual["layer_1/auc"] == actual["layer_1/nearest_accuracy"] == 1
  assert 0.2 < actual["layer_0/auc"] < 0.8


def test_separation_by_hand():
  vectors = np.array([[1, 0], [0, 3], [1, 1], [-2, 0]], float)
  actual = separation(vectors, np.array(["a", "a", "b", "b"]))
  half = 1 - 0.5**0.5
  assert actual["within"] == pytest.approx((1 + 1 + 0.5**0.5) / 2)
  assert actual["between"] == pytest.approx((half + 2 + half + 1) / 4)
  # Of the 4 x 2 comparisons: 2 is above both, 1 ties with the first, the small ones are below both.
  assert actual["auc"] == pytest.approx(2.5 / 8)
  assert actual["nearest_accuracy"] == 0


def test_files_of_the_user_s(tmp_path):
  path = tmp_path / "senses.tsv"
  path.write_text("Bat\tanimal\tA bat flew out.\nbat\tanimal\tThe bat sleeps.\nbat\tclub\tHe swung the bat.\n"
                  "bat\tclub\tA wooden bat.\n")
  items = senses.load(str(path))
  assert [item.place for item in items] == [1, 1, 3, 2] and items[0].word == "bat"
  for text, message in (("bat\tanimal\n", "line 1: should be a word, a sense"), ("", "is empty"),
                        ("bat\tanimal\tA cat.\n", "lacks the word 'bat'"),
                        ("bat\ta\tA bat.\nbat\tb\tThe bat.\n", "needs two senses or more with two sentences")):
    path.write_text(text)
    with pytest.raises(InputError, match=message):
      senses.load(str(path))


def test_the_figure_has_a_pair_of_bars_for_each_layer():
  import matplotlib
  matplotlib.use("Agg")
  import matplotlib.pyplot as plt

  figure = distances(plt, "bank", {"layer_0/within": 0.1, "layer_0/between": 0.2, "layer_1/within": 0.3,
                                   "layer_1/between": 0.5})
  heights = [bar.get_height() for bar in figure.axes[0].patches]
  assert heights == [0.1, 0.3, 0.2, 0.5]
  plt.close(figure)
