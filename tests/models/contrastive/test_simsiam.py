"""SimSiam's update by hand: the loss, and the gradient that stops at the other view, by torch's autograd."""
import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from embeddings_jax.models.contrastive.simsiam import simsiam
from embeddings_jax.nets import convnet
from embeddings_jax.nets.siamese import Mlp, Siamese
from embeddings_jax.ops.augment import augmented, pair_of_views

ENCODER = dict(channels=(4, 8), strides=(2, 2))


@pytest.mark.parity
def test_loss_and_gradient_are_torch_s():
  """The projections are the same; from there on loss and gradient of the predictor are torch's, with its detach."""
  import torch

  x = jnp.asarray(np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3)), jnp.uint8)
  model = simsiam(encoder=convnet.encoder(**ENCODER), projector_dims=(8, 5), predictor_dim=16,
                  optimizer=optax.sgd(1.0))
  state = jax.jit(model.init)(jax.random.key(0), {"image": x})
  with jax.default_matmul_precision("highest"):
    new, metrics = jax.jit(model.update)(state, {"image": x}, jax.random.key(1))
    network = Siamese(convnet.encoder(**ENCODER), Mlp((8, 5), last_norm=True), Mlp((16, 5)))
    op, _ = pair_of_views("simclr", 16, strength=0.5, min_scale=0.2)
    project = jax.jit(lambda variables, rng: network.apply(
        variables, {"image": augmented(op, rng, x)}, deterministic=False, mutable=["batch_stats"])[0]["z"])
    z = [project({"params": state.params, **state.extra}, jax.random.fold_in(jax.random.key(1), i)) for i in (0, 1)]

  predictor = torch.nn.Sequential(torch.nn.Linear(5, 16, bias=False), torch.nn.BatchNorm1d(16), torch.nn.ReLU(),
                                  torch.nn.Linear(16, 5))
  ours = state.params["predictor"]
  with torch.no_grad():
    predictor[0].weight.copy_(torch.tensor(np.asarray(ours["dense_0"]["kernel"].T)))
    predictor[3].weight.copy_(torch.tensor(np.asarray(ours["dense_1"]["kernel"].T)))
    predictor[3].bias.copy_(torch.tensor(np.asarray(ours["dense_1"]["bias"])))
  z = [torch.tensor(np.asarray(value)) for value in z]
  cosine = torch.nn.CosineSimilarity(dim=1)
  loss = -sum(cosine(predictor(z[i]), z[1 - i].detach()).mean() for i in (0, 1)) / 2
  loss.backward()
  np.testing.assert_allclose(metrics["loss"], loss.item(), rtol=1e-4)
  moved = jax.tree.map(lambda a, b: np.asarray(a - b), ours, new.params["predictor"])
  for actual, expected in ((moved["dense_0"]["kernel"].T, predictor[0].weight), (moved["dense_1"]["bias"],
                          predictor[3].bias), (moved["norm_0"]["scale"], predictor[1].weight)):
    assert np.abs(actual - expected.grad.numpy()).max() <= 1e-3 * expected.grad.abs().max()


def test_no_gradient_goes_through_the_vectors_that_are_predicted():
  """A predictor that ignores what it is given sends none back, so that the encoder stays as it is bit for bit."""
  x = jnp.asarray(np.random.default_rng(1).integers(0, 256, (6, 16, 16, 1)), jnp.uint8)
  model = simsiam(encoder=convnet.encoder(**ENCODER), projector_dims=(8, 5), predictor_dim=3,
                  optimizer=optax.sgd(1.0))
  state = jax.jit(model.init)(jax.random.key(0), {"image": x})
  constant = jax.tree.map(lambda leaf: leaf, state.params)
  constant["predictor"]["dense_1"] = {"kernel": jnp.zeros((3, 5)), "bias": jnp.arange(5.0)}
  new, _ = jax.jit(model.update)(state._replace(params=constant), {"image": x}, jax.random.key(1))
  for name in ("encoder", "projector"):
    chex.assert_trees_all_equal(new.params[name], constant[name])
  assert (new.params["predictor"]["dense_1"]["bias"] != jnp.arange(5.0)).any()
