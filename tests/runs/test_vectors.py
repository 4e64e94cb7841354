"""Word vectors at the command line: out of a run, from one format to another, asked and evaluated."""
import json

import jax
import numpy as np
import pytest
import scipy.stats
from commands import call
from etils import epath

from embeddings_jax.interop import word_vectors
from embeddings_jax.runs import build, inference, presets, vectors, workdir
from embeddings_jax.train.checkpoints import Checkpoints
from embeddings_jax.types import InputError

TEXT = "king queen man woman king queen man woman king queen man woman Jazz jazz\n" * 3


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """A work directory whose vectors are known, without training: king - man + woman = queen."""
  folder = tmp_path_factory.mktemp("words")
  (folder / "corpus.txt").write_text(TEXT)
  config = presets.load_config("sgns", "tiny")
  config.model.dim = 4
  config.data.update(dict(name=str(folder / "corpus.txt"), min_count=1, normalize="cased", window_length=8))
  config.batch_size = 2
  data = build.prepare(config, data_dir=None, cache_dir=folder / "cache")
  model = build.make_model(config, data.facts, 1)
  state = model.init(jax.random.key(0), None)
  vectors = {"king": [1, 0, 1, 0], "queen": [1, 0, 0, 1], "man": [0, 0.5, 1, 0], "woman": [0, 0.5, 0, 1],
             "Jazz": [-1, 0, 0, 0], "jazz": [-1, 0.1, 0, 0]}
  rows = np.zeros(state.input.shape, np.float32)
  rows[:6] = [vectors[word] for word in data.encoder.names]
  path = folder / "run"
  path.mkdir()
  data.encoder.save(path / "encoder")
  checkpoints = Checkpoints(str(path / "checkpoints"))
  checkpoints.save(1, state._replace(input=rows))
  checkpoints.close()
  workdir.write_json(epath.Path(path / "config.json"), {
      "config": json.loads(config.to_json_best_effort()), "steps": 1, "encoder": data.encoder.fingerprint,
      "format": workdir.FORMAT, "facts": workdir.described_facts(data.facts),
      "batch": {k: [list(v.shape), str(v.dtype)] for k, v in data.splits["train"].batch_at(0).items()}})
  return path, vectors


def test_a_run_is_exported_and_asked(run, tmp_path):
  path, vectors = run
  done = call("export", f"--workdir={path}", "--format=word2vec", f"--output={tmp_path / 'v.txt'}")
  assert done.returncode == 0 and "6 words x 4, word2vec, from step 1" in done.stdout, done.stderr
  actual = word_vectors.read(tmp_path / "v.txt", "word2vec")
  np.testing.assert_allclose(actual.vectors, [vectors[word] for word in actual.words], rtol=1e-6)
  done = call("export", f"--vectors={tmp_path / 'v.txt'}", "--format=npy", f"--output={tmp_path / 'v.npy'}")
  assert done.returncode == 0 and word_vectors.read(tmp_path / "v.npy").words == actual.words
  asked = ("--word=King,Jazz", "--positive=king,WOMAN", "--negative=man", "--k=1")
  answers = [call("neighbors", source, *asked) for source in (f"--workdir={path}", f"--vectors={tmp_path / 'v.npy'}")]
  assert answers[0].returncode == 0, answers[0].stderr
  lines = answers[0].stdout.split("\n")
  assert [line.split()[-1] for line in lines[:-1]] == ["king", "man", "Jazz", "jazz", "man", "queen"]
  assert lines[4] == "king + woman - man" and lines[3].split()[0] == "0.995"
  assert answers[1].stdout == answers[0].stdout


def test_a_file_of_vectors_is_evaluated(tmp_path):
  (tmp_path / "v.txt").write_text("rug 1 0.1\ncarpet 2 0.1\nsofa 0.3 1\nwalking 1 1\n")
  (tmp_path / "q.txt").write_text("Rug sofa carpet carpet\n")
  done = call("evaluate", f"--vectors={tmp_path / 'v.txt'}",
              f"--protocols=synonyms:{tmp_path / 'q.txt'},categorization:bless", f"--data_dir={tmp_path}")
  assert done.returncode == 0, done.stderr
  assert "q/accuracy: 1.0000" in done.stdout and "categorization:bless is left out: " in done.stdout
  assert sorted(path.name for path in tmp_path.iterdir()) == ["q.txt", "v.txt"]  # Nothing is written.


MISTAKES = {
    "misspelt word": ("neighbors", ["--vectors=v.txt", "--word=carpt"], "'carpt' is not in the vocabulary; the"),
    "two sources": ("neighbors", ["--word=a", "--vectors=v.txt", "--workdir=w"], "give one of them"),
    "cut short": ("export", ["--vectors=short.txt", "--format=glove", "--output=o"], "short.txt: ends after 1 of"),
    "no data": ("evaluate", ["--vectors=v.txt", "--protocols=linear_probe"], "dataset of the model's own; name one"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_clear_line(name, tmp_path):
  module, arguments, expected = MISTAKES[name]
  (tmp_path / "v.txt").write_text("carpet 1 2\nrug 1 2\n")
  (tmp_path / "short.txt").write_text("9 2\na 1 2\n")
  done = call(module, *arguments, cwd=tmp_path)
  assert done.returncode == 2, done.stdout
  lines = done.stderr.strip().splitlines()
  assert len(lines) == 1 and lines[0].startswith("error: ") and expected in lines[0], done.stderr
  assert not (tmp_path / "o").exists()


def test_lines_are_pooled(run, tmp_path):
  path, vectors = run
  (tmp_path / "lines.txt").write_text("king queen\n\nman king unheard king\n")
  table = {word: np.array(vector, float) for word, vector in vectors.items()}
  done = call("embed", f"--workdir={path}", f"--input={tmp_path / 'lines.txt'}", f"--output={tmp_path / 'o.npy'}",
              "--pooling=concatenation", "--num_words=2")
  assert done.returncode == 0 and "1 rows are 0" in done.stdout, done.stderr
  pairs = [table["king"], table["queen"], np.zeros(4), np.zeros(4), table["man"], table["king"]]
  np.testing.assert_allclose(np.load(tmp_path / "o.npy"), np.reshape(pairs, (3, 8)), rtol=1e-5)
  done = call("embed", f"--workdir={path}", f"--input={tmp_path / 'lines.txt'}", f"--output={tmp_path / 'o.npy'}",
              "--pooling=sif", "--sif_a=0.5")
  assert done.returncode == 0, done.stderr
  left = np.load(tmp_path / "o.npy")
  counts = {word: 9 for word in table} | {"Jazz": 3, "jazz": 3}
  weighted = {word: 0.5 / (0.5 + counts[word] / 42) * vector for word, vector in table.items()}
  both = [(weighted["king"] + weighted["queen"]) / 2, (weighted["man"] + 2 * weighted["king"]) / 3]
  rows = np.stack([both[0], np.zeros(4), both[1]])
  u = np.linalg.svd(rows)[2][0]
  np.testing.assert_allclose(left, rows - np.outer(rows @ u, u), atol=1e-5)


def test_a_model_of_words_answers_for_sentences(run, tmp_path):
  path, vectors = run
  pairs = [("king queen", "man", 1), ("woman queen", "king", 3), ("Jazz", "jazz", 5), ("man unheard", "king", 4)]
  file = tmp_path / "pairs.tsv"
  file.write_text("".join(f"{a}\t{b}\t{score}\n" for a, b, score in pairs))
  counts = {word: 9 for word in vectors} | {"Jazz": 3, "jazz": 3}
  weighted = {word: np.array(vector) / (1e-3 + counts[word] / 42) for word, vector in vectors.items()}
  mean = lambda line: np.mean([weighted[word] for word in line.split() if word in weighted], 0)
  rows = {line: mean(line) for pair in pairs for line in pair[:2]}
  u = np.linalg.svd(np.stack(list(rows.values())))[2][0]
  rows = {line: row - u * (u @ row) for line, row in rows.items()}
  cosine = [rows[a] @ rows[b] / np.linalg.norm(rows[a]) / np.linalg.norm(rows[b]) for a, b, _ in pairs]
  expected = scipy.stats.spearmanr(cosine, [score for *_, score in pairs]).statistic
  done = call("evaluate", f"--workdir={path}", f"--protocols=sts:{file}", "--pooling=sif")
  assert f"sif/{file}/all/spearman: {expected:.4f}" in done.stdout, done.stderr
  assert f"sif/{file}/all/spearman" in json.loads((path / "results.json").read_text())["metrics"]


def test_sentences_of_a_file_of_vectors():
  words = ["king", "queen", "2"]
  actual = word_vectors.WordVectors(words, np.array([[1, 0], [0, 2], [3, 3]], np.float32))
  embed, encoder = vectors.embedder(actual), vectors.encoder(actual)
  lines = ["King, queen!", "unheard", "2 queen"] + ["king"] * 1500
  rows = inference.sentence_embedder(embed, encoder)(lines)
  np.testing.assert_allclose(rows[:3], [[0.5, 1], [0, 0], [1.5, 2.5]])
  np.testing.assert_allclose(rows[3:], np.tile([1.0, 0], (1500, 1)))
  frequent = inference.sentence_embedder(embed, encoder, "idf")(lines)
  np.testing.assert_allclose(frequent[2], np.log([1503, 751.5]) @ [[3, 3], [0, 2]] / 2, rtol=1e-6)
  with pytest.raises(InputError, match="pooling=sif: needs the words' counts"):
    inference.sentence_embedder(embed, encoder, "sif")
  for lines in (["king queen"], ["king queen", "queen king!"]):
    with pytest.raises(InputError, match="pooling=idf: each word is in all of the . lines, so that all"):
      inference.sentence_embedder(embed, encoder, "idf")(lines)
    encoder.vocabulary.counts = np.array([3, 2, 1])
    with pytest.raises(InputError, match="pooling=sif: the vectors of the . lines have one direction"):
      inference.sentence_embedder(embed, encoder, "sif")(lines)
  assert np.abs(inference.sentence_embedder(embed, encoder, "sif")(["king", "queen king"])).max() > 1e-3
  cased = vectors.encoder(actual._replace(words=["King", "king", "2"]))
  assert cased.encode(["King king"])["tokens"][0, :2].tolist() == [0, 1]
  for a in (0.0, -1.0, float("nan"), float("inf")):
    with pytest.raises(InputError, match=f"sif_a={a}: must be a positive number"):
      inference.sentence_embedder(embed, encoder, "sif", sif_a=a)
