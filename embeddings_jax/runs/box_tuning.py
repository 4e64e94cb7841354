"""Vectors of boxes from a trunk's maps, and fine-tuning of the trunk on boxes, for `eval/detection.py`.

Girshick et al. 2014, arXiv:1311.2524, section 2.3: the network with a new layer for all classes and background is
trained by the cross-entropy of training boxes; each batch has 32 positive boxes and 96 of background.
"""
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, UInt8

from embeddings_jax.errors import InputError
from embeddings_jax.nets.grids import layer_tokens
from embeddings_jax.ops.feature_maps import pooled
from embeddings_jax.runs.trunks import Trunk, over_rows

CELLS = 2  # Per side, over which a layer's map is averaged.
POSITIVES, BACKGROUND = 32, 96  # Boxes of a batch.


def vectors(trunk: Trunk, layer: str, cells: int = CELLS) -> Callable[[np.ndarray], np.ndarray]:
  """Returns `images -> vectors`, the means of a layer's map over `cells` x `cells` cells side by side."""
  of_images = _vectors(trunk, layer, cells)
  compiled = jax.jit(of_images)
  return lambda images: over_rows(lambda part: compiled(trunk.variables, part), images)


def finetuner(trunk: Trunk, layer: str, *, steps: int, learning_rate: float = 1e-3, cells: int = CELLS,
              seed: int = 0) -> Callable[[np.ndarray, np.ndarray], Callable[[np.ndarray], np.ndarray]]:
  """Returns the argument `finetune` of `detection`.

  Args:
    trunk: The trunk; its running statistics stay as they are.
    layer: Layer whose map is classified; the layers above it are not used.
    steps: Updates by Adam, whose learning rate falls to 0 by a cosine.
    learning_rate: The first learning rate.
    cells: See `vectors`.
    seed: Random seed of the batches.
  """
  if steps < 1 or learning_rate <= 0:
    raise InputError(f"steps={steps}, learning_rate={learning_rate}: must be at least 1, and above 0")

  def finetune(crops: np.ndarray, labels: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    tuned = finetuned(trunk, layer, crops, labels, steps=steps, learning_rate=learning_rate, cells=cells, seed=seed)
    return vectors(tuned, layer, cells)

  return finetune


def finetuned(trunk: Trunk, layer: str, crops: UInt8[np.ndarray, "n height width channels"],
              labels: Int[np.ndarray, " n"], *, steps: int, learning_rate: float, cells: int = CELLS,
              seed: int = 0) -> Trunk:
  """Returns the trunk after training with a linear classifier of `crops` on top; `labels` are 0 for background.

  Raises:
    InputError: There are no positive boxes, or none of background.
  """
  kinds = [np.flatnonzero(labels > 0), np.flatnonzero(labels == 0)]
  if not all(map(len, kinds)):
    raise InputError(f"finetune: needs positive boxes and boxes of background; there are {len(kinds[0])} and "
                     f"{len(kinds[1])}")
  of_images = _vectors(trunk, layer, cells)
  optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))
  dim = jax.eval_shape(of_images, trunk.variables, crops[:1]).shape[1]
  params = {"trunk": trunk.variables["params"],
            "head": {"kernel": jnp.zeros((dim, int(labels.max()) + 1)), "bias": jnp.zeros(int(labels.max()) + 1)}}

  def loss_fn(params, images, targets):
    features = of_images({**trunk.variables, "params": params["trunk"]}, images)
    logits = features @ params["head"]["kernel"] + params["head"]["bias"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()

  @jax.jit
  def update(params, opt_state, images, targets):
    updates, opt_state = optimizer.update(jax.grad(loss_fn)(params, images, targets), opt_state, params)
    return optax.apply_updates(params, updates), opt_state

  rng, opt_state = np.random.default_rng(seed), optimizer.init(params)
  for _ in range(steps):
    rows = np.concatenate([rng.choice(kind, size) for kind, size in zip(kinds, (POSITIVES, BACKGROUND))])
    params, opt_state = update(params, opt_state, crops[rows], labels[rows])
  return trunk._replace(variables={**trunk.variables, "params": params["trunk"]})


def _vectors(trunk: Trunk, layer: str, cells: int) -> Callable[[Mapping[str, Any], Any], Float[Array, "n dim"]]:
  grid = trunk.grids[layer]
  return lambda variables, images: pooled(grid.maps(layer_tokens(trunk.network, variables, images)[layer]), cells)
