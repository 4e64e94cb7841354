"""Models of running text: their input pipeline and, beside it, what they are compared with."""
import statistics
import time

from absl import flags

from embeddings_jax.data import catalog
from embeddings_jax.data.sentence_pairs import sentence_pairs
from embeddings_jax.data.sentences import tokenize_documents
from embeddings_jax.data.subwords import SubwordEncoder, trained_tokenizer

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
