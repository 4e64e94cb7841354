"""Context encoders: the players' gradients, the losses by hand, and holes that can be filled."""
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from networks import images

from embeddings_jax.models.pretext.context_encoder import context_encoder, hole_error
from embeddings_jax.nets import convnet
from embeddings_jax.types import InputError

SMALL = dict(bottleneck="channelwise", decoder_channels=(8, 8), discriminator_channels=(4, 4), overlap=0)


def trunk():
  return convnet.encoder(channels=(4, 8), strides=(1, 2))


def test_errors_weigh_the_overlap_ten_times():
  rng = np.random.default_rng(0)
  x, y = rng.random((2, 2, 4, 4, 3)).astype(np.float32)
  masks, hidden = np.zeros((2, 2, 4, 4), np.float32)
  masks[:, 1:4, 0:3], hidden[:, 2:4, 0:2] = 1, 1
  expected = []
  for i in range(2):
    cells = [(10 - 9 * hidden[i, r, c], ((x[i, r, c] - y[i, r, c]) ** 2).mean())
             for r in (1, 2, 3) for c in (0, 1, 2)]
    expected.append(sum(w * e for w, e in cells) / sum(w for w, _ in cells))
  np.testing.assert_allclose(hole_error(*map(jnp.asarray, (x, y, masks, hidden))), expected, rtol=1e-5)


def test_each_player_moves_by_its_own_loss_and_optimizer():
  """With a rate of 0 for the other, a player's step is that of its loss alone."""
  batch = images(4, 8, 8, 3)
  still = optax.sgd(0.0)
  grads = {}
  for player in ("generator", "discriminator"):
    both = {name: optax.sgd(1.0) if name == player else still for name in ("generator", "discriminator")}
    model = context_encoder(encoder=trunk(), **SMALL, adversarial_weight=0.5, optimizer=both)
    state = jax.jit(model.init)(jax.random.key(0), batch)
    new, metrics = jax.jit(model.update)(state, batch, jax.random.key(1))
    grads[player] = jax.tree.map(lambda old, new: np.asarray(old - new), state.params, new.params)
    moves = {name: max(np.abs(x).max() for x in jax.tree.leaves(part)) for name, part in grads[player].items()}
    assert (moves.pop("discriminator") > 1e-4) == (player == "discriminator")
    assert (min(moves.values()) > 1e-7) == (player == "generator")
  np.testing.assert_allclose(metrics["loss"], 0.5 * metrics["reconstruction_loss"] + 0.5 * metrics["adversarial_loss"]
                             + metrics["discriminator_loss"], rtol=1e-5)

  # A step along the discriminator's gradient lowers its loss and not the generator's.
  def told(scale):
    moved = jax.tree.map(lambda x, g: x - scale * g, state.params["discriminator"],
                         grads["discriminator"]["discriminator"])
    again = state._replace(params={**state.params, "discriminator": moved})
    return jax.jit(model.update)(again, batch, jax.random.key(1))[1]

  after = told(0.05)
  assert after["discriminator_loss"] < metrics["discriminator_loss"]
  assert after["adversarial_loss"] > metrics["adversarial_loss"]


def test_holes_are_drawn_anew_for_each_image_and_step():
  model = context_encoder(encoder=trunk(), **SMALL | dict(hole="region", adversarial_weight=0.0))
  batch = images(4, 8, 8, 3)
  state = model.init(jax.random.key(0), batch)
  assert "discriminator" not in state.params
  actual = [np.asarray(model.outputs["draws"](state, batch, jax.random.key(step))["holes"]) for step in range(2)]
  assert len({mask.tobytes() for masks in actual for mask in masks}) == 8


@pytest.mark.parametrize("bottleneck", [pytest.param("dense", marks=pytest.mark.long), "channelwise"])
def test_stripes_are_continued_into_the_hole(bottleneck):
  """Columns of one gray each: what is above and below tells what is in the middle."""
  def stripes(seed, n):
    return {"image": jax.random.uniform(jax.random.key(seed), (n, 1, 8, 1)).repeat(8, 1)}

  model = context_encoder(encoder=trunk(), **SMALL | dict(bottleneck=bottleneck, bottleneck_dim=64,
                                                          adversarial_weight=0.001),
                          optimizer={"generator": optax.adam(1e-2), "discriminator": optax.adam(1e-3)})
  state, update = jax.jit(model.init)(jax.random.key(0), stripes(0, 32)), jax.jit(model.update)
  for step in range(150):
    state, _ = update(state, stripes(step, 32), jax.random.key(step))
  held_out = stripes(999, 64)
  actual = {name: float(total / count)
            for name, (total, count) in jax.jit(model.outputs["measures"])(state, held_out).items()}
  assert actual["pretext_loss"] < 0.5 / 12  # The variance is 1/12.
  # Up and down the true jump is 0.
  assert 0 < actual["border_loss"] < 2 * actual["true_border_loss"]
  shown = jax.jit(model.outputs["reconstruct"])(state, held_out)
  outside = shown["mask"] == 0
  np.testing.assert_array_equal(shown["reconstructed"][outside], shown["original"][outside])
  assert (shown["masked"][~outside] == 0.5).all()


def test_bad_input_is_refused():
  with pytest.raises(InputError, match="map of 4 x 4 places, doubled 2 times, is no image of 8 x 8"):
    context_encoder(encoder=trunk(), **SMALL | dict(decoder_channels=(4, 4, 4))).init(jax.random.key(0),
                                                                                    images(2, 8, 8, 3))
  for options, message in ((dict(bottleneck="narrow"), "narrow"), (dict(hole="ring"), "ring"),
                           (dict(optimizer={"generator": optax.sgd(1.0)}), "give one for each of")):
    with pytest.raises(InputError, match=message):
      context_encoder(encoder=trunk(), **SMALL | options)
