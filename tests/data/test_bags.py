"""Counts of words in documents, against plain loops; what is refused; and the blocks that they are dealt out to."""
import hashlib
from collections import Counter

import numpy as np
import pytest
import scipy.sparse

from embeddings_jax.data import bags as bags_lib
from embeddings_jax.data import catalog
from embeddings_jax.data.bags import bag_source, count_documents
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.types import InputError


def corpus(*documents):
  return Dataset("corpus", "text", documents, fingerprint=hashlib.sha256("\n".join(documents).encode()).hexdigest())


def table(bags):
  """{(document, word): count}."""
  row = np.repeat(np.arange(len(bags.indptr) - 1), np.diff(bags.indptr))
  words = bags.encoder.vocabulary.words
  return {(int(i), words[j]): float(n) for i, j, n in zip(row, bags.col, bags.count)}


def test_worked_by_hand(tmp_path):
  bags = count_documents(corpus("The cat saw the dog.", "", "Dog, cat: DOG!"), cache_dir=tmp_path)
  assert bags.encoder.vocabulary.words == ["dog", "cat", "the", "saw"]
  assert table(bags) == {(0, "dog"): 1, (0, "cat"): 1, (0, "the"): 2, (0, "saw"): 1, (2, "dog"): 2, (2, "cat"): 1}
  assert bags.indptr.tolist() == [0, 4, 4, 6] and isinstance(bags.col, np.memmap)
  facts = bags.facts
  assert facts["counts"].tolist() == [3, 2, 2, 1] and facts["document_frequency"].tolist() == [2, 2, 1, 1]
  numbers = ("vocab_size", "num_documents", "num_cells", "num_empty", "num_raw_words")
  assert [facts[name] for name in numbers] == [4, 3, 6, 1, 8]


@pytest.mark.parametrize("options, words", [
    (dict(min_count=2), ["dog", "cat", "the"]),
    (dict(min_documents=2), ["dog", "cat"]),
    (dict(max_share=0.5), ["the", "saw"]),
    (dict(stop_words="english"), ["dog", "cat", "saw"]),
    (dict(stop_words="english", max_size=2), ["dog", "cat"]),
    (dict(min_length=4, normalize="spaces"), ["DOG!", "Dog,", "cat:", "dog."]),
])
def test_words_are_chosen(tmp_path, options, words):
  actual = count_documents(corpus("The cat saw the dog.", "", "Dog, cat: DOG!"), cache_dir=tmp_path, **options)
  assert actual.encoder.vocabulary.words == words
  assert actual.facts["num_documents"] == 3


def test_the_users_stop_words(tmp_path):
  (tmp_path / "stop.txt").write_text("Dog\nthe\n")
  actual = count_documents(corpus("The cat saw the dog."), stop_words=str(tmp_path / "stop.txt"), cache_dir=tmp_path)
  assert actual.encoder.vocabulary.words == ["cat", "saw"]


@pytest.mark.parametrize("unit, documents", [
    ("document", [["a", "b", "c", "d", "e"], [], ["f"]]),
    ("paragraph", [["a", "b", "c"], ["d", "e"], [], ["f"]]),
    ("window", [["a", "b"], ["c", "d"], ["e"], ["f"]]),
])
@pytest.mark.parametrize("slab", [2, 1 << 20])
def test_units(tmp_path, monkeypatch, unit, documents, slab):
  monkeypatch.setattr(bags_lib, "_SLAB", slab)
  bags = count_documents(corpus("a b\nc\n \n\nd e", "", "f"), unit=unit, window=2, cache_dir=tmp_path)
  assert table(bags) == {(i, word): 1 for i, words in enumerate(documents) for word in words}
  assert bags.facts["num_documents"] == len(documents)


def noise_corpus(number=60, seed=0):
  noise = np.random.default_rng(seed)
  return [" ".join(f"w{i}" for i in noise.zipf(1.5, size=noise.integers(0, 60)) if i < 40) for _ in range(number)]


@pytest.mark.parametrize("slab", [7, 100, 1 << 22])
def test_slabs_change_nothing_and_a_loop_counts_the_same(tmp_path, monkeypatch, slab):
  monkeypatch.setattr(bags_lib, "_SLAB", slab)
  texts = noise_corpus()
  bags = count_documents(corpus(*texts), min_documents=3, cache_dir=tmp_path)
  known = set(bags.encoder.vocabulary.words)
  frequency = Counter(word for text in texts for word in set(text.split()))
  assert known == {word for word, n in frequency.items() if n >= 3}
  assert table(bags) == {(i, word): n for i, text in enumerate(texts) for word, n in Counter(text.split()).items()
                         if word in known}
  assert all((np.diff(bags.col[a:b]) > 0).all() for a, b in zip(bags.indptr, bags.indptr[1:]))
  batch = bags.encoder.encode(texts[:9])  # The encoder counts as the training data was counted.
  for i in range(9):
    assert {(i, bags.encoder.vocabulary.words[w]): n for w, n in zip(batch["words"][i], batch["counts"][i]) if w >= 0
            } == {key: n for key, n in table(bags).items() if key[0] == i}


def test_counts_are_cached(tmp_path, monkeypatch):
  first = count_documents(corpus("a b", "b"), cache_dir=tmp_path)
  monkeypatch.setattr(bags_lib._Text, "slabs", None)
  again = count_documents(corpus("a b", "b"), cache_dir=tmp_path)
  assert table(again) == table(first) and again.fingerprint == first.fingerprint
  with pytest.raises(TypeError):
    count_documents(corpus("a b", "b"), min_count=2, cache_dir=tmp_path)


def write_lda_c(folder, text, words="apple\nbee\ncat\n"):
  (folder / "mine.dat").write_text(text)
  if words:
    (folder / "vocab.txt").write_text(words)
  return str(folder / "mine.dat")


def test_lda_c_and_a_matrix_are_the_same_counts(tmp_path):
  given = catalog.load(write_lda_c(tmp_path, "2 0:2 2:1.5\n0\n1 2:4\n"), cache_dir=tmp_path)
  assert given.kind == "bags" and list(given.items) == [{"apple": 2, "cat": 1.5}, {}, {"cat": 4}]
  scipy.sparse.save_npz(tmp_path / "m.npz", scipy.sparse.csr_array([[2, 0, 1.5], [0, 0, 0], [0, 0, 4], [0, 0, 0]]))
  (tmp_path / "vocabulary.txt").write_text("apple\nbee\ncat\n")
  bags = count_documents(given, cache_dir=tmp_path)
  assert bags.encoder.vocabulary.words == ["cat", "apple"]  # Bees never occur.
  assert table(bags) == {(0, "cat"): 1.5, (0, "apple"): 2, (2, "cat"): 4}
  assert bags.facts["counts"].tolist() == [5.5, 2] and bags.facts["num_empty"] == 1
  matrix = count_documents(catalog.load(str(tmp_path / "m.npz"), cache_dir=tmp_path), cache_dir=tmp_path)
  assert table(matrix) == table(bags) and matrix.facts["num_documents"] == 4
  encoded = bags.encoder.encode(given.items)
  assert encoded["words"].tolist() == [[0, 1], [-1, -1], [0, -1]]
  assert encoded["counts"].tolist() == [[1.5, 2], [0, 0], [4, 0]]
  square = scipy.sparse.csr_array(np.array([[0, 1.0], [3, 0]]))
  scipy.sparse.save_npz(tmp_path / "square.npz", square)
  (tmp_path / "vocabulary.txt").write_text("apple\nbee\n")
  square = catalog.load(str(tmp_path / "square.npz"), cache_dir=tmp_path)
  assert table(count_documents(square, cache_dir=tmp_path)) == {(0, "bee"): 1, (1, "apple"): 3}


@pytest.mark.parametrize("text, message", [
    ("2 0:1\n", "mine.dat: line 1: says 2 words and has 1"),
    ("1 0:1\n1 0:-1\n", "line 2: a count of -1; it must be a number and not negative"),
    ("1 0:nan\n", "line 1: a count of nan"),
    ("1 3:1\n", "line 1: word 3 is not one of the 3 of the vocabulary"),
    ("1 0\n", "line 1: should be `n word:count ...`, and is '1 0'"),
    ("0\n0\n", "mine.dat: is empty, it has no counts"),
])
def test_bad_lda_c_is_one_line(tmp_path, text, message):
  with pytest.raises(InputError) as error:
    catalog.load(write_lda_c(tmp_path, text), cache_dir=tmp_path)
  assert message in str(error.value) and "\n" not in str(error.value)


def test_bad_options_and_counts_are_one_line(tmp_path):
  for options, message in (
      (dict(unit="page"), "unit='page': must be one of document, paragraph, window"),
      (dict(max_share=0), "max_share=0: must be above 0"),
      (dict(min_length=0), "min_length=0: must be at least 1"),
      (dict(stop_words="german"), "stop_words=german: must be none, english or a file"),
      (dict(min_documents=9), "corpus: no word is left of 2; lower min_count=1 or min_documents=9")):
    with pytest.raises(InputError, match=message):
      count_documents(corpus("a b", "b"), cache_dir=tmp_path, **options)
  with pytest.raises(InputError, match=r"document 1, word 0 \(from 0\): a count of -2; it must be"):
    bags_lib.from_matrix("mine", scipy.sparse.csr_array(np.array([[1, 0], [-2, 0]])), ["a", "b"])
  given = bags_lib.from_matrix("mine", scipy.sparse.csr_array(np.array([[1, 0], [2, 0]])), ["a", "b"])
  with pytest.raises(InputError, match="mine: holds counts, which have no order of words; unit=window needs text"):
    count_documents(given, unit="window", cache_dir=tmp_path)
  bags = count_documents(given, cache_dir=tmp_path)
  with pytest.raises(InputError, match="document 0: a count of -1 for 'a'"):
    bags.encoder.encode([{"a": -1}])
  with pytest.raises(InputError, match="blocks=8: must be at least 1, and a multiple of batch_size=3"):
    bag_source(bags, 3)


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
  return count_documents(corpus(*noise_corpus(61)), cache_dir=tmp_path_factory.mktemp("cache"))


def cells_of(batch, key="count"):
  """{(document, word): count} of a batch of blocks, as its first arrays say."""
  actual = {}
  for b in range(len(batch["row"])):
    for row, col, n in zip(batch["row"][b], batch["col"][b], batch[key][b]):
      if n > 0:
        actual[int(batch["document"][b, row]), int(col)] = float(n)
  return actual


def expected_cells(bags):
  row = np.repeat(np.arange(len(bags.indptr) - 1), np.diff(bags.indptr))
  return {(int(i), int(j)): float(n) for i, j, n in zip(row, bags.col, bags.count)}


def test_the_blocks_hold_every_document_once(counted):
  source = bag_source(counted, blocks=8)
  batch = source.batch_at(0)
  assert source.whole and source.batch_size == 8 and not source.may_pad
  assert cells_of(batch) == expected_cells(counted)
  documents = batch["document"]
  assert sorted(documents[documents >= 0]) == list(range(61)) and documents.shape == (8, 8)
  sizes = (batch["count"] > 0).sum(1)
  assert sizes.max() - sizes.min() < 0.2 * sizes.mean()
  assert source.facts["padding"] == pytest.approx(1 - sizes.sum() / batch["count"].size)
  assert source.facts["padding"] < 0.2
  for b in range(8):
    for r in range(8):
      assert set(batch["row"][b][batch["row_start"][b, r]:batch["row_start"][b, r + 1]]) <= {r}
    valid = batch["row_start"][b, -1]
    assert valid == sizes[b] and (batch["count"][b, valid:] == 0).all()
    for w in range(counted.facts["vocab_size"]):
      places = batch["turned"][b][batch["col_start"][b, w]:batch["col_start"][b, w + 1]]
      assert set(batch["col"][b][places]) <= {w} and (np.diff(batch["row"][b][places]) > 0).all()
    assert sorted(batch["turned"][b]) == list(range(len(batch["turned"][b])))


def test_a_pass_of_batches_has_every_block_once_on_the_device_or_read_as_they_come(counted):
  for resident in (True, False):
    source = bag_source(counted, 2, blocks=8, seed=3, resident=resident)
    assert source.facts["steps_per_epoch"] == 4 and not source.whole
    first, second = ({} for _ in range(2))
    for step in range(8):
      (first if step < 4 else second).update(cells_of(source.batch_at(step)))
    assert first == second == expected_cells(counted)
    assert (source.batch_at(0)["document"] != source.batch_at(4)["document"]).any()
  kept, read = (bag_source(counted, 2, seed=3, resident=resident).batch_at(5) for resident in (True, False))
  assert kept.keys() == read.keys()
  for key in kept:
    np.testing.assert_array_equal(kept[key], read[key], strict=True)


def test_held_out_occurrences_are_taken_from_the_counts(counted):
  batch = bag_source(counted, held_out=0.25).batch_at(0)
  count, held = cells_of(batch), cells_of(batch, "held")
  assert {k: count.get(k, 0) + held.get(k, 0) for k in {*count, *held}} == expected_cells(counted)
  assert abs(sum(held.values()) / counted.count.sum() - 0.25) < 0.06
  assert (batch["held"] % 1 == 0).all()


def test_more_shards_than_blocks_are_refused(counted):
  from embeddings_jax.train.mesh import padded

  with pytest.raises(InputError, match="the 8 blocks of the data cannot be shared out to 3 data shards"):
    padded(bag_source(counted), 3)
