"""The network of `cpc` trained with labels, a linear layer on the mean of its contexts: the rows "supervised" beside
those of contrastive predictive coding (van den Oord et al. 2018, arXiv:1807.03748, table 1).

Command: `python -m experiments.run --model=cpc_supervised [--preset=small --config.data.label=digit|speaker]`
Presets: those of `cpc`: `demo` the package of a docstring from its bytes; `tiny` for tests; `small` spoken digits
(`--data=fsdd`), the digit or the speaker, the first second of a clip.
Expected: paper: phones .746, speakers .985 (its own protocol).
"""
import ml_collections

from experiments.configs import cpc

OF_THE_OBJECTIVE = ("num_predictions", "negatives", "temperature")


def supervised(config: ml_collections.ConfigDict, label: str = "", max_length: int = 0) -> ml_collections.ConfigDict:
  """The config that trains the network of another one, of `cpc`, for a label of the same data."""
  trunk = {key: value for key, value in config.model.items() if key not in OF_THE_OBJECTIVE}
  return ml_collections.ConfigDict(dict(
      factory="finetune",
      model=dict(encoder=dict(name="cpc", **trunk), pooling="mean", layers="last", frozen=False, dropout=0.0),
      data=dict(name=config.data.name, encoder=config.data.encoder, form="task", errors="strict", label=label,
                max_examples=0, max_train=0, max_length=max_length, stride=0,
                **{key: config.data[key] for key in ("image_size", "channels", "bad") if key in config.data}),
      optimizer=config.optimizer.to_dict(),
      steps=config.steps,
      batch_size=config.batch_size,
      steps_per_dispatch=1,
      log_every=config.log_every,
      save_every=config.save_every,
      evals=("finetuning",),
      eval_items=config.eval_items,
  ))


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  of_speech = preset in ("small", "paper")
  config = supervised(cpc.get_config(preset), "digit" if preset == "small" else "", 8000 if of_speech else 256)
  if preset == "tiny":
    config.data.update(dict(max_length=64, max_examples=200))
  return config
