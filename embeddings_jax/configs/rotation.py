"""RotNet (Gidaris et al. 2018, arXiv:1803.07728): predicts the rotation of images.

Command: `python -m experiments.run --model=rotation [--preset=small --data_dir=DIR] [--data=FOLDER]`
Presets: `demo` digits at random places of 12 x 12 pixels, a minute on two cores; `tiny` for tests;
`small` CIFAR-10 as JPEG with a trunk of six convolutions, five to ten minutes on two cores; `paper` a ResNet-18 for
100 epochs of CIFAR-10.
Embeddings are those of the fourth block: the last ones know rotations best and classes less (the paper's table 1).
Expected: small with `--steps=350`, held-out rotations .732, kNN .532, linear probe .564, untrained .465 and .475,
pixels .363 and .414 (1 seed, 10 minutes beside other work). kNN by block on 10,000 training and 2,000 test images, 2
x 2 cells: .402 .432 .460 .492 .458 .347, the same network untrained .354 .389 .401 .420 .395 .390, pixels .339. demo:
rotations .901, linear probe .731, untrained .628 (1 seed, with a wider trunk). Isotropic noise of 24 x 24 pixels:
rotations .261, JPEG of quality 75 .268 after 250 updates, where three binomial errors of chance are .25 +- .029.
"""
import ml_collections

TRUNK = dict(name="convnet", channels=(32, 64, 64, 96, 96, 96), strides=(1, 2, 2, 1, 1, 1), norm_affine=True,
             image_size=0, pixel_mean=0.5, pixel_std=0.5, norm_decay=0.9, dtype="float32")
TINY = dict(TRUNK, channels=(4, 8), strides=(1, 2))


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict(dict(
      model=dict(encoder=dict(TRUNK), embed_layer="block_3", embed_grid=2),
      pipeline="images",
      data=dict(name="translated-digits", validation_fraction=0.1),
      optimizer=dict(name="adamw", learning_rate=2e-3, schedule="cosine", warmup_steps=50, weight_decay=1e-4),
      steps=600,
      batch_size=64,
      log_every=50,
      save_every=500,
      evals=("held_out", "knn", "linear_probe"),
      baselines=True,
  ))
  if preset == "tiny":
    config.model.encoder = dict(TINY)
    config.model.update(dict(embed_layer="", embed_grid=1))
    config.data.update(dict(name="digits"))
    config.update(dict(steps=20, batch_size=16, log_every=5, save_every=10, eval_items=200, baselines=False))
  elif preset == "small":
    config.data.update(dict(name="cifar10-jpeg", validation_fraction=0.02))
    config.optimizer.warmup_steps = 100
  elif preset == "paper":
    config.model.encoder = dict(name="resnet", dtype="bfloat16")
    config.model.update(dict(shift=4))
    config.data.update(dict(name="cifar10-jpeg", validation_fraction=0.02))
    config.optimizer = dict(name="sgd", learning_rate=0.1, schedule="cosine", warmup_fraction=0.02, momentum=0.9,
                            weight_decay=5e-4)
    config.update(dict(steps=0, epochs=100, batch_size=128, log_every=200, save_every=5000, baselines=False))
  return config
