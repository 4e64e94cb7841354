"""Formats of the user's own from end to end: a model is trained, embeds files, and is evaluated on others."""
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

import embeddings_jax as ej
from embeddings_jax.interop import word_vectors

ANIMALS, MONEY = "cat dog pet fur paw tail kitten".split(), "bank loan bond fund stock price trade".split()


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("EMBEDDINGS_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield


def texts():
  rng = np.random.default_rng(0)
  return [(" ".join(rng.choice((ANIMALS, MONEY)[i % 2], 8)), ("animals", "money")[i % 2]) for i in range(40)]


def test_tables(tmp_path):
  import pyarrow
  from pyarrow import parquet

  rng = np.random.default_rng(0)
  kind = np.arange(40) % 2
  x = (rng.normal(size=(40, 2)) + 20 * kind[:, None]).round(3)
  text = "rownames;width;kind;height\n" + "".join(
      f"r{i};{a:.3f};{'uv'[k]};{b:.3f}\n".replace(".", ",") for i, (k, (a, b)) in enumerate(zip(kind, x)))
  (tmp_path / "a.csv").write_text(text)
  (tmp_path / "b.tsv").write_text("height\tother\twidth\n" + "".join(f"{b}\tx y\t{a}\n" for a, b in x))
  parquet.write_table(pyarrow.table({"height": x[:, 1], "width": x[:, 0], "kind": ["uv"[k] for k in kind]}),
                      tmp_path / "c.parquet")
  run = ej.fit("kmeans", tmp_path / "a.csv", preset="tiny", num_components=2, data_options={"label": "kind"})
  assert run.evaluate("clustering")["kind/all/nmi"] == 1
  found = run.embed(run.encoder.read(tmp_path / "a.csv"))
  assert len(np.unique(found.argmax(1) * 2 + kind)) == 2
  for name in ("b.tsv", "c.parquet"):
    np.testing.assert_array_equal(run.embed(run.encoder.read(tmp_path / name)), found)
  assert run.evaluate("clustering", data=str(tmp_path / "c.parquet"))["kind/all/nmi"] == 1


@pytest.mark.long
def test_texts(tmp_path):
  listed = texts()
  (tmp_path / "a.csv").write_text("text,label\n" + "".join(f'"{text}, ",{label}\n' for text, label in listed))
  (tmp_path / "b.jsonl").write_text("".join(json.dumps({"body": text, "category": label}) + "\n"
                                            for text, label in listed))
  for i, (text, label) in enumerate(listed):
    for folder, page in (("c", text), ("d", f"<title>{i}</title><script>bank</script><p>{text}")):
      (tmp_path / folder / label).mkdir(parents=True, exist_ok=True)
      (tmp_path / folder / label / f"{i:02}.{'txt' if folder == 'c' else 'html'}").write_text(page)
  options = {"min_count": 1, "min_documents": 1, "max_share": 1.0}
  run = ej.fit("lsa", tmp_path / "a.csv", preset="tiny", data_options=options)
  vectors = run.embed(run.encoder.read(tmp_path / "a.csv"))
  np.testing.assert_allclose(run.embed(run.encoder.read(tmp_path / "b.jsonl")), vectors, atol=1e-6)
  order = np.argsort([label for _, label in listed], kind="stable")  # Folders are read by their names.
  for name in ("c", "d"):
    np.testing.assert_allclose(run.embed(run.encoder.read(tmp_path / name)), vectors[order], atol=1e-6)
  assert run.evaluate("knn")["label/test/knn_accuracy"] == 1
  metrics = run.evaluate([f"knn:{tmp_path / name}" for name in ("b.jsonl", "c", "d")])
  assert [metrics[f"{tmp_path / name}/{label}/test/knn_accuracy"] for name, label in (
      ("b.jsonl", "category"), ("c", "class"), ("d", "class"))] == [1, 1, 1]


def test_images_in_an_archive(tmp_path):
  rng = np.random.default_rng(0)
  with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
    for i in range(20):
      pixels = rng.integers(0, 60, (8, 8)).astype(np.uint8) + np.uint8(150 * (i % 2))
      Image.fromarray(pixels).save(tmp_path / "a.png")
      archive.write(tmp_path / "a.png", f"photos/{('dark', 'light')[i % 2]}/{i}.png")
  run = ej.fit("pca", tmp_path / "a.zip", preset="tiny", dim=1)
  codes = run.embed(run.prepared.dataset.items)[:, 0]
  light = run.prepared.dataset.labels["class"] == "light"
  assert (codes[light] > 0).all() != (codes[~light] > 0).all()
  assert run.evaluate("knn")["class/test/knn_accuracy"] == 1


def test_word_vectors_and_lists(tmp_path):
  words = ["tiger", "cat", "car", "bus"]
  vectors = np.float32([[1, 0], [0.9, 0.1], [0, 1], [0.2, 0.9]])
  word_vectors.write(tmp_path / "v.vec", words, vectors, "word2vec")
  (tmp_path / "pairs.csv").write_text("word1,word2,score\ntiger,cat,9\ncar,bus,8\ncat,bus,2\ntiger,car,1\n")
  (tmp_path / "q.txt").write_text("tiger cat car bus\n")
  run = ej.load(tmp_path / "v.vec")
  metrics = run.evaluate([f"word_similarity:{tmp_path / 'pairs.csv'}", f"analogies:{tmp_path / 'q.txt'}"])
  assert metrics["pairs/spearman"] == 1 and metrics["q/cosadd/total/accuracy"] == 1
  assert list(ej.load(tmp_path / "v.vec", limit=2).encoder.names) == words[:2]


@pytest.mark.parity
@pytest.mark.long
def test_sounds(tmp_path):
  """Tones in wavs of 24 bits and of floats train; FLAC and 16 bits of the same values have the same vectors."""
  import soundfile

  rng = np.random.default_rng(0)
  wave = lambda i: np.sin((0.3, 0.9)[i % 2] * np.arange(2400) + rng.uniform(0, 6))
  tones = [np.round(2**14 * wave(i)) / 2**15 for i in range(16)]
  for i, tone in enumerate(tones):
    for folder, suffix, kind in (("train", "wav", ("PCM_24", "FLOAT")[i // 8]), ("flac", "flac", "PCM_16"),
                                 ("wav", "wav", "PCM_16")):
      path = tmp_path / folder / ("low", "high")[i % 2] / f"{i:02}.{suffix}"
      path.parent.mkdir(parents=True, exist_ok=True)
      soundfile.write(path, tone, 8000, kind)
  run = ej.fit("cpc", tmp_path / "train", preset="small", steps=4, batch_size=8, channels=(8, 8, 8), embedding_dim=8,
               context_dim=8, data_options={"window_length": 2400, "jitter": 0, "group": ""})
  vectors = run.embed(run.encoder.read(tmp_path / "train"))
  assert vectors.shape[0] == 16 and np.isfinite(vectors).all()
  for name in ("flac", "wav"):
    np.testing.assert_allclose(run.embed(run.encoder.read(tmp_path / name)), vectors, atol=1e-5)
    metrics = run.evaluate(f"knn:{tmp_path / name}")
    assert next(value for key, value in metrics.items() if key.endswith("knn_accuracy")) == 1
