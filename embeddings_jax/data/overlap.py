"""Training sentences that an evaluation asks about, and how to leave them out."""
import functools
import re
from collections.abc import Iterable, Sequence

import numpy as np

from embeddings_jax.data.words import combining_marks, composed

_BETWEEN = re.compile(r"[\W_]+")


def normalized(sentence: str) -> str:
  """Returns the letters, combining marks and digits of a sentence in lower case and nothing else.

  `Don't.`, `don 't .` and `dont` become equal, so that tokenization does not matter.
  """
  sentence = sentence.lower()
  return (_BETWEEN if sentence.isascii() else _between()).sub("", composed(sentence))


@functools.cache
def _between() -> re.Pattern[str]:
  return re.compile(rf"(?:[^\w{combining_marks()}]|_)+")


def without_overlap(
    items: Sequence[str | tuple[str, ...]],
    others: Iterable[str | tuple[str, ...]],
) -> tuple[np.ndarray, int]:
  """Which items share no sentence with others, compared by `normalized`.

  SNLI and the image pairs of STS have captions of the same images, and the STS Benchmark is drawn from the years
  2012 to 2017: whoever trains on one of them and is asked about another should leave out what they share.

  Args:
    items: sentences, pairs or triples of them, to train on.
    others: the same of the sets that the model is asked about. Sentences without a letter or digit are no overlap.

  Returns:
    Indices of the items that stay, int64 in order, and the number of those dropped.
  """
  known = {normalized(sentence) for item in others for sentence in _sentences(item)} - {""}
  kept = [i for i, item in enumerate(items) if all(normalized(s) not in known for s in _sentences(item))]
  return np.array(kept, np.int64), len(items) - len(kept)


def _sentences(item: str | tuple[str, ...]) -> tuple[str, ...]:
  return (item,) if isinstance(item, str) else tuple(item)
