"""The library as a notebook uses it: each script is below 12 lines."""
import pathlib

import numpy as np
import pytest
from networks import random_params

import embeddings_jax as ej
from embeddings_jax.data.tokenizer_training import train_wordpiece
from embeddings_jax.interop import huggingface, word_vectors

TEXTS = ["the cat sat on the mat", "a dog sat on a log", "the cat and the dog", "a mat and a log"]


def execute(script: str, **names):
  assert len(script.strip().splitlines()) < 12
  exec(script, names)
  return names


@pytest.fixture(scope="module")
def blobs():
  x = np.random.default_rng(0).normal(size=(500, 2)).astype(np.float32)
  x[:200] += 5
  return x


def test_a_mixture_of_an_array(blobs):
  names = execute("""
import embeddings_jax as ej
run = ej.fit("gmm", x, num_components=2, covariance="tied")
resp = run.embed(x)
means = run.model.outputs["components"](run.state)["means"]
drawn = run.sample(5)
""", x=blobs)
  assert names["drawn"].shape == (5, 2) and np.ptp(names["means"][:, 0]) > 1.5  # Of standardized features.
  with pytest.raises(ej.InputError, match="topics: needs a model of topics"):
    names["run"].evaluate("topics")
  with pytest.raises(ej.InputError, match="decode: gmm has no decoder"):
    names["run"].decode(blobs)
  resp, run = names["resp"], names["run"]
  assert resp.shape == (500, 2) and (resp[:200].argmax(1) == resp[0].argmax()).mean() > 0.99
  assert run.config["model"]["covariance"] == "tied" and run.path is None and run.step <= 500
  assert repr(run) == f"Run(gmm, step {run.step})"


def test_words_of_a_list_of_texts_are_trained_saved_and_loaded(tmp_path):
  names = execute("""
import embeddings_jax as ej
options = {"min_count": 1, "window_length": 8}
run = ej.fit("sgns", texts, preset="tiny", steps=20, seed=3, dim=8, data_options=options, workdir=folder)
vectors = run.embed(["cat", "dog"])
same = ej.fit("sgns", texts, preset="tiny", steps=20, seed=3, dim=8, data_options=options).embed(["cat", "dog"])
again = ej.load(folder)
near = again.neighbors(["cat"], k=2)
again.export(file, "glove")
table = ej.load(file)
""", texts=TEXTS * 40, folder=str(tmp_path / "run"), file=str(tmp_path / "v.txt"))
  vectors, table = names["vectors"], names["table"]
  assert vectors.shape == (2, 8)
  np.testing.assert_array_equal(vectors, names["same"])  # The same training without a directory.
  np.testing.assert_array_equal(vectors, names["again"].embed(["cat", "dog"]))
  assert names["again"].step == 20 and len(names["near"]["cat"]) == 2
  np.testing.assert_allclose(table.embed(["cat", "dog"]), vectors, rtol=1e-5)
  np.testing.assert_allclose(table.embed(["cat dog"])[0], vectors.mean(0), rtol=1e-4)  # A line is its words' mean.
  assert word_vectors.read(tmp_path / "v.txt").words == list(names["again"].encoder.names)
  assert table.neighbors(positive=["cat"], k=1)["cat"][0][0] == names["near"]["cat"][0][0]


def test_a_run_in_memory_is_exported_for_transformers(tmp_path):
  run = ej.fit("bert", "pydocs", preset="tiny", steps=2)
  run.export(str(tmp_path / "bert"), "huggingface")
  vectors = run.embed(TEXTS)
  np.testing.assert_allclose(ej.load(str(tmp_path / "bert")).embed(TEXTS), vectors, atol=1e-5 * np.abs(vectors).max())


def test_a_hugging_face_directory_embeds(tmp_path):
  hyper = dict(dim=12, num_layers=2, num_heads=3, mlp_dim=20, max_length=24, num_segments=2, positions="learned",
               position_offset=0, embedding_norm=True, norm="post", causal=False, activation="gelu",
               norm_epsilon=1e-12, dropout=0.1, attention_dropout=0.1)
  tokenizer = train_wordpiece(TEXTS * 9, 80)
  hyper["vocab_size"] = tokenizer.get_vocab_size()
  params = random_params(hyper, ("pooler", "masked", "next_sentence"))
  huggingface.write(tmp_path / "bert", "bert", hyper, params,
                    huggingface.tokenizer_files(tokenizer.to_str().encode(), 24))
  names = execute("""
import embeddings_jax as ej
run = ej.load(folder)
vectors = run.embed(texts)
unit = run.embed(texts, normalize=True)
first = run.embed(texts, pooling="cls")
""", folder=str(tmp_path / "bert"), texts=TEXTS)
  vectors = names["vectors"]
  assert vectors.shape == names["first"].shape == (4, 12) and np.abs(vectors - names["first"]).max() > 1e-3
  np.testing.assert_allclose(names["unit"], vectors / np.linalg.norm(vectors, axis=1, keepdims=True), rtol=1e-5)


def test_a_module_and_a_loss_of_ones_own(blobs):
  names = execute("""
import jax.numpy as jnp, optax, flax.linen as nn
import embeddings_jax as ej
net = nn.Dense(2, use_bias=False)
error = lambda params, x: jnp.square(net.apply(params, x) - 3 * x).mean()
loss = lambda params, extra, batch, rng: (error(params, batch["x"]), ({}, extra))
model = ej.gradient_model(lambda rng, batch: (net.init(rng, batch["x"]), {}), loss,
                          lambda params, extra, batch: net.apply(params, batch["x"]), optax.adam(0.1))
history = []
write = lambda step, metrics: history.append(metrics["loss"])
state = ej.train(model, ej.array_source({"x": x}, 96), steps=400, log_every=100, write=write)
""", x=blobs)
  assert len(names["history"]) == 4 and names["history"][-1] < 0.01 < names["history"][0]
  np.testing.assert_allclose(names["state"].params["params"]["kernel"], 3 * np.eye(2), atol=0.05)


@pytest.mark.parametrize("options, message", [
    (dict(name="gm"), "model=gm: unknown; did you mean gmm"),
    (dict(num_component=2), "model option=num_component: unknown; did you mean num_components"),
    (dict(data_options={"standardise": True}), "data option=standardise: unknown; did you mean standardize"),
    (dict(data=np.zeros((2, 2, 2, 2, 2))), r"data: is float64 \[2, 2, 2, 2, 2\]; expected rows"),
    (dict(data=np.array([[1.0, np.inf]])), "data: row 0, column 1 .*: inf is not a finite number"),
    (dict(data="the cat"), "the cat"),
    (dict(num_components=0), "num_components=0: must be at least 1"),
])
def test_what_is_wrong_is_said(blobs, options, message):
  options = {"name": "gmm", "data": blobs, **options}
  with pytest.raises(ej.InputError, match=message):
    ej.fit(options.pop("name"), options.pop("data"), **options)


def test_nothing_heavy_is_imported_before_it_is_used():
  import subprocess
  import sys

  code = ("import sys, embeddings_jax\nheavy = {'jax', 'matplotlib', 'tensorflow', 'tensorflow_datasets', "
          "'tokenizers', 'tensorboardX', 'grain', 'sklearn', 'scipy'}\nprint(sorted(heavy & set(sys.modules)))\n"
          "embeddings_jax.fit\nprint(sorted((heavy - {'jax', 'scipy'}) & set(sys.modules)))")
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                        cwd=pathlib.Path(__file__).parents[2])
  assert done.stdout.splitlines() == ["[]", "[]"]
