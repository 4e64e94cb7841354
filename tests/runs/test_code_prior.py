"""A prior over another run's codes: codes are cached by that run's checksum, samples go through both."""
import dataclasses
from types import SimpleNamespace

import jax
import numpy as np
import pytest

import embeddings_jax as ej
from embeddings_jax.data import catalog, encoders
from embeddings_jax.data.encoders.codes import CodeEncoder
from embeddings_jax.runs import build, codes, load, presets
from embeddings_jax.runs.fit import train_config


@pytest.fixture(scope="module")
def quantizer(tmp_path_factory):
  folder = tmp_path_factory.mktemp("quantizer")
  config = presets.load_config("vq_vae", "tiny")
  config.update(dict(evals=(), steps=2))
  train_config(config, workdir=folder)
  return folder


def config_of(path):
  config = presets.load_config("gpt", "tiny", pipeline="codes")
  config.update(dict(steps=2, model=dict(num_layers=1)))
  config.data.update(dict(name="digits", codes=str(path), validation_fraction=0.1))
  return config


def test_codes_are_those_of_the_run_and_cached(quantizer, tmp_path, monkeypatch):
  digits = catalog.load("digits")
  actual = codes.read(str(quantizer), digits, str(tmp_path))
  run = ej.load(quantizer)
  items = np.rint(digits.items[:9] * 255).astype(np.uint8).reshape(-1, 8, 8, 1)
  expected = np.asarray(jax.jit(run.model.outputs["codes"])(run.state, run.encoder.encode(items)))
  np.testing.assert_array_equal(actual.items[:9], expected.reshape(9, 16))
  assert actual.kind == "codes" and len(actual.items) == 1797 and actual.labels.keys() == digits.labels.keys()
  monkeypatch.setattr(np, "save", lambda *_: pytest.fail("made again"))
  again = codes.read(str(quantizer), digits, str(tmp_path))
  assert again.fingerprint == actual.fingerprint
  data = build.prepare(config_of(quantizer), cache_dir=str(tmp_path))
  batch = data.splits["train"].batch_at(0)
  assert data.facts["vocab_size"] == 17 and data.facts["end_id"] == 16
  assert (batch["tokens"][:, 0] == 16).all() and batch["tokens"].shape == (8, 17)
  rows = {tuple(row) for row in actual.items}
  assert all(tuple(row) in rows for row in np.asarray(batch["tokens"])[:, 1:])


def test_samples_go_through_both(quantizer):
  run = train_config(config_of(quantizer))
  images = run.sample(4, seed=3)
  assert images.shape == (4, 8, 8, 1)
  # They are what the run of the codes makes of the prior's own tokens.
  prior = run.rebuild(sample_length=16).outputs["sample"]
  tokens = jax.jit(prior, static_argnums=2)(run.state, jax.random.fold_in(jax.random.key(3), 0), 4)
  expected = ej.load(quantizer).decode(np.clip(np.asarray(tokens), 0, 15).astype(np.int32).reshape(4, 4, 4))
  np.testing.assert_allclose(images, expected, atol=1e-6)
  options = run.encoder.options() | {"checksum": "of another run"}
  with pytest.raises(ej.InputError, match="has changed since the prior learned its codes"):
    dataclasses.replace(run, encoder=CodeEncoder(**options)).sample(2)


def test_mistakes(quantizer, tmp_path, monkeypatch):
  with pytest.raises(ej.InputError, match="data=iris: holds rows, and codes="):
    codes.read(str(quantizer), catalog.load("iris"))
  with pytest.raises(ej.InputError, match="data.codes is missing"):
    build.prepare(config_of(""))
  other = SimpleNamespace(model=SimpleNamespace(outputs={}), config={"name": "kmeans"})
  monkeypatch.setattr(load, "load_run", lambda path: other)
  with pytest.raises(ej.InputError, match="codes=k: holds a kmeans, which has no discrete codes"):
    codes.load_quantizer("k")
  encoder = CodeEncoder(16, 2, 2, "there", "0")
  with pytest.raises(ej.InputError, match="codes from 0 to 16: must be from 0 to 15"):
    encoder.encode([np.array([0, 1, 2, 16])])
  with pytest.raises(ej.InputError, match="sample_length=3: an image has 4 codes"):
    codes.decode(encoder, np.zeros((2, 3), np.int32))
  encoder.save(tmp_path / "e")
  assert encoders.load_encoder(tmp_path / "e").fingerprint == encoder.fingerprint
