"""Masked autoencoders: `transformers`' vectors, pixels, loss and gradients; masks; no leak; planted structure."""
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from networks import check_gradients, images, mae_params

from embeddings_jax.models.autoencoders.mae import Mae, mae
from embeddings_jax.nets.patches import fold, unfold
from embeddings_jax.ops.augment import augmented, compose, horizontal_flip, random_resized_crop
from embeddings_jax.ops.masking import patch_noise
from embeddings_jax.types import InputError

TINY = dict(patch_size=2, dim=24, num_layers=2, num_heads=3, mlp_dim=40, decoder_dim=16, decoder_layers=1,
            decoder_heads=2, decoder_mlp_dim=32)


def network_of(hyper, **others):
  """The modules alone."""
  trunk = {name: hyper[name] for name in ("patch_size", "dim", "num_layers", "num_heads", "mlp_dim")}
  return Mae(trunk | others, dict(dim=hyper["decoder_dim"], num_layers=hyper["decoder_layers"],
                                  num_heads=hyper["decoder_heads"], mlp_dim=hyper["decoder_mlp_dim"]))


def initial(model, batch):
  return jax.jit(model.init)(jax.random.key(0), batch)


@pytest.mark.parity
@pytest.mark.parametrize("rows,columns,channels,patch,ratio,norm_pix,heads", [
    (5, 3, 3, 4, 0.75, True, 3), (4, 4, 1, 2, 0.75, False, 2),
    pytest.param(3, 7, 1, 3, 0.5, True, 3, marks=pytest.mark.long),
    pytest.param(7, 6, 3, 2, 0.9, False, 1, marks=pytest.mark.long),
])
def test_vectors_pixels_loss_and_gradients_are_transformers(
    rows, columns, channels, patch, ratio, norm_pix, heads, tmp_path, monkeypatch):
  import torch
  from transformers import ViTMAEConfig, ViTMAEForPreTraining
  from transformers.models.vit_mae import modeling_vit_mae

  from embeddings_jax.interop import huggingface_vision

  # Theirs begins with square grids alone, and cuts square images alone, unless it is told to stretch positions.
  table = modeling_vit_mae.build_2d_sinusoidal_position_embedding
  monkeypatch.setattr(modeling_vit_mae, "build_2d_sinusoidal_position_embedding",
                      lambda height, width, **others: table(rows, columns, **others))
  torch.manual_seed(0)
  peer = ViTMAEForPreTraining(ViTMAEConfig(
      hidden_size=24, num_hidden_layers=2, num_attention_heads=heads, intermediate_size=40,
      image_size=(rows * patch, columns * patch), patch_size=patch, num_channels=channels, decoder_hidden_size=16,
      decoder_num_hidden_layers=2, decoder_num_attention_heads=2, decoder_intermediate_size=36, mask_ratio=ratio,
      norm_pix_loss=norm_pix, initializer_range=0.2)).eval()
  cut = peer.patchify
  peer.patchify = lambda pixels, **_: cut(pixels, interpolate_pos_encoding=True)
  with torch.no_grad():
    for place in (peer.vit.embeddings.position_embeddings, peer.decoder.decoder_pos_embed):
      # As checkpoints have them; a new decoder's are 0 (transformers 5.23). The column goes first.
      dim = place.shape[-1]
      place.copy_(table(rows, columns, dim, cls_token=True).roll(dim // 2, -1))
    for name, value in peer.named_parameters():
      if value.requires_grad and (name.endswith("bias") or "norm" in name or "token" in name):
        value += 0.1 * torch.randn_like(value)
  peer.save_pretrained(tmp_path / "weights")
  hyper, others, params, shape = huggingface_vision.read(tmp_path / "weights")
  assert shape == (rows * patch, columns * patch, channels) and hyper["positions"] == "sincos2d"
  params = jax.tree.map(jnp.asarray, params)

  noise = np.random.default_rng(1).random((6, rows * columns)).astype(np.float32)
  batch = images(6, *shape) | {"noise": jnp.asarray(noise)}
  pixels = torch.tensor(np.moveaxis(np.asarray(batch["image"], np.float32) / 255 * 2 - 1, -1, 1))
  actual = peer(pixel_values=pixels, noise=torch.tensor(noise))
  latent = peer.vit(pixel_values=pixels, noise=torch.tensor(noise)).last_hidden_state
  actual.loss.backward()

  order, visible = jnp.argsort(batch["noise"], 1), int(rows * columns * (1 - ratio))
  back = np.argsort(order, 1)
  with jax.default_matmul_precision("highest"):
    network = network_of(hyper | others, norm_epsilon=1e-12)

    def encoded(self, images, order):
      seen = jnp.take_along_axis(self.encoder.cut(images), order[..., None], 1)[:, :visible]
      return self.encoder(seen, (rows, columns), order[:, :visible])

    ours = jax.jit(lambda *given: network.apply({"params": params}, *given, method=encoded))(batch["image"], order)
    np.testing.assert_allclose(ours, latent.detach().numpy(), atol=1e-5)
    predicted, _ = jax.jit(lambda *given: network.apply({"params": params}, *given, visible, every=True))(
        batch["image"], order)
    np.testing.assert_allclose(np.take_along_axis(np.asarray(predicted), back[..., None], 1),
                               actual.logits.detach().numpy(), atol=1e-5)
    model = mae(**hyper, **others)
    state = initial(model, batch)
    assert jax.tree.structure(state.params) == jax.tree.structure(params)
    state = state._replace(params=params)
    mask = jax.jit(model.outputs["reconstruct"])(state, batch)["mask"]
    np.testing.assert_array_equal(mask, actual.mask.numpy())
    loss_of = lambda params: model.outputs["loss"](state._replace(params=params), batch)
    loss, gradients = jax.jit(jax.value_and_grad(loss_of))(params)
  assert float(loss) == pytest.approx(actual.loss.item(), rel=1e-6)

  with torch.no_grad():
    for value in peer.parameters():
      if value.requires_grad:
        value.copy_(value.grad)
  peer.save_pretrained(tmp_path / "gradients")
  check_gradients(gradients, huggingface_vision.read(tmp_path / "gradients")[2])


@pytest.mark.parametrize("norm_pix", [True, False])
def test_the_loss_by_a_loop(norm_pix):
  batch = images(3, 6, 8, 3) | {"mask": jnp.array([1.0, 0.0, 1.0])}
  batch["noise"] = jnp.asarray(np.random.default_rng(2).random((3, 12)), jnp.float32)
  model = mae(**TINY, norm_pix=norm_pix)
  state = initial(model, batch)
  order = np.argsort(batch["noise"], 1)
  predicted, _ = jax.jit(lambda order: network_of(TINY).apply(
      {"params": state.params}, batch["image"], order, 3, every=True))(jnp.asarray(order))
  errors, targets = [], []
  for i in (0, 2):
    for place in range(3, 12):
      row, column = divmod(int(order[i, place]), 4)
      patch = np.asarray(batch["image"])[i, 2 * row:2 * row + 2, 2 * column:2 * column + 2].astype(float).ravel()
      patch = patch / 255 * 2 - 1
      if norm_pix:
        patch = (patch - patch.mean()) / np.sqrt(((patch - patch.mean())**2).sum() / 11 + 1e-6)
      errors.append(np.mean((predicted[i, place] - patch)**2))
      targets.append(patch)
  assert float(jax.jit(model.outputs["loss"])(state, batch)) == pytest.approx(np.mean(errors), rel=1e-5)
  metrics = jax.jit(model.update)(state, batch, jax.random.key(0))[1]
  assert float(metrics["loss"]) == pytest.approx(np.mean(errors), rel=1e-5)
  assert float(metrics["unexplained"]) == pytest.approx(np.mean(errors) / np.var(targets, axis=0).mean(), rel=1e-5)


def test_hidden_pixels_are_not_seen():
  batch = images(2, 6, 8, 3)
  order = jnp.asarray(np.argsort(np.random.default_rng(0).random((2, 12)), 1))
  network = network_of(TINY)
  params = jax.tree.map(jnp.asarray, mae_params(TINY, 12, 3))

  def predicted(pixels):
    return network.apply({"params": params}, pixels, order, 3, every=True)[0]

  pixels = batch["image"] / 255.0
  weights = jax.random.normal(jax.random.key(0), (2, 12, 12))
  slope = jax.jit(jax.grad(lambda x: (weights * predicted(x)).sum()))(pixels)
  slope = np.take_along_axis(np.asarray(unfold(slope, 2)), np.asarray(order)[..., None], 1)
  assert (slope[:, 3:] == 0).all()
  assert (slope[:, :3] != 0).all()


def test_a_quarter_stays_in_every_picture():
  model, batch = mae(**TINY), images(64, 16, 16, 1)
  state = initial(model, batch)
  mask = np.asarray(jax.jit(model.outputs["reconstruct"])(state, batch)["mask"])
  assert (mask.sum(1) == 48).all()
  # Each patch is as likely as another, and no two images are masked alike.
  assert len(np.unique(mask, axis=0)) == 64
  noise = patch_noise(jax.random.key(3), "random", 4000, 8, 8)
  seen = (np.argsort(np.argsort(noise, 1), 1) < 16).mean(0)
  np.testing.assert_allclose(seen, 0.25, atol=5 * (0.25 * 0.75 / 4000)**0.5)


def hidden(masking, rows, columns, ratio, number=1, seed=0):
  """bool [number, rows, columns]."""
  noise = np.asarray(patch_noise(jax.random.key(seed), masking, number, rows, columns))
  place = np.argsort(np.argsort(noise, 1, kind="stable"), 1)
  return (place >= int(rows * columns * (1 - ratio))).reshape(number, rows, columns)


def test_masks_by_hand():
  # The upper part from the lower, and the later from the former; a row may be cut.
  np.testing.assert_array_equal(hidden("top", 4, 2, 0.75)[0], [[1, 1], [1, 1], [1, 1], [0, 0]])
  np.testing.assert_array_equal(hidden("top", 2, 4, 0.75)[0], [[1, 1, 1, 1], [1, 1, 0, 0]])
  np.testing.assert_array_equal(hidden("future", 4, 2, 0.75)[0], [[0, 0], [1, 1], [1, 1], [1, 1]])
  np.testing.assert_array_equal(hidden("future", 2, 4, 0.75)[0], [[0, 0, 1, 1], [1, 1, 1, 1]])
  # One of four, one of two, one of sixteen, evenly.
  row, column = np.mgrid[:8, :8]
  np.testing.assert_array_equal(hidden("grid", 8, 8, 0.75)[0], (row % 2 != 0) | (column % 2 != 0))
  np.testing.assert_array_equal(hidden("grid", 8, 8, 0.5)[0], (row + column) % 2 != 0)
  np.testing.assert_array_equal(hidden("grid", 8, 8, 0.9375)[0], (row % 4 != 0) | (column % 4 != 0))
  # Of 16 patches of even rows and columns 12 are left.
  shown = ~hidden("grid", 7, 7, 0.75)[0]
  assert shown.sum() == 12 and not shown[1::2].any() and not shown[:, 1::2].any()


def test_blocks_are_squares():
  masks = hidden("block", 12, 12, 0.25, number=50)
  assert (masks.sum((1, 2)) == 36).all()
  inner = 0
  for mask in masks:
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    # No hole: what lacks of a rectangle is a part of one row or column of it.
    assert (height - 1) * (width - 1) <= 36 <= height * width
    if min(rows[0], columns[0]) > 0 and max(rows[-1], columns[-1]) < 11:  # It is whole, and so as high as wide.
      inner += 1
      assert {height, width} <= {6, 7}
  assert inner > 5
  assert len(np.unique(masks, axis=0)) > 25


def test_reconstructions():
  batch = images(2, 6, 8, 3) | {"noise": jnp.asarray(np.random.default_rng(3).random((2, 12)), jnp.float32)}
  for norm_pix, mean, std in ((True, 0.5, 0.5), (False, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))):
    model = mae(**TINY, norm_pix=norm_pix, pixel_mean=mean, pixel_std=std)
    state = initial(model, batch)
    actual = jax.tree.map(np.asarray, jax.jit(model.outputs["reconstruct"])(state, batch))
    original = np.asarray(batch["image"], np.float32) / 255
    np.testing.assert_allclose(actual["original"], original, rtol=1e-6)
    masked = np.asarray(fold(jnp.asarray(np.repeat(actual["mask"][..., None], 12, 2)), 2, (6, 8, 3))) > 0
    np.testing.assert_array_equal(actual["masked"], np.where(masked, 0.5, actual["original"]))
    np.testing.assert_array_equal(actual["reconstructed"][~masked], actual["original"][~masked])
    order = jnp.argsort(batch["noise"], 1)
    network = network_of(TINY, pixel_mean=mean, pixel_std=std)
    patches = np.asarray(jax.jit(lambda order, network=network, state=state: network.apply(
        {"params": state.params}, batch["image"], order, 3, every=True)[0])(order))
    patches = np.take_along_axis(patches, np.argsort(order, 1)[..., None], 1)
    target = np.asarray(unfold(jnp.asarray((original - mean) / std), 2))
    if norm_pix:
      patches = patches * target.std(-1, ddof=1, keepdims=True) + target.mean(-1, keepdims=True)
    expected = np.clip(np.asarray(fold(jnp.asarray(patches), 2, (6, 8, 3))) * std + mean, 0, 1)
    np.testing.assert_allclose(actual["reconstructed"][masked], expected[masked], atol=1e-4)


def test_embeddings_are_of_the_whole_picture():
  batch = images(3, 6, 8, 1)
  state = initial(mae(**TINY), batch)
  layers = np.asarray(jax.jit(mae(**TINY).outputs["hidden"])(state, batch))
  assert layers.shape == (3, 3, 13, 24)
  np.testing.assert_allclose(jax.jit(mae(**TINY, pooling="cls").embed)(state, batch), layers[:, -1, 0], atol=1e-5)
  np.testing.assert_allclose(jax.jit(mae(**TINY, pooling="mean").embed)(state, batch), layers[:, -1, 1:].mean(1),
                             atol=1e-5)


def test_pictures_are_cropped_and_flipped_in_updates_alone():
  """The loss of an update is that of the images which the ops make with the update's second key."""
  batch = images(6, 8, 8, 1) | {"noise": jnp.asarray(np.random.default_rng(3).random((6, 16)), jnp.float32)}
  changed, plain = (mae(**TINY | options) for options in (dict(flip=True, min_scale=0.3), {}))
  state, rng = initial(changed, batch), jax.random.key(7)
  ops = compose(horizontal_flip(), random_resized_crop(8, scale=(0.3, 1.0), method="bicubic"))
  views = augmented(ops, jax.random.split(rng)[1], batch["image"])
  expected = jax.jit(plain.outputs["loss"])(state, batch | {"image": views})
  actual = jax.jit(changed.update)(state, batch, rng)[1]["loss"]
  assert float(actual) == pytest.approx(float(expected), rel=1e-5)
  still = [float(jax.jit(model.outputs["loss"])(state, batch)) for model in (changed, plain)]
  assert still[0] == still[1] and abs(still[0] - float(actual)) > 1e-4
  with pytest.raises(InputError, match="crops are square, the images have 6 x 8 pixels"):
    changed.update(state, images(2, 6, 8, 1), rng)


def test_learns_planted_structure():
  """Images are plane waves: what is hidden follows from what is seen."""
  rng = np.random.default_rng(0)
  row, column = np.mgrid[:12, :12]
  slope = rng.uniform(-0.6, 0.6, (512, 2, 1, 1))
  wave = np.sin(slope[:, 0] * row + slope[:, 1] * column + rng.uniform(0, 6, (512, 1, 1)))
  data = jnp.asarray(np.rint(127.5 * (1 + wave))[..., None], jnp.uint8)
  model = mae(patch_size=3, dim=32, num_layers=1, num_heads=2, decoder_dim=32, decoder_layers=1, decoder_heads=2,
              mask_ratio=0.5, norm_pix=False, optimizer=optax.adam(5e-3))
  state = initial(model, {"image": data})

  @jax.jit
  def steps(state):
    def step(state, rng):
      rows = jax.random.randint(rng, (64,), 0, 448)
      return model.update(state, {"image": data[rows]}, rng)
    return jax.lax.scan(step, state, jax.random.split(jax.random.key(1), 250))

  before = float(jax.jit(model.outputs["loss"])(state, {"image": data[448:]}))
  state, metrics = steps(state)
  after = float(jax.jit(model.outputs["loss"])(state, {"image": data[448:]}))
  assert before > 0.4 and after < 0.15
  assert float(metrics["unexplained"][-20:].mean()) < 0.3


@pytest.mark.long
def test_tensor_parallel_equals_one_device(mesh_of):
  from embeddings_jax.data.sources import array_source
  from embeddings_jax.train.loop import train

  source = array_source({"image": np.asarray(images(32, 8, 8, 1)["image"])}, 8)
  model = mae(**TINY | dict(num_layers=1, num_heads=2), optimizer=optax.adam(1e-3))
  losses = {}
  for spec in ("data:1", "data:2,fsdp:2,model:2"):
    actual = losses[spec] = []
    state = train(model, source, steps=6, mesh=mesh_of(spec), log_every=1,
                  write=lambda step, record, actual=actual: actual.append(record["loss"]))
  np.testing.assert_allclose(*losses.values(), rtol=1e-5)
  for part in ("encoder", "decoder"):
    spec = state.params[part]["layers"]["qkv"]["kernel"].sharding.spec
    assert tuple(spec)[:4] == (None, "fsdp", None, "model")


def test_fully_sharded_parameters_move_and_activations_do_not(mesh_of, monkeypatch):
  """Parameters are gathered and gradients added up, all else stays: 11 sums, where tensor parallelism needs 22."""
  from hlo import collectives
  from jax.sharding import NamedSharding
  from jax.sharding import PartitionSpec as P

  from embeddings_jax.ops.sharding import DATA_AXES
  from embeddings_jax.train import mesh as meshes

  monkeypatch.setattr(meshes, "FSDP_MIN_BYTES", 1 << 12)
  model = mae(patch_size=4, dim=64, num_layers=3, num_heads=4, mlp_dim=256, decoder_dim=32, decoder_layers=1,
              decoder_heads=2, decoder_mlp_dim=128, optimizer=optax.adam(1e-3))
  described = lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
  mesh = mesh_of("data:2,fsdp:4")
  with jax.set_mesh(mesh):
    batch = jax.tree.map(lambda x: described(x, NamedSharding(mesh, P(DATA_AXES))), images(64, 16, 16, 3))
    state = jax.eval_shape(model.init, jax.random.key(0), batch)
    layout = meshes.state_shardings(state, mesh, model.rules)
    update = jax.jit(model.update, out_shardings=(layout, None))
    moved = collectives(update.lower(jax.tree.map(described, state, layout), batch, jax.random.key(0)).compile())
  operations = [operation for operation, _ in moved]
  assert set(operations) <= {"all-gather", "all-reduce", "reduce-scatter"}
  assert 0 < operations.count("all-reduce") < 16


@pytest.mark.long
def test_the_decoder_in_parts_takes_the_same_step(mesh_of):
  batch = images(8, 8, 8, 1) | {"mask": jnp.array([1.0, 1, 1, 0, 1, 1, 1, 1])}

  def step(decoder_chunk, spec="data:1"):
    with jax.set_mesh(mesh_of(spec)):
      model = mae(**TINY, decoder_chunk=decoder_chunk, optimizer=optax.sgd(0.1))
      rows = jax.device_put(batch, jax.NamedSharding(mesh_of(spec), jax.P("data")))
      state = model.init(jax.random.key(0), rows)
      return jax.device_get(jax.jit(model.update)(state, rows, jax.random.key(1)))

  expected = step(0)
  for state, metrics in (step(3), step(8), step(1, "data:4")):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
                 (state.params, metrics), (expected[0].params, expected[1]))


def test_the_decoder_in_parts_needs_the_memory_of_one_part():
  def temporaries(decoder_chunk):
    model = mae(**TINY | dict(num_layers=1, decoder_layers=4), decoder_chunk=decoder_chunk)
    rows = images(64, 16, 16, 1)
    state = jax.eval_shape(model.init, jax.random.key(0), rows)
    return jax.jit(model.update).lower(state, rows, jax.random.key(0)).compile().memory_analysis().temp_size_in_bytes

  assert temporaries(8) < temporaries(0) / 2


def test_mistakes_are_named():
  for change, message in (
      (dict(masking="some"), "masking='some': must be one of random, block, grid, top, future"),
      (dict(mask_ratio=0.0), "mask_ratio=0.0: must lie between 0 and 1"),
      (dict(mask_ratio=1.0), "mask_ratio=1.0: must lie between 0 and 1"),
      (dict(pooling="max"), "pooling='max': must be one of cls, mean"), (dict(min_scale=0), "min_scale=0"),
      (dict(decoder_chunk=-1), "decoder_chunk=-1: must not be negative"),
      (dict(decoder_heads=3), "decoder_dim=16: must be a multiple of decoder_heads=3"),
      (dict(dim=25), "dim=25: must be a multiple of num_heads=3")):
    with pytest.raises(InputError, match=message):
      mae(**TINY | change)
  batch = images(2, 4, 6, 1)
  for change, message in (
      (dict(patch_size=4), "patch_size=4: does not divide images of 4 x 6 pixels"),
      (dict(mask_ratio=0.9), "mask_ratio=0.9: of 2 x 3 patches none stays visible"),
      (dict(mask_ratio=1e-20), "mask_ratio=1e-20: of 2 x 3 patches none is masked"),
      (dict(patch_size=1), "norm_pix: patches of one number")):
    with pytest.raises(InputError, match=message):
      initial(mae(**TINY | change), batch)
