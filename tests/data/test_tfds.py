"""Sets built here and now, without TensorFlow and without a network."""
import io
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from embeddings_jax.data.catalog import load
from embeddings_jax.data.images import from_pixels
from embeddings_jax.types import InputError

features = tfds.features
LABEL = {"label": features.ClassLabel(num_classes=3)}


def png(picture):
  from PIL import Image

  file = io.BytesIO()
  Image.fromarray(picture).save(file, "PNG")
  file.seek(0)
  return file


def of_several_sizes(i):
  """The upper left corner tells the example; 10 x 12, 10 x 13, ... pixels."""
  return (np.arange(360 + 30 * i) % 7 + 20 * i).astype(np.uint8).reshape(10, 12 + i, 3)


SETS = {
    "tiny_text": ({"text": features.Text(), **LABEL}, lambda i: {"text": f"text {i} é", "label": i % 3}),
    "tiny_rows": ({"x": features.Tensor(shape=(2,), dtype=np.float64), "id": features.Text(), **LABEL},
                  lambda i: {"x": np.array([i, 0.5]), "id": str(i), "label": i % 3}),
    "tiny_clips": ({"a": features.Tensor(shape=(None,), dtype=np.int64), **LABEL},
                   lambda i: {"a": np.full(i + 1, -i), "label": i % 3}),
    "tiny_images": ({"image": features.Image(shape=(2, 3, 1)), **LABEL},
                    lambda i: {"image": png(np.full((2, 3), i, np.uint8)), "label": i % 3}),
    "tiny_photos": ({"image": features.Image(), **LABEL},
                    lambda i: {"image": png(of_several_sizes(i)), "label": i % 3}),
    "tiny_broken": ({"image": features.Image(), **LABEL},
                    lambda i: {"image": io.BytesIO(png(of_several_sizes(i)).read()[:99]), "label": i % 3}),
    "tiny_loud": ({"a": features.Tensor(shape=(None,), dtype=np.int64)}, lambda i: {"a": np.array([40000])}),
    "tiny_nan": ({"x": features.Tensor(shape=(2,), dtype=np.float64)}, lambda i: {"x": np.array([i, np.nan])}),
    "tiny_pairs": ({"premise": features.Text(), "hypothesis": features.Text(),
                    "label": features.ClassLabel(names="yno")},
                   lambda i: {"premise": f"a {i}", "hypothesis": "é", "label": -1 if i == 6 else i % 2}),
    "tiny_scores": ({"sentence1": features.Text(), "sentence2": features.Text(), "label": np.float32},
                    lambda i: {"sentence1": f"a {i}", "sentence2": "b", "label": i / 2}),
    "tiny_triples": ({"anchor": features.Text(), "positive": features.Text(), "negative": features.Text()},
                     lambda i: {"anchor": f"a {i}", "positive": "b", "negative": "é"}),
    "tiny_tags": ({"tokens": features.Sequence(features.Text()),
                   "ner": features.Sequence(features.ClassLabel(names=["O", "B-x"]))},
                  lambda i: {"tokens": ["the", f"w{i}"], "ner": [0, 1]}),
    "tiny_squad": ({"question": features.Text(), "context": features.Text(), "answers": features.Sequence(
                       {"text": features.Text(), "answer_start": np.int32})},
                   lambda i: {"question": "q", "context": f"c {i}",
                              "answers": [{"text": str(i), "answer_start": 2}] if i % 2 else []}),
    "tiny_voc": ({"image": features.Image(), "objects": features.Sequence({
                "bbox": features.BBoxFeature(), "label": features.ClassLabel(names=["cat", "dog"]),
                "is_difficult": np.bool_})},
            lambda i: {"image": png(of_several_sizes(i)), "objects": [
                {"bbox": features.BBox(2 / 10, 1 / of_several_sizes(i).shape[1], 8 / 10, 4 / of_several_sizes(
                    i).shape[1]), "label": "dog", "is_difficult": i == 3}] * (1 + (i == 6))}),
    "tiny_scalars": ({"x": features.Scalar(dtype=np.int64)}, lambda i: {"x": i}),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  path = tmp_path_factory.mktemp("tfds")
  for name, (kinds, make) in SETS.items():
    class Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):
      VERSION = tfds.core.Version("1.0.0")

      def _info(self, kinds=kinds):
        return tfds.core.DatasetInfo(builder=self, features=features.FeaturesDict(kinds))

      def _split_generators(self, manager):
        return {"train": self._generate_examples(range(5)), "test": self._generate_examples(range(5, 8))}

      def _generate_examples(self, rows, make=make):
        yield from ((i, make(i)) for i in rows)

    Tiny.name = name
    tfds.disable_progress_bar()
    Tiny(data_dir=path, file_format="array_record").download_and_prepare()
  return path


@pytest.fixture
def get(folder, tmp_path, monkeypatch):
  monkeypatch.setenv("EMBEDDINGS_CACHE", str(tmp_path))
  return lambda name, **options: load(name, data_dir=folder, **options)


def by_label(dataset, number_of):
  """Records come in TFDS's order: what belongs together must have stayed so."""
  numbers = [number_of(item) for item in dataset.items]
  assert dataset.labels["label"].tolist() == [number % 3 for number in numbers]
  assert {k: sorted(numbers[i] for i in v) for k, v in dataset.split.items()} == {
      "train": [0, 1, 2, 3, 4], "test": [5, 6, 7]}


def test_kinds_labels_and_splits(get):
  text = get("tfds:tiny_text")
  assert text.kind == "text" and sorted(text.items)[7] == "text 7 é"
  by_label(text, lambda item: int(item.split()[1]))
  rows = get("tfds:tiny_rows")
  assert rows.kind == "rows" and rows.items.dtype == np.float32 and set(rows.items[:, 1]) == {0.5}
  by_label(rows, lambda item: int(item[0]))
  clips = get("tfds:tiny_clips")
  assert clips.kind == "audio" and all(clip.dtype == np.int16 for clip in clips.items)
  assert sorted(clip.tolist() for clip in clips.items)[-2:] == [[-1, -1], [0]]
  by_label(clips, lambda item: len(item) - 1)
  images = get("tfds:tiny_images")
  assert images.kind == "images" and images.items.shape == (8, 2, 3, 1) and isinstance(images.items, np.memmap)
  by_label(images, lambda item: int(item[0, 0, 0]))
  assert "tensorflow" not in sys.modules


def test_images_of_several_sizes_are_fitted(get):
  with pytest.raises(InputError, match=r"the images have several shapes, example 0 10x\d+x3, 1 10x\d+x3; "
                                       "image_size=N makes all of them N x N"):
    get("tfds:tiny_photos")
  for options, shape in (({"image_size": 8}, (8, 8, 8, 3)), ({"image_size": 8, "channels": 1}, (8, 8, 8, 1))):
    dataset = get("tfds:tiny_photos", **options)
    assert dataset.items.shape == shape
    by_label(dataset, lambda item: round((float(item.mean()) - 3) / 20))
  expected = sorted(from_pixels(of_several_sizes(i), i, 0, (8, 8)).tolist() for i in range(8))
  actual = get("tfds:tiny_photos", image_size=8).items
  np.testing.assert_array_equal(sorted(item.tolist() for item in actual), expected)
  assert get("tfds:tiny_images", channels=3).items.shape == (8, 2, 3, 3)


def test_boxes_of_voc(get):
  dataset = get("tfds:tiny_voc")
  assert dataset.kind == "boxes" and len(dataset.items) == 8 and dataset.boxes.classes == ["cat", "dog"]
  assert sorted(image.shape[1] for image in dataset.items) == sorted(of_several_sizes(i).shape[1] for i in range(8))
  assert len(dataset.boxes.label) == 9 and dataset.boxes.difficult.sum() == 1
  # From 1 and inclusive in the files: rows 2 to 8 and columns 1 to 4.
  np.testing.assert_allclose(dataset.boxes.corners, np.tile([1, 0, 8, 4], (9, 1)), atol=0.02)
  assert {name: len(rows) for name, rows in dataset.split.items()} == {"train": 5, "test": 3}
  assert get("tfds:tiny_voc", image_size=8).kind == "images"


def test_pairs_and_triples(get):
  pairs = get("tfds:tiny_pairs")
  assert pairs.kind == "pairs" and len(pairs.items) == 7 and set(pairs.labels["label"]) == {"y", "n"}
  assert {pairs.items[i] for i in pairs.split["test"]} == {("a 5", "é"), ("a 7", "é")}
  triples, part = get("tfds:tiny_triples"), get("tfds:tiny_triples:test")
  assert triples.kind == "triples" and sorted(triples.items)[2] == ("a 2", "b", "é") and not triples.labels
  assert sorted(part.items)[0] == ("a 5", "b", "é") and not part.split and part.fingerprint != triples.fingerprint


def test_one_split_and_a_part_of_it(get):
  test, part, whole = get("tfds:tiny_text:test"), get("tfds:tiny_text:train[:40%]"), get("tfds:tiny_text")
  assert sorted(test.items) == ["text 5 é", "text 6 é", "text 7 é"] and not test.split
  assert list(part.items) == list(whole.items)[:2]
  assert len({test.fingerprint, part.fingerprint, whole.fingerprint}) == 3
  assert get("tfds:tiny_text").fingerprint == whole.fingerprint


@pytest.mark.parametrize("name, message", [
    ("tfds:absent_set", r"not prepared .*embeddings_jax\[tensorflow\].*file_format='array_record'"),
    ("tfds:tiny_text:validation", "split 'validation' cannot be opened; there are "),
    ("tfds:", "should read tfds:<name>"),
    ("tfds:tiny_loud", "beyond 16 bits"),
    ("tfds:tiny_broken", "example 0 of train cannot be decoded"),
    ("tfds:tiny_nan", "row 0 has a value that is not finite"),
    ("tfds:tiny_scalars", "has no text, audio, image or vector, only x"),
])
def test_bad_names(get, name, message):
  with pytest.raises(InputError, match=message) as error:
    get(name)
  assert "\n" not in str(error.value)


def test_tasks_by_their_features(folder):
  from embeddings_jax.data.tasks import as_task, load_examples

  actual = {name: load_examples(f"tfds:{name}", data_dir=folder)
            for name in ("tiny_pairs", "tiny_scores", "tiny_tags", "tiny_squad")}
  pairs = actual["tiny_pairs"]
  assert pairs.kind == "pairs" and dict(zip(pairs.items, pairs.labels["label"])) == {
      (f"a {i}", "é"): "yn"[i % 2] for i in (0, 1, 2, 3, 4, 5, 7)}  # 6 has no label.
  assert {pairs.items[i][0] for i in pairs.split["test"]} == {"a 5", "a 7"}
  task = as_task(actual["tiny_scores"]._replace(split={"train": np.arange(4), "dev": np.arange(4, 8)}))
  assert task.kind == "regression" and task.span[1] > task.span[0]
  assert ("the", "w2") in actual["tiny_tags"].items and actual["tiny_tags"].labels["tags"][0] == ("O", "B-x")
  squad = dict(zip(actual["tiny_squad"].items, actual["tiny_squad"].labels["answers"]))
  assert squad["q", "c 1"] == ((2, "1"),) and squad["q", "c 2"] == ()
  with pytest.raises(InputError, match="no task is known by its features id, label, x"):
    load_examples("tfds:tiny_rows", data_dir=folder)
