"""Sources of samples: the prior on one and on eight devices, densities of codes, uniform discrete codes."""
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from embeddings_jax.eval.generation import distances
from embeddings_jax.gradient import GradientState
from embeddings_jax.models.adversarial.gan import gan
from embeddings_jax.runs.generators import generators
from embeddings_jax.types import Model


def test_samples_and_their_distances_on_eight_devices_are_those_of_one(mesh_of):
  model = gan(num_features=2, latent_dim=3, generator_widths=(5,), discriminator_widths=(4,), generator_norm="batch",
              discriminator_norm="none")
  state = model.init(jax.random.key(0), {"x": jnp.zeros((8, 2))})
  real = np.random.default_rng(0).normal(size=(300, 2))
  actual = []
  for spec in ("data:1", "data:4,fsdp:2"):
    own = jax.device_put(state, jax.NamedSharding(mesh_of(spec), jax.P()))
    samples = generators(SimpleNamespace(model=model, state=own, encoder=None))["prior"](300, 1)
    assert samples.shape == (300, 2)
    actual.append(distances(samples.astype(np.float64), real))
  assert actual[0] == pytest.approx(actual[1], rel=1e-5)
  assert not np.allclose(samples[:50], samples[250:])  # No piece has the noise of another.


def test_codes_of_densities_and_discrete_ones():
  """Codes of the training items lie in [0, 1] x [2, 3]; those of the test items elsewhere."""
  encoder = SimpleNamespace(example=lambda: {"x": np.zeros((1, 2), np.float32)})
  embed = lambda state, batch: batch["x"]
  decode = lambda state, codes: codes
  items = np.random.default_rng(0).random((400, 2)) + [0, 2]
  data = SimpleNamespace(items=items + 50 * (np.arange(400) >= 300)[:, None], split={"train": np.arange(300)})
  subject = SimpleNamespace(model=Model(None, None, embed, {"decode": decode}), state=(), encoder=encoder,
                            dataset=data, embed=lambda items: items)
  actual = generators(subject)
  assert actual.keys() == {"uniform", "gaussian", "mixture"}
  uniform, gaussian = actual["uniform"](600, 0), actual["gaussian"](600, 0)
  assert uniform.min(0).round(1).tolist() == [0, 2] and uniform.max(0).round(1).tolist() == [1, 3]
  np.testing.assert_allclose(gaussian.mean(0), [0.5, 2.5], atol=0.05)
  discrete = {"decode": decode, "codes": lambda state, batch: jnp.zeros((len(batch["x"]), 2, 2), jnp.int32)}
  subject.model = Model(None, None, embed, discrete)
  subject.state = GradientState(jnp.zeros(()), (), {"counts": jnp.zeros(5)}, (), ())
  codes = generators(subject)["uniform"](400, 0)
  assert codes.shape == (400, 2, 2) and np.bincount(codes.reshape(-1)).min() > 250 and codes.max() == 4
  assert not generators(SimpleNamespace(model=subject.model, encoder=SimpleNamespace(token_ids=1)))
