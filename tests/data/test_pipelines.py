"""Declarations of pipelines, and completion of configs with the defaults of their arguments."""
import inspect

import numpy as np
import pytest

from embeddings_jax.data import pipelines, sources
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.runs import build, presets
from embeddings_jax.types import InputError, is_fact
from experiments.benchmarks.memory import anonymous

# Arguments of factories that are functions or arrays, or come from the config's other parts.
NO_OPTIONS = {"optimizer", "learning_rate", "encoder", "auxiliary", "parts", "weights", "covariances"}


@pytest.mark.parametrize("name", pipelines.names())
def test_options_of_reader_and_pipeline_are_disjoint_and_have_defaults(name):
  module = pipelines.find(name)
  reader, own = pipelines.reader_options(module), pipelines.own_options(module)
  assert not set(reader) & set(own) and not {"name", *pipelines.COMMON} & (set(reader) | set(own))
  assert inspect.Parameter.empty not in [*reader.values(), *own.values()]


@pytest.mark.parametrize("name", presets.model_names())
def test_every_argument_of_a_factory_is_in_its_config(name):
  for preset in presets.PRESETS:
    config = presets.load_config(name, preset)
    arguments = inspect.signature(build.find_factory(config)).parameters
    options = {key for key, value in arguments.items() if not is_fact(value.annotation)} - NO_OPTIONS
    assert options <= set(config.model), f"{preset}: {sorted(options - set(config.model))}"
    assert set(config.data) == set(pipelines.options(pipelines.find(config.pipeline)))
    if hasattr(config.model.get("encoder"), "keys"):  # A network's own arguments, but for facts.
      network = inspect.signature(build.network_module(config.model.encoder.name).encoder).parameters
      options = {key for key, value in network.items() if value.kind is value.KEYWORD_ONLY
                 and value.default is not value.empty and not is_fact(value.annotation)}
      assert options <= set(config.model.encoder)


def test_a_config_is_completed_and_another_pipeline_keeps_common_options():
  config = presets.load_config("glove", "tiny")
  assert config.pipeline == "tiles" and config.data.cells_per_tile == 2048 and config.data.errors == "strict"
  changed = presets.load_config("glove", "tiny", pipeline="cells")
  assert "cells_per_tile" not in changed.data and changed.data.window == config.data.window == 5
  with pytest.raises(InputError, match="pipeline=cell: unknown; did you mean cells"):
    presets.load_config("glove", "tiny", pipeline="cell")


def test_a_fact_that_the_pipeline_does_not_give_is_named():
  config = presets.load_config("gpt", "tiny")
  with pytest.raises(InputError, match="model=gpt: needs the fact 'vocab_size', which pipeline=subword_windows does"):
    build.make_model(config, {"num_rows": 3}, 5)


def test_images_hold_a_validation_split():
  items = np.arange(40, dtype=np.uint8).reshape(10, 2, 2, 1)
  dataset = Dataset("x", "images", items, split={"train": np.arange(8), "test": np.arange(8, 10)})
  images = pipelines.function(pipelines.find("images"))
  data = images(dataset, batch_size=2, seed=0, validation_fraction=0.25)
  assert (data.facts["height"], data.facts["width"], data.facts["channels"]) == (2, 2, 1)
  seen = {name: {int(x) for step in range(source.facts["steps_per_epoch"])
                 for x in source.batch_at(step)["image"][:, 0, 0, 0]} for name, source in data.splits.items()}
  assert len(seen["validation"]) == 2 and seen["train"] | seen["validation"] == set(range(0, 32, 4))
  assert not seen["train"] & seen["validation"] and set(images(dataset, batch_size=2, seed=0).splits) == {"train"}


def test_images_larger_than_the_device_gets_are_read_batch_by_batch(tmp_path, monkeypatch):
  """A memory map with a training split is not copied: the anonymous memory of the process stays as it is."""
  monkeypatch.setattr(sources, "RESIDENT_BYTES", 1 << 20)
  items = np.lib.format.open_memmap(tmp_path / "x.npy", mode="w+", dtype=np.uint8, shape=(1 << 15, 32, 32, 3))
  items[:, 0, 0, 0] = np.arange(1 << 15) % 251
  items.flush()
  mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
  dataset = Dataset("x", "images", mapped, split={"train": np.arange(100, 1 << 15)})
  before = anonymous()
  data = pipelines.function(pipelines.find("images"))(dataset, batch_size=64, seed=0, validation_fraction=0.1)
  batches = [data.splits[name].batch_at(step) for step in range(20) for name in ("train", "validation")]
  held = sum(batch["image"].nbytes for batch in batches)
  assert (anonymous() - before) * 2**20 < held + (8 << 20) < items.nbytes / 4
  assert data.facts["num_rows"] + data.splits["validation"].facts["num_rows"] == (1 << 15) - 100
  seen = np.concatenate([batch["image"][:, 0, 0, 0] for batch in batches])
  assert len(seen) == 40 * 64 and len(np.unique(seen)) > 200 and not data.splits["train"].resident


def test_numbered_images_keep_their_numbers_in_every_order():
  items = np.arange(40, dtype=np.uint8).reshape(10, 2, 2, 1)
  dataset = Dataset("x", "images", items, split={"train": np.array([9, 2, 5, 7]), "test": np.arange(2)})
  numbered = pipelines.function(pipelines.find("numbered_images"))
  data = numbered(dataset, batch_size=4, seed=3)
  batch = data.splits["train"].batch_at(1)
  assert data.facts["num_rows"] == 4 and sorted(np.asarray(batch["number"])) == [0, 1, 2, 3]
  np.testing.assert_array_equal(batch["image"], items[np.array([9, 2, 5, 7])[np.asarray(batch["number"])]])
  few = numbered(dataset, batch_size=3, seed=3, max_images=3)
  assert few.facts["num_rows"] == 3 and set(np.asarray(few.splits["train"].batch_at(0)["number"])) == {0, 1, 2}
