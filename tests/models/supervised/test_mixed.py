"""Mixed losses: a positive combination of the parts' own, over one trunk; with a task that has labels; bad input."""
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from embeddings_jax.gradient import GradientState
from embeddings_jax.models.language.bert import bert, encoder
from embeddings_jax.models.language.sequence_autoencoder import sequence_autoencoder
from embeddings_jax.models.pretext.rotation import rotation
from embeddings_jax.models.supervised.finetune import finetune
from embeddings_jax.models.supervised.mixed import mixed
from embeddings_jax.nets import convnet
from embeddings_jax.runs import build
from embeddings_jax.types import InputError

TRUNK = dict(vocab_size=30, dim=8, num_layers=1, num_heads=2, mlp_dim=12, max_length=9, dropout=0.0,
             attention_dropout=0.0)
IDS = dict(special_ids=(0, 1, 2, 3, 4), mask_id=4)
WEIGHTS = {"bert": 1.0, "sequence_autoencoder": 0.5, "finetune": 2.0}


def parts_of(*names):
  made = {"bert": lambda: bert(**TRUNK, **IDS),
          "sequence_autoencoder": lambda: sequence_autoencoder(encoder=encoder(**TRUNK), **IDS, cls_id=2, sep_id=3),
          "finetune": lambda: finetune(encoder=encoder(**TRUNK), task="classification", num_classes=3, dropout=0.0)}
  return {name: made[name]() for name in names}


def task_batch():
  tokens = np.random.default_rng(0).integers(5, 30, (4, 9)).astype(np.int32)
  tokens[:, 0], tokens[:, 8] = 2, 3
  return {"inputs": {"tokens": jnp.asarray(tokens)}, "targets": {"label": jnp.array([0, 1, 2, 1])},
          "mask": jnp.array([1.0, 1.0, 1.0, 0.0])}


def test_the_loss_is_the_weighted_sum_of_the_parts_own():
  """Each by itself, with the shared encoder and its own head, on the task's batch or its inputs."""
  parts, batch, rng = parts_of(*WEIGHTS), task_batch(), jax.random.key(5)
  model = mixed(encoder=encoder(**TRUNK), parts=parts, losses=WEIGHTS)
  state = jax.jit(model.init)(jax.random.key(0), batch)
  assert set(state.params) == {"encoder", *WEIGHTS} and not any("encoder" in state.params[name] for name in WEIGHTS)
  own = {name: GradientState(jnp.int32(0), {"encoder": state.params["encoder"], **state.params[name]},
                             state.extra[name], (), ()) for name in parts}
  rows = {name: batch if name == "finetune" else {**batch["inputs"], "mask": batch["mask"]} for name in parts}

  @jax.jit
  def losses(state, own, rows):
    alone = {name: parts[name].outputs["training_loss"](own[name], rows[name], key)
             for name, key in zip(sorted(parts), jax.random.split(rng, 3))}
    return alone, model.outputs["training_loss"](state, batch, rng), (
        model.outputs["predict"](state, batch), parts["finetune"].outputs["predict"](own["finetune"], batch))

  alone, whole, (predicted, expected) = losses(state, own, rows)
  assert float(whole) == pytest.approx(sum(WEIGHTS[name] * float(alone[name]) for name in WEIGHTS), rel=1e-5)
  np.testing.assert_allclose(predicted, expected, atol=1e-6)


def test_labels_and_a_pretext_task_share_a_trunk_with_running_statistics():
  """Each part has its own statistics of a batch; the running ones are those of upright images, `finetune`'s."""
  trunk, rng = convnet.encoder(channels=(4, 6), strides=(1, 2)), jax.random.key(5)
  weights = {"finetune": 1.0, "rotation": 0.5}
  parts = {"finetune": finetune(encoder=trunk, task="classification", num_classes=3, dropout=0.0, pooling="mean"),
           "rotation": rotation(encoder=trunk)}
  model = mixed(encoder=trunk, parts=parts, losses=weights, optimizer=optax.sgd(0.1))
  images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3)).astype(np.uint8)
  batch = {"inputs": {"image": jnp.asarray(images)}, "targets": {"label": jnp.array([0, 1, 2, 1, 0, 2])},
           "mask": jnp.ones(6)}
  state = model.init(jax.random.key(0), batch)

  @jax.jit
  def both(state):
    values = {}
    for (name, part), key in zip(sorted(parts.items()), jax.random.split(rng, 2)):
      params = {"encoder": state.params["encoder"], **state.params[name]}
      own = GradientState(jnp.int32(0), params, state.extra, (), ())
      rows = batch if name == "finetune" else {**batch["inputs"], "mask": batch["mask"]}
      values[name] = part.outputs["training_step"](own, rows, key)
    new, metrics = model.update(state, batch, rng)
    return values, new, metrics, model.embed(new, batch["inputs"])

  values, new, metrics, vectors = both(state)
  assert float(metrics["loss"]) == pytest.approx(sum(weights[name] * float(values[name][0]) for name in weights),
                                                 rel=1e-5)
  moved = [own["batch_stats"]["encoder"]["block_0"]["norm"]["mean"] for _, own in values.values()]
  actual = new.extra["batch_stats"]["encoder"]
  np.testing.assert_allclose(actual["block_0"]["norm"]["mean"], moved[0], rtol=1e-5)
  assert np.abs(moved[0] - moved[1]).max() > 1e-4  # `values` has sorted names: of upright and of rotated images.
  maps = trunk.apply({"params": new.params["encoder"], "batch_stats": actual}, batch["inputs"]["image"])
  np.testing.assert_allclose(vectors, maps.mean((1, 2)), rtol=1e-4, atol=1e-6)
  # The slope is that of the sum: a step of plain gradient descent lowers it.
  assert float(model.outputs["training_loss"](new, batch, rng)) < float(metrics["loss"])


def test_parts_are_built_from_a_config():
  facts = dict(vocab_size=30, num_segments=2, counts=np.ones(30), cls_id=2, sep_id=3, stop_ids=[], **IDS)
  options = dict(encoder=dict(name="bert", dim=8, num_layers=1, num_heads=2, mlp_dim=12, max_length=9),
                 losses={"bert": 1.0, "sequence_autoencoder": 0.5}, options={"bert": {"mask_rate": 0.3}})
  config = {"name": "mixed", "model": options, "optimizer": {"name": "sgd", "learning_rate": 0.1}}
  batch = task_batch()["inputs"]
  state = jax.eval_shape(build.make_model(config, facts, 5).init, jax.random.key(0), batch)
  assert set(state.params) == {"encoder", "bert", "sequence_autoencoder"}
  assert set(state.params["bert"]) == {"pooler", "masked", "next_sentence"}
  for change, message in (({"losses": {"bert": -1.0}}, "losses.bert=-1.0: must be above 0"),
                          ({"losses": {"gpt": 1.0}, "options": {}}, "model.losses.gpt: has a network of its own"),
                          ({"losses": {"sequence_autoencoder": 1.0}}, "options.bert: there is no such part")):
    with pytest.raises(InputError, match=message):
      build.make_model({**config, "model": {**options, **change}}, facts, 5)
