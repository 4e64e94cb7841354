"""From a config to a task, from pretrained weights to its trunk, and what the protocols are given."""
import jax
import numpy as np
import pytest
from networks import equal, random_params

from embeddings_jax import figures
from embeddings_jax.data.tokenizer_training import train_wordpiece
from embeddings_jax.interop import huggingface
from embeddings_jax.runs import build, needs, presets, pretrained
from embeddings_jax.runs.evaluation import Evaluator
from embeddings_jax.train.mesh import make_mesh
from embeddings_jax.types import InputError

TEXTS = ["the cat sat on the mat", "a dog and another dog", "where is the cat ?", "a mat"]
HYPER = dict(dim=12, num_layers=2, num_heads=3, mlp_dim=20, max_length=24, num_segments=2, positions="learned",
             position_offset=0, embedding_norm=True, norm="post", causal=False, activation="gelu", norm_epsilon=1e-12,
             dropout=0.1, attention_dropout=0.1)


@pytest.fixture(scope="module")
def started(tmp_path_factory):
  """A tiny fine-tuning on the user's files, from a Hugging Face directory, before its first step."""
  folder = tmp_path_factory.mktemp("task")
  rng = np.random.default_rng(0)
  for part, size in (("train", 24), ("dev", 9), ("test", 11)):
    lines = [" ".join(rng.choice(TEXTS, rng.integers(1, 5))) + f"\t{'ab'[i % 2]}\n" for i in range(size)]
    (folder / f"{part}.tsv").write_text("sentence\tlabel\n" + "".join(lines))
  tokenizer = train_wordpiece(TEXTS * 9, 80)
  hyper = HYPER | {"vocab_size": tokenizer.get_vocab_size()}
  params = random_params(hyper, ("pooler", "masked", "next_sentence"))
  model_folder = folder / "network"
  model_folder.mkdir()
  huggingface.write(model_folder, "bert", hyper, params, huggingface.tokenizer_files(tokenizer.to_str().encode(), 24))
  actual = pretrained.load(str(model_folder))
  config = presets.load_config("finetune", "tiny")
  config.data.name = str(folder)
  pretrained.adapt(config, actual, ())
  data = build.prepare(config, data_dir=None, cache_dir=str(folder / "cache"), encoder=actual.encoder)
  model = build.make_model(config, data.facts, 20)
  state = build.first_state(model, data.splits["train"].batch_at(0), make_mesh("data:1", jax.devices()[:1]), 0)
  return config, actual, params, data, model, state


def test_pretrained_weights_become_the_trunk(started):
  config, actual, params, data, model, state = started
  assert config.model.encoder.name == "bert" and config.model.encoder.dim == 12
  said = []
  new = pretrained.initial(actual, said.append)(state)
  for name in ("encoder", "pooler"):
    equal(params[name], jax.tree.map(np.asarray, new.params[name]))
  assert "fresh: head" in said[0] and "without use: masked, next_sentence" in said[0]
  with pytest.raises(InputError, match="model.encoder.dim=16: init_from=.* has dim=12"):
    other = presets.load_config("finetune", "tiny")
    pretrained.adapt(other, actual, ("model.encoder.dim",))


def test_a_task_of_the_users_files(started):
  _, _, _, data, _, _ = started
  assert data.task.labels == ("a", "b") and data.facts["num_classes"] == 2
  assert {part: len(rows) for part, rows in data.task.parts.items()} == {"train": 24, "dev": 9, "test": 11}
  assert data.dataset.items == [data.task.items[i] for i in data.task.parts["test"]]
  assert data.dataset.labels["class"].tolist() == [*"abababababa"]


def test_predictions_are_in_order_and_the_measures_are_named(started):
  _, _, _, data, model, state = started
  arrays = data.task.encoded["train"]
  lengths = (arrays["inputs"]["tokens"] >= 0).sum(1)
  assert len(np.unique(lengths)) > 2
  batch = {"inputs": jax.tree.map(np.asarray, arrays["inputs"])}
  expected = jax.jit(model.outputs["predict"])(state, batch)
  evaluator = Evaluator(model, state, data.encoder, dataset=data.dataset, task=data.task)
  predict = evaluator.provided("predict")["predict"]
  np.testing.assert_allclose(predict(arrays), expected, atol=1e-5)
  actual = evaluator.evaluate(["finetuning"])
  test = data.task.encoded["test"]
  assert actual[f"{data.task.name}/test/accuracy"] == np.mean(predict(test).argmax(1) == test["targets"]["label"])
  assert f"{data.task.name}/dev/matthews" in actual
  with pytest.raises(InputError, match="needs a fine-tuned model"):
    Evaluator(model, state, data.encoder, dataset=data.dataset).evaluate(["finetuning"])


def test_vectors_of_words_are_those_of_their_first_tokens(started):
  _, _, _, data, model, state = started
  hidden = needs.word_layers(model, lambda: state, data.encoder)
  sentences = [("the", "cat"), ("another", "mats", "dog"), ("the",) * 40]
  vectors, known = hidden(sentences)
  assert vectors.shape == (45, 3, 12) and known[:5].all() and 5 < known.sum() < 45
  batch = data.encoder.encode_words(sentences[1:2])
  starts = batch.pop("word_starts")[0]
  alone = np.asarray(jax.jit(model.outputs["hidden"])(state, batch))[0]
  np.testing.assert_allclose(vectors[2:5], np.moveaxis(alone[:, starts], 0, 1), atol=1e-5)


def test_the_figure_of_probes(tmp_path):
  from etils import epath

  actual = {f"test/{kind}_{i}/accuracy": 0.5 + i / 9 for kind in ("layer", "cumulative") for i in range(3)}
  actual |= {f"mix_{i}": 1 / 3 for i in range(3)} | {"center_of_gravity": 1.0, "expected_layer": 1.5,
                                                     "test/majority/accuracy": 0.2}
  metrics = {f"ud-ewt/{key}": value for key, value in actual.items()}
  evaluator = Evaluator(None, None, None, embed=lambda items: items)
  drawn = figures.draw(epath.Path(tmp_path), figures.Drawing(evaluator, metrics=metrics), of_evaluations=True)
  assert drawn == ["figures/probing_ud-ewt.png"] and (tmp_path / drawn[0]).stat().st_size > 5000
  other = figures.Drawing(evaluator, metrics={"ud-ewt/test/accuracy": 1.0})
  assert figures.draw(epath.Path(tmp_path), other, of_evaluations=True) == []


def test_pictures_are_predicted_in_order():
  config = presets.load_config("cpc_images_supervised", "tiny")
  data = build.prepare(config, data_dir=None, cache_dir=None)
  assert data.encoder.kind == "images" and data.task.labels == tuple("0123456789")
  model = build.make_model(config, data.facts, 20)
  state = build.first_state(model, data.splits["train"].batch_at(0), make_mesh("data:1", jax.devices()[:1]), 0)
  # More than are predicted at once.
  arrays = jax.tree.map(lambda x: x[:70], data.task.encoded["train"])
  actual = needs.predictor(model, state, data.encoder)(arrays)
  expected = jax.jit(model.outputs["predict"])(state, {"inputs": arrays["inputs"]})
  np.testing.assert_allclose(actual, expected, atol=1e-5)
  with pytest.raises(InputError, match="holds rows, and a network that reads text needs modality=text"):
    config = presets.load_config("cpc_supervised", "tiny")
    config.data.update(dict(name="digits"))
    build.prepare(config, data_dir=None, cache_dir=None)
