"""Masked autoencoders (He et al. 2022, arXiv:2111.06377).

Command: `python -m experiments.run --model=mae [--preset=small --data_dir=DIR] [--data=FOLDER]`
Presets: `demo` two photographs cut into 2,080 images of 16 x 16, 16 patches of 4 x 4 pixels each, a minute on two
cores; `tiny` for tests; `small` Fashion-MNIST, 49 patches of 4 x 4, 20 epochs in 20 minutes on two cores with
bfloat16 matrix units (elsewhere `--config.model.dtype=float32`); `paper` ViT-B/16 for 800 epochs on your own images
of 224 x 224 pixels (`--data=`), 4,096 a step, on accelerators (the paper's ImageNet: 250,000 steps).
Expected: small, linear probe .876 +- .004 and kNN .871 +- .002, the same network untrained .781 +- .002 and .691 +-
.015, pixels .843 and .846 (3 seeds, 24 minutes and more beside other work, before products of bfloat16 reached a
CPU's matrix unit). The paper, ImageNet, ViT-B: linear probe .680, fine-tuned .836 (top 1, its table 3 and appendix
A.2). demo, which of the two photographs an image is from: linear probe .983, kNN .978; untrained .962 and .959,
pixels .805 and .882 (1 seed). These images were chosen for the demo because learning shows on them: on digits at
random places it has .497, untrained .511.
Mask ratios: on digits .15 to .9 differ in time alone (linear probe .906 +- .005 after 35 s, .900 +- .015 with .75
after 20, .895 +- .023 with .9 after 15: `experiments.benchmark mask_ratios --data=digits --steps=800 --seeds=3`). On
Fashion-MNIST .75 has .810 and .15 .751 by the same operations, four minutes each (1 seed; `mask_ratios
--data=fashion-mnist --steps=2000 --batch_size=64 --equal=operations --ratios=.15,.5,.75`).
"""
import ml_collections


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict(dict(
      model=dict(patch_size=4, dim=64, num_layers=4, num_heads=4, mlp_dim=256, decoder_dim=32, decoder_layers=1,
                 decoder_heads=2, decoder_mlp_dim=128, pooling="mean", positions="sincos2d", pixel_mean=0.5,
                 pixel_std=0.5, dtype="float32", remat="none", unroll=4),
      pipeline="images",
      data=dict(name="photographs", image_size=16),
      optimizer=dict(name="adamw", learning_rate=1e-3, schedule="cosine", warmup_steps=100, weight_decay=0.05, b1=0.9,
                     b2=0.95, eps=1e-8),
      steps=1000,
      batch_size=128,
      steps_per_dispatch=10,
      log_every=100,
      save_every=1000,
      evals=("linear_probe", "knn"),
      eval_items=0,
      baselines=True,
  ))
  if preset != "demo":
    config.data.image_size = 0
  if preset == "tiny":
    config.data.name = "digits"
    config.model.patch_size = 2
    # Keys' biases have no gradient but rounding, which a smaller epsilon would make steps of.
    config.optimizer.eps = 1e-6
    config.update(dict(
        model=dict(dim=16, num_layers=1, num_heads=2, mlp_dim=32, decoder_dim=16, decoder_mlp_dim=32, unroll=1),
        steps=20, batch_size=16, steps_per_dispatch=1, log_every=5, save_every=10, eval_items=200, baselines=False))
  elif preset == "small":
    config.update(dict(
        model=dict(dim=128, num_layers=6, mlp_dim=512, decoder_dim=64, decoder_layers=2, decoder_mlp_dim=256,
                   dtype="bfloat16", unroll=6),
        optimizer=dict(learning_rate=1.5e-3, warmup_steps=300), steps=4600, batch_size=256))
    config.data.name = "fashion-mnist"
  elif preset == "paper":
    # The rate is 1.5e-4 of 256 images; 1,281,167 images make 313 steps a pass, of which 40 are warm-up.
    config.update(dict(
        model=dict(patch_size=16, dim=768, num_layers=12, num_heads=12, mlp_dim=3072, decoder_dim=512,
                   decoder_layers=8, decoder_heads=16, decoder_mlp_dim=2048, flip=True, min_scale=0.2,
                   dtype="bfloat16", remat="dots", unroll=12),
        optimizer=dict(learning_rate=2.4e-3,
                       warmup_steps=12_500), steps=250_000, batch_size=4096, save_every=5000, baselines=False))
    config.data.name = ""
  return config
