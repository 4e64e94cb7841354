"""Images from files to models: options of a config, test parts left alone, other sets fitted to an encoder."""
import json
import pathlib

import chex
import jax
import ml_collections
import numpy as np
import pytest
from commands import call
from PIL import Image

from embeddings_jax import fit
from embeddings_jax.configs import cpc_images, cpc_images_supervised, sgns
from embeddings_jax.data import reading
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.encoders.images import ImageEncoder
from embeddings_jax.data.encoders.rows import RowEncoder
from embeddings_jax.eval.knn import knn
from embeddings_jax.runs import build, evaluation, presets, pretrained, reports
from embeddings_jax.runs.load import load_run
from embeddings_jax.types import InputError
from experiments import baselines
from experiments.benchmarks import images

ROOT = pathlib.Path(__file__).parents[2]
PICTURES = np.random.default_rng(0).integers(0, 256, (40, 12, 10, 3)).astype(np.uint8)


def folder_of(path, parts):
  """20 images of two classes in each part, in their order."""
  place = iter(PICTURES)
  for part in parts:
    for i in range(20):
      folder = path / part / "ab"[i % 2]
      folder.mkdir(parents=True, exist_ok=True)
      Image.fromarray(next(place)).save(folder / f"{i:02}.png")
  return str(path)


def config_of(module, name, **data):
  config = ml_collections.ConfigDict({**module.get_config("tiny").to_dict(), "name": "x", "seed": 0})
  config.data.update(dict(name=name, **data))
  return config


def load(config, cache_dir, **options):
  return build.prepare(config, data_dir=None, cache_dir=str(cache_dir), **options)


def test_training_sees_the_training_part_alone(tmp_path):
  name = folder_of(tmp_path / "own", ["train", "test"])
  data = load(config_of(cpc_images, name), tmp_path / "cache")
  assert data.encoder.shape == (12, 10, 3) and data.facts["num_rows"] == 20
  seen = np.concatenate([data.splits["train"].batch_at(i)["image"] for i in range(10)])
  distances = np.abs(seen[:, None].astype(int) - PICTURES[:20]).sum((2, 3, 4))
  assert set(distances.min(1)) == {0}
  data = load(config_of(cpc_images, name, image_size=8, channels=1), tmp_path / "cache")
  assert data.encoder.shape == (8, 8, 1)
  task = load(config_of(cpc_images_supervised, name, image_size=8), tmp_path / "cache").task
  assert set(np.concatenate([task.parts["train"], task.parts["dev"]])) <= set(range(20, 40))  # Names: test, train.
  assert task.parts["test"].tolist() == list(range(20))


@pytest.mark.parametrize("module", [cpc_images, cpc_images_supervised])
def test_a_test_set_is_not_trained_on(module, tmp_path):
  name = folder_of(tmp_path / "own", ["test"])
  with pytest.raises(InputError, match=f"data={name}: is a test set, which is not to be trained on"):
    load(config_of(module, name), tmp_path / "cache")
  dataset = reading.images(name, cache_dir=str(tmp_path))
  assert dataset.split["test"].tolist() == list(range(20))  # It may be evaluated on.


@pytest.mark.parametrize("name", ["tfds:mnist:test", "tfds:mnist:test[:10%]"])
def test_nor_is_one_of_tfds(name):
  dataset = Dataset(name, "images", PICTURES)
  with pytest.raises(InputError, match="is a test set"):
    reading.refuse_test_split(dataset, name)
  reading.refuse_test_split(dataset, "tfds:mnist:train")
  reading.refuse_test_split(dataset._replace(split={"train": [0], "test": [1]}), "tfds:mnist")


def test_words_are_of_the_training_part(monkeypatch, tmp_path):
  texts = ["often often seen " * 2000] * 3 + ["unseen " * 2000]
  dataset = Dataset("x", "text", texts, split={"train": np.arange(3), "test": np.arange(3, 4)}, fingerprint="f")
  monkeypatch.setattr(reading.catalog, "load", lambda *args, **options: dataset)
  assert load(config_of(sgns, "x", min_count=1), tmp_path).encoder.names == ["often", "seen"]


def test_labeled_pictures_of_another_set_are_fitted_to_the_encoder(monkeypatch, tmp_path):
  rows = np.random.default_rng(0).random((60, 64)).astype(np.float32)
  other = Dataset("x", "rows", rows, labels={"class": np.arange(60) % 2}, image_shape=(8, 8), fingerprint="f")
  loads, seen = [], []
  monkeypatch.setattr(evaluation.catalog, "load", lambda name, **options: loads.append(name) or other)

  def embed(items):
    seen.append(items)
    return items.reshape(len(items), -1).astype(np.float32)

  encoder = ImageEncoder(12, 10, 3)
  evaluator = evaluation.Evaluator(None, None, encoder, embed=embed, cache_dir=str(tmp_path))
  actual = evaluator.evaluate(["knn:digits", "linear_probe:digits"])
  assert {name.split("/")[0] for name in actual} == {"digits"} and loads == ["digits"] and len(seen) == 1
  assert seen[0].shape == (60, 12, 10, 3) and seen[0].dtype == np.uint8
  np.testing.assert_array_equal(seen[0][..., 0], seen[0][..., 2])
  with pytest.raises(InputError, match="holds rows, which are no images"):
    encoder.adapt(other._replace(image_shape=None))
  assert RowEncoder(64).adapt(Dataset("x", "images", PICTURES)).items.shape == (40, 360)


def test_a_pretrained_networks_pictures_have_its_size(tmp_path):
  name = folder_of(tmp_path / "own", ["train"])
  data = load(config_of(cpc_images_supervised, name), tmp_path / "cache", encoder=ImageEncoder(8, 8, 1))
  assert data.task.encoded["train"]["inputs"]["image"].shape[1:] == (8, 8, 1)


def test_pixels_are_a_baseline_of_small_pictures():
  items = PICTURES[:, :8, :8, :1]
  (name, features), = ImageEncoder(8, 8, 1).baselines(None).items()
  assert name == "pixels" and features(items).dtype == np.float32
  np.testing.assert_allclose(features(items), items.reshape(40, 64) / 255, rtol=1e-6)
  rows = items.reshape(40, 64) / np.float32(255)
  np.testing.assert_array_equal(features(list(rows)), rows)
  assert not ImageEncoder(28, 28, 1).baselines(None)


def test_pixels_are_evaluated_without_a_run_and_stand_in_the_table(tmp_path, monkeypatch):
  monkeypatch.setattr(baselines, "FOLDER", tmp_path)
  asked = "--features=pixels --protocols=knn:digits,few_shot:digits"
  printed = call("evaluate", *asked.split(), f"--output={tmp_path / 'pixels.json'}").stdout
  actual = json.loads((tmp_path / "pixels.json").read_text())
  assert actual["model"] == "pixels" and actual["data"] == "digits" and len(actual["metrics"]) == 10
  assert 0.97 < actual["metrics"]["digits/class/test/knn_accuracy"] < 1
  key = "digits/class/test/few_shot_5/accuracy"
  assert f"{key}: {actual['metrics'][key]:.4f}" in printed and 0.7 < actual["metrics"][key] < 0.9
  line = baselines.baseline_table().splitlines()[2]
  assert line.startswith("| `pixels` | digits | digits kNN accuracy 0.9")
  assert f"| `python -m experiments.evaluate {asked}` |" in line


def test_mistakes_about_features_are_named():
  cases = {
      "--features=pixel --protocols=knn:digits": "did you mean pixels",
      "--features=pixels --protocols=knn": "there is no dataset of the model's own; name one, as knn:",
      "--features=pixels --protocols=sts": "are of images, which are asked about their labels: clustering:SET",
      "--features=pixels --protocols=knn:wine": "wine: holds rows, which are no images",
      "--features=pixels --protocols=knn:digits --workdir=x": "give one of them",
      "--workdir=x --output=y.json": "--output: is for --features alone"}
  for arguments, message in cases.items():
    done = call("evaluate", *arguments.split())
    assert done.returncode == 2 and done.stderr.startswith("error: ") and message in done.stderr, done.stderr


def test_a_run_starts_from_what_contrast_has_learnt_with_its_statistics(tmp_path):
  """Frozen, it has the network and the statistics that it began with, and embeds as that, bit for bit."""
  cache = {"EMBEDDINGS_CACHE": str(tmp_path / "cache")}
  run = lambda *flags: call("run", "--preset=tiny", "--config.evals=()", *flags, env=cache, devices=8)

  first, second = tmp_path / "simclr", tmp_path / "supervised"
  done = run("--model=simclr", f"--workdir={first}", "--steps=4", "--config.model.encoder.name=resnet",
             "--config.model.encoder.depth=8", "--config.model.encoder.width=4")
  assert done.returncode == 0, done.stderr
  done = run("--model=resnet_supervised", f"--workdir={second}", f"--init_from={first}", "--steps=3",
             "--config.model.frozen=True")
  assert done.returncode == 0, done.stderr
  assert "arrays of resnet taken over; fresh: head; without use: batch_stats, projector" in done.stdout
  runs = [load_run(str(path)) for path in (first, second)]
  kept = [(run.state.params["encoder"], run.state.extra["batch_stats"]["encoder"]) for run in runs]
  chex.assert_trees_all_equal(*kept)
  for part in kept[0][1]["block_1"]["norm_0"].values():
    assert np.ptp(np.asarray(part)) > 0  # No longer those of a network that has seen nothing.
  items = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1)).astype(np.uint8)
  # Op by op: compiled, the two programs are fused, and so round, in their own ways.
  np.testing.assert_array_equal(*(
      run.model.embed(run.state, jax.device_put(run.encoder.encode(items))) for run in runs))
  config = presets.load_config("resnet_supervised", "tiny")
  config.model.encoder.width = 8
  with pytest.raises(InputError, match="has width=4; leave the option out"):
    pretrained.adapt(config, pretrained.load(str(first)), {"model.encoder.width"})
  with pytest.raises(InputError, match="a resnet is no model by itself; load the run that trained it"):
    pretrained.as_run(pretrained.load(str(first)))


def test_supervised_training_starts_from_a_pretext_trunk_with_its_statistics():
  run = fit("rotation", PICTURES[:, :10], preset="tiny", steps=2, data_options={"validation_fraction": 0.0})
  network = pretrained.of_run(run)
  for name in ("resnet_supervised", "mixed_images"):
    config = presets.load_config(name, "tiny")
    pretrained.adapt(config, network, ())
    assert config.model.encoder.name == "convnet" and tuple(config.model.encoder.channels) == (4, 8)
    facts, batch = {"task": "classification", "num_classes": 2}, {"image": PICTURES[:4, :10]}
    model = build.make_model(config, facts, 10)
    rows = {"inputs": batch, "targets": {"label": np.arange(4) % 2}, "mask": np.ones(4, np.float32)}
    lines: list[str] = []
    state = pretrained.initial(network, lines.append)(model.init(jax.random.key(0), rows))
    assert "arrays of convnet taken over; fresh: " in lines[0], lines
    chex.assert_trees_all_equal(state.params["encoder"], run.state.params["encoder"])
    chex.assert_trees_all_equal(state.extra["batch_stats"]["encoder"], run.state.extra["batch_stats"]["encoder"])


@pytest.mark.parametrize("name", ["relative_patch", "jigsaw", "exemplar", "context_encoder", "deepcluster"])
def test_trunks_of_pretext_tasks_lie_where_a_supervised_training_takes_them_from(name):
  config = presets.load_config(name, "tiny")
  facts, batch = build.stand_in(config)
  state = jax.eval_shape(build.make_model(config, facts, 10).init, jax.random.key(0), batch)
  target = presets.load_config("resnet_supervised", "tiny")
  target.model.encoder = config.model.encoder
  model = build.make_model(target, {"task": "classification", "num_classes": 2}, 10)
  rows = {"inputs": {"image": batch["image"]}, "targets": {"label": np.zeros(len(batch["image"]), np.int32)}}
  expected = jax.eval_shape(model.init, jax.random.key(0), rows)
  chex.assert_trees_all_equal_shapes(state.params["encoder"], expected.params["encoder"])
  chex.assert_trees_all_equal_shapes(state.extra["batch_stats"]["encoder"], expected.extra["batch_stats"]["encoder"])


def test_the_untrained_baseline_is_the_mean_over_its_seeds(mesh_of):
  config = presets.load_config("simclr", "tiny")
  config.update(dict(baseline_seeds=3, evals=("knn",)))
  data = build.prepare(config, data_dir=None, cache_dir=None)
  model = build.make_model(config, data.facts, 20)
  report = reports.Report(config, data, model, mesh_of(), None, None, print)
  metrics, spread = report.baselines()
  dataset = evaluation.subset(data.dataset, config.eval_items, config.seed)
  actual = [knn(report.evaluator(report.untrained(seed)).embed, dataset) for seed in range(3)]
  for key in ("class/test/knn_accuracy", "class/test/knn200_accuracy"):
    values = [each[key] for each in actual]
    assert metrics[f"untrained/{key}"] == pytest.approx(np.mean(values)) and min(values) < max(values)
    assert spread[f"untrained/{key}"] == pytest.approx(np.std(values, ddof=1))
  assert metrics["pixels/class/test/knn_accuracy"] > 0.8 and spread.keys() == {
      f"untrained/class/test/{name}_accuracy" for name in ("knn", "knn200")}


def test_a_target_begins_with_the_pretrained_parameters_too(mesh_of):
  config = presets.load_config("byol", "tiny")
  data = build.prepare(config, data_dir=None, cache_dir=None)
  model = build.make_model(config, data.facts, 20)
  state, other = (build.first_state(model, data.splits["train"].batch_at(0), mesh_of(), seed) for seed in (0, 1))
  trunk = {"encoder": jax.tree.map(np.asarray, other.params["encoder"])}
  actual = pretrained.Pretrained(pathlib.Path("w"), "resnet", {}, trunk, data.encoder, "", "")
  new = pretrained.initial(actual, lambda _: None)(state)
  for tree in (new.params, new.extra["target"]):
    chex.assert_trees_all_equal(tree["encoder"], other.params["encoder"])
  chex.assert_trees_all_equal(new.extra["target"]["projector"], state.extra["target"]["projector"])


@pytest.mark.parametrize("ratio", [0.15, 0.75, 0.9])
def test_operations_of_a_masked_autoencoder_are_those_that_xla_counts(ratio):
  """By which `experiments.benchmark` makes trainings equal, and tells a GPU's utilization."""
  config = presets.load_config("mae", "small")
  config.model.mask_ratio = ratio
  model = build.make_model(config, {}, 10)
  batch = {"image": jax.ShapeDtypeStruct((config.batch_size, 28, 28, 1), np.uint8)}
  rng = jax.eval_shape(lambda: jax.random.key(0))
  update = jax.jit(model.update).lower(jax.eval_shape(model.init, rng, batch), batch, rng)
  # XLA's count has all else that a step does as well, of which AdamW's share is small in so large a batch.
  counted = update.cost_analysis()["flops"] / config.batch_size
  np.testing.assert_allclose(images.operations(config.model, 28, 1, ratio), counted, rtol=0.03)
