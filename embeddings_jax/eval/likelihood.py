"""Likelihood bounds of held-out images, in nats per image and bits per dimension.

Protocol. The split as for `reconstruction`: `test`, else `validation`, else `all`; of more than 10,000 images the
first 10,000 or so (their number then stands in the split's name, `test_10000`). Metrics:

  elbo                    evidence lower bound, nats per image, a mean over images with one draw of the code each
  elbo_bits_per_dim       -elbo / (log 2 * height * width * channels)
  bound_k50               importance weighted bound of 50 draws (Burda, Grosse & Salakhutdinov 2016), nats; the larger
                          k, the closer to log p(x), from below
  bound_k50_bits_per_dim  the same in bits per dimension
  kl                      divergence of the posterior from the prior, nats per image; below .1 a warning is logged
  active_units            units of the code whose mean has a variance above .01 (Burda et al. 2016)

Densities are of pixels in [0, 1], so that a continuous likelihood may give negative bits; only a discrete one
(`discretized_logistic`) can be compared with other models' bits per dimension. A uniform model of 8-bit pixels has
exactly 8.
"""
import logging
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from embeddings_jax.eval.reconstruction import held_out_batches
from embeddings_jax.ops.likelihoods import bits_per_dim
from embeddings_jax.types import Array, Metric, Protocol, Source

NUM_SAMPLES = 50
MAX_ITEMS = 10_000
AT_ONCE = 100  # Images.
ACTIVE = 0.01  # Least variance.
COLLAPSED = 0.1  # Nats.


def likelihood(
    embed: Any,
    dataset: Any,
    *,
    bound: Callable[[Mapping[str, Any], Array, int], Any],
    encode: Callable[[Any], Mapping[str, Any]],
    source: Source | None = None,
    measure: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None,
    seed: int = 0,
    num_samples: int = NUM_SAMPLES,
) -> dict[str, float]:
  """Bounds on the log likelihood.

  Args:
    embed: Images -> means of their codes.
    dataset: Has `items`, and maybe the split `test`.
    bound: `(batch, rng, k) -> [n]`, the bound of k draws.
    encode: Items -> batch.
    source: Held-out batches.
    measure: Batch -> `kl_loss` as [sum, count].
    seed: Random seed of the draws.
    num_samples: k.

  Returns:
    `{split}/{metric}`.
  """
  if "test" in dataset.split and len(dataset.split["test"]) > MAX_ITEMS:
    dataset = dataset._replace(split={"test": np.asarray(dataset.split["test"])[:MAX_ITEMS]})
    part, batches = f"test_{MAX_ITEMS}", held_out_batches(dataset, encode, None, AT_ONCE)[1]
  else:
    part, batches = held_out_batches(dataset, encode, source, AT_ONCE)
  totals, divergence, count, size, means = np.zeros(2), np.zeros(2), 0.0, 1, []
  for number, batch in enumerate(batches):
    if count >= MAX_ITEMS:
      part = f"{part}_{int(count)}"
      break
    rng, mask = jax.random.fold_in(jax.random.key(seed), number), np.asarray(batch["mask"])
    size = int(np.prod(np.shape(batch["image"])[1:]))
    count += float(mask.sum())
    totals += [mask @ np.asarray(bound(batch, rng, k), np.float64) for k in (1, num_samples)]
    means.append(np.asarray(embed(np.asarray(batch["image"])[mask > 0])))
    if measure is not None:
      divergence += np.asarray(measure(batch)["kl_loss"], np.float64)
  metrics = {}
  for name, total in zip(("elbo", f"bound_k{num_samples}"), totals):
    metrics[f"{part}/{name}"] = float(total / count)
    metrics[f"{part}/{name}_bits_per_dim"] = float(bits_per_dim(total / count, size))
  metrics[f"{part}/active_units"] = float((np.concatenate(means).var(0) > ACTIVE).sum())
  if measure is not None:
    kl = metrics[f"{part}/kl"] = float(divergence[0] / divergence[1])
    if kl < COLLAPSED:
      logging.warning("likelihood: the KL divergence is %.3g nats, so the code says nothing about the image; try a "
                      "KL warm-up, free bits, a smaller beta or a weaker decoder", kl)
  return metrics


PROTOCOL = Protocol(
    likelihood, needs=("likelihood",), uses=("measures",),
    metrics={"kl": Metric(None, "nats"), "active_units": Metric(None, "count"),
             "*_bits_per_dim": Metric(False, "bits"), "elbo": Metric(True, "nats"),
             "bound_k*": Metric(True, "nats")})
