"""Which material a protocol is asked about, and what becomes of what is not there."""
import re
from fnmatch import fnmatchcase

import numpy as np
import pytest

from embeddings_jax import eval as protocols
from embeddings_jax import extensions
from embeddings_jax.data.encoders.words import WordEncoder
from embeddings_jax.data.words import Vocabulary
from embeddings_jax.runs import evaluation, summary
from embeddings_jax.runs.evaluation import Evaluator
from embeddings_jax.types import InputError

TABLE = {"rug": [1, 0.1], "sofa": [0.3, 1], "ottoman": [-0.2, 1], "carpet": [2, 0.1], "hallway": [0, -1]}


def _evaluator(*, vocabulary=TABLE, sentences=None, embed=None, **options):
  embed = embed or (lambda words: np.array([TABLE.get(word, [0, 0]) for word in words], np.float32))
  words = list(vocabulary or ())
  encoder = None if vocabulary is None else WordEncoder(Vocabulary(words, np.ones(len(words))), "lower")
  evaluator = Evaluator(None, None, encoder, embed=embed, **options)
  if sentences:
    evaluator.sentences = sentences
  return evaluator


def _evaluate(*names, lenient=False, done=None, **options):
  metrics = _evaluator(**options).evaluate(names, lenient=lenient, done=done)
  known = {pattern for name in names for pattern in protocols.find(name.partition(":")[0]).metrics}
  assert all(any(fnmatchcase(key.rsplit("/", 1)[-1], pattern) for pattern in known) for key in metrics)
  return metrics


def test_a_list_of_the_users_gives_its_name_to_the_metrics(tmp_path):
  (tmp_path / "mine.txt").write_text("rug sofa ottoman carpet hallway carpet\n")
  (tmp_path / "mine2.txt").write_text(": s\nrug sofa carpet ottoman\n")
  names = f"synonyms:{tmp_path / 'mine.txt'}", f"analogies:{tmp_path / 'mine2.txt'}"
  actual = _evaluate(*names, vocabulary=list(TABLE))
  assert actual["mine/accuracy"] == 1 and actual["mine/questions"] == 1
  assert actual["mine2/total/questions"] == 1 and actual["mine2/out_of_vocabulary"] == 0


@pytest.mark.data
def test_google_all_asks_of_every_word():
  from embeddings_jax.data import wordsets

  words = list(dict.fromkeys(word for listed in wordsets.analogies().values() for q in listed for word in q))
  names = [f"frequent{i}" for i in range(30000)] + words[:40]
  evaluate = lambda name: _evaluate(name, embed=lambda asked: np.ones((len(asked), 2), np.float32), vocabulary=names)
  assert evaluate("analogies")["google/total/questions"] == 0
  assert evaluate("analogies:google-all")["google-all/total/questions"] > 100


def test_missing_data_is_left_out_and_reported(tmp_path):
  said = []
  names = ["analogies", "categorization:bless", "word_similarity", "text_classification:sst2"]
  assert _evaluate(*names, report=said.append, data_dir=tmp_path) == {}
  assert [line.partition(" is left out: ")[0] for line in said] == names
  assert "questions-words.txt: no such file" in said[0] and "bless.csv: no such file" in said[1]


@pytest.mark.parametrize("name, message", [
    ("analogie", "protocol=analogie: unknown; did you mean analogies"),
    ("synonyms", "needs a file of questions, as synonyms:FILE"),
    ("synonyms:none.txt", "there is no file 'none.txt'"),
    ("analogies:gogle", "there is no file 'gogle'"),
    ("categorization:blss", "did you mean bless"),
    ("word_similarity:mem", "did you mean men"),
    ("finetuning:sst2", "is asked about the run's own data; leave 'sst2' out"),
])
def test_a_misspelt_protocol_is_an_error_and_not_left_out(name, message):
  with pytest.raises(InputError, match=message):
    evaluation.check(name)


def test_a_broken_file_of_the_users_is_an_error(tmp_path):
  (tmp_path / "bad.txt").write_text("rug sofa\n")
  for name, message in (("synonyms", "bad.txt: line 1"), ("analogies", "bad.txt: line 1.*four words")):
    with pytest.raises(InputError, match=message):
      _evaluate(f"{name}:{tmp_path / 'bad.txt'}")


def test_a_misspelt_data_set_is_an_error(tmp_path):
  with pytest.raises(InputError, match="did you mean 'sst2'"):
    _evaluate("text_classification:sst", data_dir=tmp_path)


def test_words_need_a_vocabulary():
  with pytest.raises(InputError, match="protocols=analogies: needs a model of words"):
    _evaluate("analogies", vocabulary=None)


def test_topics_need_a_model_of_topics():
  with pytest.raises(InputError, match="protocols=topics: needs a model of topics"):
    _evaluate("topics", vocabulary=None)


SCORED = [("rug", "carpet", 5), ("rug", "hallway", 1), ("sofa", "ottoman", 4.5), ("rug", "sofa", 0)]


def _sentences(lines):
  return np.array([np.mean([TABLE[word] for word in line.split()], 0) for line in lines])


def test_protocols_on_sentences_are_asked_of_them_by_default_of_their_own_set(monkeypatch):
  from embeddings_jax.data.dataset import Dataset

  items, score = [row[:2] for row in SCORED], np.array([row[2] for row in SCORED], np.float32)
  asked = []

  def load(name, **_):
    asked.append(name)
    actual = Dataset(name, "pairs", items, labels={"score": score}, split={"test": np.arange(4)})
    return actual if name == "sts-b" else actual._replace(labels={"score": score, "source": np.array([*"xxyy"])})

  monkeypatch.setattr(evaluation.catalog, "load", load)
  found = _evaluate("sts", "pair_retrieval", "pair_verification:sts-b", sentences=_sentences)
  assert asked == ["sts-b"]  # Loaded once for the three.
  assert found["sts-b/test/spearman"] == pytest.approx(0.8) and found["sts-b/test/mrr"] == 1
  assert found["sts-b/test/verification_auc"] == 1 and found["sts-b/candidates"] == 4
  asked.clear()
  found = _evaluate("sts:all", sentences=_sentences)
  assert asked == ["sts-12", "sts-13", "sts-14", "sts-15", "sts-16", "sts-b"]
  assert found["sts-14/all/spearman"] == pytest.approx(0.8)
  assert found["sts-average/all/spearman"] == pytest.approx(0.8)
  assert "sts-average/all/spearman" not in _evaluate("sts", "sts:sts-12", sentences=_sentences)
  # A model of texts needs no other way to embed them.
  assert _evaluate("sts", vocabulary=None, embed=_sentences)["sts-b/test/spearman"] == pytest.approx(0.8)


def test_missing_sets_of_sentences_are_left_out_and_reported(tmp_path):
  said = []
  assert _evaluate("sts:all", "transfer", report=said.append, data_dir=tmp_path) == {}
  assert len(said) == 7 and said[0].startswith("sts:sts-12 is left out: ") and said[-1].startswith("transfer is left")


def test_the_users_own_scored_pairs(tmp_path):
  (tmp_path / "mine.tsv").write_text("".join(f"{a}\t{b}\t{score}\n" for a, b, score in SCORED))
  name = str(tmp_path / "mine.tsv")
  assert _evaluate(f"sts:{name}", sentences=_sentences)[f"{name}/all/spearman"] == pytest.approx(0.8)
  (tmp_path / "mine.tsv").write_text("rug\tcarpet\n")
  with pytest.raises(InputError, match="has no scores, only pairs"):
    _evaluate(f"sts:{name}", sentences=_sentences)


@pytest.mark.parametrize(("key", "message"), [
    ("class/test/knn_accuracy", "would choose a checkpoint on a test split"),
    ("mnli/test_matched/accuracy", "would choose a checkpoint on a test split"),
    ("class/all/nmo", "no metric by which checkpoints can be chosen; did you mean nmi?"),
    ("google/total/questions", "no metric by which checkpoints can be chosen"),
    ("loss/dev/mix_0", "no metric by which checkpoints can be chosen")])
def test_checkpoints_are_chosen_by_nothing_else_than_scores_of_data_that_is_not_for_testing(key, message):
  with pytest.raises(InputError, match=re.escape(message)):
    protocols.check_best_metric(key)


def test_every_metric_has_one_direction():
  directions = {}
  for protocol in protocols.protocol_names():
    for name, declared in protocols.find(protocol).metrics.items():
      assert directions.setdefault(name, declared.higher_is_better) == declared.higher_is_better
  for key, higher in {"validation/perplexity": False, "validation/masked_loss": False, "sts-b/dev/alignment": False,
                      "sts-b/dev/spearman": True, "x/test/recall_at_10": True, "words": None}.items():
    assert protocols.metric(key).higher_is_better is higher
    if higher is not None:
      protocols.check_best_metric(key.replace("test", "dev"))
  assert protocols.metric("x/nothing") is None


def test_labels_with_one_class_are_left_out_and_reported():
  from embeddings_jax.data.dataset import Dataset

  vectors = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
  labels = {"one": np.zeros(40, int), "two": np.arange(40) % 2}
  dataset, said = Dataset("d", "rows", vectors, labels=labels), []
  actual = _evaluate("knn", vocabulary=None, embed=lambda items: items, dataset=dataset, report=said.append)
  assert actual.keys() == {"two/test/knn_accuracy", "two/test/knn200_accuracy"}
  dataset = dataset._replace(split={"train": np.arange(0, 40, 2), "test": np.arange(1, 40, 2)})
  assert _evaluate("linear_probe", vocabulary=None, embed=lambda items: items, dataset=dataset,
                   report=said.append) == {}
  assert said == ["knn: leaves out labels with one class: one",
                  "linear_probe is left out: the labels of 'd' have one class: one, two"]


def test_what_cannot_be_answered_at_the_end_of_a_run_is_left_out():
  said, done = [], []
  names = ("analogies", "held_out", "topics")
  assert _evaluate(*names, vocabulary=None, report=said.append, lenient=True,
                   done=lambda name, metrics: done.append(name)) == {}
  assert done == list(names) and [line.partition(" is left out: ")[0] for line in said] == list(names)


def test_baselines_that_beat_the_model_are_named_by_the_metrics_direction():
  metrics = {"class/test/accuracy": 0.9, "class/test/knn_accuracy": 0.8, "validation/perplexity": 40.0,
             "untrained/class/test/accuracy": 0.5, "untrained/validation/perplexity": 30.0,
             "pixels/class/test/accuracy": 0.95, "pixels/class/test/knn_accuracy": 0.8, "pixels/other/accuracy": 1.0}
  assert summary.surpassing(metrics) == {"untrained": ["validation/perplexity"], "pixels": ["class/test/accuracy"]}


SHARE = """
from embeddings_jax.types import Metric, Protocol

def positive(embed, dataset, *, seed, scale):
  return {"all/share": float((embed(dataset.items) > 0).mean()) * scale}

PROTOCOL = Protocol(positive, needs=NEEDS, labels=True, metrics={"share": Metric(True, "fraction")})
"""


def add_folder(path, monkeypatch):
  monkeypatch.setattr(extensions, "_folders", [])
  extensions.extend(path)
  (path / "eval").mkdir()


def test_a_protocol_of_ones_own_is_a_file(tmp_path, monkeypatch):
  from embeddings_jax.data.dataset import Dataset

  add_folder(tmp_path, monkeypatch)
  (tmp_path / "eval" / "positive.py").write_text(
      SHARE.replace("NEEDS", '("embed",)').replace("*, seed, scale", "*, seed, scale=1"))
  dataset = Dataset("d", "rows", np.array([[1.0], [-1], [2], [3]]), labels={"two": np.arange(4) % 2})
  subject = Evaluator(None, None, None, embed=lambda items: items, dataset=dataset)
  assert subject.evaluate(["positive"]) == {"all/share": 0.75}
  assert protocols.metric("x/share").higher_is_better
  with pytest.raises(InputError, match="protocol=positiv: unknown"):
    subject.evaluate(["positiv"])


def test_what_a_protocol_needs_is_asked_of_the_model(tmp_path, monkeypatch):
  add_folder(tmp_path, monkeypatch)
  (tmp_path / "eval" / "needy.py").write_text(SHARE.replace("NEEDS", '("embed", "hidden")'))
  subject = Evaluator(None, None, None, embed=lambda items: items)
  assert not subject.answers("needy") and subject.answers("knn") and not subject.answers("word_similarity")
  with pytest.raises(InputError, match="protocols=needy: needs a model with layers of tokens"):
    subject.evaluate(["needy"])
  with pytest.raises(InputError, match="protocols=knn: there is no dataset of the model's own; name one, as knn:"):
    subject.evaluate(["knn"])


def test_datasets_are_loaded_and_embedded_once_and_dropped_when_no_protocol_is_left(monkeypatch):
  from embeddings_jax.data.dataset import Dataset

  rows = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
  loads, embeds, held = [], [], []

  def load(name, **_):
    loads.append(name)
    return Dataset(name, "rows", rows.copy(), labels={"two": np.arange(40) % 2})

  monkeypatch.setattr(evaluation.catalog, "load", load)
  subject = Evaluator(None, None, None, embed=lambda items: embeds.append(1) or items)
  actual = subject.evaluate(["knn:a", "knn:b", "few_shot:a", "clustering:b"],
                            done=lambda name, _: held.append(sorted(key[0] for key in subject._loaded)))
  assert loads == ["a", "b"] and len(embeds) == 2 and held == [["a"], ["a", "b"], ["b"], []]
  assert {key.split("/")[0] for key in actual} == {"a", "b"}
