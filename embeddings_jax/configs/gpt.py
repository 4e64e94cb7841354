"""GPT, a causal language model (Radford et al. 2018); `--config.model.norm=pre` is GPT-2 (Radford et al. 2019).

Command: `python -m experiments.run --model=gpt [--preset=small --data_dir=DIR]`; then
`python -m experiments.sample --workdir=W --prompt='Return the'`.
Presets: `demo` documentation of Python and its libraries, three minutes on two cores; `tiny` for tests; `small`
English Wikipedia (`--data=enwiki-2015`), half an hour on two cores; `paper` the paper's network, 12 layers of 768,
and its recipe, on the books of PG-19 for BookCorpus, which nobody hands out any more: an accelerator.
Expected: demo (1 seed, two and a half minutes): held-out loss 4.98 nats a token, a perplexity of 146 (the tokens'
frequencies alone: 6.48); package of a passage .580, untrained .505; with `--steps=1000` 3.67 nats and .685. small
(1 seed): 5.01 nats, a perplexity of 150 (the tokens' frequencies alone: 7.24 nats). paper: a perplexity of 18.4 on
BookCorpus (its section 4.1).
"""
import ml_collections


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict(dict(
      model=dict(dim=128, num_layers=3, num_heads=4, mlp_dim=512, max_length=128),
      pipeline="subword_windows",
      data=dict(name="pydocs", vocab_size=3000),
      optimizer=dict(name="adamw", learning_rate=2e-3, schedule="cosine", warmup_steps=100, clip_norm=1.0,
                     weight_decay=0.01),
      steps=300,
      batch_size=32,
      log_every=50,
      save_every=500,
      evals=("held_out", "linear_probe"),
      eval_items=2000,
      baselines=True,
  ))
  if preset == "tiny":
    config.update(dict(model=dict(dim=16, num_layers=2, num_heads=2, mlp_dim=64, max_length=32, sample_length=4),
                       steps=20, batch_size=8, log_every=5, save_every=10, evals=(), eval_items=200,
                       baselines=False))
    config.data.update(dict(vocab_size=300, max_length=32, max_documents=300))
  elif preset == "small":
    config.update(dict(model=dict(dim=256, num_layers=4, mlp_dim=1024, unroll=4), steps=1500, eval_every=500,
                       optimizer=dict(learning_rate=1e-3, warmup_steps=150), evals=("held_out",), baselines=False))
    config.data.update(dict(name="enwiki-2015", vocab_size=8000))
  elif preset == "paper":
    config.update(dict(
        model=dict(dim=768, num_layers=12, num_heads=12, mlp_dim=3072, max_length=512, dtype="bfloat16", chunk=8192,
                   unroll=12),
        optimizer=dict(learning_rate=2.5e-4, warmup_steps=2000), batch_size=64, steps=0, epochs=100, log_every=100,
        eval_every=5000, save_every=5000, evals=("held_out",), baselines=False))
    config.data.update(dict(name="tfds:pg19", vocab_size=40_000, max_length=512))
  return config
