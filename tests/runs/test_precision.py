"""`config.precision` reaches every product of a model, and the record."""
import jax
import pytest

from embeddings_jax.plan import arithmetic
from embeddings_jax.runs import build, presets, workdir
from embeddings_jax.types import InputError


def products(precision, name="mae"):
  """Precisions of the products of an update and of the embedding."""
  config = presets.load_config(name, "tiny")
  config.precision = precision
  facts, batch = build.stand_in(config)
  model = build.make_model(config, facts, 10)
  state = jax.eval_shape(model.init, jax.random.key(0), batch)
  traced = [jax.make_jaxpr(model.update)(state, batch, jax.random.key(0)), jax.make_jaxpr(model.embed)(state, batch)]
  return [set(precisions(jaxpr.jaxpr)) for jaxpr in traced]


def precisions(jaxpr):
  for equation in jaxpr.eqns:
    if equation.primitive.name == "dot_general":
      yield str(equation.params["precision"])
    for inner in arithmetic.inner(equation.params):
      yield from precisions(inner)


def test_products_have_the_precision_of_the_config():
  assert all("Precision.HIGHEST" in one for kinds in products("highest") for one in kinds)
  assert all("None" in kinds for kinds in products(""))


def test_another_precision_is_another_run():
  config = presets.load_config("kmeans", "tiny").to_dict()
  assert "precision" not in workdir.trajectory(config, "x")  # Runs of before resume.
  assert workdir.trajectory({**config, "precision": "highest"}, "x")["precision"] == "highest"
  with pytest.raises(InputError, match="precision=most: unknown; one of default, high, highest"):
    build.with_precision(build.make_model(config, {"num_features": 2}, 1), "most")
