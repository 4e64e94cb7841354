"""Labeled text in people's forms, and the arrays that are made of it."""
import json
import logging

import numpy as np
import pytest

from embeddings_jax.data import task_files, tasks
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.encoders.images import ImageEncoder
from embeddings_jax.data.encoders.subwords import SubwordEncoder
from embeddings_jax.data.encoders.waveforms import WaveformEncoder
from embeddings_jax.data.files.tokenizer import wordpiece
from embeddings_jax.data.task_files import task_dataset
from embeddings_jax.data.tokenizer_training import train_bpe
from embeddings_jax.types import InputError

WORDS = "the cat sat on a mat in nor ##mand ##y ##s france is where who 10 , ? x y".split()


@pytest.fixture(scope="module")
def encoder():
  return SubwordEncoder(wordpiece(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS], lowercase=True), 16)


def ids(encoder, text):
  return [encoder.vocabulary[token] for token in text.split()]


def write(folder, **files):
  for name, text in files.items():
    (folder / name.replace("__", ".")).write_text(text)
  return str(folder)


def load(path, **options):
  return tasks.as_task(tasks.load_examples(str(path)), **options)


TABLES = {
    "sst2": ("sentence\tlabel\nthe cat \t1\na mat\t0\n", "text", [("the cat", "1"), ("a mat", "0")]),
    "plain": ("the cat\tgood\na \"mat\tbad\n", "text", [("the cat", "good"), ('a "mat', "bad")]),
    "cola": ("gj04\t1\t\tThe cat sat.\ngj04\t0\t*\tSat cat the.\n", "text",
             [("The cat sat.", "1"), ("Sat cat the.", "0")]),
    "rte": ("index\tsentence1\tsentence2\tlabel\n0\ta\tb\tentailment\n1\tc\td\tnot_entailment\n", "pairs",
            [(("a", "b"), "entailment"), (("c", "d"), "not_entailment")]),
    "mrpc": ("\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\ta\tb\n0\t7\t8\tc\td\n", "pairs",
             [(("a", "b"), "1"), (("c", "d"), "0")]),
    "qqp": ("id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n0\t1\t2\ta\tb\t0\n", "pairs", [(("a", "b"), "0")]),
    "qnli": ("index\tquestion\tsentence\tlabel\n0\twho\tthe cat\tentailment\n", "pairs",
             [(("who", "the cat"), "entailment")]),
    "mnli": ("index\tgenre\tsentence1\tsentence2\tlabel1\tgold_label\n0\tg\ta\tb\tx\tneutral\n1\tg\ta\tb\tx\t-\n",
             "pairs", [(("a", "b"), "neutral")]),
    "stsb": ("index\tgenre\tsentence1\tsentence2\tscore\n0\tg\ta\tb\t2.500\n", "pairs", [(("a", "b"), 2.5)]),
    "snli": ("a\tb\t0\nc\td\t2\n", "pairs", [(("a", "b"), "0"), (("c", "d"), "2")]),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_in_their_usual_forms(name, tmp_path):
  text, kind, expected = TABLES[name]
  path = tmp_path / "train.tsv"
  path.write_text(text)
  actual, examples = task_files.read_examples(path)
  assert actual == kind and [(e.item, e.target) for e in examples] == expected
  assert examples[0].place == f"{path}: line {2 if name not in ('plain', 'cola', 'snli') else 1}"


def test_words_with_tags(tmp_path):
  path = tmp_path / "train.conll"
  path.write_text("-DOCSTART- -X- O\n\nThe DT O\ncat NN B-x\n \t \nsat VB O\n")
  _, examples = task_files.read_examples(path)
  assert [(e.item, e.target) for e in examples] == [(("The", "cat"), ("O", "B-x")), (("sat",), ("O",))]
  assert examples[1].place.endswith("line 6")
  row = lambda i, word, tag: "\t".join([i, word, "_", tag, *"______"])
  path = tmp_path / "train.conllu"
  path.write_text("\n".join(["# text = x", row("1-2", "don't", "_"), row("1", "do", "AUX"), row("2", "n't", "PART"),
                             row("2.1", "go", "VERB"), "", ""]))
  _, examples = task_files.read_examples(path)
  assert [(e.item, e.target) for e in examples] == [(("do", "n't"), ("AUX", "PART"))]


def test_choices(tmp_path):
  path = tmp_path / "train.csv"
  path.write_text(',sent1,sent2,ending0,ending1,label\n0,"The cat, there",It,"sat, on",ran.,1\n')
  _, (example,) = task_files.read_examples(path)
  assert example.item == (("The cat, there", "It sat, on"), ("The cat, there", "It ran.")) and example.target == 1
  path.write_text("ctx,ending0,ending1,label\nThe cat,sat,ran,0\n")
  assert task_files.read_examples(path)[1][0].item == (("The cat", "sat"), ("The cat", "ran"))


CONTEXT = "Normandy is in France , where the cats sat on a mat in the 10 x y"


def squad(*questions):
  qas = [{"id": f"q{i}", "question": question, "is_impossible": not answers,
          "answers": [{"text": text, "answer_start": start} for start, text in answers]}
         for i, (question, answers) in enumerate(questions)]
  return json.dumps({"version": "v2.0", "data": [{"title": "t", "paragraphs": [{"context": CONTEXT, "qas": qas}]}]})


MISTAKES = {
    "columns": ("train.tsv", "sentence\tlabel\nthe cat\n", "train.tsv: line 2 has 1 columns, needs 2"),
    "no_label": ("train.tsv", "sentence\tlabel\nthe cat\t\n", "line 2: the label is missing"),
    "no_header": ("train.tsv", "a\tb\tc\td\te\n", "line 1 has 5 columns and no header that is known"),
    "score": ("train.tsv", "sentence1\tsentence2\tscore\na\tb\thigh\n", "line 2: the score 'high' is not a finite"),
    "empty": ("train.tsv", "sentence\tlabel\n", "has no training part|is empty"),
    "name": ("train.orc", "x", "is no task by its name"),
    "json": ("train.json", "{", "train.json: not JSON"),
    "key": ("train.json", '{"data": [{"paragraphs": [{"qas": []}]}]}', "has no field 'context'"),
    "answer": ("train.json", squad(("who", [(5, "France")])), "the answer 'France' is not at character 5"),
    "tag": ("train.conll", "The O\ncat\n", "line 2: 'cat' should be a token and its tag, in 2 columns"),
    "conllu": ("train.conllu", "1\tThe\n", "line 1 has 2 columns, CoNLL-U has 10"),
    "choice": ("train.csv", "ctx,ending0,ending1,label\na,b,c,2\n", "line 2: the label '2' is no number from 0 to 1"),
    "choices": ("train.csv", "ctx,ending0,label\na,b,0\n", "line 1: should be a header with sent1"),
    "width": ("train.csv", "ctx,ending0,ending1,label\na,b,0\n", "line 2 has 3 columns, the header has 4"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_a_file_is_named_with_its_place(name, tmp_path):
  file, text, message = MISTAKES[name]
  (tmp_path / file).write_text(text)
  with pytest.raises(InputError, match=message) as caught:
    load(tmp_path / file)
  assert "\n" not in str(caught.value)


def test_parts_are_told_by_the_files_names(tmp_path, caplog):
  table = "sentence1\tsentence2\tgold_label\n"
  write(tmp_path, train__tsv=table + "a\tb\tx\nc\td\ty\n", dev_matched__tsv=table + "e\tf\tx\n",
        dev_mismatched__tsv=table + "g\th\ty\n", test_matched__tsv="sentence1\tsentence2\na\tb\n", README="?")
  with caplog.at_level(logging.WARNING):
    task = load(tmp_path)
  assert {part: len(rows) for part, rows in task.parts.items()} == {"train": 2, "dev": 1, "dev_mismatched": 1}
  assert task.kind == "classification" and task.labels == ("x", "y")
  assert list(task.targets) == [0, 1, 0, 1]
  assert "test_matched.tsv: has no column of labels" in caplog.text
  (tmp_path / "dev_matched.tsv").write_text(table + "e\tf\tz\n")
  with pytest.raises(InputError, match="dev_matched.tsv: line 2: the label 'z' is not in the training part, which"):
    load(tmp_path)
  (tmp_path / "valid.tsv").write_text(table + "e\tf\tx\n")
  with pytest.raises(InputError, match="the part dev was read from"):
    load(tmp_path)


def test_tags_that_training_lacks_are_named(tmp_path):
  write(tmp_path, train__conll="a O\nb B-x\n", dev__conll="a O\nb B-y\n", test__conll="a O\n")
  with pytest.raises(InputError, match="dev.conll: line 1: the tag 'B-y' of word 2 is not in the training part"):
    load(tmp_path)


def test_a_set_without_parts_is_parted_by_its_texts():
  items = [f"text {i % 150}" for i in range(300)]  # Each twice.
  dataset = Dataset("d", "text", items, labels={"class": np.array(["a", "b", "b"] * 100)}, fingerprint="f")
  task = tasks.as_task(dataset)
  sizes = {part: len(rows) for part, rows in task.parts.items()}
  assert sum(sizes.values()) == 300 and 10 < sizes["dev"] < 60 and 10 < sizes["test"] < 60
  texts = {part: {items[i] for i in rows} for part, rows in task.parts.items()}
  assert not texts["train"] & texts["dev"] and not texts["train"] & texts["test"] and not texts["dev"] & texts["test"]
  few = tasks.as_task(dataset, max_examples=7)
  assert {len(rows) for rows in few.parts.values()} == {7} and few.fingerprint != task.fingerprint
  with pytest.raises(InputError, match="name one of its labels by label; it has class"):
    tasks.as_task(dataset, "sort")
  with pytest.raises(InputError, match="too few to hold a tenth out for dev"):
    tasks.as_task(dataset._replace(items=items[:2], labels={"class": np.array(["a", "b"])}))
  with pytest.raises(InputError, match="1 classes in the training part"):
    tasks.as_task(dataset._replace(labels={"class": np.array(["a"] * 300)}))


def example_task(kind, items, targets):
  listed = [task_files.Example(item, target, f"e{i}") for i, (item, target) in enumerate(zip(items, targets))]
  return tasks.as_task(task_dataset("t", kind, {"train": listed, "dev": listed[:1]}, f"{kind}{items}"))


def test_pairs_and_scores(encoder, tmp_path):
  task = example_task("pairs", [("the cat", "a mat"), ("the " * 20, "cat " * 3)], [5.0, 1.0])
  assert task.kind == "regression" and task.span == (1.0, 5.0)
  actual = tasks.encode_task(task, encoder, cache_dir=tmp_path)["train"]
  np.testing.assert_array_equal(actual["targets"]["label"], [1, 0])
  assert actual["targets"]["label"].dtype == np.float32 and actual["inputs"]["tokens"].shape == (2, 16)
  assert actual["inputs"]["tokens"][0].tolist() == ids(encoder, "[CLS] the cat [SEP] a mat [SEP]") + [-1] * 9
  assert actual["inputs"]["segments"][0].tolist() == [0] * 4 + [1] * 3 + [0] * 9
  # The longer text is cut.
  assert actual["inputs"]["tokens"][1].tolist() == ids(encoder, "[CLS]" + " the" * 10 + " [SEP] cat cat cat [SEP]")
  source = tasks.task_source(task, tasks.encode_task(task, encoder, cache_dir=tmp_path), encoder, 4)
  assert source.facts["task"] == "regression" and source.facts["vocab_size"] == 5 + len(WORDS)
  batch = source.batch_at(0)
  assert set(batch) == {"inputs", "targets", "mask"}
  assert set(batch["inputs"]) == {"tokens", "segments"} and set(batch["targets"]) == {"label"}
  assert source.batch_at(0)["mask"].tolist() == [1, 1, 0, 0]


def test_choices_are_rows_of_rows(encoder, tmp_path):
  task = example_task("choices", [(("the cat", "sat"), ("the cat", "sat on a mat"))], [1])
  actual = tasks.encode_task(task, encoder, cache_dir=tmp_path)["train"]
  assert actual["inputs"]["tokens"].shape == (1, 2, 16) and actual["targets"]["label"].tolist() == [1]
  assert actual["inputs"]["tokens"][0, 1, :9].tolist() == ids(encoder, "[CLS] the cat [SEP] sat on a mat [SEP]")
  with pytest.raises(InputError, match="e1: has 1 choices, the first example has 2"):
    example_task("choices", [(("a", "b"), ("a", "c")), (("a", "b"),)], [0, 0])


def test_tags_stand_at_the_first_token_of_their_word(encoder, tmp_path):
  task = example_task("words", [("The", "Normandys", "sat"), ("the",) * 20], [("O", "B-x", "O"), ("O",) * 20])
  actual = tasks.encode_task(task, encoder, cache_dir=tmp_path)["train"]
  assert actual["inputs"]["tokens"][0, :7].tolist() == ids(encoder, "[CLS] the nor ##mand ##y ##s sat")
  assert task.labels == ("B-x", "O")
  assert actual["targets"]["tags"][0].tolist() == [-1, 1, 0, -1, -1, -1, 1] + [-1] * 9
  assert actual["word_starts"][0, :3].tolist() == [1, 2, 6]
  # The rest is cut off.
  assert (actual["targets"]["tags"][1] >= 0).sum() == 14 and (actual["word_starts"][1] >= 0).sum() == 14


def test_windows_go_over_the_whole_context(encoder, tmp_path):
  start = CONTEXT.index("a mat")
  questions = [("who ?", [(start, "a mat")]), ("where ?", [(0, "Normandy")]), ("x ?", [])]
  (tmp_path / "train.json").write_text(squad(*questions))
  task = tasks.as_task(tasks.load_examples(str(tmp_path / "train.json"))._replace(
      split={"train": np.arange(3), "dev": np.arange(3)}))
  actual = tasks.encode_task(task, encoder, stride=5, cache_dir=tmp_path)["train"]
  rows = lambda example: np.flatnonzero(actual["example"] == example)
  assert len(rows(0)) >= 3
  seen = set()
  for row in rows(0):
    mine = actual["offsets"][row][actual["offsets"][row, :, 0] >= 0]
    # Tokens of a window are those of the context, at their places, without a gap.
    words = [CONTEXT[a:b].lower() for a, b in mine]
    shown = actual["inputs"]["tokens"][row][actual["offsets"][row, :, 0] >= 0]
    tokens = [encoder.tokenizer.id_to_token(int(i)) for i in shown]
    assert [token.removeprefix("##") for token in tokens] == words
    seen |= set(map(tuple, mine.tolist()))
  whole = encoder.tokenizer.encode(CONTEXT, add_special_tokens=False)
  assert seen == set(whole.offsets)
  with_answer = [row for row in rows(0) if actual["targets"]["end"][row]]
  assert with_answer and len(with_answer) < len(rows(0))
  for row in with_answer:
    offsets = actual["offsets"][row]
    assert CONTEXT[offsets[actual["targets"]["start"][row], 0]:offsets[actual["targets"]["end"][row], 1]] == "a mat"
  assert not actual["targets"]["start"][rows(2)].any() and not actual["targets"]["end"][rows(2)].any()
  first = rows(1)[0]
  assert actual["targets"]["start"][first] == 4 and actual["targets"]["end"][first] == 6  # nor ##mand ##y
  with pytest.raises(InputError, match="stride=16: must lie between 0 and max_length=16"):
    tasks.encode_task(task, encoder, stride=16, cache_dir=tmp_path)


def test_a_tokenizer_without_a_token_for_the_text_gets_its_end_behind_it():
  bpe = SubwordEncoder(train_bpe(["the cat sat on a mat"] * 3, 300), 64).for_task(24)
  end = bpe.facts["end_id"]
  tokens = bpe.encode([("the cat", "a mat"), "the cat"])["tokens"]
  assert [row[row >= 0][-1] for row in tokens] == [end, end] and [(row == end).sum() for row in tokens] == [2, 1]


SIZES = {"sst2": (60_614, 6_735, 872), "cola": (8_551, 527, 516), "rte": (2_127, 363, 277),
         "sts-b": (5_749, 1_500, 1_379), "snli": (8_857, 985, 9_824), "wnut17": (3_394, 1_009, 1_287),
         "ud-ewt": (12_544, 2_001, 2_077), "squad-parts": (4_180, 1_334, 1_414)}


@pytest.mark.data
def test_the_catalogs_tasks():
  for name, sizes in SIZES.items():
    task = tasks.as_task(tasks.load_examples(name))
    assert tuple(len(task.parts[part]) for part in ("train", "dev", "test")) == sizes, name
    assert task.kind == {"sts-b": "regression", "wnut17": "tagging", "ud-ewt": "tagging",
                         "squad-parts": "span"}.get(name, "classification")
    if name == "squad-parts":
      contexts = [{task.items[i][1] for i in rows} for rows in task.parts.values()]
      assert len(set.union(*contexts)) == sum(map(len, contexts)) == 808
      assert all(0.3 < np.mean([not task.targets[i] for i in rows]) < 0.6 for rows in task.parts.values())
  assert len(tasks.as_task(tasks.load_examples("ud-ewt")).labels) == 17
  assert len(tasks.as_task(tasks.load_examples("wnut17")).labels) == 13


@pytest.mark.data
def test_the_years_of_semeval():
  from embeddings_jax.data import catalog

  sizes = {"sts-12": {"MSRpar": 750, "OnWN": 750, "SMTeuroparl": 459, "SMTnews": 399},
           "sts-13": {"FNWN": 189, "OnWN": 561, "headlines": 750},
           "sts-14": {"OnWN": 750, "deft-forum": 450, "deft-news": 300, "headlines": 750, "images": 750,
                      "tweet-news": 750},
           "sts-15": {"answers-forums": 375, "answers-students": 750, "belief": 375, "headlines": 750, "images": 750},
           "sts-16": {"answer-answer": 254, "headlines": 249, "plagiarism": 230, "postediting": 244,
                      "question-question": 209}}
  for name, expected in sizes.items():
    dataset = catalog.load(name)
    test = dataset.split["test"]
    names, counts = np.unique(dataset.labels["source"][test], return_counts=True)
    assert dataset.kind == "pairs" and dict(zip(names.tolist(), counts.tolist())) == expected
    assert 0 <= dataset.labels["score"].min() and dataset.labels["score"].max() == 5
    assert all(len(pair) == 2 and all(pair) for pair in dataset.items)
  at = catalog.load("sts-13").items.index(("measure the depth of a body of water", "any large deep body of water."))
  assert catalog.load("sts-13").labels["score"][at] == 0.8
  triples = catalog.load("snli-triples")
  assert triples.kind == "triples" and len(triples.items) == 5883 and not triples.split
  assert triples.items[2] == (
      "a man selling donuts to a customer during a world exhibition event held in the city of angeles",
      "a man selling donuts to a customer", "a woman drinks her coffee in a small cafe")
  assert set(triples.labels["part"]) == {"dev", "test"}


def test_fewer_examples_for_training_are_of_all_classes_and_nested():
  """100 of 900 a, 90 b and 10 c are 90, 9, 1; dev and test stay whole, and so do the classes."""
  label = np.random.default_rng(0).permutation(np.repeat(["a", "b", "c"], (900, 90, 10)))
  split = {"train": np.arange(1000), "dev": np.arange(1000, 1010), "test": np.arange(1010, 1020)}
  dataset = Dataset("x", "images", np.zeros((1020, 8, 8, 1), np.uint8), split=split, fingerprint="f",
                    labels={"class": np.concatenate([label, ["c"] * 20])})
  actual = {number: tasks.as_task(dataset, max_train=number) for number in (5, 100, 200, 5000)}
  drawn = {number: task.parts["train"] for number, task in actual.items()}
  assert [np.bincount(actual[n].targets[drawn[n]]).tolist() for n in (100, 200)] == [[90, 9, 1], [180, 18, 2]]
  assert set(drawn[5]) < set(drawn[100]) < set(drawn[200]) and len(drawn[5]) == 5 and len(drawn[5000]) == 1000
  assert all(task.labels == ("a", "b", "c") and len(task.parts["test"]) == 10 for task in actual.values())
  assert len({task.fingerprint for task in actual.values()}) == 4
  assert tasks.as_task(dataset).fingerprint == tasks.as_task(dataset, max_train=0).fingerprint
  np.testing.assert_array_equal(tasks.as_task(dataset, max_train=100).parts["train"], drawn[100])
  other = tasks.as_task(dataset, max_train=100, seed=1)
  assert np.bincount(other.targets[other.parts["train"]]).tolist() == [90, 9, 1]
  assert set(other.parts["train"]) != set(drawn[100]) and other.fingerprint != actual[100].fingerprint
  assert tasks.as_task(dataset, seed=1).fingerprint == tasks.as_task(dataset).fingerprint
  equal = dataset._replace(labels={"class": np.arange(1020) % 10})
  task = tasks.as_task(equal, max_train=100)
  assert np.bincount(task.targets[task.parts["train"]]).tolist() == [10] * 10
  scores = tasks.as_task(dataset._replace(labels={"score": np.arange(1020) / 1019}), max_train=7)
  assert len(scores.parts["train"]) == 7 and scores.span[1] == pytest.approx(999 / 1019)


def test_clips_and_pictures_are_tasks():
  rng = np.random.default_rng(0)
  clips = [rng.integers(-9, 9, size).astype(np.int16) for size in rng.integers(3, 40, 60)]
  labels = {"digit": np.arange(60) % 3, "speaker": np.array(["x", "y"])[np.arange(60) % 2]}
  split = {"train": np.arange(50), "test": np.arange(50, 60)}
  with pytest.raises(InputError, match="name one of its labels by label; it has digit, speaker"):
    tasks.as_task(Dataset("c", "audio", clips, 8000, labels=labels, split=split))
  task = tasks.as_task(Dataset("c", "audio", clips, 8000, labels=labels, split=split), "speaker")
  assert task.kind == "classification" and task.labels == ("x", "y")
  assert sorted([*task.parts["train"], *task.parts["dev"]]) == list(range(50)) and 1 <= len(task.parts["dev"]) <= 12
  encoder = WaveformEncoder(8000).for_task(20)
  assert encoder.options() == {"rate": 8000, "max_length": 20} and WaveformEncoder(8000).options() == {"rate": 8000}
  actual = tasks.encode_task(task, encoder)
  for part, rows in task.parts.items():
    arrays = actual[part]
    lengths = [min(20, len(clips[i])) for i in rows]
    assert arrays["inputs"]["length"].tolist() == lengths
    assert arrays["inputs"]["signal"].shape == (len(rows), max(lengths))
    assert arrays["targets"]["label"].tolist() == (rows % 2).tolist() and arrays["example"].tolist() == rows.tolist()
    for row, i in zip(arrays["inputs"]["signal"], rows):
      np.testing.assert_array_equal(row[:min(20, len(clips[i]))], clips[i][:20])
  source = tasks.task_source(task, actual, encoder, 4)
  batch = source.batch_at(0)
  assert set(batch) == {"inputs", "targets", "mask"} and set(batch["targets"]) == {"label"}
  assert set(batch["inputs"]) == {"signal", "length"} and source.facts["num_classes"] == 2
  np.testing.assert_allclose(source.facts["padding_fraction"], 1 - actual["train"]["inputs"]["length"].mean() / 20)
  images = rng.integers(0, 256, (60, 4, 4, 1)).astype(np.uint8)
  task = tasks.as_task(Dataset("p", "images", images, labels={"class": labels["digit"]}, split=split))
  actual = tasks.encode_task(task, ImageEncoder(4, 4, 1))["test"]
  np.testing.assert_array_equal(actual["inputs"]["image"], images[50:])
  assert actual["targets"]["label"].tolist() == (np.arange(50, 60) % 3).tolist()
