"""Semantic textual similarity: do cosines between sentence vectors order pairs of sentences as people do?"""
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from embeddings_jax.data.datasets.tasks import STS
from embeddings_jax.eval.metrics import check_scores, spearman
from embeddings_jax.eval.pairs import ALIKE, check_pairs, cosines, embedded
from embeddings_jax.ops import uniformity
from embeddings_jax.types import InputError, Metric, Protocol

AVERAGED = ("sts-12/all/spearman", "sts-13/all/spearman", "sts-14/all/spearman", "sts-15/all/spearman",
            "sts-16/all/spearman", "sts-b/test/spearman")


def sts(embed: Callable[[Sequence[str]], Any], dataset: Any) -> dict[str, float]:
  """Spearman's correlation of the cosine of two sentences' vectors and people's mean score of the pair.

  Protocol (SentEval, Conneau & Kiela 2018; the setting `all` of SimCSE, Gao et al. 2021, appendix B). Sentences are
  embedded as they are, each distinct one once, those of a part together: what is estimated from the sentences, as the
  component that SIF removes, is of that part. Nothing is fitted to scores, nothing chosen. Ties get the mean of their
  ranks, so the figure equals `scipy.stats.spearmanr`. A zero vector has cosine 0 with all. Cosines that are all equal
  give nan and a warning.

  - Sets with a label `source` (`sts-12` to `sts-16`, Agirre et al. 2012 to 2016), the part `test`: `all`, one
    correlation over all pairs, as SimCSE; `mean` over the sources' own, and `wmean`, weighted by their pairs, as
    SentEval has them. Of 2012 one source of five (MSRvid) is not at hand: no figure of that year, nor an average with
    it, is comparable with published ones.
  - Others (`sts-b`, Cer et al. 2017): each of the parts `dev` and `test`; a set without parts as `all`. Of `dev` also
    alignment, mean |f(x) - f(y)|² over pairs with a score above 4, and uniformity, log mean exp(-2 |f(x) - f(y)|²)
    over all pairs of distinct sentences (Wang & Isola 2020), of unit vectors.

  Checksums are in `data/catalog.py`. Known figures for `sts-b/test`: mean of GloVe vectors .580, of BERT's tokens
  .464, BERT's [CLS] .165 (sentence-transformers, docs/pretrained-models/sts-models.md); SimCSE of BERT-base without
  labels .769, with labels .843 (princeton-nlp/SimCSE, README and issue 100), and .824 and .847 for `sts-13/all`.
  With the vectors of `sgns --preset=small`, one seed (`experiments.evaluate --protocols=sts:all --pooling=...`): mean
  .488 (average of the six .541), SIF .559 (.607), idf .588 (.622). Vectors drawn at random: 0 +- 1 / sqrt(pairs).

  Args:
    embed: sentences -> [num_sentences, dim], an array or a sparse matrix of scipy.
    dataset: pairs with a label `score`.

  Returns:
    `{part}/spearman`, `dev/alignment`, `dev/uniformity`; or `all/spearman`, `mean/spearman`, `wmean/spearman`.

  Raises:
    InputError: No pairs with scores, fewer than two, or scores that are all equal, in one of the parts or sources.
  """
  check_pairs("sts", dataset)
  if "score" not in dataset.labels:
    raise InputError(f"sts: dataset {getattr(dataset, 'name', '')!r} has no scores, only "
                     f"{', '.join(dataset.labels) or 'pairs'}")
  score, every = np.asarray(dataset.labels["score"]), np.arange(len(dataset.items))
  if "source" in dataset.labels:
    rows = np.asarray(dataset.split.get("test", every))
    source = np.asarray(dataset.labels["source"])[rows]
    names, counts = np.unique(source, return_counts=True)
    for name in names:
      check_scores("sts", f"{dataset.name}, source {name},", score[rows][source == name])
    cosine = cosines(*embedded(embed, [dataset.items[i] for i in rows], "sts"))
    each = [spearman(cosine[source == name], score[rows][source == name], f"{dataset.name}: spearman of {name}")
            for name in names]
    return {"all/spearman": spearman(cosine, score[rows], f"{dataset.name}: spearman"),
            "mean/spearman": float(np.mean(each)), "wmean/spearman": float(np.average(each, weights=counts))}
  results = {}
  parts = [part for part in ("dev", "test") if part in dataset.split] or ["all"]
  for part in parts:
    check_scores("sts", f"{dataset.name}, part {part},", score[dataset.split.get(part, every)])
  for part in parts:
    rows = np.asarray(dataset.split.get(part, every))
    vectors, index = embedded(embed, [dataset.items[i] for i in rows], "sts")
    results[f"{part}/spearman"] = spearman(cosines(vectors, index), score[rows], f"{dataset.name}: {part}/spearman")
    if part == "dev":
      results |= _alignment_and_uniformity(vectors, index[score[rows] > ALIKE])
  return results


def average(metrics: Mapping[str, float]) -> dict[str, float]:
  """`sts-average/all/spearman` of the six sets' figures; nothing where one of them is missing.

  SimCSE's average has SICK-R beside them, and MSRvid in `sts-12`."""
  if not all(name in metrics for name in AVERAGED):
    return {}
  return {"sts-average/all/spearman": float(np.mean([metrics[name] for name in AVERAGED]))}


def _alignment_and_uniformity(vectors: Any, alike: np.ndarray) -> dict[str, float]:
  dense = jnp.asarray(vectors.toarray() if hasattr(vectors, "toarray") else vectors, jnp.float32)
  results = {"dev/uniformity": float(uniformity.uniformity(dense))}
  if len(alike):
    results["dev/alignment"] = float(uniformity.alignment(dense[alike[:, 0]], dense[alike[:, 1]]))
  return results


PROTOCOL = Protocol(
    sts, needs=("sentences",), default="sts-b", groups={"all": tuple(STS)}, summarize=average,
    metrics={
        "spearman": Metric(True), "alignment": Metric(False), "uniformity": Metric(False),
    })
