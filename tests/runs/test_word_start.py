"""`--init_from` of word vectors: tokens that are words begin with them."""
import json

import chex
import numpy as np
import pytest
from commands import call
from test_pretrained import TEXTS

from embeddings_jax.data.encoders.images import ImageEncoder
from embeddings_jax.data.encoders.subwords import SubwordEncoder
from embeddings_jax.data.tokenizer_training import train_bpe, train_wordpiece
from embeddings_jax.gradient import GradientState
from embeddings_jax.interop import word_vectors
from embeddings_jax.runs import word_start, workdir
from embeddings_jax.types import InputError

WORDS = ["the", "cat", "sat", "unheard"]


def start(vectors):
  return word_start.WordStart("W", WORDS, np.asarray(vectors, np.float32), "")


def state_of(table):
  params = {"encoder": {"token_embedding": table, "position_embedding": table[:3]}}
  return GradientState(np.zeros((), np.int32), params, {}, (), params)


def drawn(rows, dim, seed=0):
  return np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)


@pytest.mark.parametrize("model", ["wordpiece", "bpe"])
def test_tokens_that_are_words_have_the_words_inner_products(model):
  tokenizer = train_wordpiece(TEXTS * 9, 90) if model == "wordpiece" else train_bpe(TEXTS * 9, 290)
  encoder, vectors = SubwordEncoder(tokenizer, 16), drawn(4, 3)
  mark = "" if model == "wordpiece" else "\u0120"  # The space before a word.
  ids = [encoder.vocabulary[mark + word] for word in ("cat", "sat")]
  fresh = drawn(encoder.facts["vocab_size"], 5, 1)
  said = []
  put = word_start.initial(start(vectors), encoder, said.append)
  state = put(state_of(fresh))
  table = state.params["encoder"]["token_embedding"]
  changed = np.flatnonzero((table != fresh).any(1))
  tokens = {i: token for token, i in encoder.vocabulary.items()}
  named = [tokens[i].lstrip("\u0120").lower() for i in changed]
  assert set(named) == {"the", "cat", "sat"} and set(ids) <= set(changed)
  assert said == [f"W: {len(changed)} of {len(fresh)} tokens begin with the vectors of words"]
  # By hand: centered over the tokens, of one length, that of the fresh ones.
  mine = vectors[[WORDS.index(name) for name in named]]
  mine = mine - mine.mean(0)
  mine /= np.linalg.norm(mine, axis=1, keepdims=True)
  expected = np.linalg.norm(fresh, axis=1).mean()**2 * mine @ mine.T
  np.testing.assert_allclose(table[changed] @ table[changed].T, expected, atol=1e-5)
  assert not any(tokens[i].startswith("##") for i in changed)
  np.testing.assert_array_equal(state.average["encoder"]["token_embedding"], table)
  np.testing.assert_array_equal(state.params["encoder"]["position_embedding"], fresh[:3])
  again = word_start.initial(start(vectors), encoder, lambda _: None)(state_of(fresh))
  chex.assert_trees_all_equal(again.params, state.params)


def test_vectors_that_do_not_fit_are_refused():
  encoder = SubwordEncoder(train_wordpiece(TEXTS * 9, 90), 16)
  with pytest.raises(InputError, match="W: its vectors have 6 dimensions, and the model's embeddings only 5"):
    word_start.initial(start(drawn(4, 6)), encoder, lambda _: None)(state_of(drawn(90, 5)))
  foreign = start(drawn(4, 3))._replace(words=["je", "tu", "il", "nous"])
  with pytest.raises(InputError, match="W: none of its 4 words is a token of the model"):
    word_start.initial(foreign, encoder)


def test_what_has_no_tokens_or_no_vectors_is_refused(tmp_path):
  with pytest.raises(InputError, match="W: holds vectors of words, and the model has no embeddings of tokens"):
    word_start.initial(start(drawn(4, 3)), ImageEncoder(8, 8, 1))
  (tmp_path / "empty.txt").write_text("")
  with pytest.raises(InputError, match="empty.txt: is empty"):
    word_start.find(str(tmp_path / "empty.txt"))
  with pytest.raises(InputError, match="nowhere: no such directory or file"):
    word_start.find(str(tmp_path / "nowhere"))
  assert word_start.find(str(tmp_path)) is None  # Something else, for others to read.


def test_a_run_begins_with_the_vectors_of_a_file(tmp_path):
  word_vectors.write(tmp_path / "vectors.txt", WORDS, drawn(4, 3), "word2vec")
  done = call("run", "--preset=tiny", "--steps=1", f"--workdir={tmp_path / 'w'}", "--model=bert",
              f"--init_from={tmp_path / 'vectors.txt'}")
  assert done.returncode == 0, done.stderr
  assert f"{tmp_path / 'vectors.txt'}: 1 of 400 tokens begin with the vectors of words" in done.stdout
  origin = json.loads((tmp_path / "w" / "config.json").read_text())["trajectory"]["init_from"]
  assert origin == word_start.find(str(tmp_path / "vectors.txt")).fingerprint


def test_vectors_of_a_run_on_the_same_documents_are_recognized(tmp_path):
  record = {"format": workdir.FORMAT, "config": {"data": {}}, "facts": {}, "batch": {}, "encoder": "e", "steps": 1,
            "trajectory": {"fingerprint": "f"}}
  (tmp_path / "config.json").write_text(json.dumps(record))
  of_run = start(drawn(4, 3))._replace(path=tmp_path)
  assert word_start.has_read(of_run, "f") and not word_start.has_read(of_run, "g")
  assert not word_start.has_read(of_run._replace(path=tmp_path / "vectors.txt"), "f")
