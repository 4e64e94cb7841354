"""Text classification: what word vectors are worth as the input of a classifier."""
import functools
import re
from collections import Counter
from collections.abc import Callable, Container, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from embeddings_jax.eval.word_similarity import known_form
from embeddings_jax.ops import sentence_vectors
from embeddings_jax.types import Array, InputError, Metric, Protocol

MAX_WORDS = 20000
MAX_LENGTH = 256  # Words of a text.
BATCH_SIZE = 128
ROUNDS = 10  # After each of them the held-out texts are looked at.
STEPS = {"frozen": 600, "finetuned": 150}  # Updates of a round: those of W and b alone cost next to nothing.
RATES = {"frozen": (1e-2, 1e-1), "finetuned": (1e-3, 1e-2)}
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")


def text_classification(
    embed: Callable[[Sequence[str]], np.ndarray],
    dataset: Any,
    *,
    vocabulary: Container[str],
    seed: int = 0,
) -> dict[str, float]:
  """Accuracy of a linear classifier of the mean of a text's word vectors, given these vectors and without them.

    p(y | text) = softmax(W . mean_{w in text} v_w + b)

  W and b are always learnt, by cross-entropy; the vectors are

  | name | vectors |
  |---|---|
  | `frozen` | the given ones, as they are |
  | `finetuned` | the given ones, and learnt further |
  | `random_frozen` | normal noise for the same words, as it is |
  | `random_finetuned` | the same noise, learnt further |
  | `task` | noise for the words of the training texts, known or not, learnt: what the task alone teaches |

  Protocol. Words are letters and digits, with apostrophes inside; they are looked up as written, then in lower case.
  The first `MAX_LENGTH` known words of a text count, and of all words the `MAX_WORDS` most frequent in all parts (of
  `task`: in the training part, in lower case). Given vectors are divided by their mean length, noise has length 1 on
  average. Adam, batches of 128 drawn with `seed`; 6000 updates of W and b alone, 1500 where vectors are learnt. Of
  two learning rates (.01 and .1 for W and b alone, .001 and .01 with vectors) and ten moments of the training the
  pair with the highest accuracy on held-out texts is taken, ties: the first. Held out is the part `dev` or `valid`,
  else a tenth of the training part, drawn with `seed`. The test part is looked at once for each row of the table.

  Sets: `sst2` (Socher et al. 2013, as in GLUE, whose development part is the test part here), `20news` (Lang 1995,
  by date, without headers and quotes); their checksums are in `data/catalog.py`. Known figures, in the table's
  order, with skip-gram vectors of `enwiki-2015` (one epoch, d 100): `sst2` .70 .79 .60 .79 .80, majority .51;
  `20news` .44 .71 .26 .71 .72, majority .05. So such vectors help a linear classifier where they are all that it
  has; with tens of thousands of labeled texts it learns as good ones by itself.

  Args:
    embed: words -> [num_words, dim].
    dataset: texts with one kind of label and the parts `train` and `test`.
    vocabulary: the words that `embed` knows.
    seed: Random seed of noise, batches and held-out rows.

  Returns:
    `test/{name}/accuracy` for the names above, `test/majority/accuracy` of the most frequent label of the training
    part, and `known_words`, the share of the training part's words that are known.
  """
  if len(dataset.labels) != 1 or not {"train", "test"} <= set(dataset.split):
    raise InputError(f"text_classification: dataset {getattr(dataset, 'name', '')!r} should have one kind of label "
                     "and the parts train and test, as sst2 and 20news have")
  classes, labels = np.unique(*dataset.labels.values(), return_inverse=True)
  train, test = (np.asarray(dataset.split[part]) for part in ("train", "test"))
  if len(np.unique(labels[train])) < 2:
    raise InputError(f"text_classification: labels {next(iter(dataset.labels))!r} of dataset "
                     f"{getattr(dataset, 'name', '')!r} have one class in the part train; there is nothing to tell "
                     "apart")
  noise = np.random.default_rng(seed)
  held_out = next((np.asarray(dataset.split[part]) for part in ("dev", "valid") if part in dataset.split), None)
  if held_out is None:
    train = noise.permutation(train)
    held_out, train = np.split(train, [len(train) // 10])
  parts = {"train": train, "held_out": held_out, "test": test}

  texts = {name: [_WORD.findall(dataset.items[i]) for i in rows] for name, rows in parts.items()}
  forms: dict[str, str | None] = {}
  for listed in texts.values():
    for word in {word for words in listed for word in words} - forms.keys():
      forms[word] = known_form(word, vocabulary)
  known = _most_frequent(forms[word] for listed in texts.values() for words in listed for word in words)
  own = _most_frequent(word.lower() for words in texts["train"] for word in words)
  if not known:
    raise InputError(f"text_classification: the vectors know no word of {getattr(dataset, 'name', 'the data set')!r}")
  vectors = np.asarray(embed(list(known)), np.float32)
  vectors /= np.maximum(np.linalg.norm(vectors, axis=1).mean(), 1e-30)
  dim = vectors.shape[1]
  draw = lambda words: (noise.normal(size=(len(words), dim)) / np.sqrt(dim)).astype(np.float32)
  random, task = draw(known), draw(own)
  tokens = {
      "known": {name: _tokens(listed, lambda word: known.get(forms[word], -1)) for name, listed in texts.items()},
      "own": {name: _tokens(listed, lambda word: own.get(word.lower(), -1)) for name, listed in texts.items()}}
  targets = {name: jnp.asarray(labels[rows], jnp.int32) for name, rows in parts.items()}

  metrics = {}
  for name, table, index in (("frozen", vectors, "known"), ("finetuned", vectors, "known"),
                             ("random_frozen", random, "known"), ("random_finetuned", random, "known"),
                             ("task", task, "own")):
    inputs = {part: jnp.asarray(rows) for part, rows in tokens[index].items()}
    start = {"weight": jnp.zeros((vectors.shape[1], len(classes))), "bias": jnp.zeros(len(classes))}
    frozen = name.endswith("frozen")
    if frozen:
      inputs = {part: _mean(jnp.asarray(table), rows) for part, rows in inputs.items()}
    else:
      start["table"] = jnp.asarray(table)
    metrics[f"test/{name}/accuracy"] = _best(start, inputs, targets, "frozen" if frozen else "finetuned", seed)
  majority = np.bincount(labels[train]).argmax()
  metrics["test/majority/accuracy"] = float((labels[test] == majority).mean())
  occurring = [forms[word] is not None for words in texts["train"] for word in words]
  return metrics | {"known_words": float(np.mean(occurring))}


def _best(start: dict[str, Array], inputs: dict[str, Array], targets: dict[str, Array], kind: str,
          seed: int) -> float:
  """Test accuracy of the parameters with the highest accuracy on the held-out texts."""
  best, chosen = -1.0, start
  for rate in RATES[kind]:
    params, moments = start, optax.scale_by_adam().init(start)
    for round_ in range(ROUNDS):
      rng = jax.random.fold_in(jax.random.key(seed), round_)
      params, moments = _train(params, moments, inputs["train"], targets["train"], rate, rng, STEPS[kind])
      accuracy = _accuracy(params, inputs["held_out"], targets["held_out"])
      if accuracy > best:
        best, chosen = accuracy, params
  return _accuracy(chosen, inputs["test"], targets["test"])


@functools.partial(jax.jit, static_argnums=6)
def _train(
    params: Any, moments: Any, inputs: Array, targets: Array, rate: float | Array, rng: Array, steps: int,
) -> tuple[Any, Any]:
  """Updates by Adam."""

  def step(carry, rng):
    params, moments = carry
    rows = jax.random.randint(rng, (BATCH_SIZE,), 0, len(inputs))
    loss = lambda p: optax.softmax_cross_entropy_with_integer_labels(_logits(p, inputs[rows]), targets[rows]).mean()
    updates, moments = optax.scale_by_adam().update(jax.grad(loss)(params), moments)
    return (jax.tree.map(lambda p, u: p - rate * u, params, updates), moments), None

  return jax.lax.scan(step, (params, moments), jax.random.split(rng, steps))[0]


def _logits(params: Any, inputs: Array) -> Array:
  """Returns logits of mean vectors [n, d], or of tokens [n, length] where the vectors are parameters."""
  features = sentence_vectors.mean(params["table"], inputs) if "table" in params else inputs
  return features @ params["weight"] + params["bias"]


def _mean(table: Array, tokens: Array) -> Array:
  return _in_blocks(sentence_vectors.mean, table, tokens)


def _accuracy(params: Any, inputs: Array, targets: Array) -> float:
  return float((_in_blocks(_logits, params, inputs).argmax(1) == targets).mean())


@functools.partial(jax.jit, static_argnums=0)
def _in_blocks(function: Callable[..., Array], params: Any, inputs: Array) -> Array:
  """`function(params, inputs)`, a batch of rows at a time: the vectors of all words of all texts are too many."""
  padded = jnp.pad(inputs, [(0, -len(inputs) % BATCH_SIZE), (0, 0)])
  mapped = jax.lax.map(lambda rows: function(params, rows), padded.reshape(-1, BATCH_SIZE, inputs.shape[1]))
  return mapped.reshape(-1, mapped.shape[-1])[:len(inputs)]


def _most_frequent(words: Any) -> dict[str, int]:
  """Numbers the most frequent words, those that occur as often in the order of the alphabet; None is no word."""
  counts = Counter(words)
  counts.pop(None, None)
  return {word: i for i, word in enumerate(sorted(counts, key=lambda word: (-counts[word], word))[:MAX_WORDS])}


def _tokens(texts: Sequence[Sequence[str]], number: Callable[[str], int]) -> np.ndarray:
  """int32 [num_texts, length], -1 past a text's end."""
  rows = [[i for i in map(number, words) if i >= 0][:MAX_LENGTH] for words in texts]
  table = np.full((len(rows), max(1, *map(len, rows))), -1, np.int32)
  for target, row in zip(table, rows):
    target[:len(row)] = row
  return table


PROTOCOL = Protocol(
    text_classification, needs=("embed", "vocabulary"),
    metrics={
        "accuracy": Metric(True, "fraction"), "known_words": Metric(None, "fraction"),
    })
