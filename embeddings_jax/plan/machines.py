"""Devices to compile for, which need not be there."""
import os
import re
from collections.abc import Sequence
from typing import Any

import jax

from embeddings_jax.errors import InputError
from embeddings_jax.plan import chips


def simulated(number: int) -> Sequence[jax.Device]:
  """Returns simulated CPU devices; to be called before JAX looks at any device."""
  try:
    jax.config.update("jax_num_cpu_devices", number)
  except RuntimeError:  # The backend runs already, with the devices that it has.
    pass
  available = jax.devices("cpu")
  if len(available) < number:
    raise InputError(f"devices=cpu:{number}: JAX has started with {len(available)} devices; set JAX_NUM_CPU_DEVICES")
  return available[:number]


def topology(name: str, num_slices: int = 1) -> tuple[Sequence[Any], chips.Chip]:
  """Returns the devices of TPU slices by name, as `v5e:16x16`, and the figures of their chip.

  Raises:
    InputError: There is no such topology, or libtpu is not installed.
  """
  if not re.fullmatch(r"\w+:\d+(x\d+){1,2}", name):
    raise InputError(f"topology={name}: must be a chip and sizes, as v5e:4x4 or v5p:4x4x4")
  chip = chips.by_name(name.partition(":")[0])
  os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # Else it asks the cloud what machine this is.
  from jax.experimental import topologies

  try:
    options = {"num_slices": num_slices} if num_slices > 1 else {}
    return topologies.get_topology_desc(name, "tpu", **options).devices, chip
  except Exception as error:  # Of several kinds, by what is wrong: the library, its lock, or the name.
    reason = " ".join(str(error).split())[:160]
    raise InputError(f"topology={name}: the compiler for TPUs does not know it or is not there ({reason}); it comes "
                     "with pip install 'embeddings_jax[tpu]'") from error
