"""The network of `cpc` trained with labels, a linear layer on the mean of its contexts: the rows "supervised" beside
those of contrastive predictive coding (van den Oord et al. 2018, arXiv:1807.03748, table 1).

Command: `python -m experiments.run --model=cpc_supervised [--preset=small --config.data.label=digit|speaker]`
Presets: those of `cpc`: `demo` the package of a docstring from its bytes; `tiny` for tests; `small` spoken digits
(`--data=fsdd`), the digit or the speaker, the first second of a clip.
Expected: paper: phones .746, speakers .985 (its own protocol).
"""
import ml_collections

from embeddings_jax.configs import cpc, finetune

OF_THE_OBJECTIVE = ("num_predictions", "negatives", "temperature")


def supervised(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """The config that trains the network of another one, of `cpc`, for a label of the same data."""
  trunk = {key: value for key, value in config.model.items() if key not in OF_THE_OBJECTIVE}
  return finetune.supervised(config, dict(name="cpc", **trunk))


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  config = supervised(cpc.get_config(preset))
  config.data.update(dict(unit="bytes", max_length=8000 if preset in ("small", "paper") else 256))
  if preset == "tiny":
    config.data.update(dict(max_length=64, max_examples=200))
  elif preset == "small":
    config.data.label = "digit"
  return config
