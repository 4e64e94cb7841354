"""Skip-gram with subwords: an update by plain loops, gensim's vectors, planted morphology, saved and loaded."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.encoders import load_encoder
from embeddings_jax.data.encoders.ngrams import NgramEncoder
from embeddings_jax.data.ngrams import hashes, ngram_table
from embeddings_jax.data.pipelines.ngram_blocks import ngram_blocks
from embeddings_jax.data.words import Vocabulary
from embeddings_jax.models.words.sgns import sgns
from embeddings_jax.ops.word_blocks import Draws
from embeddings_jax.runs.inference import embedder
from embeddings_jax.runs.run import Run
from embeddings_jax.train.loop import train
from embeddings_jax.train.mesh import make_mesh
from embeddings_jax.types import InputError

WORDS = ["ab", "abc", "cd", "cde", "e"]
BUCKET = 7


def make(**changes):
  table = ngram_table(WORDS, 2, 3, BUCKET)
  options = dict(vocab_size=5, counts=np.arange(5, 0, -1), ngrams=table, num_buckets=BUCKET, dim=4, window=2, tile=4,
                 tiles_per_group=2, shared_negatives=3, slack=1.0, learning_rate=0.1, subsample=0)
  return sgns(**{**options, **changes})


def rows_of(word):
  """Returns rows of the table: 64 of words, then those of n-grams."""
  return [WORDS.index(word), *(64 + value % BUCKET for value in hashes(word.encode(), 2, 3))]


def with_tables(state, seed=0):
  tables = [jax.random.normal(key, x.shape) * 0.5 for key, x in zip(
      jax.random.split(jax.random.key(seed)), (state.input, state.output))]
  return state._replace(input=tables[0].at[5:64].set(0), output=tables[1].at[5:].set(0))


@pytest.mark.parametrize("max_mass", [1e9, 30.0])
def test_an_update_is_that_of_a_plain_loop(max_mass):
  """Each row of a word takes the step of the word's vector, shortened where the row has many terms."""
  model = make(max_mass=max_mass)
  batch = {"tokens": jnp.array([[0, 1, 2, 3, -1, 4, 1, 0], [3, 3, 1, 2, 4, 4, -1, -1]]), "mask": jnp.ones(2)}
  state, rng = with_tables(model.init(jax.random.key(0), batch)), jax.random.key(3)
  draws = Draws(**jax.jit(model.outputs["draws"])(state, batch, rng))
  first, second = (np.asarray(x, np.float64) for x in (state.input, state.output))
  change, mass = [np.zeros_like(first), np.zeros_like(second)], [np.zeros(len(first)), np.zeros(len(second))]
  total, pairs = 0.0, 0
  tokens, document = np.asarray(draws.tokens), np.asarray(draws.document)
  for b, i in np.ndindex(*tokens.shape):
    near = [j for j in range(tokens.shape[1]) if j != i and abs(i - j) <= draws.radius[b, i]
            and document[b, j] == document[b, i] >= 0]
    for j in near:
      rows = rows_of(WORDS[tokens[b, i]])
      v = first[rows].mean(0)
      terms = [(tokens[b, j], 1, 1.0), *((m, -1, 5 / 3) for m in np.asarray(draws.negatives)[b, i // 8])]
      for target, sign, weight in terms:
        score = sign * v @ second[target]
        total += weight * np.logaddexp(0, -score)
        slope = sign * weight * expit(-score)
        np.add.at(change[0], rows, slope * second[target])
        change[1][target] += slope * v
        np.add.at(mass[0], rows, weight)
        mass[1][target] += weight
      pairs += 1
  new, metrics = jax.jit(model.update)(state, batch, rng)
  assert float(metrics["pairs"]) == pairs > 20
  np.testing.assert_allclose(metrics["loss"], total / pairs, rtol=1e-5)
  for table, old, step, weights in zip((new.input, new.output), (first, second), change, mass):
    size = 0.1 * np.minimum(1, max_mass / np.maximum(weights, 1e-9))
    np.testing.assert_allclose(table, old + size[:, None] * step, atol=2e-5)
  assert not np.asarray(new.input[5:64]).any()


def test_a_text_is_the_mean_of_its_words_and_an_unseen_word_of_its_ngrams():
  model = make()
  state = with_tables(model.init(jax.random.key(0), None))
  encoder = NgramEncoder(Vocabulary(WORDS, np.arange(5, 0, -1)), "lower", 2, 3, BUCKET)
  table = np.asarray(state.input)
  vector = lambda word: table[rows_of(word) if word in WORDS else [
      64 + value % BUCKET for value in hashes(word.encode(), 2, 3)]].mean(0)
  items = ["abc", "abd", "Abd cd", "", "e xyzzy ab"]
  expected = [vector("abc"), vector("abd"), (vector("abd") + vector("cd")) / 2, np.zeros(4),
              (vector("e") + vector("xyzzy") + vector("ab")) / 3]
  embed = jax.jit(model.embed)
  np.testing.assert_allclose(embed(state, encoder.encode(items)), expected, atol=1e-6)
  known = encoder.known_words
  assert list(known) == WORDS and "abd" in known and "" in known and 7 not in known
  np.testing.assert_allclose(jax.jit(model.outputs["components"])(state)["input"], [vector(w) for w in WORDS],
                             atol=1e-6)
  assert "" not in NgramEncoder(encoder.vocabulary, "lower", 4, 5, BUCKET).known_words


@pytest.mark.parity
def test_vectors_of_seen_and_unseen_words_are_gensims(tmp_path):
  """With the tables of a model that gensim wrote as fastText's `.bin` and read again."""
  from gensim.models.fasttext import FastText, load_facebook_vectors, save_facebook_model

  lines = [["café", "naïve", "日本", "the", "a"]] * 3
  save_facebook_model(FastText(lines, vector_size=7, min_count=1, min_n=2, max_n=5, bucket=50, epochs=1),
                      str(tmp_path / "m.bin"))
  theirs = load_facebook_vectors(str(tmp_path / "m.bin"))
  words = theirs.index_to_key
  model = sgns(vocab_size=5, counts=np.ones(5), ngrams=ngram_table(words, 2, 5, 50), num_buckets=50, dim=7)
  state = model.init(jax.random.key(0), None)
  table = np.zeros(state.input.shape, np.float32)
  table[:5], table[64:114] = theirs.vectors_vocab, theirs.vectors_ngrams
  state = state._replace(input=jnp.asarray(table))
  encoder = NgramEncoder(Vocabulary(words, np.ones(5)), "spaces", 2, 5, 50)
  asked = [*words, "cafés", "日本語", "thus", "x"]
  np.testing.assert_allclose(jax.jit(model.embed)(state, encoder.encode(asked)), [theirs[word] for word in asked],
                             atol=1e-6)


def test_unseen_forms_of_a_stem_are_near_it_and_the_encoder_is_saved(tmp_path):
  """Forms of a stem stand together: a form that was left out of the text is nearest to the others of its stem."""
  rng = np.random.default_rng(0)
  stems = "fdbh drst tsgl gkdf lrbp kphn gmpc thrk".split()  # None ends as another: endings then share no 4-grams.
  endings = ["a", "es", "ing", "u"]
  unseen = {i: stems[i] + endings[i % 4] for i in range(8)}
  lines = []
  for _ in range(300):
    group = rng.integers(0, 8)
    forms = [stems[group] + ending for ending in endings if stems[group] + ending != unseen[group]]
    lines.append(" ".join(rng.choice(forms, 8)))
  dataset = Dataset("planted", "text", lines, fingerprint="planted subwords")
  data = ngram_blocks(dataset, batch_size=4, seed=0, cache_dir=str(tmp_path), min_count=1, window_length=64, max_n=4,
                      bucket=400)
  facts = {name: data.facts[name] for name in ("vocab_size", "counts", "ngrams", "num_buckets")}
  model = sgns(**facts, dim=8, window=2, tile=8, subsample=0, learning_rate=0.1, max_mass=8.0)
  state = train(model, data.splits["train"], steps=300, steps_per_dispatch=100,
                mesh=make_mesh("data:1", jax.devices()[:1]))
  data.encoder.save(tmp_path / "encoder")
  embed = embedder(model, state, load_encoder(tmp_path / "encoder"))
  known = data.encoder.vocabulary.words
  assert len(known) == 24 and not set(known) & set(unseen.values())
  table, asked = embed(known), embed(list(unseen.values()))
  cosine = asked @ table.T / np.linalg.norm(asked, axis=1)[:, None] / np.linalg.norm(table, axis=1)
  of_stems = np.stack([cosine[:, [word[:4] == stem for word in known]].mean(1) for stem in stems], 1)
  assert of_stems.argmax(1).tolist() == list(range(8))
  run = Run(None, {"config": {"name": "sgns", "model": {}, "data": {}}}, model, state, 300, data.encoder, None)
  near = run.neighbors([known[0], unseen[2]], k=2)
  assert {word[:4] for word, _ in near[unseen[2]]} == {stems[2]} and len(near[known[0]]) == 2


def test_what_does_not_fit_is_refused():
  with pytest.raises(InputError, match="sgns: loss=hierarchical_softmax: subwords need negative_sampling"):
    make(loss="hierarchical_softmax")
  with pytest.raises(InputError, match="min_n=5: must not exceed max_n=4"):
    NgramEncoder(Vocabulary(["a"], np.ones(1)), "lower", 5, 4)
  with pytest.raises(InputError, match="bucket=0: expected an integer from 1"):
    NgramEncoder(Vocabulary(["a"], np.ones(1)), "lower", 3, 4, 0)
