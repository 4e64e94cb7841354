"""Contrastive predictive coding of images (van den Oord et al. 2018, arXiv:1807.03748, section 3.2).

Command: `python -m experiments.run --model=cpc_images [--preset=small --data_dir=DIR] [--data=fashion-mnist]`
Presets: `demo` scikit-learn's digits, 3 x 3 patches of 4 x 4 pixels, a minute on two cores; `tiny` for tests; `small`
CIFAR-10 as JPEG, 7 x 7 patches of 8 x 8 as the paper's 64 x 64 of 256 x 256 (of Fashion-MNIST, 28 x 28, 6 x 6);
`paper` images of your own of 256 x 256 pixels, the paper's patches and rate, five rows predicted, an accelerator.
Expected: linear probe of the mean code, small: .474, the same network untrained .443, trained with labels for one
pass, too (`cpc_images_supervised`), .391 (1 seed); paper: ImageNet .487 (top 1, its table 3).
One update per dispatch, as for `cpc`.
"""
import ml_collections


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict(dict(
      factory="cpc",
      model=dict(inputs="images", patch_size=4, channels=(32, 64), kernel_sizes=(3, 3), strides=(1, 2),
                 context_dim=64, num_predictions=2),
      pipeline="images",
      data=dict(name="digits"),
      optimizer=dict(name="adam", learning_rate=2e-3, schedule="cosine", warmup_steps=50, clip_norm=1.0),
      steps=600,
      batch_size=32,
      log_every=50,
      save_every=300,
      evals=("linear_probe",),
      eval_items=0,
      baselines=True,
  ))
  if preset == "tiny":
    config.update(dict(model=dict(channels=(8, 8), context_dim=8), steps=20, batch_size=8, log_every=5, save_every=10,
                       eval_items=200, baselines=False))
  elif preset == "small":
    config.update(dict(
        model=dict(patch_size=8, channels=(32, 64, 128), kernel_sizes=(3, 3, 3), strides=(2, 1, 2), context_dim=128,
                   num_predictions=4),
        optimizer=dict(learning_rate=1e-3, warmup_steps=100), steps=1500, save_every=500))
    config.data.name = "cifar10-jpeg"
  elif preset == "paper":
    config.update(dict(
        model=dict(patch_size=64, channels=(64, 256, 512, 1024), kernel_sizes=(7, 3, 3, 3), strides=(4, 1, 2, 2),
                   context_dim=1024, num_predictions=5, norm=False),
        optimizer=dict(learning_rate=2e-4, schedule="constant", warmup_steps=0, clip_norm=0.0), steps=300_000,
        batch_size=512, log_every=100, save_every=5000, baselines=False))
    config.data.name = ""
  return config
