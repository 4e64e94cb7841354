"""Tracking by colorization (Vondrick et al. 2018, arXiv:1806.09594): copies colors from earlier frames.

Command: `python -m experiments.run --model=video_colorization [--preset=small --data_dir=DIR] [--data=VIDEOS]`
Presets: `demo` moving digits of 32 x 32 pixels, features of 16 x 16 places, about a minute on two cores; `tiny` for
tests; `small` four real clips of 48 x 64 pixels, one of them held out, a smoke run; `paper` a trunk of stride 8 on
your own videos of 256 x 256 pixels, three references.
Masks carried along: the evaluation `propagation`.
Expected: demo, held-out colors .911 (those at the same place of the frame before .861). Masks on test clips, J: .439,
untrained .233, the first mask kept .115, pixels in gray, as the network sees them, .265, in color .698: objects of
these clips keep a color of their own. F .653, untrained .458; points .699, untrained .600 (1 seed, 192 seconds beside
other work). Segmentation, mean IoU of three clusters: .182, untrained .169, colors of the pixels .206, where nothing
but background has .293: clusters follow the textures of the photographs.
"""
import ml_collections

from embeddings_jax.configs import order_verification


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  config = order_verification.get_config(preset)
  config.model = dict(encoder=config.model.encoder.to_dict(), feature_dim=64, hidden_dims=(), num_colors=16,
                      temperature=0.05, block=0, embed_layer="", embed_grid=1)
  config.data.update(dict(window=4, stride=2))
  config.evals = ("held_out", "propagation", "segmentation")
  if preset == "demo":
    config.model.encoder.update(dict(channels=(32, 48, 64), strides=(2, 1, 1)))
    config.update(dict(steps=300, batch_size=16))
  elif preset == "tiny":
    config.model.update(dict(feature_dim=8, num_colors=2, temperature=0.5, block=5))
    config.data.update(dict(window=3, max_clips=16))
  elif preset == "small":
    config.model.encoder.update(dict(channels=(32, 48, 64), strides=(2, 1, 1)))
    config.model.update(dict(block=192))
    config.evals = ("held_out", "reconstruction")
  elif preset == "paper":
    config.model.encoder.update(dict(stem="cifar"))
    config.model.update(dict(block=256))
    config.data.update(dict(image_size=256, stride=4))
    config.optimizer = dict(name="adamw", learning_rate=1e-3, schedule="cosine", warmup_fraction=0.02,
                            weight_decay=1e-4)
    config.update(dict(steps=400_000, batch_size=32))
  return config
