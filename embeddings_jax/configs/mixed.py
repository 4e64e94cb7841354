"""Several losses over one encoder: masked words and a denoising autoencoder of sentences.

Command: `python -m experiments.run --model=mixed`; with labels
`python -m experiments.run --model=mixed --preset=small --data_dir=DIR [--init_from=W --config.data.max_train=1000]`.
Presets: `demo` sentences of documentation, a minute or two on two cores; `tiny` for tests; `small` the two losses and
that of a task with labels, SST-2, together; `paper` as `demo` by BERT-base on a corpus of one's own, an accelerator.
Expected: SST-2 with 1,000 labels, 60 updates each, accuracy on test of three ways to use a proxy task (three seeds,
`experiments.benchmark labels --mixed --data=sst2 --numbers=1000 --steps=60 --seeds=3 --workdir=runs/bert800`):

  pretrained by `bert --preset=small --steps=800`, then tuned   .688 +- .009
  labels alone                                                  .654 +- .018
  labels and proxy losses together, by the weights of `small`   .501 +- .013, the larger class

In so few updates the gradients of the proxy losses, of some 8 nats each, decide where the network goes; with weights
of .001 the loss of the labels falls as it does alone (1 seed, 40 updates).
"""
import ml_collections


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict(dict(
      model=dict(encoder=dict(name="bert", dim=128, num_layers=2, num_heads=2, mlp_dim=512, max_length=128,
                              dropout=0.1, attention_dropout=0.1, dtype="float32", unroll=2),
                 losses=dict(bert=1.0, sequence_autoencoder=0.5),
                 options=dict(bert=dict(mask_rate=0.15), sequence_autoencoder=dict(pooling="mean", deletion=0.6))),
      pipeline="passages",
      data=dict(name="pydocs", vocab_size=4000, max_length=32, num_passages=20_000),
      optimizer=dict(name="adam", learning_rate=2e-3, schedule="linear", warmup_fraction=0.1, clip_norm=1.0),
      epochs=1,
      batch_size=64,
      steps_per_dispatch=5,
      log_every=50,
      save_every=500,
      evals=("held_out", "linear_probe"),
      eval_items=2000,
      baselines=True,
  ))
  if preset == "tiny":
    config.model.encoder.update(dict(dim=8, num_layers=1, mlp_dim=16, max_length=16, unroll=1))
    config.model.losses = dict(sequence_autoencoder=0.5)
    config.model.options = dict(sequence_autoencoder=dict(pooling="mean"))
    config.data.update(dict(vocab_size=300, max_length=16, num_passages=200, max_documents=100))
    config.update(dict(epochs=0, steps=20, batch_size=8, steps_per_dispatch=1, log_every=5, save_every=10,
                       eval_items=32, evals=("held_out",), baselines=False))
  elif preset == "small":
    config.model.losses = dict(finetune=1.0, bert=0.5, sequence_autoencoder=0.5)
    config.model.options.finetune = dict(pooling="mean")
    config.pipeline = "task"
    config.data = dict(name="sst2", max_length=64, vocab_size=8000)
    config.update(dict(epochs=3, batch_size=32, evals=("finetuning",), optimizer=dict(learning_rate=1e-3)))
  elif preset == "paper":
    config.model.encoder.update(dict(dim=768, num_layers=12, num_heads=12, mlp_dim=3072, max_length=512, unroll=1))
    config.data.update(dict(name="enwiki-2015", vocab_size=30_522, num_passages=0, max_length=128, unit="window"))
    config.update(dict(epochs=0, steps=1_000_000, batch_size=256, optimizer=dict(learning_rate=1e-4)))
  return config
