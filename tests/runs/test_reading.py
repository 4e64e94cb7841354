"""Options of reading on their way from a config to a model, and data with nothing to learn from."""
import wave

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from embeddings_jax.runs import build, presets
from embeddings_jax.types import InputError

# Two documents of three and two sentences in small letters, as uncased corpora have them.
BLOCKS = ["the cat sat\non a mat\nall day", "dogs run\nand bark"] * 40


def load(model, path, cache, preset="tiny", pipeline="", **options):
  config = presets.load_config(model, preset, pipeline=pipeline)
  config.batch_size = min(config.batch_size, 2)
  for name, value in options.items():
    config.data[name] = value
  config.data.name = str(path)
  return config, build.prepare(config, data_dir=None, cache_dir=str(cache))


def test_blank_lines_end_documents_of_sentence_pairs(tmp_path, caplog):
  (tmp_path / "a.txt").write_text("\n\n".join(f"{block} {i}" for i, block in enumerate(BLOCKS)))
  _, data = load("bert", tmp_path / "a.txt", tmp_path / "cache", vocab_size=150, max_length=16)
  assert data.facts["num_documents"] + (data.splits.get("validation") is not None) >= 79
  assert 0.2 < data.facts["next_fraction"] < 0.8
  assert "no document has two sentences" not in caplog.text
  _, data = load("bert", tmp_path / "a.txt", tmp_path / "cache", vocab_size=150, max_length=16, documents="line")
  assert data.facts["num_documents"] > 150 and data.facts["next_fraction"] == 0
  assert "a.txt: no document has two sentences" in caplog.text and "documents=blank" in caplog.text
  _, data = load("gpt", tmp_path / "a.txt", tmp_path / "cache", vocab_size=300, max_length=16)
  assert data.facts["num_documents"] > 150  # Other readers take lines, unless they are told otherwise.
  _, data = load("gpt", tmp_path / "a.txt", tmp_path / "cache", vocab_size=300, max_length=16, documents="blank")
  assert data.facts["num_documents"] < 81
  config, data = load("elmo", tmp_path / "a.txt", tmp_path / "cache", vocab_size=20, documents="blank")
  ends = (data.splits["train"].resident["stream"] == 1).sum()
  assert 190 < ends <= 200  # A line is a sentence, though it begins with a small letter.


@pytest.mark.parametrize("model", ["sgns", "cbow", "skipgram", "glove", "ppmi"])
def test_one_word_a_line_is_nothing_to_learn_from(model, tmp_path):
  (tmp_path / "a.txt").write_text("cat\ndog\nmat\n" * 50)
  with pytest.raises(InputError, match="a.txt: no two words stand together .* nothing to learn"):
    load(model, tmp_path / "a.txt", tmp_path / "cache")
  (tmp_path / "a.txt").write_text("cat cat cat\n" * 50)
  with pytest.raises(InputError, match="a.txt: the vocabulary is the one word 'cat': there is nothing to learn"):
    load(model, tmp_path / "a.txt", tmp_path / "cache")


def clips(folder, rate=8000):
  rng = np.random.default_rng(0)
  for i in range(4):
    (folder / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
    with wave.open(str(folder / "ab"[i % 2] / f"{i}.wav"), "wb") as clip:
      clip.setnchannels(1)
      clip.setsampwidth(2)
      clip.setframerate(rate)
      clip.writeframes(rng.integers(-999, 999, 16_000).astype("<i2").tobytes())
  return folder


def test_a_folder_of_clips_is_grouped_by_what_it_has(tmp_path, caplog):
  _, data = load("cpc", clips(tmp_path / "clips"), tmp_path / "cache", "small")
  assert sorted(set(data.splits["train"].batch_at(0)["group"].tolist())) == [0, 1]
  assert "has no label 'speaker'; clips are grouped by their folder" in caplog.text
  _, data = load("cpc", tmp_path / "clips" / "a", tmp_path / "cache", "small", window_length=4000)
  assert "group" not in data.splits["train"].batch_at(0) and "its clips are one group" in caplog.text


def test_inputs_that_are_not_what_the_encoder_gives_are_named(tmp_path):
  (tmp_path / "a.txt").write_text("some text that is long enough\n" * 60)
  for model_inputs, path, options, message in (
      ("bytes", clips(tmp_path / "clips"), {"pipeline": "waveforms", "window_length": 96},
       "inputs='bytes': the batch has a waveform"),
      ("waveform", tmp_path / "a.txt", {}, "inputs='waveform': the batch has bytes")):
    config, data = load("cpc", path, tmp_path / "cache", **options)
    config.model.inputs = model_inputs
    model = build.make_model(config, data.facts, 20)
    with pytest.raises(InputError, match=message):
      jax.eval_shape(model.init, jax.random.key(0), jax.tree.map(jnp.asarray, data.splits["train"].batch_at(0)))


def test_the_table_that_was_read_is_told(tmp_path, caplog):
  (tmp_path / "a.csv").write_text(",t,v\n" + "".join(f"{i},{1_700_000_000 + i / 4},{i % 3}\n" for i in range(20)))
  _, data = load("kmeans", tmp_path / "a.csv", tmp_path / "cache", standardize=False)
  assert "a.csv: 20 rows of 2 columns (t, v); the first column holds the names" in data.dataset.note
  assert "a.csv: the mean is subtracted from t, whose values float32 cannot tell apart" in caplog.text
  x = data.splits["train"].batch_at(0)["x"]
  assert x.dtype == np.float32 and len(np.unique(x[:, 0])) == 20 and sorted(set(x[:, 1])) == [0, 1, 2]
  _, data = load("kmeans", tmp_path / "a.csv", tmp_path / "cache", standardize=True)
  np.testing.assert_allclose(data.splits["train"].batch_at(0)["x"].std(0), 1, atol=1e-5)
