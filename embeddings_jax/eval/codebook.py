"""Use of discrete codes over a held-out split.

Protocol. Images of the split as for `reconstruction`: `test`, else `validation`, else `all`. Over all codes of all
images:

  usage            share of the codes that occur at least once
  code_perplexity  exp of the entropy of their frequencies
  bits_per_image   log2 of the perplexity times the codes of an image: what an ideal coder needs that knows
                   frequencies and nothing of neighbors; at most log2 of the number of codes each

Neither says that an image is well described: see `reconstruction`. A codebook of which few codes are used has
collapsed; dead codes are revived by `vq_vae`'s `revival`.
"""
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from embeddings_jax.eval.reconstruction import held_out_batches
from embeddings_jax.types import Metric, Protocol, Source

AT_ONCE = 256  # Images.


def codebook(
    embed: Any,
    dataset: Any,
    *,
    codes: Callable[[Mapping[str, Any]], Any],
    num_codes: int,
    encode: Callable[[Any], Mapping[str, Any]],
    source: Source | None = None,
) -> dict[str, float]:
  """Usage and entropy of the codes of one split.

  Args:
    embed: Not used.
    dataset: Has `items`, and maybe the split `test`.
    codes: Batch -> int [n, ...].
    num_codes: Number of different codes.
    encode: Items -> batch.
    source: Held-out batches.

  Returns:
    `{split}/{metric}`.
  """
  del embed
  part, batches = held_out_batches(dataset, encode, source, AT_ONCE)
  counts, length = np.zeros(num_codes, np.int64), 1
  for batch in batches:
    indices = np.asarray(codes(batch))[np.asarray(batch["mask"]) > 0]
    length = int(np.prod(indices.shape[1:]))
    counts += np.bincount(indices.reshape(-1), minlength=num_codes)
  share = counts[counts > 0] / counts.sum()
  entropy = float(-(share * np.log(share)).sum())
  return {f"{part}/usage": float((counts > 0).mean()), f"{part}/code_perplexity": float(np.exp(entropy)),
          f"{part}/bits_per_image": length * entropy / float(np.log(2))}


PROTOCOL = Protocol(codebook, needs=("codes",),
                    metrics={"usage": Metric(True, "fraction"), "code_perplexity": Metric(None),
                             "bits_per_image": Metric(None, "bits")})
