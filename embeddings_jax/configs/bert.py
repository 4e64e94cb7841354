"""BERT's pre-training (Devlin et al. 2019, arXiv:1810.04805): masked words, and whether B follows A.

Command: `python -m experiments.run --model=bert [--preset=small --data_dir=DIR]`
Presets: `demo` documentation, three minutes on two cores; `tiny` for tests; `small` BERT-mini (4 layers of 256) on
6,514 articles of Wikipedia in rows of 64 tokens, a quarter of an epoch and so without dropout, half an hour on two
cores in float32 (`--config.model.dtype=float32`; bfloat16, a third slower there, is 1.7 times as fast as float32 on
those with a matrix unit), and half of it with `--steps=800`, which took 10 minutes with such a unit; `paper`
BERT-base, 1 M steps of 256 rows of 512 on an accelerator, on a corpus of one's own (`--data=`).
Expected: small, begun with the vectors of a run W of `sgns --preset=small` (`--init_from=W`, 3 minutes), held out, in
rows of 64 tokens: masked loss 4.10 (the words' frequencies lose 6.98), next sentence .778 (.582 of the pairs are no
neighbors; 1 seed, 34 minutes in float32 on two cores with AVX2); after 800 steps 4.54 and .726 (1 seed). demo:
masked loss 5.12 (frequencies 5.86), next sentence .787 (untrained .621, for many docstrings have one sentence and so
no next; 1 seed).
Why `small` is not as the paper: the loss of a transformer stays at what frequencies and topics give for a while, and
falls when attention finds the neighbors; Chen et al. 2023 (arXiv:2309.07311) study such drops. Masked loss of the
updates 101 to 150 and 201 to 250 (1 seed each):

  heads begin at the neighbors (`position_init`), `adam_fraction=.2`, vectors of words  5.91  5.55
  the same without vectors of words                                                      6.26
  `position_init=sinusoidal`, `adam_fraction=.2`, without vectors of words               6.57
  heads begin at the neighbors, `adam_fraction=1`, vectors of words                     6.54  6.48

So the heads of the first layer begin at the neighbors; embeddings, which AdamW moves, have a fifth of Muon's rate,
at the whole of which they are soon far from where they began; and words may have their vectors already. Rows are
short (the paper's appendix A.2 has 128 tokens before 512). Who needs longer ones resumes from a run W:
`--init_from=W --batch_size=32 --config.data.max_length=128`.
Predicted for `paper` on 16 chips of v5e (`python -m experiments.plan --model=bert --topology=v5e:4x4`): 57 ms an
update, of which 26 are arithmetic, 22 traffic with memory and 9 sums of gradients; 59 ms with
`--config.model.attention_dropout=0`, as more recent recipes have it, whose scores stay in a kernel. Were scores
written to memory, 46 GB would move instead of 19 (90 ms). With as many rows a chip, 256 chips take 2 % longer than 8.
"""
import ml_collections


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict(dict(
      model=dict(dim=128, num_layers=2, num_heads=2, mlp_dim=512, max_length=128, kernel_std=0.02, unroll=4),
      pipeline="subword_pairs",
      data=dict(name="pydocs"),
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
        model=dict(dim=16, mlp_dim=32, max_length=32, unroll=1),
        data=dict(vocab_size=400, max_length=32, max_documents=300, validation_pairs=16), steps=20, batch_size=8,
        steps_per_dispatch=1, log_every=5, save_every=10, eval_items=64, baselines=False))
  elif preset == "small":
    # Few tokens: what is unusual here shortens the time until words and their neighbors are known. Rows are short,
    # fewer kinds of tokens are met more often, and more of them are predicted.
    del config.optimizer["eps"]  # Muon takes none.
    config.update(dict(
        model=dict(dim=256, num_layers=4, num_heads=4, mlp_dim=1024, norm="pre", dropout=0.0, attention_dropout=0.0,
                   position_init="neighbors", mask_rate=0.4, dtype="bfloat16"),
        data=dict(name="enwiki-2015", vocab_size=8000, max_length=64, validation_pairs=10_000),
        optimizer=dict(name="muon", learning_rate=6e-3, adam_fraction=0.2, b2=0.98), steps=1600,
        batch_size=64, save_every=400))
  elif preset == "paper":
    config.update(dict(
        model=dict(dim=768, num_layers=12, num_heads=12, mlp_dim=3072, max_length=512, dtype="bfloat16", unroll=12,
                   remat="dots"),
        data=dict(name="enwiki-2015", vocab_size=30_522, max_length=512, validation_pairs=10_000),
        optimizer=dict(learning_rate=1e-4, warmup_steps=10_000), steps=1_000_000, batch_size=256, log_every=100,
        save_every=5000))
  return config
