"""Recurrent language model (Zaremba et al. 2014, arXiv:1409.2329) with `cell=rnn`, `gru` or `lstm`.

Command: `python -m experiments.run --model=lstm_lm [--preset=small --data_dir=DIR]`; then
`python -m experiments.sample --workdir=W --prompt='Return the'`.
Presets: `demo` documentation of Python and its libraries, two minutes on two cores; `tiny` for tests; `small` English
Wikipedia (`--data=enwiki-2015`), about as many parameters as `gpt --preset=small`; `paper` the medium size on a
corpus of one's own (`--data=`), dropout .5, 20 streams of windows of 35.
Expected: small, `enwiki-2015`, equal time, ten minutes on two cores (1 seed): perplexity of held-out text 396 after
390 updates, where `gpt --preset=small --steps=450` has 461; the tokens' frequencies alone have 1,400. After 1,500
updates `gpt` has 150: a transformer stays at the frequencies for longer and falls faster afterwards.
"""
import ml_collections


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict(dict(
      model=dict(cell="lstm", dim=128, cell_dim=256, num_layers=2, dropout=0.1),
      pipeline="token_streams",
      data=dict(name="pydocs", vocab_size=3000, max_length=128, window_length=64),
      optimizer=dict(name="adamw", learning_rate=3e-3, schedule="cosine", warmup_steps=50, clip_norm=1.0,
                     weight_decay=0.01),
      steps=600,
      batch_size=32,
      log_every=50,
      save_every=500,
      evals=("held_out", "linear_probe"),
      eval_items=2000,
      baselines=True,
  ))
  if preset == "tiny":
    config.model.update(dict(dim=16, cell_dim=12, num_layers=2, sample_length=4))
    config.data.update(dict(vocab_size=300, max_length=16, window_length=8, max_documents=300))
    config.update(dict(steps=20, batch_size=8, log_every=5, save_every=10, evals=(), eval_items=32, baselines=False))
  elif preset == "small":
    config.model.update(dict(dim=256, cell_dim=512, num_layers=2))
    config.data.update(dict(name="enwiki-2015", vocab_size=8000, window_length=128))
    config.update(dict(steps=1500, eval_every=500, optimizer=dict(learning_rate=2e-3, warmup_steps=150),
                       evals=("held_out",), baselines=False))
  elif preset == "paper":
    config.model.update(dict(dim=650, cell_dim=650, dropout=0.5))
    config.data.update(dict(name="tfds:lm1b", vocab_size=10_000, window_length=35))
    config.optimizer = dict(name="sgd", learning_rate=1.0, schedule="cosine", clip_norm=5.0)
    config.update(dict(batch_size=20, steps=0, epochs=39, log_every=100, eval_every=5000, save_every=5000,
                       evals=("held_out",), baselines=False))
  return config
