"""SimCSE (Gao et al. 2021, arXiv:2104.08821): vectors of sentences by contrast, without labels or from entailment.

Command: `python -m experiments.run --model=simcse [--preset=small --data_dir=DIR --init_from=W]`
Supervised: `... --preset=small --init_from=W --data=snli-triples --config.epochs=5 --config.model.projection=always
--batch_size=64 --config.optimizer.learning_rate=3e-4`
Presets: `demo` sentences of documentation, a small transformer from scratch, three minutes; `tiny` for tests; `small`
one pass over 200,000 sentences of Wikipedia by a network of BERT-mini's size, W a run of `--model=bert
--preset=small`; `paper` BERT-base (W its Hugging Face directory) and a million sentences of a corpus of one's own, an
accelerator.
Data: text, or pairs and triples of sentences that belong together (`snli-triples`, `.tsv` of two or three columns).
With `--init_from` the encoder's sizes and the tokenizer are the pretrained ones. The rate of `small` fits the large
weights of `bert --preset=small`; a network of Hugging Face wants that of `paper`.
Expected: small, from a run of `bert --preset=small` in rows of 128 tokens (`configs/bert.py`), STS-B test
by the best of the dev part: .493 (seed 0, step 40 of 390, 21 minutes on two cores), .469 and .479 of further seeds
with 40,000 sentences; the same encoder's mean pooling before .408; average of the six STS sets .536, .529, .536 after
.456. Supervised, 5,731 triples: .536 (1 seed).
A network with random weights has .560, as its means compare words, and .514 on average. What follows the first
updates harms: with 100,000 sentences in batches of 64 the best was .449, and temperatures of .1 and above ended
below .34 (1 seed each). demo, package of a docstring: .553, untrained .475, of 400 (1 seed).
"""
import ml_collections


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  # A network without pretraining learns little by telling sentences apart, and what that is does not carry over: the
  # demo predicts masked words as well.
  config = ml_collections.ConfigDict(dict(
      model=dict(
          encoder=dict(name="bert", dim=128, num_layers=2, num_heads=2, mlp_dim=512, max_length=128, dropout=0.1,
                       attention_dropout=0.1, dtype="float32", unroll=2),
          pooling="mean", auxiliary_weight=1.0),
      pipeline="sentences",
      data=dict(name="pydocs"),
      optimizer=dict(name="adam", learning_rate=1e-3, schedule="linear", warmup_fraction=0.1, clip_norm=1.0),
      epochs=3,
      batch_size=64,
      steps_per_dispatch=5,
      log_every=50,
      save_every=500,
      evals=("linear_probe",),
      eval_items=2000,
      baselines=True,
  ))
  if preset != "demo":
    config.model.auxiliary_weight = 0.0
  if preset == "tiny":
    config.model.pooling = "cls"
    config.model.encoder.update(dict(dim=16, mlp_dim=32, max_length=16, unroll=1))
    config.data.update(dict(vocab_size=400, max_length=16, num_sentences=200, max_documents=300))
    config.update(dict(epochs=0, steps=20, batch_size=8, steps_per_dispatch=1, log_every=5, save_every=10,
                       eval_items=64, baselines=False))
  elif preset == "small":
    config.model.encoder.update(dict(dim=256, num_layers=4, num_heads=4, mlp_dim=1024, dtype="bfloat16", unroll=4))
    config.data.update(dict(name="enwiki-2015", vocab_size=8000, num_sentences=200_000,
                            drop_overlap=("sts-b", "sts-12", "sts-13", "sts-14", "sts-15", "sts-16")))
    # The first token of a small network, which learnt but whether sentences follow each other, knows little of words:
    # the mean over tokens stays.
    # Small batches are told apart within 100 updates, and what is learnt after that harms; large ones teach more.
    config.optimizer.learning_rate = 5e-4
    config.update(dict(epochs=1, batch_size=512, eval_every=20, evals_between=("sts:sts-b",), evals=("sts:all",),
                       best_metric="sts-b/dev/spearman"))
  elif preset == "paper":
    config.model.pooling = "cls"
    config.model.encoder.update(dict(dim=768, num_layers=12, num_heads=12, mlp_dim=3072, max_length=512, unroll=12))
    config.data.update(dict(name="enwiki-2015", vocab_size=30_522, num_sentences=1_000_000,
                            drop_overlap=("sts-b", "sts-12", "sts-13", "sts-14", "sts-15", "sts-16")))
    config.optimizer.update(dict(name="adamw", learning_rate=3e-5, warmup_fraction=0.0))
    config.update(dict(epochs=1, eval_every=250, evals_between=("sts:sts-b",), evals=("sts:all",),
                       best_metric="sts-b/dev/spearman"))
  return config
