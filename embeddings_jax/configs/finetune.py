"""Fine-tuning for a task (Devlin et al. 2019, arXiv:1810.04805; `embeddings_jax/models/supervised/finetune.py`).

Command: `python -m experiments.run --model=finetune [--init_from=W] --config.task=sst2 [--preset=small]`
Tasks: `sst2 cola rte sts-b snli squad-parts wnut17 ud-ewt 20news`, your own labeled text (`data/task_files.py`).
Presets: `demo` tells the package of a docstring, a small transformer from scratch; `tiny` for tests; `small` the size
of BERT-mini (4 x 256), the recipe of the paper with the rates that small networks need; `paper` BERT-base and the
paper's recipe (section 4.1: 3 epochs, batch 32, the rate one of 5e-5, 4e-5, 3e-5, 2e-5 by `dev`), an accelerator.
Expected: demo, package of a docstring: .771 (always the most frequent: .34; 1 seed, 2 minutes on two cores). small,
parts of speech of UD EWT after 300 updates of rate 1e-3 from a run of `bert --preset=small`: .900, from the same
network untrained .884 (1 seed); of SST-2 see the README.
Where pretraining helps (`experiments.benchmark transfer`; CIFAR-10 as JPEG, 100 updates, 1 seed): accuracy fine-tuned
minus from scratch with 300 and 10,000 labels is +.014 and +.065 from `rotation`, -.048 and +.022 from `exemplar`. The
updates are too few to judge by the number of labels: from scratch 300 have .375, 10,000 have .285.
A frozen network: `--config.model.frozen=True --config.model.normalize=True --config.model.pooling=mean
--config.model.layers=concat --config.optimizer.learning_rate=3e-3` (section 5.3 of the paper, by features).
The rate of `small` fits `bert --preset=small`, whose weights Muon left ten times as large as Adam's; a network of
Hugging Face wants 5e-5 or so (`--config.optimizer.learning_rate`).
With `--init_from` the encoder's hyperparameters and the tokenizer are the pretrained ones.
"""
from collections.abc import Mapping
from typing import Any

import ml_collections


def supervised(
    config: ml_collections.ConfigDict, encoder: Mapping[str, Any], **model: Any,
) -> ml_collections.ConfigDict:
  """The config that trains `encoder` with labels on another config's data, for as long and by its optimizer.

  `model`: further keys of the model.
  """
  data = {key: config.data[key] for key in ("name", "image_size", "channels", "bad") if key in config.data}
  data |= {"images": dict(modality="images"), "waveforms": dict(modality="audio"),
           "byte_windows": dict(unit="bytes")}[config.pipeline]
  return ml_collections.ConfigDict(dict(
      factory="finetune",
      model=dict(dict(encoder=dict(encoder), pooling="mean", layers="last", frozen=False, normalize=False,
                      dropout=0.0), **model),
      pipeline="task",
      data=dict(data, label="", max_examples=0, max_train=0, max_length=0, stride=0),
      optimizer=config.optimizer.to_dict(),
      steps=config.steps,
      epochs=config.get("epochs", 0),
      batch_size=config.batch_size,
      steps_per_dispatch=1,
      log_every=config.log_every,
      save_every=config.save_every,
      evals=("finetuning",),
      eval_items=config.get("eval_items", 0),
  ))


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict(dict(
      model=dict(
          encoder=dict(name="bert", dim=128, num_layers=2, num_heads=2, mlp_dim=512, max_length=128, dropout=0.1,
                       attention_dropout=0.1, dtype="float32", unroll=2)),
      pipeline="task",
      data=dict(name="pydocs", max_length=48, stride=24),
      optimizer=dict(name="adamw", learning_rate=1e-3, schedule="linear", warmup_fraction=0.1, weight_decay=0.01,
                     clip_norm=1.0),
      epochs=2,
      batch_size=32,
      log_every=50,
      save_every=500,
      evals=("finetuning",),
      eval_items=2000,
  ))
  if preset == "tiny":
    config.model.encoder.update(dict(dim=16, mlp_dim=32, max_length=32, unroll=1))
    config.data.update(dict(vocab_size=800, max_length=16, stride=8, max_examples=200))
    config.update(dict(epochs=0, steps=20, batch_size=8, log_every=5, save_every=10, eval_items=64))
  elif preset == "small":
    config.model.encoder.update(dict(dim=256, num_layers=4, num_heads=4, mlp_dim=1024, unroll=4))
    config.model.encoder.dtype = "bfloat16"
    config.data.update(dict(name="sst2", vocab_size=8000, max_length=64, stride=32))
    config.update(dict(log_every=100, save_every=1000))
  elif preset == "paper":
    config.model.encoder.update(dict(dim=768, num_layers=12, num_heads=12, mlp_dim=3072, max_length=512,
                                     dtype="bfloat16", unroll=12))
    config.data.update(dict(name="sst2", vocab_size=30_522, max_length=128, stride=64))
    config.optimizer.learning_rate = 2e-5
    config.update(dict(epochs=3, log_every=100, save_every=1000))
  return config
