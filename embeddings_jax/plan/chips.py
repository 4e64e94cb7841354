"""Published figures of chips, those of the makers' pages; no figure is measured here.

Sources: cloud.google.com/tpu/docs (v4, v5e, v5p, v6e, TPU7x: products of bfloat16, memory, bandwidth, links);
jax-ml.github.io/scaling-book, "How to think about TPUs" (bandwidth of an axis of the torus, both directions);
the same book and pages on networks between slices (25 Gb/s a chip of v5e, 50 of v5p, 100 of v6e; that of v4 is taken
for v5e's, and TPU7x's for v6e's);
nvidia.com, data sheets of A100 80 GB, H100 SXM and H200 SXM (dense products, memory, half of NVLink's total, and of
DGX systems 200 and 400 Gb/s a GPU). The figures of a device are those of what JAX calls one: of TPU7x half a chip.
"""
from typing import NamedTuple

from embeddings_jax.errors import InputError

GB = 1e9


class Chip(NamedTuple):
  """Memory, bandwidths and peak rates of a device.

  Attributes:
    name: Name in a `topology`.
    kinds: Beginnings of JAX's `device_kind`.
    memory: Bytes of main memory.
    flops: Products of bfloat16 a second, twice the multiplications; float32 on TPUs is rounded to bfloat16 unless the
      config's `precision` asks for more.
    bandwidth: Bytes a second from and to main memory.
    link: Bytes a second that a device sends along one axis of the mesh.
    network: Bytes a second that a device sends to other slices.
  """

  name: str
  kinds: tuple[str, ...]
  memory: float
  flops: float
  bandwidth: float
  link: float
  network: float


CHIPS = (
    Chip("v4", ("TPU v4",), 32 * GB, 275e12, 1200 * GB, 90 * GB, 3.125 * GB),
    Chip("v5e", ("TPU v5 lite", "TPU v5e"), 16 * GB, 197e12, 819 * GB, 90 * GB, 3.125 * GB),
    Chip("v5p", ("TPU v5p", "TPU v5"), 95 * GB, 459e12, 2765 * GB, 180 * GB, 6.25 * GB),
    Chip("v6e", ("TPU v6 lite", "TPU v6e"), 32 * GB, 918e12, 1640 * GB, 180 * GB, 12.5 * GB),
    Chip("tpu7x", ("TPU7x", "TPU v7"), 96 * GB, 1153e12, 3690 * GB, 180 * GB, 6.25 * GB),
    Chip("a100", ("NVIDIA A100",), 80 * GB, 312e12, 2039 * GB, 300 * GB, 25 * GB),
    Chip("h100", ("NVIDIA H100",), 80 * GB, 989e12, 3350 * GB, 450 * GB, 50 * GB),
    Chip("h200", ("NVIDIA H200",), 141 * GB, 989e12, 4800 * GB, 450 * GB, 50 * GB),
)


def by_name(name: str) -> Chip:
  """Returns the chip of a topology such as `v5e:4x4`."""
  for chip in CHIPS:
    if chip.name == name:
      return chip
  raise InputError(f"chip={name}: unknown; one of {', '.join(chip.name for chip in CHIPS)}")


def of_kind(kind: str) -> Chip | None:
  """Returns the chip whose `device_kind` JAX gives, or None."""
  return next((chip for chip in CHIPS if kind.startswith(chip.kinds)), None)
