"""Models of running text: their input pipeline and, beside it, what they are compared with."""
import itertools
import json
import statistics
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
import optax
from absl import flags

from embeddings_jax.data import catalog
from embeddings_jax.data.encoders.subwords import SubwordEncoder
from embeddings_jax.data.sentence_pairs import sentence_pairs
from embeddings_jax.data.sentences import split_sentences, tokenize_documents
from embeddings_jax.data.tokenizer_training import trained_tokenizer
from embeddings_jax.errors import InputError
from embeddings_jax.interop import huggingface
from embeddings_jax.models.contrastive.simcse import simcse
from embeddings_jax.models.language import bert as bert_model
from embeddings_jax.models.language.bert import bert
from embeddings_jax.runs import inference, pretrained
from experiments.benchmarks.turns import by_turns, compared, matrix_rate

FLAGS = flags.FLAGS


def pairs() -> dict:
  """Sentence pairs of 128 tokens a second, by one thread, the drawing of each pass included; batches of 32."""
  dataset = catalog.load(FLAGS.data, data_dir=FLAGS.data_dir, cache_dir=FLAGS.cache_dir)
  encoder = SubwordEncoder(trained_tokenizer(dataset, vocab_size=8192, cache_dir=FLAGS.cache_dir), 128)
  corpus = tokenize_documents(dataset, encoder, cache_dir=FLAGS.cache_dir)
  rates = []
  for turn in range(FLAGS.repeats):
    source = sentence_pairs(corpus.train, 32, max_length=128, cls_id=encoder.facts["cls_id"],
                            sep_id=encoder.facts["sep_id"], seed=FLAGS.seed + turn)
    steps = source.facts["steps_per_epoch"]
    start = time.perf_counter()
    for step in range(steps, 3 * steps):  # The first pass is drawn when the source is made.
      source.batch_at(step)
    rates.append(2 * steps * 32 / (time.perf_counter() - start))
  rate = statistics.median(rates)
  return {
      "summary": f"{rate:,.0f} sentence pairs of 128 tokens a second on one core (median of {FLAGS.repeats} turns)",
      "pairs_per_second": round(rate),
      "all": [round(rate) for rate in rates],
      "facts": {key: value for key, value in source.facts.items() if key not in encoder.facts},
  }


def embed(num_sentences: int = 10_000) -> dict:
  """Seconds to embed 10,000 sentences, tokenizing included, by a 6-layer, 384-wide encoder (MiniLM's size).

  A sentence-transformers directory with random weights, mean pooling and vectors of length 1 is read by
  `experiments.embed --init_from`'s code and by sentence-transformers (torch), both with their defaults, by
  turns on the same sentences. Our first turn, in which programs are compiled, is told apart.
  """
  import sentence_transformers  # Not among the extras: pip install sentence-transformers.

  dataset = catalog.load(FLAGS.data, data_dir=FLAGS.data_dir, cache_dir=FLAGS.cache_dir)
  texts = (sentence for text in dataset.items for sentence in split_sentences(text) if sentence.strip())
  sentences = list(itertools.islice(texts, 0, 20 * num_sentences, 20))
  tokenizer = trained_tokenizer(dataset, vocab_size=30_522, cache_dir=FLAGS.cache_dir)
  sizes = dict(vocab_size=tokenizer.get_vocab_size(), dim=384, num_layers=6, num_heads=12, mlp_dim=1536)
  with tempfile.TemporaryDirectory() as folder:
    _write_sentence_model(Path(folder), tokenizer, sizes)
    network = pretrained.load(folder)
    run = pretrained.as_run(network)
    ours = inference.embedder(run.model, run.state, run.encoder)
    theirs = sentence_transformers.SentenceTransformer(folder, device="cpu")
    turns = {"ours": lambda: pretrained.l2_normalize(ours(sentences)),
             "theirs": lambda: theirs.encode(sentences, show_progress_bar=False)}
    vectors, times = {}, {name: [] for name in turns}
    for _ in range(1 + FLAGS.repeats):
      for name, turn in turns.items():
        start = time.perf_counter()
        vectors[name] = turn()
        times[name].append(time.perf_counter() - start)
    encoded = run.encoder.lengths(run.encoder.encode(sentences))
  seconds = {name: statistics.median(values[1:]) for name, values in times.items()}
  ratio = seconds["theirs"] / seconds["ours"]
  difference = float(np.abs(vectors["ours"] - vectors["theirs"]).max())
  return {
      "summary": f"{seconds['ours']:.1f} s for {len(sentences):,} sentences, sentence-transformers "
                 f"{seconds['theirs']:.1f} s: {ratio:.2f} x, vectors equal to {difference:.0e}",
      "seconds": round(seconds["ours"], 2), "seconds_first": round(times["ours"][0], 2),
      "seconds_peer": round(seconds["theirs"], 2), "seconds_peer_first": round(times["theirs"][0], 2),
      "ratio": round(ratio, 3), "max_difference": difference, "sentences": len(sentences),
      "tokens": int(encoded.sum()), "all": {name: [round(x, 2) for x in values] for name, values in times.items()},
      "peer": f"sentence-transformers {sentence_transformers.__version__}",
  }


def bert_step(rows: int = 32, length: int = 128, vocab_size: int = 8000) -> dict:
  """Seconds of a training step of BERT-mini (4 layers of 256, 4 heads), ours against `transformers` with torch.

  The same batch of 32 rows of 128 tokens; masks drawn, both heads, dropout .1 everywhere, AdamW, float32; by turns.
  """
  sizes = dict(dim=256, num_layers=4, num_heads=4, mlp_dim=1024)
  ours, theirs, peer = _bert_steps(sizes, rows, length, vocab_size)
  turns = by_turns(ours, theirs, max(20, FLAGS.repeats))
  return compared(turns, f"{rows} rows of {length} tokens") | {"vocab_size": vocab_size, "peer": peer}


def simcse_step(rows: int = 64, length: int = 32, vocab_size: int = 8000) -> dict:
  """Seconds of a training step of unsupervised SimCSE, ours against `transformers`' encoder with torch.

  64 sentences of 32 tokens, each twice in one pass through 4 layers of 256 (4 heads), dropout .1 everywhere; the
  first token's vector through a layer with tanh, cosines over .05, Adam, float32; by turns.
  """
  import torch
  import transformers

  sizes = dict(dim=256, num_layers=4, num_heads=4, mlp_dim=1024)
  tokens = np.random.default_rng(FLAGS.seed).integers(5, vocab_size, (rows, length)).astype(np.int32)
  model = simcse(encoder=bert_model.encoder(vocab_size=vocab_size, max_length=length, **sizes, unroll=4),
                 optimizer=optax.adam(1e-4))
  batch = jax.device_put({"tokens": tokens})
  state = jax.jit(model.init)(jax.random.key(FLAGS.seed), batch)
  update = jax.jit(model.update, donate_argnums=0)

  peer = transformers.BertModel(_peer_config(sizes, length, vocab_size), add_pooling_layer=False).train()
  projection = torch.nn.Linear(sizes["dim"], sizes["dim"])
  optimizer = torch.optim.Adam([*peer.parameters(), *projection.parameters()], lr=1e-4)
  ids = torch.tensor(tokens.astype(np.int64)).repeat(2, 1)
  seen, labels = torch.ones_like(ids), torch.arange(rows)

  def ours() -> None:
    nonlocal state
    state, metrics = update(state, batch, jax.random.key(FLAGS.seed))
    jax.block_until_ready((state, metrics))

  def theirs() -> None:
    optimizer.zero_grad()
    first = peer(input_ids=ids, attention_mask=seen).last_hidden_state[:, 0]
    z = torch.nn.functional.normalize(torch.tanh(projection(first)))
    torch.nn.functional.cross_entropy(z[:rows] @ z[rows:].T / 0.05, labels).backward()
    optimizer.step()

  turns = by_turns(ours, theirs, max(20, FLAGS.repeats))
  return compared(turns, f"{rows} sentences of {length} tokens") | {
      "peer": f"transformers {transformers.__version__}, torch {torch.__version__}"}


def bert_base(tokens: int = 32_768, vocab_size: int = 30_522, steps: int = 5) -> dict:
  """Tokens a second of BERT-base on a GPU in bfloat16, ours against `transformers` with `torch.compile`.

  32,768 tokens in rows of `--length`; both heads, dropout .1, of the attention's weights `--attention_dropout`; AdamW
  with float32 parameters; 20 turns of 5 steps each. The utilization is that of the GPU's bfloat16 matrix rate,
  measured by products of 8,192 x 8,192 in the same process. Operations of a token, a multiplication and an addition
  being two, forward once and backward twice that (D wide, M hidden, L layers, T long, V words, 15 % decoded):

    6 L (4 D^2 + 2 D M) + 12 L T D + .15 * 6 (D^2 + D V)
  """
  if jax.default_backend() != "gpu":
    raise InputError(f"bert_base: needs a GPU, and the devices here are {jax.devices()}")
  import torch

  length, rate = FLAGS.length, FLAGS.attention_dropout
  rows = tokens // length
  sizes = dict(dim=768, num_layers=12, num_heads=12, mlp_dim=3072)
  peak = max(matrix_rate() for _ in range(3))
  ours, theirs, peer = _bert_steps(sizes, rows, length, vocab_size, "bfloat16", rate, steps)
  turns = by_turns(ours, theirs, max(20, FLAGS.repeats))
  memory = {"memory": jax.devices()[0].memory_stats()["peak_bytes_in_use"],
            "memory_peer": torch.cuda.max_memory_allocated()}
  own, other = (rows * length * steps / statistics.median(column) for column in zip(*turns))
  ratio = statistics.median(theirs / ours for ours, theirs in turns)
  dim, hidden = sizes["dim"], sizes["mlp_dim"]
  operations = (6 * sizes["num_layers"] * (4 * dim**2 + 2 * dim * hidden + 2 * length * dim)
                + 0.15 * 6 * (dim**2 + dim * vocab_size))
  used = own * operations / peak
  gpu = jax.devices()[0].device_kind
  return {
      "summary": f"{gpu}: {own:,.0f} tokens/s at length {length}, {used:.0%} of the {peak / 1e12:.0f} "
                 f"TFLOP/s of products, {memory['memory'] / 1e9:.1f} GB; transformers with torch.compile "
                 f"{other:,.0f}, {memory['memory_peer'] / 1e9:.1f} GB: {ratio:.2f} x (median of {len(turns)} turns)",
      "tokens_per_second": round(own), "tokens_per_second_peer": round(other), "ratio": round(ratio, 3),
      "utilization": round(used, 3), "matrix_flops_per_second": round(peak), "rows": rows, "length": length,
      "attention_dropout": rate, **memory, "gpu": gpu, "peer": peer,
      "all": [[round(x, 4) for x in turn] for turn in turns],
  }


def _bert_steps(sizes, rows, length, vocab_size, dtype="float32", attention_dropout=0.1, steps=1):
  """Two functions that make `steps` training steps each, ours and that of `transformers`; the latter's version."""
  import torch
  import transformers

  rng = np.random.default_rng(FLAGS.seed)
  tokens = rng.integers(5, vocab_size, (rows, length)).astype(np.int32)
  tokens[:, 0], tokens[:, length // 2], tokens[:, -1] = 2, 3, 3
  segments = (np.arange(length) > length // 2).astype(np.int32) + np.zeros((rows, 1), np.int32)
  is_next = rng.integers(0, 2, rows).astype(np.int32)

  model = bert(vocab_size=vocab_size, mask_id=4, special_ids=tuple(range(5)), max_length=length, **sizes, dtype=dtype,
               attention_dropout=attention_dropout, unroll=sizes["num_layers"], optimizer=optax.adamw(1e-4))
  batch = jax.device_put({"tokens": tokens, "segments": segments, "is_next": is_next})
  state = jax.jit(model.init)(jax.random.key(FLAGS.seed), batch)
  update = jax.jit(model.update, donate_argnums=0)

  device = "cuda" if jax.default_backend() == "gpu" else "cpu"
  peer = transformers.BertForPreTraining(_peer_config(
      sizes, length, vocab_size, attention_probs_dropout_prob=attention_dropout)).train().to(device)
  optimizer = torch.optim.AdamW(peer.parameters(), lr=1e-4, fused=device == "cuda")
  forward = torch.compile(peer) if device == "cuda" else peer
  ids, kinds, follows = (torch.tensor(x.astype(np.int64), device=device) for x in (tokens, segments, 1 - is_next))
  seen = None if device == "cuda" else torch.ones_like(ids)  # None lets it choose its fastest attention on a GPU.

  def ours() -> None:
    nonlocal state
    for _ in range(steps):
      state, metrics = update(state, batch, jax.random.key(FLAGS.seed))
    jax.block_until_ready((state, metrics))

  def theirs() -> None:
    for _ in range(steps):
      chosen = (torch.rand(ids.shape, device=device) < 0.15) & (ids > 4)
      kind = torch.rand(ids.shape, device=device)
      inputs = torch.where(chosen & (kind < 0.8), 4, ids)
      inputs = torch.where(chosen & (kind >= 0.9), torch.randint(5, vocab_size, ids.shape, device=device), inputs)
      optimizer.zero_grad()
      with torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16"):
        loss = forward(input_ids=inputs, attention_mask=seen, token_type_ids=kinds,
                       labels=ids.masked_fill(~chosen, -100), next_sentence_label=follows).loss
      loss.backward()
      optimizer.step()
    if device == "cuda":
      torch.cuda.synchronize()

  return ours, theirs, f"transformers {transformers.__version__}, torch {torch.__version__}"


def _peer_config(sizes, length, vocab_size, **others):
  import transformers

  return transformers.BertConfig(
      vocab_size=vocab_size, hidden_size=sizes["dim"], num_hidden_layers=sizes["num_layers"],
      num_attention_heads=sizes["num_heads"], intermediate_size=sizes["mlp_dim"], max_position_embeddings=length,
      **others)


def _write_sentence_model(folder: Path, tokenizer, sizes: dict) -> None:
  """A sentence-transformers directory with random weights."""
  model = bert(**sizes, mask_id=0, max_length=512)
  state = jax.jit(model.init)(jax.random.key(FLAGS.seed), {"tokens": np.zeros((1, 8), np.int32)})
  hyper = sizes | dict(max_length=512, num_segments=2, embedding_norm=True, norm="post", activation="gelu",
                       norm_epsilon=1e-12)
  params = {name: jax.tree.map(np.asarray, state.params[name]) for name in ("encoder", "pooler")}
  huggingface.write(folder, "bert", hyper, params, huggingface.tokenizer_files(tokenizer.to_str().encode(), 512))
  parts = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
  modules = [{"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
             for i, (path, kind) in enumerate(parts)]
  (folder / "modules.json").write_text(json.dumps(modules))
  (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 256, "do_lower_case": False}))
  (folder / "1_Pooling").mkdir()
  (folder / "2_Normalize").mkdir()
  (folder / "1_Pooling" / "config.json").write_text(json.dumps(
      {"word_embedding_dimension": sizes["dim"], "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}))
