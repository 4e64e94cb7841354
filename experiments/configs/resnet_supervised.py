"""The network of `simclr` trained with labels: the row "supervised" beside contrastive learning.

Command: `python -m experiments.run --model=resnet_supervised [--preset=small --config.data.max_train=1000]`
Presets: those of `simclr`, with its network, batches and steps; pictures are shifted and flipped at random.
Few labels: `--config.data.max_train=N` of the training part, the same for every seed; `--init_from=W`, W a run of
`simclr`, `byol` or `simsiam`, starts from what it has learnt, `--config.model.frozen=True` trains the head alone and
`--config.model.trained_layers=K` the last K blocks.
"""
import ml_collections

from experiments.configs import simclr


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  base = simclr.get_config(preset)
  config = ml_collections.ConfigDict(dict(
      factory="finetune",
      model=dict(encoder=base.model.encoder.to_dict(), pooling="mean", layers="last", frozen=False, trained_layers=-1,
                 shift=1, dropout=0.0, layer_decay=1.0),
      data=dict(base.data.to_dict(), form="task", label="", max_examples=0, max_train=0, max_length=0, stride=0),
      optimizer=base.optimizer.to_dict(),
      steps=base.steps, epochs=base.get("epochs", 0), batch_size=base.batch_size, steps_per_dispatch=1,
      log_every=base.log_every, save_every=base.save_every, evals=("finetuning",), eval_items=base.eval_items))
  if preset in ("small", "paper"):
    config.model.shift = 4
  if preset == "tiny":
    config.data.max_examples = 200
  return config
