"""SimCLR (Chen et al. 2020, arXiv:2002.05709): images by contrast of two views.

Command: `python -m experiments.run --model=simclr [--preset=small --data_dir=DIR] [--data=fashion-mnist|FOLDER]`
Presets: `demo` digits at random places of 12 x 12 pixels, two minutes on two cores; `tiny` for tests; `small`
CIFAR-10 as JPEG, 10 passes by a ResNet-8 of width 32 on views of 16 x 16 pixels, some 20 minutes on two cores;
`paper` a ResNet-18 with the paper's recipe for CIFAR-10 (appendix B.9), 200 passes, 6 minutes on an H200
(convolutions of bfloat16, which take half the time of float32).
Two frames of one clip for the two views: `--config.pipeline=frame_pairs --config.data.name=moving-digits|VIDEOS`.
The network of `small`: on two cores a stage of 2 x 2 places costs as much as one of 16 x 16, so it has three stages;
a wider or deeper one sees too few images in that time. Images are shrunk to the views' size to be embedded.
Expected: small, kNN .582 (k = 200: .547), linear probe .594; the best of three such untrained .384 (.373) and .379,
pixels (`experiments.evaluate --features=pixels`) .363 (.309) and .414 (1 seed, 28 minutes, half of them beside other
work); Fashion-MNIST, which it has not seen (`experiments.evaluate --workdir=W --protocols=knn:fashion-mnist`): kNN
.844 (.804), pixels .846. small on Fashion-MNIST itself (`--config.data.name=fashion-mnist`, 1 seed, 41 minutes, 11 of
them stopped and most beside other work): kNN .850 (.818), linear probe .867; untrained .814 (.772) and .789, pixels
.846 and .843. paper: kNN .790 (k = 200: .769; 1 seed), where lightly's ResNet-18 has .848 (k = 200, the best pass)
after 200 passes of batch 512 on the original images: ours are JPEG copies with half the resolution of colors.
demo, digits at random places: linear probe .864, with 5 labels a class .679; untrained .333 and .169, pixels .331 and
.179 (1 seed).
"""
import ml_collections


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  # A mirrored digit is another sign, but the views have to agree on what else it is.
  config = ml_collections.ConfigDict(dict(
      model=dict(
          encoder=dict(name="resnet", depth=8, width=16),
          projector_dims=(64, 64), temperature=0.2, augmentation="simclr", strength=0.5, blur=False, min_scale=0.4,
          chunk_size=0),
      pipeline="images",
      data=dict(name="translated-digits"),
      optimizer=dict(name="adamw", learning_rate=2e-3, schedule="cosine", warmup_steps=50, weight_decay=1e-4),
      steps=600,
      batch_size=128,
      log_every=50,
      save_every=500,
      evals=("linear_probe", "few_shot"),
      eval_items=0,
      baselines=True,
  ))
  if preset == "tiny":
    config.data.name = "digits"
    config.model.encoder = dict(name="convnet", channels=(4, 8), strides=(1, 2))
    config.update(dict(model=dict(projector_dims=(8, 8)), steps=20, batch_size=16, log_every=5, save_every=10,
                       eval_items=200, baselines=False))
  elif preset == "small":
    config.model.encoder.update(dict(width=32, image_size=16))
    config.model.update(dict(projector_dims=(256, 128), min_scale=0.2))
    config.data.name = "cifar10-jpeg"
    config.optimizer.warmup_steps = 100
    config.update(dict(steps=1950, batch_size=256, baseline_seeds=3, evals=("knn", "linear_probe")))
  elif preset == "paper":
    config.model.encoder.update(dict(depth=18, width=64, dtype="bfloat16"))
    config.model.update(dict(projector_dims=(512, 128), temperature=0.5, min_scale=0.08))
    # The rate is 1 of 256 images, as the authors' program has it.
    config.optimizer = dict(name="lars", learning_rate=2.0, schedule="cosine", warmup_fraction=0.05,
                            weight_decay=1e-6, momentum=0.9)
    config.data.name = "cifar10-jpeg"
    config.update(dict(steps=0, epochs=200, batch_size=512, steps_per_dispatch=10, log_every=200, save_every=5000,
                       evals=("knn", "linear_probe"), baselines=False))
  return config
