"""Pairs of words and contexts: the paper's sentence, positions by hand, bad lines."""
import collections

import numpy as np
import pytest

from embeddings_jax.data import contexts
from embeddings_jax.types import InputError

# Levy & Goldberg 2014, figure 1, as Universal Dependencies.
SENTENCE = """# text = Australian scientist discovers star with telescope
1\tAustralian\t_\tADJ\t_\t_\t2\tamod\t_\t_
2\tscientist\t_\tNOUN\t_\t_\t3\tnsubj\t_\t_
3\tdiscovers\t_\tVERB\t_\t_\t0\troot\t_\t_
4-5\tstarwith\t_\t_\t_\t_\t_\t_\t_\t_
4\tstar\t_\tNOUN\t_\t_\t3\tobj\t_\t_
5\twith\t_\tADP\t_\t_\t6\tcase\t_\t_
6\ttelescope\t_\tNOUN\t_\t_\t3\tobl\t_\t_
7\t.\t_\tPUNCT\t_\t_\t3\tpunct\t_\t_
"""


def test_contexts_of_the_papers_sentence():
  actual = collections.defaultdict(set)
  for word, context, number in contexts.dependencies(SENTENCE.split("\n"), "s"):
    assert number == 1
    actual[word].add(context)
  assert actual == {
      "australian": {"scientist/amod-1"}, "scientist": {"australian/amod", "discovers/nsubj-1"},
      "discovers": {"scientist/nsubj", "star/obj", "telescope/obl:with"}, "star": {"discovers/obj-1"},
      "telescope": {"discovers/obl:with-1"}}


def test_positions_by_hand():
  actual = sorted(pair[:2] for pair in contexts.positions(["a", "b", "c", "\0", "d"], 2))
  assert actual == [("a", "b/+1"), ("a", "c/+2"), ("b", "a/-1"), ("b", "c/+1"), ("c", "a/-2"), ("c", "b/-1")]


def test_counts_and_rare_ones():
  """A pair stands as often as it is counted; words and contexts are counted in pairs."""
  lines = ["sun\thot\t3", "sun\tbright", "moon\tbright\t2", "moon\trare"]
  actual = contexts.make_pairs(["\n".join(lines)], "pairs", where="f", min_count=3, min_context_count=2)
  assert actual.words.words == ["sun", "moon"] and list(actual.words.counts) == [4, 3]
  assert actual.contexts.words == ["bright", "hot"] and list(actual.contexts.counts) == [3, 3]
  pairs = collections.Counter((actual.words.words[w], actual.contexts.words[c])
                              for w, c in zip(actual.word, actual.context))
  assert pairs == {("sun", "hot"): 3, ("sun", "bright"): 1, ("moon", "bright"): 2}
  assert actual.word.dtype == actual.context.dtype == np.int32


@pytest.mark.parametrize("kind, text, message", [
    ("dependencies", SENTENCE.replace("\t2\tamod", "\t9\tamod"), "f: line 2: the head 9 is none of the sentence's 7"),
    ("dependencies", SENTENCE.replace("\t2\tamod", "\t_\tamod"), "f: line 2: the head '_' is no number; trees are"),
    ("dependencies", "1\tword", "f: line 1 has 2 columns, CoNLL-U has 10"),
    ("pairs", "sun hot\nsun", "f: line 2: expected a word, a context and perhaps a count, not 'sun'"),
    ("pairs", "sun hot -1", "f: line 1: the count '-1' is no positive whole number"),
    ("pairs", "sun hot", "f: no pair of a word and a context occurs often enough; lower data.min_count=5"),
    ("trees", "", "contexts=trees: unknown; one of positions, dependencies, pairs"),
])
def test_bad_input_is_named(kind, text, message):
  with pytest.raises(InputError, match=message):
    contexts.make_pairs([text], kind, where="f")
