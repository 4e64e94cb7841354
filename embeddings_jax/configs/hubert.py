"""HuBERT (Hsu et al. 2021, arXiv:2106.07447): masked prediction of units of speech.

Command: `python -m experiments.run --model=hubert [--preset=small --data_dir=DIR]`; a second run on units of layer 2
of a run W: `... --config.data.units=W:2`.
Presets: `demo` synthetic words, a minute or two on two cores; `tiny` for tests; `small` spoken digits
(`--data=fsdd`), the speakers and clips of `cpc --preset=small`; `paper` the base network on 16 kHz speech, an
accelerator.
Expected: small with `--steps=700` (1 seed, 10 minutes on two busy cores), a linear probe of the last layer's mean and
standard deviation: digit .843, speaker .990; untrained .430 and .827, the same of MFCC .947 and 1.000, `cpc` .980 and
.998. Of the 99 units of held-out hidden frames it predicts 59 at least once (untrained 43), .080 of the frames right.
"""
import ml_collections


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict(dict(
      model=dict(channels=(64, 128, 128), kernel_sizes=(40, 4, 4), strides=(20, 2, 4), dim=128, num_layers=2,
                 num_heads=4, mlp_dim=512, position_kernel=15, code_dim=64, dropout=0.1),
      pipeline="speech_units",
      data=dict(name="syllables", window_length=8000, group="speaker"),
      optimizer=dict(name="adamw", learning_rate=1e-3, schedule="linear", warmup_steps=50, weight_decay=0.01,
                     clip_norm=1.0),
      steps=300,
      batch_size=16,
      steps_per_dispatch=1,
      log_every=50,
      save_every=200,
      evals=("unit_usage", "unit_purity", "linear_probe"),
      eval_items=0,
      baselines=True,
  ))
  if preset == "tiny":
    config.model.update(dict(channels=(4, 4, 8), dim=8, num_layers=1, num_heads=2, mlp_dim=16, code_dim=4))
    config.data.update(dict(window_length=2400, num_units=6))
    config.update(dict(steps=20, batch_size=8, log_every=5, save_every=10, eval_items=16, evals=("unit_usage",),
                       baselines=False))
  elif preset == "small":
    config.data.update(dict(name="fsdd"))
    config.model.num_layers = 3
    config.update(dict(steps=1500, batch_size=32, save_every=500, optimizer=dict(learning_rate=1e-3,
                                                                                warmup_steps=150)))
  elif preset == "paper":
    config.model = dict(channels=512, kernel_sizes=(10, 3, 3, 3, 3, 2, 2), strides=(5, 2, 2, 2, 2, 2, 2), dim=768,
                        num_layers=12, num_heads=12, mlp_dim=3072, position_kernel=128, code_dim=256, dropout=0.1,
                        dtype="bfloat16", unroll=12)
    config.data.update(dict(name="tfds:librispeech", window_length=250_000, hop_length=320, group=""))
    config.update(dict(steps=250_000, batch_size=32, log_every=100, save_every=5000, eval_items=20_000,
                       baselines=False, optimizer=dict(learning_rate=5e-4, warmup_steps=20_000)))
  return config
