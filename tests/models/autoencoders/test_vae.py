"""Variational autoencoders: the bound is what it says, probabilistic PCA is reached, weighted bounds rise to it."""
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats
from sklearn.decomposition import PCA

from embeddings_jax.models.autoencoders.vae import draw, vae
from embeddings_jax.types import InputError

D, K = 12, 3
DENSE = dict(height=4, width=3, channels=1, widths=(7,), strides=(), dim=2)
LINEAR = DENSE | dict(widths=(), dim=K, output_activation="linear")


def images(number=6, seed=0):
  return jnp.asarray(np.random.default_rng(seed).integers(0, 256, (number, 4, 3, 1)), jnp.uint8)


def initial(model):
  return model.init(jax.random.key(0), {"image": images()})


@pytest.mark.parametrize("likelihood,scale", [
    ("gaussian", "shared"), ("gaussian", "output"), ("bernoulli", "shared"), ("discretized_logistic", "shared"),
    ("discretized_logistic", "output"), ("squared", "shared")])
def test_the_loss_is_minus_the_bound(likelihood, scale):
  """Checked by scipy's densities for a posterior without variance, and by the mean of log weights for any."""
  model = vae(**DENSE, likelihood=likelihood, scale=scale)
  state, batch = initial(model), {"image": images()}
  loss = jax.jit(model.outputs["training_loss"])
  bias = state.params["encoder"]["code"]["bias"]
  state.params["encoder"]["code"]["bias"] = bias.at[2:].set(-40.0)
  kernel = state.params["encoder"]["code"]["kernel"]
  state.params["encoder"]["code"]["kernel"] = kernel.at[:, 2:].set(0.0)
  if scale == "output":  # The decoder's own scale is that of its last bias.
    pixels = state.params["decoder"]["pixels"]
    pixels["kernel"] = pixels["kernel"].reshape(-1, D, 2).at[..., 1].set(0.0).reshape(-1, 2 * D)
    pixels["bias"] = pixels["bias"].reshape(D, 2).at[:, 1].set(0.8).reshape(-1)
  codes = np.asarray(model.embed(state, batch), np.float64)
  x = np.asarray(images(), np.float64) / 255
  mean = np.asarray(model.outputs["decode"](state, jnp.asarray(codes, jnp.float32)), np.float64)
  spread = np.exp(-1.0 if scale == "shared" else 0.8 - 2.0)
  cdf = stats.logistic(mean, spread).cdf
  upper, lower = np.where(x == 1, 1, cdf(x + 1 / 510)), np.where(x == 0, 0, cdf(x - 1 / 510))
  density = {
      "gaussian": lambda: stats.norm(mean, spread).logpdf(x),
      "bernoulli": lambda: x * np.log(mean) + (1 - x) * np.log1p(-mean),
      "discretized_logistic": lambda: np.log(upper - lower),
      "squared": lambda: stats.norm(mean, np.sqrt(D / 2000)).logpdf(x)}[likelihood]().sum() / len(x)
  kl = 0.5 * (np.square(codes) + np.exp(-40) + 40 - 1).sum(1).mean()
  actual = float(loss(state, batch, jax.random.key(0)))
  assert actual == pytest.approx(kl - density, rel=1e-5)
  if likelihood == "squared":  # The book's, up to a constant.
    book = 1000 * np.square(x - mean).mean() + kl
    assert actual == pytest.approx(book + D / 2 * np.log(2 * np.pi * D / 2000), rel=1e-5)


@pytest.mark.parametrize("likelihood", ["gaussian", "discretized_logistic"])
def test_the_loss_is_the_mean_log_weight(likelihood):
  model = vae(**DENSE, likelihood=likelihood)
  state, batch = initial(model), {"image": images()}
  rngs = jax.random.split(jax.random.key(1), 2000)
  loss, bound = (np.asarray(jax.jit(jax.vmap(fn))(rngs), np.float64) for fn in (
      lambda rng: model.outputs["training_loss"](state, batch, rng),
      lambda rng: model.outputs["likelihood_bound"](state, batch, rng, 1).mean()))
  error = np.hypot(loss.std(), bound.std()) / np.sqrt(len(rngs))
  assert abs(loss.mean() + bound.mean()) < 4 * error and error < 0.1
  held_out = float(model.outputs["loss"](state, batch))
  assert held_out == pytest.approx(float(model.outputs["training_loss"](state, batch, jax.random.key(0))), rel=1e-6)


def factors():
  """Rows with `K` factors in [0, 1], and the likelihood of probabilistic PCA at its maximum."""
  rng = np.random.default_rng(0)
  x = rng.normal(size=(600, D)) * np.where(np.arange(D) < K, [0.2, 0.16, 0.12] + [0.0] * (D - K), 0.0)
  x = x @ np.linalg.qr(rng.normal(size=(D, D)))[0] + 0.06 * rng.normal(size=(600, D)) + 0.5
  return np.clip(x, 0, 1).astype(np.float32)


def test_a_linear_vae_is_probabilistic_pca():
  x, steps = factors(), 3000
  model = vae(**LINEAR, optimizer=optax.adam(optax.cosine_decay_schedule(0.1, steps)))
  batch = {"image": jnp.asarray(x.reshape(-1, 4, 3, 1))}
  update = lambda state, step: (model.update(state, batch, jax.random.fold_in(jax.random.key(1), step))[0], None)
  state = model.init(jax.random.key(0), batch)
  state = jax.jit(lambda state: jax.lax.scan(update, state, jnp.arange(steps))[0])(state)
  losses = jax.jit(jax.vmap(lambda rng: model.outputs["training_loss"](state, batch, rng)))(
      jax.random.split(jax.random.key(2), 1000))
  elbo = -np.asarray(losses, np.float64)
  assert elbo.std() / np.sqrt(len(elbo)) < 3e-3
  assert elbo.mean() == pytest.approx(PCA(K).fit(x.astype(np.float64)).score(x), abs=0.01)
  samples = np.asarray(model.outputs["sample"](state, jax.random.key(0), 2000)).reshape(-1, D)
  shared = np.linalg.svd(np.cov(samples.T))[0][:, :K], PCA(K).fit(x).components_.T
  assert np.linalg.svd(shared[0].T @ shared[1])[1].min() > 0.99  # Samples vary in the components' space.


def test_weighted_bounds_rise_with_draws_and_stay_below_the_likelihood():
  """The decoder is exact, and the encoder is not the posterior."""
  x, rng = factors()[:100], np.random.default_rng(3)
  model = vae(**LINEAR)
  state = initial(model)
  decoder = 0.1 * rng.normal(size=(K, D)).astype(np.float32)
  scale, center = 0.1, x.mean(0)
  precision = np.eye(K) + decoder @ decoder.T / scale**2
  encoder = (np.linalg.solve(precision, decoder) / scale**2).T + 0.3 * rng.normal(size=(D, K))  # Perturbed.
  variance = 1.5 / np.diag(precision)
  params = {"decoder": {"pixels": {"kernel": decoder, "bias": center}}, "log_scale": np.log(scale),
            "encoder": {"code": {"kernel": np.concatenate([encoder, np.zeros((D, K))], 1),
                                 "bias": np.concatenate([-center @ encoder, np.log(variance)])}}}
  assert jax.tree.structure(params) == jax.tree.structure(state.params)
  state = state._replace(params=jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params))
  exact = stats.multivariate_normal(center, decoder.T @ decoder + scale**2 * np.eye(D)).logpdf(x)
  batch = {"image": jnp.asarray(x.reshape(-1, 4, 3, 1))}
  rngs = jax.random.split(jax.random.key(0), 8)
  bound = jax.jit(lambda num: jax.vmap(lambda rng: model.outputs["likelihood_bound"](state, batch, rng, num))(rngs),
                  static_argnums=0)
  bounds = {num: np.asarray(bound(num), np.float64) for num in (1, 10, 100, 1000)}
  means = {num: value.mean() for num, value in bounds.items()}
  errors = {num: value.mean(1).std(ddof=1) / np.sqrt(len(rngs)) for num, value in bounds.items()}
  assert means[1] < means[10] - 3 * errors[1] and means[10] < means[100] < means[1000], (means, errors)
  assert means[1000] < exact.mean() + 3 * errors[1000] and means[1000] == pytest.approx(exact.mean(), abs=0.05)


def test_draws_have_the_posterior_s_moments():
  mean, log_variance = jnp.full((100_000, 2), 1.5), jnp.broadcast_to(jnp.log(jnp.array([4.0, 0.25])), (100_000, 2))
  z = np.asarray(draw(jax.random.key(0), mean, log_variance))
  np.testing.assert_allclose(z.mean(0), 1.5, atol=0.03)
  np.testing.assert_allclose(z.std(0), [2, 0.5], rtol=0.02)


def test_beta_warms_up_and_free_bits_bound_each_unit_from_below():
  batch = {"image": images()}
  plain, warm, free = (vae(**DENSE, optimizer=optax.sgd(0.0), **options) for options in (
      {}, dict(beta=2.0, kl_warmup_steps=4), dict(free_bits=0.3)))
  state, losses = initial(plain), []
  _, metrics = jax.jit(plain.update)(state, batch, jax.random.key(0))
  update = jax.jit(warm.update)
  for _ in range(5):
    state, actual = update(state, batch, jax.random.key(0))
    losses.append(float(actual["loss"] - metrics["reconstruction"]) / float(metrics["kl"]))
  np.testing.assert_allclose(losses, [0.5, 1, 1.5, 2, 2], rtol=1e-3)
  state = initial(free)
  state.params["encoder"] = jax.tree.map(jnp.zeros_like, state.params["encoder"])  # The prior itself.
  _, actual = jax.jit(free.update)(state, batch, jax.random.key(0))
  assert float(actual["loss"] - actual["reconstruction"]) == pytest.approx(2 * 0.3, rel=1e-4)
  assert actual["kl"] == 0 and actual["collapsed"] == 1 and actual["active_units"] == 0
  assert metrics["collapsed"] == (metrics["kl"] < 0.1)


def test_the_weighted_objective_is_the_bound_of_as_many_draws():
  model = vae(**DENSE, num_samples=5)
  state, batch = initial(model), {"image": images()}
  rngs = jax.random.split(jax.random.key(1), 2000)
  loss, bound = (np.asarray(jax.jit(jax.vmap(fn))(rngs), np.float64) for fn in (
      lambda rng: model.outputs["training_loss"](state, batch, rng),
      lambda rng: model.outputs["likelihood_bound"](state, batch, rng, 5).mean()))
  assert abs(loss.mean() + bound.mean()) < 4 * np.hypot(loss.std(), bound.std()) / np.sqrt(len(rngs))


@pytest.mark.parametrize("options,message", [
    (dict(likelihood="laplace"), "must be one of gaussian, bernoulli"),
    (dict(num_samples=5, beta=2.0), "no KL term to weigh"),
    (dict(beta=-1.0), "beta=-1.0"),
    (dict(strides=(3,), widths=(4,)), "do not divide images of 4 x 3"),
    (dict(free_bits=0.1, accumulate=2), "couples the examples"),
])
def test_bad_options_are_one_line(options, message):
  with pytest.raises(InputError, match=message):
    vae(**DENSE | options)
