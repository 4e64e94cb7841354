"""BERT's pre-training (Devlin et al. 2019, arXiv:1810.04805): masked words, and whether B follows A.

Command: `python -m experiments.run --model=bert [--preset=small --data_dir=DIR]`
Presets: `demo` documentation, three minutes on two cores; `tiny` for tests; `small` BERT-mini (4 layers of 256) on
6,514 articles of Wikipedia, less than half a pass and so without dropout, 36 minutes on two cores with products of
bfloat16 (`--config.model.dtype=float32` elsewhere); `paper` BERT-base, 1 M steps of 256 rows of 512 on an
accelerator, on a corpus of one's own (`--data=`).
Sooner and better than `small` alone are short rows first (the paper's appendix A.2 has 128 tokens before 512), 28
minutes; the first 15 are a model of their own:

  python -m experiments.run --model=bert --preset=small --steps=1800 --batch_size=64 --config.data.max_length=64 \\
    --workdir=runs/bert64
  python -m experiments.run --model=bert --preset=small --steps=1200 --init_from=runs/bert64 \\
    --config.optimizer.learning_rate=3e-3 --workdir=runs/bert64-128

Expected, held out, in rows of a training's own length (of 128: the words' frequencies lose 6.49, .533 of the pairs
are no neighbours; of 64: 6.51 and .62; 1 seed; minutes of before products of bfloat16 reached a CPU's matrix unit):

                       minutes  masked loss  next sentence
  rows of 64           15       3.63         .645
  then of 128          15 + 12  3.36         .703
  small                36       3.67         .719
  small, --steps=2400  26       5.05         .666

In rows of 128 the loss stays near 5.9 until step 1,300 and falls then, in rows of 64 from step 650 on; Chen et al.
2023 (arXiv:2309.07311) study such drops. The means of rows of 64 are better vectors of sentences than those of
`small` (STS-B test .512 against .408). demo, held out: masked loss 5.12 (the words' frequencies lose 5.86), next
sentence .787 (untrained .621, for many docstrings have one sentence and so no next; 1 seed).
"""
import ml_collections


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict(dict(
      model=dict(dim=128, num_layers=2, num_heads=2, mlp_dim=512, max_length=128, norm="post", init_std=0.02,
                 kernel_std=0.02, position_init="normal", dropout=0.1, attention_dropout=0.1, mask_rate=0.15,
                 masking="dynamic", whole_words=False, pooling="mean", dtype="float32", remat="none", unroll=4,
                 accumulate=1),
      data=dict(name="pydocs", encoder="subwords", errors="strict", tokenizer="", model="wordpiece", vocab_size=4000,
                lowercase=True, form="pairs", max_length=128, short_fraction=0.1, validation_pairs=1000),
      optimizer=dict(name="adamw", learning_rate=1e-3, schedule="linear", warmup_steps=100, weight_decay=0.01,
                     clip_norm=1.0, b1=0.9, b2=0.999, eps=1e-6),
      steps=1000,
      batch_size=32,
      steps_per_dispatch=10,
      log_every=50,
      save_every=500,
      evals=("held_out",),
      eval_items=2000,
      baselines=True,
  ))
  if preset == "tiny":
    config.update(dict(
        model=dict(dim=16, num_heads=2, mlp_dim=32, max_length=32, unroll=1),
        data=dict(vocab_size=400, max_length=32, max_documents=300, validation_pairs=16), steps=20, batch_size=8,
        steps_per_dispatch=1, log_every=5, save_every=10, eval_items=64, baselines=False))
  elif preset == "small":
    # Few tokens: what is unusual here shortens the time until words and their neighbours are known. Fewer kinds of
    # tokens are met more often, and more of them are predicted.
    config.update(dict(
        model=dict(dim=256, num_layers=4, num_heads=4, mlp_dim=1024, norm="pre", dropout=0.0, attention_dropout=0.0,
                   position_init="sinusoidal", mask_rate=0.4, dtype="bfloat16"),
        data=dict(name="enwiki-2015", validation_pairs=10_000),
        optimizer=dict(name="muon", learning_rate=6e-3, warmup_steps=100, b2=0.98), steps=3600, save_every=600))
  elif preset == "paper":
    config.update(dict(
        model=dict(dim=768, num_layers=12, num_heads=12, mlp_dim=3072, max_length=512, dtype="bfloat16", unroll=12,
                   remat="dots"),
        data=dict(name="enwiki-2015", vocab_size=30_522, max_length=512, validation_pairs=10_000),
        optimizer=dict(learning_rate=1e-4, warmup_steps=10_000), steps=1_000_000, batch_size=256, log_every=100,
        save_every=5000))
  return config
