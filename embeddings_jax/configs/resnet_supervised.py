"""The network of `simclr` trained with labels: the row "supervised" beside contrastive learning.

Command: `python -m experiments.run --model=resnet_supervised [--preset=small --config.data.max_train=1000]`
Presets: those of `simclr`, with its network, batches and steps; images are shifted and flipped at random.
Few labels: `--config.data.max_train=N` of the training part, the same for every seed; `--init_from=W`, W a run of
`simclr`, `byol` or `simsiam`, starts from what it has learnt, `--config.model.frozen=True` trains the head alone and
`--config.model.trained_layers=K` the last K blocks.
Expected: `small` test accuracy .744 (one seed), where a linear probe of `simclr --preset=small` has .594.
"""
import ml_collections

from embeddings_jax.configs import finetune, simclr


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  base = simclr.get_config(preset)
  if preset == "tiny":
    base.model.encoder = dict(name="resnet", depth=8, width=4)
  config = finetune.supervised(base, base.model.encoder, trained_layers=-1, layer_decay=1.0,
                               shift=4 if preset in ("small", "paper") else 1)
  if preset == "tiny":
    config.data.max_examples = 200
  return config
