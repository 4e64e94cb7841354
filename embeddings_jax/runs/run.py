"""A trained model with its encoder: `ej.load` and `ej.fit` return it, the commands are calls of its methods."""
import dataclasses
import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from embeddings_jax.data.files.arrays import read_npy
from embeddings_jax.data.files.names import read_names
from embeddings_jax.errors import InputError, check_choice
from embeddings_jax.eval import neighbors as nearest
from embeddings_jax.eval.word_similarity import known_form
from embeddings_jax.interop.dense import Dense, apply_dense
from embeddings_jax.ops.pooling import check_pooling
from embeddings_jax.runs import inference, row_index
from embeddings_jax.types import Model, Prepared, PyTree

_TINY = 1e-12  # Least norm that vectors are divided by.


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Run:
  """A trained model with its encoder.

  Attributes:
    path: Directory or file that it was loaded from; None if it was trained in memory.
    record: Contents of `config.json`, with at least `config`.
    model: The pure functions.
    state: Their parameters.
    step: Updates made.
    encoder: Turns items into batches.
    rebuild: `(**options) -> Model`: the same model with other hyperparameters, of which the state's shapes must not
      depend; for pooling and sampling.
    normalize: Whether `embed` divides vectors by their norms, as some sentence-transformers directories ask for.
    prepared: Data that it was trained on, where that is in memory.
    dense: Layers behind the pooling, of sentence-transformers.
  """

  path: epath.Path | None
  record: Mapping[str, Any]
  model: Model
  state: PyTree
  step: int
  encoder: Any
  rebuild: Callable[..., Model]
  normalize: bool = False
  prepared: Prepared | None = None
  dense: Sequence[Dense] = ()

  def __repr__(self) -> str:
    return f"Run({self.config['name']}, step {self.step}{f', {self.path}' if self.path else ''})"

  @property
  def config(self) -> Mapping[str, Any]:
    """The completed config; of a pretrained network its name and hyperparameters."""
    return self.record["config"]

  @property
  def mesh(self) -> jax.sharding.Mesh:
    """The mesh on which the state lies."""
    return jax.tree.leaves(self.state)[0].sharding.mesh

  def embed(self, items: Sequence[Any], *, pooling: str = "", normalize: bool | None = None,
            **options: Any) -> np.ndarray:
    """Embeds items.

    Args:
      items: Words, texts, images, clips or rows, as the encoder takes them; also paths of image and wav files.
      pooling: How a text's vector is made of those of its tokens (`ops/pooling.py`), or of its words
        (`inference.WORD_POOLINGS`); "" for the model's own way.
      normalize: Divide vectors by their norms; by default as the run's makers do.
      **options: Options of `inference.sentence_embedder`, as `sif_a`.

    Returns:
      `[num_items, dim]` float32; rows of which the encoder knows nothing are 0.

    Raises:
      InputError: An item cannot be encoded, or the model has no such pooling.
    """
    vectors = self.embedder(pooling, **options)(items)
    return l2_normalize(vectors) if (self.normalize if normalize is None else normalize) else vectors

  def embedder(self, pooling: str = "", **options: Any) -> Callable[[Sequence[Any]], np.ndarray]:
    """Returns `items -> vectors`, see `embed`."""
    embed = self._embedder
    if pooling and self.encoder.names is not None:
      check_choice("pooling", pooling, inference.WORD_POOLINGS)
      return inference.sentence_embedder(embed, self.encoder, pooling, **options)
    return self.with_pooling(pooling)._embedder if pooling else embed

  @functools.cached_property
  def _embedder(self) -> Callable[[Sequence[Any]], np.ndarray]:
    embed = inference.embedder(self.model, self.state, self.encoder)
    return (lambda items: apply_dense(self.dense, embed(items))) if self.dense else embed

  def with_pooling(self, pooling: str) -> "Run":
    """Returns the run with another pooling of a network's tokens or patches."""
    if "pooling" not in self.config["model"]:
      raise InputError(f"pooling={pooling}: needs a model of words or of tokens, and {self.config['name']} is none")
    check_pooling(pooling)
    return dataclasses.replace(self, model=self.rebuild(pooling=pooling))

  def evaluate(self, protocols: str | Sequence[str] = (), *, data: str = "", data_dir: str | None = None,
               cache_dir: str | None = None, pooling: str = "", options: Mapping[str, Any] | None = None,
               report: Callable[[str], None] = logging.warning) -> dict[str, float]:
    """Evaluates by protocols.

    Args:
      protocols: `protocol` or `protocol:dataset`, as `word_similarity` or `knn:fashion-mnist`; by default the
        config's, of which what cannot be answered is reported and left out.
      data: Replaces the run's own dataset.
      data_dir, cache_dir: Directories of the catalog's files and of derived data.
      pooling: How a text's vector is made, see `embed`.
      options: Keyword arguments of protocols' functions, and `inception`, a file of FID's network for `generation`.
      report: Receives a line for each protocol that is left out, as where its data is missing.

    Returns:
      Metric -> value; metrics of another dataset have its name in front.

    Raises:
      InputError: A protocol is unknown, or cannot be answered by the model.
    """
    from embeddings_jax.runs import evaluation

    names = [protocols] if isinstance(protocols, str) else list(protocols) or list(self.config["evals"])
    evaluator = evaluation.of_run(self, names, pooling=pooling, data=data, data_dir=data_dir, cache_dir=cache_dir,
                                  options=options, report=report)
    return evaluator.evaluate(names, lenient=not protocols)

  def neighbors(self, items: Sequence[str] = (), *, positive: Sequence[str] = (), negative: Sequence[str] = (),
                k: int = 10) -> dict[str, list[tuple[str, float]]]:
    """Finds nearest neighbors by cosine.

    Args:
      items: Of a model of words, words, also unseen ones where it reads their n-grams; else items to embed, which are
        compared with the vectors that the run left in `embeddings.npy`. A word is looked up as written, then in lower
        case.
      positive, negative: Words to add and to subtract, as in king - man + woman; a further answer.
      k: Neighbors of each.

    Returns:
      Item (or `king + woman - man`) -> names and cosines, the nearest first.
    """
    if self.encoder.names is None:
      if positive or negative:
        raise InputError(f"positive, negative: {self.config['name']} learns no vectors of words")
      return {str(item): near for item, near in zip(items, self._nearest_rows(items, k))}
    names = list(self.encoder.names)
    vectors, known = self.embed(names), dict.fromkeys(names)
    written = lambda words: [known_form(word.strip(), known) or word.strip() for word in words]
    anything = getattr(self.encoder, "known_words", known)  # Of words that are made of n-grams: every word.
    unseen = [word for word in written(items) if word not in known and word in anything]
    listed = [word for word in written(items) if word not in unseen]
    answers = nearest.neighbors(vectors, names, listed, k=k) if listed else {}
    for word in unseen:
      table = np.concatenate([vectors, self.embed([word])])
      answers[word] = nearest.combination(table, [*names, "\0"], positive=["\0"], k=k)
    if positive or negative:
      positive, negative = written(positive), written(negative)
      title = " + ".join(positive) + "".join(f" - {word}" for word in negative)
      answers[title.strip()] = nearest.combination(vectors, names, positive=positive, negative=negative, k=k)
    return answers

  def _nearest_rows(self, items: Sequence[Any], k: int) -> list[list[tuple[str, float]]]:
    """Returns the rows of `embeddings.npy` that are nearest to each item."""
    if self.path is None or not (self.path / "embeddings.npy").exists():
      raise InputError("neighbors: the run left no embeddings.npy to compare with; use the work directory of a run")
    vectors, listed = read_npy(self.path / "embeddings.npy"), self.path / row_index.NAME
    if listed.exists():
      names = row_index.titles(row_index.read(listed))
    else:
      listed = self.path / "vocabulary.txt"
      names = read_names(listed) if listed.exists() else [f"document {i}" for i in range(len(vectors))]
    if len(names) != len(vectors):
      raise InputError(f"{listed}: has {len(names)} names for the {len(vectors)} rows of embeddings.npy; evaluate "
                       "the run again to write both")
    queries, own_name = self.embed(items), "\0"  # Is no item's name.
    for item, query in zip(items, queries):
      if not query.any():
        raise InputError(f"neighbors: {str(item)[:80]!r}: none of its words is in the vocabulary")
    return [nearest.combination(np.concatenate([vectors, query[None]]), [*names, own_name], positive=[own_name], k=k)
            for query in queries]

  def sample(self, num: int = 1, *, prompt: str = "", length: int = 100, seed: int = 0, **options: Any) -> Any:
    """Draws samples from a generative model.

    Args:
      num: Number of samples.
      prompt: Text to continue, of a language model; without one a document is begun. Text to write anew, of an
        autoencoder of text; without one codes are drawn from the prior.
      length: Tokens to add at most, of a language model.
      seed: Random seed.
      **options: Hyperparameters of sampling, as `temperature`, `top_k` and `top_p` of `gpt`; of models that only
        decode codes, as `autoencoder`, options of `sampling.sample`.

    Returns:
      A list of `num` texts of a language model, else an array `[num, ...]` of what the model reads, as standardized
      rows.
    """
    if hasattr(self.encoder, "origin"):  # Codes of another run, which decodes them.
      from embeddings_jax.runs import codes

      return codes.sample(self, num, seed=seed, **options)
    if "sample" not in self.model.outputs:
      if "decode" in self.model.outputs:
        from embeddings_jax.runs import sampling

        return sampling.sample(self, num, seed=seed, **options)
      raise InputError(f"sample: {self.config['name']} draws no samples; gpt and gmm do")
    batch, written = None, ""
    if hasattr(self.encoder, "token_ids") and "reconstruct" in self.model.outputs:
      batch = self.encoder.encode([prompt]) if prompt else None
      options["sample_length"] = length
    elif hasattr(self.encoder, "token_ids"):
      written = prompt
      batch, length = self._prompt(prompt, length, num)
      options["sample_length"] = length
    sample = (self.rebuild(**options) if options else self.model).outputs["sample"]
    with jax.set_mesh(self.mesh):
      drawn = np.asarray(jax.jit(sample, static_argnums=2)(self.state, jax.random.key(seed), num, batch))
    if not hasattr(self.encoder, "token_ids"):
      return drawn
    end = self.encoder.facts.get("end_id")
    return [written + self.encoder.decode(row[row != end] if end is not None else row) for row in drawn]

  def _prompt(self, prompt: str, length: int, num: int) -> tuple[dict[str, np.ndarray], int]:
    """Returns the batch of a prompt for `num` samples, and how many tokens fit behind it."""
    tokens, end = self.encoder.token_ids(prompt), self.encoder.facts.get("end_id")
    if end is not None:  # What begins a document follows the end of one.
      tokens = np.concatenate([[end], tokens])
    if not len(tokens):
      raise InputError("prompt is missing: the tokenizer has no token that begins a text")
    longest = self.config["model"].get("max_length", 1 << 20)  # A recurrent network has no limit.
    length = min(length, longest)
    tokens = tokens[-(longest + 1 - length):]  # Of a long text the end counts.
    return {"tokens": np.tile(tokens.astype(np.int32), (num, 1))}, length

  def decode(self, codes: Any) -> np.ndarray:
    """Returns what a generative model makes of latent codes `[n, ...]`."""
    if "decode" not in self.model.outputs:
      raise InputError(f"decode: {self.config['name']} has no decoder")
    with jax.set_mesh(self.mesh):
      return np.asarray(jax.jit(self.model.outputs["decode"])(self.state, codes))

  def export(self, output: str, format: str, *, report: Callable[[str], None] = lambda line: None) -> None:
    """Writes word vectors or a network for other programs; see `runs/export.py`."""
    from embeddings_jax.runs import export

    export.export(self, output, format, report=report)


def l2_normalize(vectors: np.ndarray) -> np.ndarray:
  """Divides vectors [n, dim] by their norms; 0 stays 0."""
  return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), _TINY)
