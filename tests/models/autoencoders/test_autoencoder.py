"""Autoencoders: the Wiener filter, the clean target, the Jacobian's norm, sparse and tied codes, torch's training."""
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import ndimage
from sklearn.datasets import load_digits

from embeddings_jax.models.autoencoders.autoencoder import autoencoder, jacobian_norm, keep_largest
from embeddings_jax.nets import convnet
from embeddings_jax.nets.pretext import layer_maps
from embeddings_jax.ops.corruption import corrupted
from embeddings_jax.ops.image_quality import ssim
from embeddings_jax.runs import pretrained
from embeddings_jax.types import InputError

DENSE = dict(height=4, width=3, channels=1, widths=(7,), strides=(), dim=5)
LINEAR = DENSE | dict(widths=(), dim=12, output_activation="linear")


def images(number, *shape, seed=0):
  return jnp.asarray(np.random.default_rng(seed).random((number, *shape)), jnp.float32)


def trained(model, x, steps, size=None):
  """The state after updates with batches of `size` random rows, or with all rows."""
  x = jnp.asarray(x)

  def update(state, step):
    first, second = jax.random.split(jax.random.fold_in(jax.random.key(1), step))
    rows = x if size is None else x[jax.random.choice(first, len(x), (size,))]
    return model.update(state, {"image": rows}, second)[0], None

  state = model.init(jax.random.key(0), {"image": x[:2]})
  return jax.jit(lambda state: jax.lax.scan(update, state, jnp.arange(steps))[0])(state)


def test_a_linear_denoising_autoencoder_is_the_wiener_filter():
  rng = np.random.default_rng(0)
  scale = np.where(np.arange(12) < 4, 0.2, 0.05)
  x = rng.normal(size=(512, 12)) * scale @ np.linalg.qr(rng.normal(size=(12, 12)))[0] + 0.5
  x = np.clip(np.tile(x, (4, 1)), 0, 1).astype(np.float32)
  noise, steps = 0.1, 1000
  model = autoencoder(**LINEAR, corruption="gaussian", corruption_level=noise,
                      optimizer=optax.contrib.muon(optax.cosine_decay_schedule(2e-2, steps)))
  state = trained(model, x.reshape(-1, 4, 3, 1), steps)
  covariance = np.cov(x.T, bias=True)
  wiener = covariance @ np.linalg.inv(covariance + noise**2 * np.eye(12))
  decode, embed = model.outputs["decode"], model.embed
  read = lambda x: decode(state, embed(state, {"image": x.reshape(-1, 4, 3, 1)})).reshape(-1, 12)
  origin, actual = jax.jit(lambda: (read(jnp.zeros(12))[0], read(jnp.eye(12))))()
  actual = np.asarray(actual - origin).T
  assert np.linalg.norm(actual - wiener) < 1e-2 * np.linalg.norm(wiener)
  np.testing.assert_allclose(origin, x.mean(0) @ (np.eye(12) - wiener), atol=1e-2)


@pytest.mark.parametrize("kind,level", [("gaussian", 0.3), ("masking", 0.5), ("salt_and_pepper", 0.4)])
def test_the_target_is_the_clean_image(kind, level):
  """The loss is that of the clean image and the reconstruction of the corrupted one, in value and in gradient."""
  model = autoencoder(**DENSE, corruption=kind, corruption_level=level)
  x, rng = images(6, 4, 3, 1), jax.random.key(3)
  state = model.init(jax.random.key(0), {"image": x})
  read = lambda x: model.outputs["decode"](state, model.embed(state, {"image": x}))
  seen = corrupted(rng, x, kind, level)
  by_hand = lambda clean, seen: jnp.square(clean - read(seen)).mean()
  loss, slope = jax.value_and_grad(lambda x: model.outputs["training_loss"](state, {"image": x}, rng))(x)
  assert float(loss) == pytest.approx(float(by_hand(x, seen)), rel=1e-5)
  through = jax.vjp(lambda x: corrupted(rng, x, kind, level), x)[1](jax.grad(by_hand, 1)(x, seen))[0]
  np.testing.assert_allclose(slope, 2 * (x - read(seen)) / x.size + through, atol=1e-7)


def test_of_wholly_masked_images_the_gradient_flows_to_the_target_alone():
  model = autoencoder(**DENSE, corruption="masking", corruption_level=1.0)
  x = images(6, 4, 3, 1)
  state = model.init(jax.random.key(0), {"image": x})
  blank = model.outputs["decode"](state, model.embed(state, {"image": jnp.zeros_like(x)}))
  slope = jax.grad(lambda x: model.outputs["training_loss"](state, {"image": x}, jax.random.key(1)))(x)
  np.testing.assert_allclose(slope, 2 * (x - blank) / x.size, atol=1e-7)


@pytest.mark.parametrize("activation", ["linear", "sigmoid"])
def test_the_penalty_is_that_of_jacfwd(activation):
  x, options = images(3, 4, 3, 1), DENSE | dict(code_activation=activation)
  plain, penalized = autoencoder(**options), autoencoder(**options, contraction=0.7)
  state = plain.init(jax.random.key(0), {"image": x})

  @jax.jit
  def both(state):
    jacobian = jax.vmap(jax.jacfwd(lambda x: plain.embed(state, {"image": x[None]})[0]))(x)
    losses = [model.outputs["training_loss"](state, {"image": x}, jax.random.key(0)) for model in (plain, penalized)]
    actual = jacobian_norm(lambda x: plain.embed(state, {"image": x}), x)
    return jnp.square(jacobian).sum((1, 2, 3, 4)), actual, losses

  expected, found, losses = both(state)
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  assert float(losses[1] - losses[0]) == pytest.approx(0.7 * float(expected.mean()), rel=1e-4)


def test_the_penalty_of_convolutions_is_that_of_finite_differences():
  model = autoencoder(height=4, width=4, channels=1, widths=(3,), strides=(2,), dim=2)
  x = images(1, 4, 4, 1)
  state = model.init(jax.random.key(0), {"image": x})
  embed = jax.jit(lambda x: model.embed(state, {"image": x}))
  shifted = x + 1e-2 * jnp.eye(16).reshape(16, 4, 4, 1)
  slopes = (embed(shifted) - embed(x)) / 1e-2
  actual = jax.jit(lambda x: jacobian_norm(embed, x))(x)
  np.testing.assert_allclose(actual, jnp.square(slopes).sum(), rtol=2e-2)


def test_sparse_codes_keep_the_largest_units():
  codes = jnp.array([[3.0, -9, 1, 2], [-1, -2, -3, -4], [5, 5, 5, 5]])
  np.testing.assert_array_equal(keep_largest(codes, 2), [[3, 0, 0, 2], [-1, -2, 0, 0], [5, 5, 0, 0]])
  model = autoencoder(**DENSE, top_k=2)
  state = model.init(jax.random.key(0), {"image": images(9, 4, 3, 1)})
  assert (jnp.count_nonzero(model.embed(state, {"image": images(9, 4, 3, 1)}), axis=1) == 2).all()


def test_dead_units_are_counted_once_they_have_been_idle():
  model = autoencoder(**DENSE, code_activation="relu", dead_after=3, optimizer=optax.sgd(0.0))
  batch = {"image": images(40, 4, 3, 1)}
  state = model.init(jax.random.key(0), batch)
  bias = jnp.array([3.0, -100, 3, -100, 3])  # The second and the fourth unit are 0 for all images.
  state.params["encoder"]["code"]["bias"] = bias
  shares = []
  for step in range(4):
    state, metrics = jax.jit(model.update)(state, batch, jax.random.key(step))
    shares.append(float(metrics["dead_units"]))
  np.testing.assert_allclose(shares, [0, 0, 0.4, 0.4])
  state.params["encoder"]["code"]["bias"] = bias.at[1].set(3.0)
  assert float(jax.jit(model.update)(state, batch, jax.random.key(9))[1]["dead_units"]) == pytest.approx(0.2)


def test_tied_decoders_are_transposed_encoders():
  model, free = (autoencoder(**DENSE | dict(widths=(7, 6)), tied=tied) for tied in (True, False))
  x = images(4, 4, 3, 1)
  state = model.init(jax.random.key(0), {"image": x})
  encoder, own = state.params["encoder"], state.params["decoder"]
  assert {name: list(layer) for name, layer in own.items()} == {
      "dense_0": ["bias"], "dense_1": ["bias"], "pixels": ["bias"]}
  kernels = {"dense_0": encoder["code"], "dense_1": encoder["dense_1"], "pixels": encoder["dense_0"]}
  decoder = {name: {"kernel": layer["kernel"].T, "bias": own[name]["bias"] + 0.1} for name, layer in kernels.items()}
  tied = state._replace(params={"encoder": encoder, "decoder": jax.tree.map(lambda b: b + 0.1, own)})
  untied = state._replace(params={"encoder": encoder, "decoder": decoder})
  np.testing.assert_allclose(model.outputs["reconstruct"](tied, {"image": x})["reconstructed"],
                             free.outputs["reconstruct"](untied, {"image": x})["reconstructed"], rtol=1e-6)


def test_losses_are_nats_per_image_and_means_over_valid_rows():
  x = images(4, 12, 12, 1)
  options = dict(height=12, width=12, channels=1, widths=(), strides=(), dim=2)
  batch = {"image": x, "mask": jnp.array([1.0, 1, 0, 1])}
  for loss in ("squared", "bernoulli", "ssim"):
    model = autoencoder(**options, loss=loss)
    state = model.init(jax.random.key(0), batch)
    back = np.asarray(model.outputs["reconstruct"](state, batch)["reconstructed"], np.float64)[[0, 1, 3]]
    clean = np.asarray(x, np.float64)[[0, 1, 3]]
    expected = {"squared": np.square(clean - back).mean(),
                "ssim": 1 - float(ssim(*map(jnp.float32, (clean, back))).mean()),
                "bernoulli": -(clean * np.log(back) + (1 - clean) * np.log1p(-back)).sum() / 3}[loss]
    assert float(model.outputs["loss"](state, batch)) == pytest.approx(expected, rel=1e-5)
    total, count = model.outputs["measures"](state, batch)["reconstruction_loss"]
    assert count == 3 and float(total / count) == pytest.approx(expected, rel=1e-5)


def test_structure_of_two_factors_is_found():
  """Images that depend on two numbers, a bump's place: codes of 2 leave a tenth of what two components do."""
  place = np.random.default_rng(0).random((400, 2)) * 4 + 1.5
  rows, columns = np.mgrid[:8, :8]
  x = np.exp(-0.5 * ((rows - place[:, :1, None])**2 + (columns - place[:, 1:, None])**2)).astype(np.float32)
  centered = x.reshape(400, -1) - x.reshape(400, -1).mean(0)
  left = (np.linalg.svd(centered, compute_uv=False)[2:] ** 2).sum() / x.size
  steps = 1500
  model = autoencoder(height=8, width=8, channels=1, dim=2, widths=(64, 64), strides=(),
                      optimizer=optax.adam(optax.cosine_decay_schedule(3e-3, steps)))
  state = trained(model, x[..., None], steps, 100)
  assert float(model.outputs["loss"](state, {"image": jnp.asarray(x[..., None])})) < 0.1 * left


@pytest.mark.parity
@pytest.mark.long
def test_200_updates_of_the_book_s_table_are_torch_s():
  import torch
  from nets.test_images import from_torch, torch_networks

  digits = ndimage.zoom(load_digits().images[:1000] / 16, (1, 3.5, 3.5), order=1)[..., None].astype(np.float32)
  order = np.random.default_rng(0).integers(0, 1000, (200, 8))
  theirs, model = torch_networks(torch), autoencoder(height=28, width=28, channels=1)
  state = model.init(jax.random.key(0), {"image": jnp.asarray(digits[:2])})._replace(params=from_torch(*theirs))
  optimizer = torch.optim.Adam([*theirs[0].parameters(), *theirs[1].parameters()], 5e-4)
  expected, actual, update = [], [], jax.jit(model.update)
  for rows in order:
    pixels = torch.tensor(digits[rows].transpose(0, 3, 1, 2))
    optimizer.zero_grad()
    loss = ((torch.sigmoid(theirs[1](theirs[0](pixels))) - pixels) ** 2).mean()
    loss.backward()
    optimizer.step()
    expected.append(loss.item())
  for rows in order:
    state, metrics = update(state, {"image": jnp.asarray(digits[rows])}, jax.random.key(0))
    actual.append(float(metrics["loss"]))
  assert np.mean(expected[-20:]) < 0.5 * expected[0]
  np.testing.assert_allclose(actual[-20:], expected[-20:], rtol=1e-2)


@pytest.mark.parametrize("options,message", [
    (dict(strides=(2, 3), widths=(4, 4)), "do not divide images of 4 x 3"),
    (dict(loss="absolute"), "loss='absolute': must be one of squared"),
    (dict(loss="bernoulli", output_activation="linear"), "needs probabilities"),
    (dict(top_k=6), "top_k=6: must be from 0"),
    (dict(tied=True, strides=(1,), widths=(3,)), "needs dense networks"),
    (dict(corruption="masking", corruption_level=1.5), "at most 1; for masking it is the fraction"),
    (dict(corruption="blur"), "must be one of none, gaussian"),
    (dict(contraction=-1.0), "contraction=-1.0"),
])
def test_bad_options_are_one_line(options, message):
  with pytest.raises(InputError, match=message):
    autoencoder(**DENSE | options)


def test_pixels_outside_0_and_1_are_refused():
  model = autoencoder(**DENSE, loss="bernoulli")
  with pytest.raises(InputError, match="floats from 0 to 3"):
    model.init(jax.random.key(0), {"image": jnp.array([0.0, 3.0]).repeat(6).reshape(1, 4, 3, 1)})


def test_a_perceptual_loss_is_the_distance_of_the_features_of_a_frozen_trunk():
  trunk = convnet.encoder(channels=(3, 4), strides=(1, 2))
  model = autoencoder(height=8, width=8, channels=1, dim=3, widths=(4, 4), strides=(2, 2), loss="perceptual",
                      encoder=trunk, layer="block_0", optimizer=optax.sgd(0.1))
  batch = {"image": jax.random.uniform(jax.random.key(3), (4, 8, 8, 1))}
  state = model.init(jax.random.key(0), batch)
  variables = {"params": state.extra["features"]["encoder"], "batch_stats": state.extra["batch_stats"]["encoder"]}
  maps = [layer_maps(trunk, variables, {"image": model.outputs["reconstruct"](state, batch)[name]})["block_0"]
          for name in ("original", "reconstructed")]
  expected = float(np.square(maps[0] - maps[1]).mean())
  assert float(model.outputs["loss"](state, batch)) == pytest.approx(expected, rel=1e-5) and expected > 1e-4
  new, metrics = model.update(state, batch, jax.random.key(1))
  assert float(metrics["loss"]) == pytest.approx(expected, rel=1e-5)
  assert float(model.outputs["loss"](new, batch)) < expected
  for name in ("features", "batch_stats"):
    jax.tree.map(np.testing.assert_array_equal, new.extra[name], state.extra[name])
  # Those of a run take the place of the random ones.
  params = jax.tree.map(lambda x: x + 1, state.extra["features"])
  given = pretrained.Pretrained(*[None] * len(pretrained.Pretrained._fields))._replace(
      name="convnet", path="p", params=params, statistics=state.extra["batch_stats"])
  begun = pretrained.initial(given, lambda line: None)(state)
  jax.tree.map(np.testing.assert_array_equal, begun.extra["features"], params)
  jax.tree.map(np.testing.assert_array_equal, begun.params, state.params)


@pytest.mark.parametrize("options, message", [
    (dict(loss="perceptual"), "loss='perceptual': needs an encoder, the trunk whose features"),
    (dict(encoder=convnet.encoder()), "loss='squared': compares no features; leave the encoder out"),
    (dict(loss="perceptual", encoder=convnet.encoder(), layer="block_9"), "layer='block_9': must be one of block_0"),
])
def test_trunks_of_perceptual_losses_that_do_not_fit(options, message):
  with pytest.raises(InputError, match=message):
    model = autoencoder(height=8, width=8, channels=1, widths=(4, 4), strides=(2, 2), **options)
    batch = {"image": jnp.zeros((2, 8, 8, 1))}
    model.outputs["loss"](model.init(jax.random.key(0), batch), batch)
