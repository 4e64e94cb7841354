"""Forward and inverse models (Agrawal et al. 2016, arXiv:1606.07419; Pathak et al. 2017, arXiv:1705.05363).

Command: `python -m experiments.run --model=dynamics`
Presets: `demo` moving digits that are pushed by five actions, about a minute on two cores; `small` the same for
longer; `tiny` for tests; `paper` a ResNet-18 with three steps between frames.
Expected: demo, held-out error of the next frame .0025, by linear extrapolation .0064, by the frame before .0042,
with the actions of other windows .0049; sequences of two actions .422, chance .040 (1 seed, 239 seconds beside other
work).
"""
import ml_collections

from embeddings_jax.configs import order_verification


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  config = order_verification.get_config(preset)
  config.model = dict(encoder=config.model.encoder.to_dict(), num_steps_between=2, width=32, reach=5,
                      predictor_dims=(64,), forward_weight=1.0, inverse_weight=1.0, pixel_std=0.1, embed_layer="",
                      embed_grid=1)
  config.model.encoder.update(dict(channels=(32, 48), strides=(2, 1)))
  config.data.update(dict(name="moving-digits-actions", window=4, hop=1, actions=True, validation_fraction=0.15))
  config.update(dict(steps=400, batch_size=32))
  if preset == "tiny":
    config.model.encoder.update(dict(channels=(4,), strides=(4,)))
    config.model.update(dict(num_steps_between=1, width=4, reach=1, predictor_dims=(8,)))
    config.data.update(dict(window=3, hop=0, max_clips=16))
    config.update(dict(steps=20, batch_size=8))
  elif preset == "small":
    config.update(dict(steps=2000))
  elif preset == "paper":
    config.model.encoder = dict(name="resnet", depth=18, width=64, stem="cifar", dtype="bfloat16")
    config.model.update(dict(num_steps_between=3, width=256, predictor_dims=(1024,)))
    config.data.update(dict(window=5))
    config.update(dict(steps=100_000, batch_size=256))
  return config
