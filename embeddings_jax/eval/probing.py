"""Layer-wise probing: at which layer of a frozen network a simple classifier finds what it is asked for."""
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from embeddings_jax.eval.metrics import entities
from embeddings_jax.types import Array, InputError, Metric, Protocol

LIMITS = {"train": 20_000, "dev": 5_000, "test": 10_000}  # Words (or entities) of each part.
ROUNDS, STEPS, BATCH_SIZE, RATE = 10, 200, 256, 1e-3
_NEVER = -1e30

Hidden = Callable[[Sequence[Sequence[str]]], tuple[np.ndarray, np.ndarray]]


def probing(
    embed: Callable[[Any], np.ndarray] | None,
    dataset: Any,
    *,
    hidden: Hidden,
    untrained: Hidden | None = None,
    seed: int = 0,
) -> dict[str, float]:
  """Linear probes of each layer, and of mixtures of the layers up to each.

  Tenney, Das, Pavlick 2019, "BERT Rediscovers the Classical NLP Pipeline", arXiv:1905.05950. With h_l the vector of a
  word in layer l = 0 (embeddings) ... L, a probe is

    softmax(W γ Σ_l a_l h_l + b),   a = softmax(s) over its layers; s, γ, W, b are learnt

  `layer_l` sees layer l alone, `cumulative_l` the layers 0 ... l (equation 1 with their P^(l)). Of the mixture of
  all layers `mix_l` is a_l and `center_of_gravity` is Σ_l l a_l (equation 2); with Δ_l the accuracy of
  `cumulative_l` less that of `cumulative_(l-1)` (equation 3), `expected_layer` is Σ_l l Δ_l / Σ_l Δ_l, l from 1
  (equation 4; nan unless the sum is positive).

  Protocol. A word is its first token; where the tags are entities' (B-, I-, O), the items are the entities of the
  right tags, each the mean of its words, and what is asked is the type, as in the paper. Whole sentences are drawn
  with `seed` until 20,000 items for training, 5,000 of `dev` and 10,000 of `test` are there, as far as there are so
  many. Features are standardized for each layer by the training items. Adam, rate .001, 2,000 updates by 256 items,
  W from 0; of ten moments each probe is taken at that of its highest accuracy on `dev` (ties: the first), and asked
  about `test` once. Deviations from the paper: linear probes instead of MLPs with attention over the span;
  standardizing, without which a layer's scale would decide about its weight; accuracy instead of micro F1, which is
  the same where each item has one class.

  Args:
    embed: not looked at.
    dataset: sentences of words with one label of tags and the parts train, dev and test.
    hidden: sentences -> vectors [num_words, L + 1, dim] of all their words, and [num_words], whether the word's first
      token was there.
    untrained: the same of the network before its training.
    seed: Random seed of the subsample.

  Returns:
    What is named above; scores as `test/layer_l/accuracy`, `test/cumulative_l/accuracy`, also
    `test/majority/accuracy` of the most frequent class of the training items, and `test/untrained/accuracy`, the
    mixture of all layers of the untrained network.
  """
  del embed
  if "tags" not in dataset.labels or not {"train", "dev", "test"} <= set(dataset.split):
    raise InputError(f"probing: dataset {getattr(dataset, 'name', '')!r} should have tagged words and the parts "
                     "train, dev and test, as ud-ewt and wnut17 have")
  drawn = {part: _drawn(dataset, part, limit, seed) for part, limit in LIMITS.items()}
  classes = sorted({kind for _, _, kind in _asked(drawn["train"])})
  if len(classes) < 2:
    raise InputError(f"probing: the training part of {dataset.name!r} has fewer than two classes")
  parts = {part: _features(hidden, sentences, classes) for part, sentences in drawn.items()}
  num_layers = parts["train"][0].shape[1]
  single = np.eye(num_layers, dtype=bool)
  upto = np.tril(np.ones((num_layers, num_layers), bool))
  accuracy, weights = _probe(parts, np.concatenate([single, upto[1:]]), len(classes), seed)
  cumulative = np.concatenate([accuracy[:1], accuracy[num_layers:]])
  mix, gain, layer = weights[-1], np.diff(cumulative), np.arange(num_layers)
  results = {f"test/layer_{i}/accuracy": float(accuracy[i]) for i in layer}
  results |= {f"test/cumulative_{i}/accuracy": float(cumulative[i]) for i in layer}
  results |= {f"mix_{i}": float(mix[i]) for i in layer}
  results["center_of_gravity"] = float(layer @ mix)
  results["expected_layer"] = float(layer[1:] @ gain / gain.sum()) if gain.sum() > 0 else float("nan")
  train, test = parts["train"][1], parts["test"][1]
  results["test/majority/accuracy"] = float((test == np.bincount(train).argmax()).mean())
  if untrained is not None:
    parts = {part: _features(untrained, sentences, classes) for part, sentences in drawn.items()}
    results["test/untrained/accuracy"] = float(_probe(parts, upto[-1:], len(classes), seed)[0][0])
  return results


def _drawn(dataset: Any, part: str, limit: int, seed: int) -> list[tuple[Sequence[str], Sequence[str]]]:
  """Sentences with their tags, until there are `limit` items."""
  (tags,) = dataset.labels.values()
  groups, count = [], 0
  for i in np.random.default_rng(seed).permutation(dataset.split[part]):
    if count >= limit:
      break
    groups.append((dataset.items[i], tags[i]))
    count += len(_items(tags[i]))
  return groups


def _items(tags: Sequence[str]) -> list[tuple[int, int, str]]:
  """First word, word behind the last, and class of what is asked about a sentence."""
  if all(tag == "O" or tag[:2] in ("B-", "I-") for tag in tags):
    return sorted(entities(tags))
  return [(i, i + 1, tag) for i, tag in enumerate(tags)]


def _asked(sentences: Sequence[tuple[Sequence[str], Sequence[str]]]) -> list[tuple[int, int, str]]:
  """The items of all sentences, by the numbers of their words in all of them."""
  answers, start = [], 0
  for words, tags in sentences:
    answers += [(start + first, start + last, kind) for first, last, kind in _items(tags)]
    start += len(words)
  return answers


def _features(hidden: Hidden, sentences: Sequence[tuple[Sequence[str], Sequence[str]]],
              classes: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
  """[num_items, L + 1, dim] and classes [num_items]; one that training lacks has a number that is never guessed."""
  vectors, known = hidden([words for words, _ in sentences])
  number = {kind: i for i, kind in enumerate(classes)}
  items = [(np.flatnonzero(known[first:last]) + first, number.get(kind, len(classes)))
           for first, last, kind in _asked(sentences)]
  items = [(words, kind) for words, kind in items if len(words)]
  if not items:
    raise InputError("probing: the encoder knows none of the words that are asked about")
  return np.stack([vectors[words].mean(0) for words, _ in items]), np.array([kind for _, kind in items])


def _probe(parts: dict[str, tuple[np.ndarray, np.ndarray]], masks: np.ndarray, num_classes: int,
           seed: int) -> tuple[np.ndarray, np.ndarray]:
  """Accuracy on `test` [num_probes] and weights of the layers [num_probes, L + 1]; `masks` [num_probes, L + 1] says
  which layers a probe sees. All probes are trained side by side on the same batches."""
  x, y = parts["train"]
  mean, std = x.mean(0), x.std(0)
  standardize = lambda x: jnp.asarray((x - mean) / np.maximum(std, 1e-6), jnp.float32)
  x, y = standardize(x), jnp.asarray(y, jnp.int32)
  held_out = {part: (standardize(parts[part][0]), parts[part][1]) for part in ("dev", "test")}
  num, masks = len(masks), jnp.asarray(masks)
  params = {"s": jnp.zeros(masks.shape), "gamma": jnp.ones(num), "bias": jnp.zeros((num, num_classes)),
            "kernel": jnp.zeros((num, x.shape[-1], num_classes))}
  optimizer = optax.adam(RATE)

  def loss(params, x, y):
    entropy = optax.softmax_cross_entropy_with_integer_labels(_logits(params, masks, x), y[None])
    return entropy.mean(1).sum()

  @jax.jit
  def train(params, state, rng, x, y):
    def step(carry, rng):
      rows = jax.random.randint(rng, (min(BATCH_SIZE, len(x)),), 0, len(x))
      updates, state = optimizer.update(jax.grad(loss)(carry[0], x[rows], y[rows]), carry[1])
      return (optax.apply_updates(carry[0], updates), state), None

    return jax.lax.scan(step, (params, state), jax.random.split(rng, STEPS))[0]

  state, best = optimizer.init(params), np.full(num, -1.0)
  accuracy, weights = np.zeros(num), np.zeros(masks.shape)
  for round_ in range(ROUNDS):
    params, state = train(params, state, jax.random.fold_in(jax.random.key(seed), round_), x, y)
    scores = {part: _accuracy(params, masks, *arrays) for part, arrays in held_out.items()}
    better = scores["dev"] > best
    best = np.where(better, scores["dev"], best)
    accuracy = np.where(better, scores["test"], accuracy)
    weights = np.where(better[:, None], np.asarray(_weights(params, masks)), weights)
  return accuracy, weights


def _weights(params: Any, masks: Array) -> Array:
  return jax.nn.softmax(jnp.where(masks, params["s"], _NEVER), axis=-1)


@jax.jit
def _logits(params: Any, masks: Array, x: Array) -> Array:
  """[num_probes, num_items, num_classes]."""
  mixed = jnp.einsum("pl,nld->pnd", params["gamma"][:, None] * _weights(params, masks), x)
  return jnp.einsum("pnd,pdc->pnc", mixed, params["kernel"]) + params["bias"][:, None]


def _accuracy(params: Any, masks: Array, x: Array, y: np.ndarray) -> np.ndarray:
  guessed = [np.asarray(_logits(params, masks, x[i:i + 2048]).argmax(-1)) for i in range(0, len(x), 2048)]
  return (np.concatenate(guessed, axis=1) == y).mean(1)


PROTOCOL = Protocol(
    probing, needs=("hidden",), uses=("untrained",),
    metrics={
        "accuracy": Metric(True, "fraction"), "mix_*": Metric(None, "fraction"),
        "center_of_gravity": Metric(None, "layers"), "expected_layer": Metric(None, "layers"),
    })
