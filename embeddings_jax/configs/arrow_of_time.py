"""Arrow of time (Pickup et al. 2014; Wei et al. 2018): tells whether a video runs forwards or backwards.

Command: `python -m experiments.run --model=arrow_of_time [--preset=small --data_dir=DIR] [--data=VIDEOS]`
Presets: `demo` moving digits with gravity and friction, about a minute on two cores; `tiny` for tests; `small` four
real clips of 48 x 64 pixels, one of them held out, a smoke run; `paper` a ResNet-18 on your own videos.
The control, video that obeys the same law backwards: `--data=moving-digits-reversible`.
Expected: demo, held-out accuracy .995, untrained .500; of the reversible video .531, where three binomial errors of
96 windows are .5 +- .153 (1 seed).
"""
import ml_collections

from embeddings_jax.configs import order_verification


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  config = order_verification.get_config(preset)
  config.model = dict(encoder=config.model.encoder.to_dict(), inputs="differences", segment=4, segment_stride=2,
                      border=0, stabilize=False, embed_layer="", embed_grid=1)
  if preset == "demo":
    config.data.update(dict(window=13))
    config.update(dict(steps=100))
  elif preset == "tiny":
    config.model.update(dict(segment=2, border=2, stabilize=True))
    config.data.update(dict(window=5))
  elif preset == "small":
    config.model.update(dict(border=2, stabilize=True))
  elif preset == "paper":
    config.model.update(dict(segment=10, segment_stride=10, border=8, stabilize=True))
    config.data.update(dict(window=41))
  return config
