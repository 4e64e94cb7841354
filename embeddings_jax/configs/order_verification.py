"""Order verification (Misra et al. 2016, arXiv:1603.08561): tells whether three frames are in the order of time.

Command: `python -m experiments.run --model=order_verification [--preset=small --data_dir=DIR] [--data=VIDEOS]`
Presets: `demo` moving digits of 32 x 32 pixels, about a minute on two cores; `tiny` for tests; `small` four real
clips of 48 x 64 pixels, one of them held out, a smoke run; `paper` a ResNet-18 on your own videos of 224 x 224
pixels (the paper's: CaffeNet on UCF101).
Sorting the frames of a clip: `python -m experiments.order --workdir=W --input=CLIP`.
Without `center` objects are hardly told from the photograph in this time (.606).
Expected: demo, held-out balanced accuracy .893, untrained .500; eight frames of each of 16 test clips are sorted with
a mean |tau| of .915 (1 seed, 156 seconds beside other work).
"""
import ml_collections

TRUNK = dict(name="convnet", channels=(24, 32, 48, 48), strides=(2, 1, 2, 1), norm_affine=True, image_size=0,
             pixel_mean=0.5, pixel_std=0.5, norm_decay=0.9, dtype="float32")
TINY = dict(TRUNK, channels=(4,), strides=(4,))


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict(dict(
      model=dict(encoder=dict(TRUNK), span=10, triples=12, invalid_fraction=0.75, center=True,
                 projector_dims=(128,), predictor_dims=(128,), grid=4, embed_layer="", embed_grid=1),
      pipeline="clips",
      data=dict(name="moving-digits", image_size=0, channels=0, every=1, max_clips=0, window=12, stride=1, hop=0,
                jitter=True, actions=False, validation_fraction=0.15),
      optimizer=dict(name="adamw", learning_rate=2e-3, schedule="cosine", warmup_steps=50, weight_decay=1e-3),
      steps=400,
      batch_size=32,
      steps_per_dispatch=1,
      log_every=50,
      save_every=500,
      evals=("held_out",),
      eval_items=0,
      baselines=True,
  ))
  if preset == "tiny":
    config.model.encoder = dict(TINY)
    config.model.update(dict(span=6, triples=2, projector_dims=(8,), predictor_dims=(8,), grid=2))
    config.data.update(dict(max_clips=24, window=7))
    config.update(dict(steps=20, batch_size=8, log_every=5, save_every=10, baselines=False))
  elif preset == "small":
    config.data.update(dict(name="video-clips", window=16, hop=4, validation_fraction=0.25))
    config.update(dict(steps=100, batch_size=8, baselines=False))
  elif preset == "paper":
    config.model.encoder = dict(name="resnet", depth=18, width=64, stem="imagenet", dtype="bfloat16")
    config.model.update(dict(span=0, projector_dims=(1024,), predictor_dims=(1024,), grid=2))
    config.data.update(dict(name="", image_size=224, window=32))
    config.optimizer = dict(name="sgd", learning_rate=0.01, schedule="cosine", warmup_fraction=0.02, momentum=0.9,
                            weight_decay=5e-4)
    config.update(dict(steps=100_000, batch_size=128, log_every=200, save_every=5000, baselines=False))
  return config
