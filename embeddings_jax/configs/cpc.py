"""Contrastive predictive coding (van den Oord et al. 2018, arXiv:1807.03748).

Command: `python -m experiments.run --model=cpc [--preset=small --data_dir=DIR]`
Presets: `demo` bytes of documentation, three minutes on two cores; `tiny` for tests; `small` spoken
digits (`--data=fsdd`), 5 minutes a seed on two cores; `paper` 100 hours of LibriSpeech, an accelerator.
Ablations of the paper's table 2, of `small`: `--config.model.num_predictions=1 ... 12` (20 ms each)
and `--config.model.negatives=all|other|group|group_other|same`, groups being speakers. The past from the present:
`--config.model.direction=backward` (small after 500 updates: digit .887, speaker .997; forward .937, .993; 1 seed).
Expected: small, linear probe of mean and standard deviation over time: digit .980, speaker .998 (3 seeds); the same
network untrained .48 and .84, the same of MFCC .947 and 1.000, its network trained with digits `cpc_supervised` .917.
Digit by number of steps 2, 4, 8, 12: .907, .973, .980, .983; by negatives all, other, group, group_other, same: .980,
.977, .973, .987, .967 (1 seed each beside the base; 300 clips, so only 2 steps differ clearly). demo, package of a
passage (of 8, the most frequent .28): .588, untrained .443, with 1 label a class .206 and .129 (1 seed); counts of
byte n-grams, which know the packages' words, .760 and .164: it shows that contrast learns, not that it beats them.
paper: phones .646 and speakers .974 (its tables 1 and 2, other protocols than ours).
One update per dispatch: XLA's CPU convolutions are three times slower inside a loop.
"""
import ml_collections


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  # Frames of bytes do not overlap: with a shared byte or two the next frame would be told by its spelling.
  config = ml_collections.ConfigDict(dict(
      model=dict(inputs="bytes", channels=(128, 128), kernel_sizes=(4, 2), strides=(4, 2), embedding_dim=32,
                 context_dim=128, num_predictions=6, negatives="other"),
      pipeline="byte_windows",
      data=dict(name="pydocs"),
      optimizer=dict(name="adam", learning_rate=3e-3, schedule="cosine", warmup_steps=50, clip_norm=1.0),
      steps=1200,
      batch_size=64,
      log_every=50,
      save_every=400,
      evals=("linear_probe",),
      eval_items=2000,
      baselines=True,
  ))
  if preset == "tiny":
    config.update(dict(model=dict(channels=(16, 16), embedding_dim=8, context_dim=16, num_predictions=3), steps=20,
                       batch_size=8, log_every=5, save_every=10, eval_items=200, baselines=False))
    config.data.update(dict(window_length=96, max_length=128))
  elif preset == "small":
    config.update(dict(
        model=dict(inputs="waveform", channels=(64, 128, 128), kernel_sizes=(40, 4, 4), strides=(20, 2, 4),
                   context_dim=256, num_predictions=8, negatives="all"),
        optimizer=dict(learning_rate=1e-3, warmup_steps=100), steps=2000, batch_size=32, save_every=500,
        eval_items=0))
    # Clips of one speaker are joined: what was said varies within a window, who said it does not.
    config.data = dict(name="fsdd", window_length=8000, jitter=4000,
                       group="speaker")
    config.pipeline = "waveforms"
  elif preset == "paper":
    config.update(dict(
        model=dict(inputs="waveform", channels=(512,) * 5, kernel_sizes=(10, 8, 4, 4, 4), strides=(5, 4, 2, 2, 2),
                   context_dim=256, num_predictions=12, negatives="all", norm=False),
        optimizer=dict(learning_rate=2e-4, schedule="constant", warmup_steps=0, clip_norm=0.0), steps=300_000,
        log_every=100, save_every=5000, eval_items=20_000, baselines=False))
    config.data = dict(name="tfds:librispeech")
    config.pipeline = "waveforms"
  return config
