from types import SimpleNamespace

import numpy as np
import pytest

from embeddings_jax.eval import text_classification as module
from embeddings_jax.eval.text_classification import text_classification
from embeddings_jax.types import InputError


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
  monkeypatch.setattr(module, "STEPS", {"frozen": 40, "finetuned": 40})
  monkeypatch.setattr(module, "ROUNDS", 3)
  monkeypatch.setattr(module, "BATCH_SIZE", 32)


NAMES = ("frozen", "finetuned", "random_frozen", "random_finetuned", "task")


def corpus(words, size=300, dev=True):
  """Texts of two words of one class and a common one; those of the test part come from `words["test"]`."""
  noise = np.random.default_rng(0)
  parts = {"train": size, "dev": size // 3, "test": size // 3}
  items, label, split = [], [], {}
  for part, number in parts.items():
    split[part] = np.arange(len(items), len(items) + number)
    for _ in range(number):
      y = int(noise.integers(2))
      choice = words["test" if part == "test" else "train"][y]
      items.append(" ".join([noise.choice(choice), "the", noise.choice(choice)]))
      label.append(y)
  if not dev:
    del split["dev"]
  return SimpleNamespace(name="planted", items=items, labels={"class": np.array(label)}, split=split)


WORDS = [[f"{side}{i}" for i in range(40)] for side in ("good", "bad")]
SEEN_AND_NEW = {"train": [side[:20] for side in WORDS], "test": [side[20:] for side in WORDS]}
ALWAYS_SEEN = {"train": WORDS, "test": WORDS}


def table(informative, dim=6):
  noise = np.random.default_rng(1)
  rows = {"the": noise.normal(size=dim)}
  for side, words in zip((1, -1), WORDS):
    for word in words:
      rows[word] = 5 * noise.normal(size=dim) + (np.eye(dim)[0] * 40 * side if informative else 0)
  return rows


def classify(rows, data, **options):
  return text_classification(lambda words: np.array([rows[word] for word in words]), data, vocabulary=rows, **options)


def test_vectors_tell_of_words_that_the_task_never_saw():
  actual = classify(table(informative=True), corpus(SEEN_AND_NEW))
  assert actual["test/frozen/accuracy"] == 1 and actual["test/finetuned/accuracy"] > 0.85
  assert actual["known_words"] == 1
  for name in ("random_frozen", "random_finetuned", "task", "majority"):  # Nothing can be known of the test's words.
    assert 0.2 < actual[f"test/{name}/accuracy"] < 0.8, name


def test_what_can_be_learnt_is_learnt_without_vectors_too():
  actual = classify(table(informative=False), corpus(ALWAYS_SEEN, dev=False), seed=1)
  for name in ("finetuned", "random_finetuned", "task"):
    assert actual[f"test/{name}/accuracy"] > 0.95, name
  assert actual["test/frozen/accuracy"] < 0.95 and actual["test/random_frozen/accuracy"] < 0.95


def test_unknown_words_case_and_the_majority():
  data = corpus(ALWAYS_SEEN)
  data.items = [text.replace("good", "GOOD") for text in data.items]
  rows = table(informative=True)
  del rows["the"]
  actual = classify(rows, data)
  assert actual["test/frozen/accuracy"] == 1 and actual["known_words"] == pytest.approx(2 / 3)
  y = data.labels["class"]
  majority = np.bincount(y[data.split["train"]]).argmax()
  assert actual["test/majority/accuracy"] == pytest.approx((y[data.split["test"]] == majority).mean())


def test_nothing_is_chosen_on_the_test_part():
  """Other labels in the test part change what is reported, and turned labels turn it exactly."""
  data = corpus(ALWAYS_SEEN)
  actual = classify(table(informative=False), data)
  data.labels["class"] = data.labels["class"].copy()
  data.labels["class"][data.split["test"]] ^= 1
  turned = classify(table(informative=False), data)
  for name in NAMES:
    assert turned[f"test/{name}/accuracy"] == pytest.approx(1 - actual[f"test/{name}/accuracy"], abs=1e-6)


def test_data_that_do_not_fit():
  data = corpus(ALWAYS_SEEN)
  with pytest.raises(InputError, match="know no word of 'planted'"):
    classify({"unheard": np.ones(3)}, data)
  data.labels["other"] = data.labels["class"]
  with pytest.raises(InputError, match="'planted' should have one kind of label and the parts train and test"):
    classify(table(True), data)
