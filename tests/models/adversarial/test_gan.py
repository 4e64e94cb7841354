"""GANs: the fixed generator's best discriminator, turns of the players, averaged samples, bad input."""
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from embeddings_jax.models.adversarial.gan import gan
from embeddings_jax.ops.adversarial import discriminator_losses, generator_losses
from embeddings_jax.types import InputError

ROWS = dict(num_features=1, latent_dim=1, generator_widths=(), discriminator_widths=(16, 16), generator_norm="none",
            discriminator_norm="none")
PLANE = dict(num_features=2, latent_dim=3, generator_widths=(5,), discriminator_widths=(6,), generator_norm="none",
             discriminator_norm="none", optimizer=optax.sgd(0.1))
IMAGES = dict(height=8, width=8, channels=1, latent_dim=3, generator_widths=(4, 4), discriminator_widths=(4, 4),
              kernel_size=4)


def plane(number=6, seed=0):
  return {"x": jnp.asarray(np.random.default_rng(seed).normal(size=(number, 2)), jnp.float32)}


def test_the_discriminator_of_a_fixed_generator_is_the_ratio_of_densities():
  """Real rows are N(1, 1); a generator without hidden layers makes N(b, w^2) of z, and never moves."""
  model = gan(**ROWS, optimizer={"generator": optax.set_to_zero(), "discriminator": optax.adam(
      optax.cosine_decay_schedule(0.02, 600))})

  def step(state, rng):
    rng_x, rng_update = jax.random.split(rng)
    return model.update(state, {"x": 1 + jax.random.normal(rng_x, (2048, 1))}, rng_update)

  state = model.init(jax.random.key(0), {"x": jnp.zeros((8, 1))})
  before = state.params["generator"]
  state, metrics = jax.jit(lambda state: jax.lax.scan(step, state, jax.random.split(jax.random.key(1), 600)))(state)
  np.testing.assert_array_equal(before["out"]["kernel"], state.params["generator"]["out"]["kernel"])
  weight, shift = float(before["out"]["kernel"][0, 0]), float(before["out"]["bias"][0])
  grid = np.linspace(-6, 6, 2001)
  p, q = stats.norm.pdf(grid, 1, 1), stats.norm.pdf(grid, shift, abs(weight))
  features = np.asarray(model.embed(state, {"x": jnp.asarray(grid[:, None], jnp.float32)}))
  last = state.params["discriminator"]["out"]
  actual = 1 / (1 + np.exp(-(features @ np.asarray(last["kernel"]) + np.asarray(last["bias"]))[:, 0]))
  likely = (p + q) > 0.05
  np.testing.assert_allclose(actual[likely], (p / (p + q))[likely], atol=0.04)
  width = grid[1] - grid[0]
  divergence = sum((d * np.log(np.maximum(d, 1e-300) / ((p + q) / 2))).sum() for d in (p, q)) * width / 2
  assert np.mean(metrics["loss"][-100:]) == pytest.approx(2 * np.log(2) - 2 * divergence, abs=0.02)


def explicit(state, rng, real, old):
  """One update of a simultaneous or alternating GAN by hand, from the model's own draws of z: new players."""
  rng_d, rng_g = jax.random.split(rng)
  rng_d = jax.random.split(jax.random.fold_in(rng_d, 0), 4)[0]
  rng_g = jax.random.split(rng_g)[0]

  def generated(params, rng):
    z = jax.random.normal(rng, (len(real), 3))
    hidden = jnp.maximum(z @ params["dense_0"]["kernel"] + params["dense_0"]["bias"], 0)
    return hidden @ params["out"]["kernel"] + params["out"]["bias"]

  def logits(params, x):
    hidden = x @ params["layers_0"]["kernel"] + params["layers_0"]["bias"]
    hidden = jnp.where(hidden > 0, hidden, 0.2 * hidden)
    return (hidden @ params["out"]["kernel"] + params["out"]["bias"])[:, 0]

  def of_d(params):
    actual = discriminator_losses("minimax", logits(params, real),
                                  logits(params, generated(state.params["generator"], rng_d)))
    return actual[0].mean() + actual[1].mean()

  moved = lambda params, slope: jax.tree.map(lambda p, g: p - 0.1 * g, params, slope)
  d = moved(state.params["discriminator"], jax.grad(of_d)(state.params["discriminator"]))
  against = state.params["discriminator"] if old else d
  of_g = lambda params: generator_losses("minimax", logits(against, generated(params, rng_g))).mean()
  return moved(state.params["generator"], jax.grad(of_g)(state.params["generator"])), d


@pytest.mark.parametrize("schedule", ["simultaneous", "alternating"])
def test_the_generator_moves_against_the_old_or_the_new_discriminator(schedule):
  model = gan(**PLANE, loss="minimax", schedule=schedule)
  state, rng = model.init(jax.random.key(0), plane()), jax.random.key(5)
  new, _ = jax.jit(model.update)(state, plane(), rng)
  by_hand = jax.jit(explicit, static_argnums=3)
  actual = {old: by_hand(state, rng, plane()["x"], old) for old in (True, False)}
  kernel = lambda params: np.asarray(params["out"]["kernel"])
  own, other = schedule == "simultaneous", schedule != "simultaneous"
  np.testing.assert_allclose(kernel(new.params["generator"]), kernel(actual[own][0]), atol=1e-6)
  np.testing.assert_allclose(kernel(new.params["discriminator"]), kernel(actual[own][1]), atol=1e-6)
  assert np.abs(kernel(actual[own][0]) - kernel(actual[other][0])).max() > 1e-5


def test_steps_of_the_discriminator_split_the_batch():
  """D's rate counts moves; each has a part of the rows, so that other rows of one part change the end alone."""
  model = gan(**PLANE, discriminator_steps=3)
  state = model.init(jax.random.key(0), plane())
  x = np.array(plane(6)["x"])
  new, metrics = jax.jit(model.update)(state, {"x": jnp.asarray(x)}, jax.random.key(1))
  one, _ = jax.jit(gan(**PLANE).update)(state, {"x": jnp.asarray(x[[0, 3]])}, jax.random.key(1))
  assert metrics.keys() >= {"real_score", "fake_score", "spread"} and new.step == 1
  # Its first move is that of a model with one move on the first part, rows 0 and 3.
  frozen = gan(**PLANE | {"optimizer": {"generator": optax.sgd(0.1), "discriminator": optax.sgd(
      lambda count: jnp.where(count == 0, 0.1, 0.0))}}, discriminator_steps=3)
  first = frozen.init(jax.random.key(0), plane())
  moved, _ = jax.jit(frozen.update)(first, {"x": jnp.asarray(x)}, jax.random.key(1))
  np.testing.assert_allclose(moved.params["discriminator"]["out"]["kernel"],
                             one.params["discriminator"]["out"]["kernel"], atol=1e-6)
  with pytest.raises(InputError, match="discriminator_steps=3: does not divide the 8 rows"):
    model.update(state, plane(8), jax.random.key(1))


def test_near_convergence_the_discriminators_loss_falls_on_its_own_rows():
  """More moves on the same rows and noise end lower: the mean of 1, ..., k moves falls with k."""
  losses = []
  for steps in (1, 8):
    model = gan(**PLANE, schedule="to_convergence", convergence_steps=steps)
    state = model.init(jax.random.key(0), plane())
    losses.append(float(jax.jit(model.update)(state, plane(64), jax.random.key(1))[1]["loss"]))
  assert losses[0] > losses[1]


def test_samples_have_the_statistics_of_the_averaged_generator():
  """They are those of the layers of fixed z, by NumPy; the average follows the generator."""
  model = gan(**PLANE | dict(generator_norm="batch", generator_widths=(5, 4), optimizer=optax.adam(0.02)),
              ema_decay=0.9)
  state = model.init(jax.random.key(0), plane())
  update = jax.jit(model.update)
  for step in range(3):
    previous = state
    state, _ = update(state, plane(), jax.random.key(step))
    decay = (1 + step) / (10 + step)
    jax.tree.map(lambda average, old, new, decay=decay: np.testing.assert_allclose(
        average, decay * old + (1 - decay) * new, atol=1e-6), state.average, previous.average,
                 state.params["generator"])
  z = np.concatenate([jax.random.normal(jax.random.key(0), (512, 3)),
                      jax.random.normal(jax.random.split(jax.random.key(1))[0], (6, 3))])
  of_g = jax.tree.map(np.asarray, state.average)
  for i in range(2):
    z = z @ of_g[f"dense_{i}"]["kernel"]
    z = (z - z[:512].mean(0)) / np.sqrt(z[:512].var(0) + 1e-5)
    z = np.maximum(z * of_g[f"norm_{i}"]["scale"] + of_g[f"norm_{i}"]["bias"], 0)
  expected = (z @ of_g["out"]["kernel"] + of_g["out"]["bias"])[512:]
  draw = jax.jit(model.outputs["sample"], static_argnums=2)
  np.testing.assert_allclose(draw(state, jax.random.key(1), 6), expected, atol=1e-5)


@pytest.mark.parametrize("side, widths", [(28, (8, 4)), (32, (8, 4, 4)), (64, (8, 4, 4, 4))])
def test_dcgan_makes_and_judges_images_of_its_side(side, widths):
  model = gan(height=side, width=side, channels=3, generator_widths=widths, discriminator_widths=widths[::-1],
              discriminator_norm="spectral", embed_grid=2)
  batch = {"image": jax.ShapeDtypeStruct((4, side, side, 3), jnp.uint8)}
  state = jax.eval_shape(model.init, jax.random.key(0), batch)
  sample = jax.eval_shape(lambda state: model.outputs["sample"](state, jax.random.key(0), 5), state)
  assert sample.shape == (5, side, side, 3)
  assert jax.eval_shape(model.embed, state, batch).shape == (4, 4 * 8)
  # One dense layer and the convolutions, the least map of side / 2^k.
  rows = side >> len(widths)
  assert state.params["generator"]["project"]["kernel"].shape == (100, rows * rows * 8)
  assert state.params["discriminator"]["out"]["kernel"].shape == (rows * rows * 8, 1)


def test_walks_begin_and_end_with_draws():
  model = gan(**PLANE)
  state = model.init(jax.random.key(0), plane())
  walk = jax.jit(model.outputs["interpolate"], static_argnums=2)(state, jax.random.key(2), 7)
  ends = jax.random.normal(jax.random.split(jax.random.key(2))[0], (2, 3))
  of_g = state.params["generator"]
  expected = np.maximum(ends @ of_g["dense_0"]["kernel"], 0) @ of_g["out"]["kernel"]
  np.testing.assert_allclose(np.asarray(walk)[[0, -1]], expected, atol=1e-5)


def test_a_condition_changes_both_players():
  model = gan(**PLANE, num_labels=3, conditional=True)
  label = jnp.array([0, 1, 2, 0, 1, -1])
  state = model.init(jax.random.key(0), plane() | {"label": label})
  draw = jax.jit(model.outputs["sample"], static_argnums=2)
  sample = lambda *classes: np.asarray(draw(state, jax.random.key(3), 2, {"label": jnp.array(classes)}))
  np.testing.assert_array_equal(sample(1, 1), sample(1))
  assert np.abs(sample(1) - sample(2)).max() > 1e-3 and np.abs(sample(1, 2)[0] - sample(1)[0]).max() < 1e-6
  update = jax.jit(model.update)
  other, _ = update(state, plane() | {"label": jnp.zeros(6, jnp.int32)}, jax.random.key(1))
  moved, _ = update(state, plane() | {"label": label}, jax.random.key(1))
  classes = [np.asarray(new.params["discriminator"]["classes"]["kernel"] - state.params["discriminator"]["classes"][
      "kernel"]) for new in (moved, other)]
  assert (np.abs(classes[0]).max(1) > 0).all()
  np.testing.assert_allclose(classes[1][1:], 0, atol=1e-7)  # Only the class that was there has moved.
  with pytest.raises(InputError, match="the batch has no 'label'; set data.label"):
    model.update(state, plane(), jax.random.key(1))
  with pytest.raises(InputError, match="num=3: the condition must have `label` of one row or of 3"):
    model.outputs["sample"](state, jax.random.key(3), 3, {"label": jnp.zeros(2, jnp.int32)})


@pytest.mark.parametrize("options, message", [
    (dict(IMAGES, height=10), "strides=\\(2, 2\\): do not divide images of 10 x 8 pixels"),
    (dict(IMAGES, conditional=True), "conditional=True: the data has no labels; set data.label"),
    (dict(IMAGES, penalty="r1"), "penalty='r1': is of one row's slope"),
    (dict(PLANE, network="dcgan"), "network='dcgan': makes images, and the rows have 2 features"),
    (dict(PLANE, augmentation=("color",)), "is of images, and these are rows"),
    (dict(PLANE, schedule="simultaneous", discriminator_steps=2), "needs schedule='alternating'"),
    (dict(PLANE, loss="wgan"), "loss='wgan': must be one of minimax"),
    (dict(latent_dim=2), "gan: needs images or rows"),
    (dict(PLANE, optimizer={"generator": optax.sgd(1)}), "optimizer: of generator; give one for each"),
])
def test_mistakes(options, message):
  with pytest.raises(InputError, match=message):
    gan(**options)
