"""The encoder of `mae` trained with labels: the row "supervised" beside masked autoencoders, and their fine-tuning.

Command: `python -m experiments.run --model=vit_supervised [--preset=small --config.data.max_train=1000]`
Presets: those of `mae`, with its network and data; images are shifted and flipped at random.
From a run W of `mae`: `--init_from=W`; `--config.model.frozen=True --config.model.normalize=True` trains the head
alone (He et al. 2022, arXiv:2111.06377, appendix A.1) and `--config.model.trained_layers=K` the last K layers (figure
9). Few labels: `--config.data.max_train=N` of the training part, the same for every seed.
The recipe is the paper's (its table 9), with fewer passes: AdamW, rates that fall by layer, the mean of the patches.
Expected: small, 1,000 labels of Fashion-MNIST and 300 steps: .834 from a run of `mae --preset=small`, .726 from
scratch (1 seed).
"""
import ml_collections

from embeddings_jax.configs import finetune, mae

OF_THE_OBJECTIVE = ("decoder_dim", "decoder_layers", "decoder_heads", "decoder_mlp_dim", "decoder_chunk",
                    "mask_ratio", "masking", "norm_pix", "flip", "min_scale", "pooling", "accumulate")


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  base = mae.get_config(preset)
  trunk = {key: value for key, value in base.model.items() if key not in OF_THE_OBJECTIVE}
  config = finetune.supervised(base, dict(name="mae", **trunk), trained_layers=-1, shift=1, layer_decay=0.75)
  config.optimizer.update(dict(warmup_steps=0, warmup_fraction=0.1, b2=0.999))
  config.update(dict(steps=400, batch_size=128, log_every=50, save_every=1000, eval_items=0))
  if preset == "demo":
    config.data.update(dict(name="translated-digits", image_size=0))
    config.model.encoder.patch_size = 2
  elif preset == "tiny":
    config.data.max_examples = 200
    config.update(dict(steps=20, batch_size=16, log_every=5, save_every=10))
  elif preset == "small":
    config.model.shift = 2
  elif preset == "paper":
    config.model.update(dict(shift=16, layer_decay=0.65))
    config.optimizer.update(dict(learning_rate=2e-3))
    config.update(dict(steps=0, epochs=100, batch_size=1024))
  return config
