"""Configs: every argument of a model and of its pipeline can be set from the command line."""
import inspect

import pytest

from embeddings_jax.data import pipelines
from embeddings_jax.runs import build, presets
from embeddings_jax.types import is_fact

# Not options: what the config's `optimizer` becomes, networks and models that a config names, and arrays.
COMPOSED = {"optimizer", "optimizers", "learning_rate", "encoder", "auxiliary"}
ARRAYS = {"weights", "means", "covariances"}


@pytest.mark.parametrize("preset", presets.PRESETS)
@pytest.mark.parametrize("name", presets.model_names())
def test_every_argument_can_be_set(name, preset):
  config = presets.load_config(name, preset)
  factory = inspect.signature(build.find_factory(config)).parameters
  options = {key for key, parameter in factory.items() if not is_fact(parameter.annotation)} - COMPOSED - ARRAYS
  assert options - set(config.model) == set()
  module = pipelines.find(config.pipeline)
  assert set(config.data) == set(pipelines.options(module))
  if hasattr(config.model.get("encoder"), "keys"):
    network = inspect.signature(build.network_module(config.model.encoder.name).encoder).parameters
    known = {key for key, parameter in network.items() if parameter.kind is parameter.KEYWORD_ONLY}
    facts = {key for key in known
             if is_fact(network[key].annotation) or network[key].default is inspect.Parameter.empty}
    assert known - facts - set(config.model.encoder) == set()


def test_readers_and_pipelines_share_no_option():
  for name in pipelines.names():
    module = pipelines.find(name)
    assert set(pipelines.reader_options(module)).isdisjoint(pipelines.own_options(module)), name


def test_a_default_stands_in_one_place():
  """The completed config has what its file leaves out."""
  config = presets.load_config("gmm", "tiny")
  assert config.model.power == 0.7 and config.data.order == "shuffled" and config.model.covariance == "full"
