"""Denoising autoencoders of text: TSDAE (Wang et al. 2021), BART (Lewis et al. 2020), VAE (Bowman et al. 2016).

Command: `python -m experiments.run --model=sequence_autoencoder [--preset=small --data_dir=DIR --init_from=W]`; then
`python -m experiments.sample --workdir=W --reconstruct='A sentence.'` or `--interpolate='One sentence.|Another one.'`
Presets: `demo` sentences of documentation, a small TSDAE from scratch, a minute on two cores; `tiny` for tests;
`small` TSDAE of 100,000 sentences of Wikipedia by a network of BERT-mini's size, W a run of `--model=bert
--preset=small`; `paper` TSDAE from BERT-base (W its Hugging Face directory), an accelerator.
BART: `--config.model.memory=tokens --config.model.tie=embeddings --config.model.start=end --config.model.deletion=0
--config.model.infilling=0.3 --config.model.permute_sentences=True --config.model.pooling=mean
--config.data.unit=window --config.data.max_length=128`, or `--init_from=` a Hugging Face directory of BART.
VAE: `--config.model.variational=True --config.model.deletion=0 --config.model.word_dropout=0.4
--config.model.kl_warmup_steps=500 --config.model.free_bits=0.05 --config.model.tie=embeddings`.
Expected: demo (1 seed, two minutes on two busy cores): held-out loss 4.00 nats a token from a text with .6 of its
tokens left out (the tokens' frequencies alone: 5.81); package of a docstring .533.
small, from a run of `bert --preset=small --steps=800`, Spearman correlation on STS-B test and the average of six STS
sets, best checkpoint by STS-B dev (1 seed; some ten minutes of training for each of the first three):

  TSDAE, best after 20 of 160 updates           .468  .517
  the same at rate 5e-4, after 40 of 330        .425  .469
  SimCSE from the same run, best after 10 of 78 .425  .501
  mean of that run's tokens, before             .480  .516
  mean of the words' vectors of `sgns`          .514  .549
  the same by SIF                               .577  .610

A network that has seen this little text gains nothing: the mean of its tokens is better before SimCSE, and as good
before TSDAE.
"""
import ml_collections

EVALUATED = ("sts-b", "sts-12", "sts-13", "sts-14", "sts-15", "sts-16")


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict(dict(
      model=dict(encoder=dict(name="bert", dim=128, num_layers=2, num_heads=2, mlp_dim=512, max_length=128,
                              dropout=0.1, attention_dropout=0.1, dtype="float32", unroll=2),
                 pooling="mean"),
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
    config.model.encoder.update(dict(dim=16, num_layers=1, mlp_dim=32, max_length=16, unroll=1))
    config.model.update(dict(infilling=0.2, permute_sentences=True, deletion=0.3, rotate=True, variational=True,
                             code_dim=8, sample_length=4, word_dropout=0.1))
    config.data.update(dict(vocab_size=300, max_length=16, num_passages=200, max_documents=100))
    config.update(dict(epochs=0, steps=20, batch_size=8, steps_per_dispatch=1, log_every=5, save_every=10,
                       eval_items=32, evals=("held_out",), baselines=False))
  elif preset == "small":
    config.model.encoder.update(dict(dim=256, num_layers=4, num_heads=4, mlp_dim=1024, unroll=4))
    config.data.update(dict(name="enwiki-2015", vocab_size=8000, num_passages=100_000))
    config.optimizer.learning_rate = 5e-5  # Chosen on STS-B dev: .606; 5e-4 had .583.
    config.update(dict(epochs=1, batch_size=128, eval_every=100, evals_between=("sts:sts-b",), evals=("sts:all",),
                       best_metric="sts-b/dev/spearman"))
  elif preset == "paper":
    config.model.pooling = "cls"
    config.model.encoder.update(dict(dim=768, num_layers=12, num_heads=12, mlp_dim=3072, max_length=512, unroll=12))
    config.data.update(dict(name="enwiki-2015", vocab_size=30_522, num_passages=800_000, max_length=128))
    config.optimizer = dict(name="adamw", learning_rate=3e-5, schedule="constant", weight_decay=0.0)
    config.update(dict(epochs=0, steps=100_000, batch_size=8, eval_every=5000, evals_between=("sts:sts-b",),
                       evals=("sts:all",), best_metric="sts-b/dev/spearman"))
  return config
