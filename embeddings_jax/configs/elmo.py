"""ELMo (Peters et al. 2018, arXiv:1802.05365).

Command: `python -m experiments.run --model=elmo [--preset=small --data_dir=DIR]`
Presets: `demo` documentation of Python and its libraries, some two minutes on two cores; `tiny` for tests; `small`
English Wikipedia of 2015, 5 of its 19 M words and marks, some half an hour; `paper` a billion words (`tfds:lm1b`), on
accelerators.
Expected: demo, held-out documents (1 seed): 3.55 nats a word, perplexity 34.9 over 4,000 words, where their
frequencies alone give 5.17 nats, and the untrained network 8.38. The mean of a docstring's words tells its package
(.56) no better than the untrained network's (.57), which sees the spellings too. small (1 seed): 4.90 nats a word, a
perplexity of 134 (the words' frequencies alone: 6.47 nats).
"""
import ml_collections


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict(dict(
      model=dict(dim=64, cell_dim=256, filters=((1, 32), (2, 32), (3, 64), (4, 64)), num_highway=1),
      pipeline="characters",
      data=dict(name="pydocs"),
      optimizer=dict(name="adam", learning_rate=3e-3, schedule="cosine", warmup_steps=50, clip_norm=1.0),
      steps=600,
      batch_size=32,
      log_every=25,
      save_every=300,
      evals=("held_out",),
      eval_items=2000,
      baselines=True,
  ))
  if preset == "tiny":
    config.model.update(dict(dim=16, cell_dim=24, num_layers=1, character_dim=8, filters=((1, 8), (3, 16)),
                             num_samples=32))
    config.data.update(dict(vocab_size=200, max_characters=10, window_length=12, max_length=16, max_documents=300))
    config.update(dict(steps=20, batch_size=8, log_every=5, save_every=10, eval_items=100, baselines=False))
  elif preset == "small":
    config.model.update(dict(dim=128, cell_dim=512, filters=((1, 32), (2, 32), (3, 64), (4, 128), (5, 128)),
                             num_highway=2, num_samples=2048))
    config.data.update(dict(name="enwiki-2015", vocab_size=20_000, max_characters=20))
    config.update(dict(steps=2500, batch_size=64, log_every=50, save_every=1000, baselines=False))
  elif preset == "paper":
    config.model = dict(num_samples=8192)
    config.data.update(dict(name="tfds:lm1b", vocab_size=793_471, max_characters=50, window_length=20))
    config.optimizer = dict(name="adagrad", learning_rate=0.2, clip_norm=10.0)
    # 10 passes over 768 M words, 128 windows of 20 words on each of three devices.
    config.update(dict(steps=1_000_000, batch_size=384, log_every=100, save_every=10_000, baselines=False))
  return config
