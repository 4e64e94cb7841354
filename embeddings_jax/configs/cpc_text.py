"""Contrastive predictive coding of sentences (van den Oord et al. 2018, arXiv:1807.03748, section 3.3).

Command: `python -m experiments.run --model=cpc_text [--preset=small --data_dir=DIR]`
Presets: `demo` documentation, two minutes on two cores; `tiny` for tests; `small` articles of Wikipedia
(`--data=enwiki-2015`), a linear probe of SST-2; `paper` the paper's sizes (sentences of 32 tokens, codes and contexts
of 2400, the three next sentences), whose BookCorpus is not at hand: any text by `--data`, an accelerator.
Expected: small, linear probe of SST-2 .651, the same network untrained .671: 25 minutes of two cores teach it nothing
of sentiment (1 seed, beside other work); paper: film reviews (MR) .769 (its table 5).
"""
import ml_collections


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict(dict(
      factory="cpc",
      model=dict(inputs="sentences", channels=(128,), kernel_sizes=(3,), strides=(1,), context_dim=128,
                 num_predictions=3, negatives="other", norm=False),
      pipeline="sentence_windows",
      data=dict(name="pydocs"),
      optimizer=dict(name="adam", learning_rate=2e-3, schedule="cosine", warmup_steps=50, clip_norm=1.0),
      steps=1000,
      batch_size=32,
      log_every=50,
      save_every=500,
      evals=("linear_probe",),
      eval_items=2000,
      baselines=True,
  ))
  if preset == "tiny":
    config.model.update(dict(embedding_dim=8, channels=(12,), context_dim=12, num_predictions=2))
    config.data.update(dict(vocab_size=500, num_sentences=4, sentence_length=12, max_length=16, max_documents=200))
    config.update(dict(steps=20, batch_size=8, log_every=5, save_every=10, eval_items=200, baselines=False))
  elif preset == "small":
    config.model.update(dict(embedding_dim=128, channels=(512,), context_dim=256))
    config.data.update(dict(name="enwiki-2015", vocab_size=16_000))
    config.update(dict(steps=3000, batch_size=64, save_every=1000, log_every=100, evals=("linear_probe:sst2",),
                       optimizer=dict(learning_rate=1e-3, warmup_steps=100)))
  elif preset == "paper":
    config.model.update(dict(embedding_dim=620, channels=(2400,), context_dim=2400))
    config.data.update(dict(name="", vocab_size=30_000))
    config.update(dict(steps=300_000, batch_size=512, save_every=5000, log_every=100, evals=("linear_probe:sst2",),
                       baselines=False,
                       optimizer=dict(learning_rate=2e-4, schedule="constant", warmup_steps=0, clip_norm=0.0)))
  return config
