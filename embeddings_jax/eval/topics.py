"""Topics: whether their words belong together, whether they differ, and how well they predict words not seen."""
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import sparse

from embeddings_jax.types import InputError, Metric, Protocol

COHERENCE_WORDS = 10  # Of a topic.
DIVERSITY_WORDS = 25
WINDOW = 10
LEAST = 1e-30  # What a probability of 0 counts as.


def topics(
    embed: Callable[[Any], np.ndarray],
    dataset: Any,
    *,
    topics: np.ndarray,
    encoder: Any,
    seed: int = 0,
) -> dict[str, float]:
  """Coherence and diversity of the topics, and the perplexity of documents of which half the words are shown.

  Coherence is `npmi`: the mean over topics, and over the 45 pairs of a topic's 10 most probable words, of the
  normalized pointwise mutual information (Bouma 2009; of topics: Aletras & Stevenson 2013; Lau, Newman & Baldwin
  2014)

    NPMI(u, v) = log [p(u, v) / (p(u) p(v))] / -log p(u, v),

  where p is the share of documents with the word or with both; -1 if they never meet, 1 if p(u, v) = 1. For
  `npmi_window` it is the share of windows of 10 words, sliding by one (Roeder, Both & Hinneburg 2015); a shorter
  document is one window, and only words of the vocabulary count. Documents: the part `train`, else all. There is no
  smoothing, and the reference corpus is the dataset itself. Words that always and only occur together get 1,
  independent ones 0.

  `diversity` is the share of different words among the 25 most probable ones of all topics (Dieng, Ruiz & Blei 2020):
  1 where no two topics share one, 1 / k where all topics are the same.

  `{part}/perplexity`, of `test` if there is such a part, else of `all` documents: each occurrence is shown with
  probability 1/2, drawn with `seed`; embed(shown) gives theta, p(w|d) = sum_k theta_dk beta_kw, and

    perplexity = exp(- sum n'(d, w) log p(w|d) / sum n'(d, w))        (Hofmann 1999, section 4.1)

  over the occurrences n' that are not shown. Words out of the vocabulary count nowhere; a probability below 1e-30
  counts as 1e-30. `{part}/unigram/perplexity` is that of the words' frequencies in training. Uniform topics get V.

  Args:
    embed: documents, each a mapping from words to counts -> theta [n, k].
    dataset: texts, or such mappings; may have the parts `train` and `test`.
    topics: [k, V] p(w|z).
    encoder: Encoder of bags (`data/encoders/bags.py`), with the vocabulary.
    seed: Random seed of the examples shown.
  """
  if topics.ndim != 2 or topics.shape[1] != len(encoder.vocabulary):
    raise InputError(f"topics: the topics are {list(topics.shape)}, and the vocabulary has {len(encoder.vocabulary)} "
                     "words")
  train = dataset.split.get("train", np.arange(len(dataset.items)))
  items = [dataset.items[i] for i in train]
  best = top_words(topics, COHERENCE_WORDS)
  bags = [encoder.bag(item)[0] for item in items]
  results = {"npmi": npmi(best, _presence(bags, topics.shape[1]))}
  if isinstance(items[0], str):
    results["npmi_window"] = npmi(best, windows([encoder.tokens(item) for item in items], topics.shape[1], best))
  results["diversity"] = diversity(top_words(topics, DIVERSITY_WORDS))
  part = "test" if "test" in dataset.split else "all"
  items = [dataset.items[i] for i in dataset.split[part]] if part == "test" else items
  scores = perplexity(embed, [encoder.bag(item) for item in items], topics, encoder.vocabulary, seed)
  return results | {f"{part}/{name}": value for name, value in scores.items()}


def top_words(topics: np.ndarray, number: int) -> np.ndarray:
  """The most probable words [k, number] of topics [k, V], best first; ties: the lower index."""
  return np.argsort(-topics, axis=1, kind="stable")[:, :number]


def npmi(words: np.ndarray, presence: Any) -> float:
  """Mean over topics and pairs of words [k, n] of NPMI, from a sparse matrix [contexts, V] of 0 and 1."""
  known, inverse = np.unique(words, return_inverse=True)
  table = presence[:, known].astype(np.float64)
  share = np.asarray((table.T @ table).todense()) / table.shape[0]
  alone = np.diagonal(share)
  with np.errstate(divide="ignore", invalid="ignore"):
    score = np.log(share / np.outer(alone, alone)) / -np.log(share)
  score = np.where(share == 0, -1, np.where(share == 1, 1, score))
  inverse = inverse.reshape(words.shape)
  first, second = np.triu_indices(words.shape[1], 1)
  return float(score[inverse[:, first], inverse[:, second]].mean())


def windows(tokens: Sequence[np.ndarray], vocab_size: int, words: np.ndarray, size: int = WINDOW) -> Any:
  """Which of some words are in each window of `size` tokens: sparse [windows, V] of 0 and 1; other columns are 0."""
  length = np.array([len(document) for document in tokens])
  number = np.maximum(length - size + 1, 1)
  first_window = np.repeat(np.cumsum(number) - number, length)
  position = np.concatenate([np.arange(n) for n in length])
  token = np.concatenate(tokens)
  relevant = np.isin(token, words)
  # A token is in the windows that begin from size - 1 places before it up to itself, as far as they exist.
  begin = np.maximum(position - size + 1, 0)[relevant]
  end = np.minimum(position, np.repeat(number, length) - 1)[relevant]
  spread = end - begin + 1
  inside = np.arange(int(spread.sum())) - np.repeat(np.cumsum(spread) - spread, spread)
  row = np.repeat(first_window[relevant] + begin, spread) + inside
  table = sparse.csr_array((np.ones(len(row)), (row, np.repeat(token[relevant], spread))),
                           shape=(int(number.sum()), vocab_size))
  table.data[:] = 1  # A word may be in a window twice.
  return table


def diversity(words: np.ndarray) -> float:
  """The share of different words among those of all topics [k, n]."""
  return len(np.unique(words)) / words.size


def perplexity(
    embed: Callable[[Any], np.ndarray], bags: Sequence[tuple[np.ndarray, np.ndarray]], topics: np.ndarray,
    vocabulary: Any, seed: int = 0,
) -> dict[str, float]:
  """`perplexity` and `unigram/perplexity` of documents, each `(words, counts)`; see `topics`. nan without words."""
  noise = np.random.default_rng(seed)
  shown, hidden = [], []
  for words, counts in bags:
    whole = np.floor(counts)
    # What is not a whole number of occurrences is shown or hidden as a whole.
    part = np.where(whole == counts, noise.binomial(whole.astype(np.int64), 0.5),
                    counts * noise.integers(2, size=len(words)))
    shown.append({vocabulary.words[w]: float(n) for w, n in zip(words, part) if n})
    hidden.append(counts - part)
  theta = np.asarray(embed(shown), np.float64)
  unigram = vocabulary.counts / vocabulary.counts.sum()
  total, score, unigram_score = 0.0, 0.0, 0.0
  for mixture, (words, _), counts in zip(theta, bags, hidden):
    total += counts.sum()
    score += counts @ np.log(np.maximum(mixture @ topics[:, words], LEAST))
    unigram_score += counts @ np.log(np.maximum(unigram[words], LEAST))
  if not total:
    return {"perplexity": np.nan, "unigram/perplexity": np.nan}
  return {"perplexity": float(np.exp(-score / total)), "unigram/perplexity": float(np.exp(-unigram_score / total))}


def _presence(bags: Sequence[np.ndarray], vocab_size: int) -> Any:
  indptr = np.cumsum([0, *map(len, bags)])
  return sparse.csr_array((np.ones(indptr[-1]), np.concatenate(bags), indptr), shape=(len(bags), vocab_size))


PROTOCOL = Protocol(
    topics, needs=("embed", "topics"),
    metrics={
        "npmi": Metric(True), "npmi_window": Metric(True), "diversity": Metric(True, "fraction"),
        "perplexity": Metric(False),
    })
