"""Reads compiled HLO: products, bytes through memory, and collectives, each as often as it runs.

A body of a loop is counted by the loop's number of trips. Of a collective that the compiler made asynchronous, the
text shows a start, a done, and on TPUs copies within the fusions that run meanwhile; it is counted once, by its
channel. All numbers are those of one device. A program for several slices of TPUs is that of one slice; what it
exchanges with the others are transfers through the hosts, a `send` and a `recv`, which count as collectives.
"""
import dataclasses
import math
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from embeddings_jax.plan.hlo_text import Instruction, Shape, Sources, groups, parse

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute",
               "collective-broadcast", "ragged-all-to-all")
# Instructions that touch no memory themselves: names for parts of others, and calls whose bodies are counted.
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call", "iota",
         "after-all", "partition-id", "replica-id", "opt-barrier", "domain", "add-dependency"}
_PARTIAL_READS = {"dynamic-slice", "slice", "gather"}
# The kind of a transfer between slices, and the slices that take part.
_BETWEEN_SLICES = re.compile(r'_xla_megascale_target="\{([\d,:]+)\}x.*?_xla_megascale_transfer_type="(\w+)"')
_SAME = {"bitcast", "convert", "reshape", "copy"}  # Within a fusion: the elements of the operand.


class Collective:
  """A collective of the program.

  Attributes:
    kind: One of `COLLECTIVES`.
    dtype: Type of the largest array.
    bytes: Of the whole array that the devices of a group have together or add up, at each execution.
    groups: [num_groups, size], numbers of devices in the mesh's order; None: all of them.
    count: Executions.
    source: `file:line` of the code that asked for it; "" where the text has none.
    in_loop: Whether it stands in a loop.
  """

  def __init__(self, kind, dtype, num_bytes, groups, count, source, in_loop):
    self.kind, self.dtype, self.bytes, self.groups = kind, dtype, num_bytes, groups
    self.count, self.source, self.in_loop = count, source, in_loop

  def size(self, num_devices: int) -> int:
    """Number of devices of a group."""
    return num_devices if self.groups is None else self.groups.shape[1]

  def traffic(self, num_devices: int) -> float:
    """Bytes that a device sends at each execution, by rings."""
    return traffic(self.kind, self.bytes, self.size(num_devices))

  def network_traffic(self, num_devices: int, slices: int) -> float:
    """Bytes that a device sends to other slices at each execution.

    A sum over n devices of each of s slices is one within each slice, of n-ths over the slices, and a gather: so it
    is with gathers and scatters.

    Args:
      num_devices: Devices of the mesh.
      slices: Groups of consecutive devices that they lie in.
    """
    members = np.arange(num_devices)[None] if self.groups is None else self.groups
    of_slice = members * slices // num_devices
    number = max(len(np.unique(group)) for group in of_slice)
    if number == 1:
      return 0.0
    if self.kind in ("all-reduce", "all-gather", "reduce-scatter"):
      return traffic(self.kind, self.bytes * number / members.shape[1], number)
    return traffic(self.kind, self.bytes, number)

  def axes(self, mesh_shape: Mapping[str, int]) -> tuple[str, ...]:
    """Axes of the mesh along which the devices of a group differ."""
    sizes = tuple(mesh_shape.values())
    group = np.arange(math.prod(sizes)) if self.groups is None else self.groups[0]
    places = np.stack(np.unravel_index(group, sizes))
    return tuple(name for name, place in zip(mesh_shape, places) if len(np.unique(place)) > 1)


def traffic(kind: str, num_bytes: float, size: int) -> float:
  """Returns the bytes that each of `size` devices sends for a collective over an array of `num_bytes`."""
  if kind == "collective-permute":
    return num_bytes
  share = (size - 1) / max(size, 1)
  return num_bytes * share * (2 if kind == "all-reduce" else 1)


@dataclasses.dataclass
class Program:
  """A compiled program of one device.

  Attributes:
    flops: Of its matrix products and convolutions, twice their multiplications; hand-written kernels are not read.
    memory_bytes: Bytes read from and written to the main memory.
    collectives: See `Collective`.
    unknown_loops: Names of loops whose number of trips is not in the text; they count once.
  """

  flops: float
  memory_bytes: float
  collectives: list[Collective]
  unknown_loops: list[str]


def read(text: str) -> Program:
  """Reads the text of a compiled module, `compiled.as_text()`."""
  computations, entry = parse(text)
  lines = Sources(text)
  program = Program(0.0, 0.0, [], [])
  partitions = re.search(r"num_partitions=(\d+)", text[:text.find("\n")])
  of_slice = int(partitions[1]) if partitions and _BETWEEN_SLICES.search(text) else None
  in_fusions: dict[str, Collective] = {}

  def visit(name: str, times: float, fused: bool, in_loop: bool, caller: str = "") -> None:
    by_name = computations[name]
    scatters = name.startswith("all-reduce-scatter")
    for instruction in by_name.values():
      program.flops += times * _flops(instruction, by_name)
      if (kind := _collective(instruction)) is not None:
        source = lines.of(instruction.attributes) or lines.of(caller)
        collective = _described(instruction, kind, by_name, scatters, times, source, in_loop)
        if instruction.opcode == "send":
          collective = _between_slices(instruction, collective, of_slice or 1)
        elif of_slice and collective.groups is None:
          collective.groups = np.arange(of_slice)[None]
        channel = instruction.channel
        if fused and not scatters and channel is not None:
          if channel not in in_fusions or in_fusions[channel].count < times:
            in_fusions[channel] = collective
        else:
          program.collectives.append(collective)
      if not fused:
        program.memory_bytes += times * _memory_bytes(instruction, by_name, computations)
      for called in instruction.called:
        if called not in computations:
          continue
        trips = 1.0
        if instruction.opcode == "while":
          trips = _trips(instruction, computations)
          if trips is None:
            program.unknown_loops.append(instruction.name)
            trips = 1.0
        visit(called, times * trips, fused or instruction.opcode == "fusion",
              in_loop or instruction.opcode == "while", instruction.attributes)

  visit(entry, 1.0, False, False)
  program.collectives += in_fusions.values()
  return program


def _operands(instruction: Instruction, by_name: Mapping[str, Instruction]) -> list[list[Shape]]:
  return [by_name[name].shapes if name in by_name else [] for name in instruction.operands]


def _trips(loop: Instruction, computations: Mapping[str, Mapping[str, Instruction]]) -> float | None:
  """Number of trips: what the compiler says, or the constant with which the condition compares a counter."""
  if match := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes):
    return float(match[1])
  match = re.search(r"condition=%?([\w.\-]+)", loop.attributes)
  condition = computations.get(match[1], {}) if match else {}
  root = next((instruction for instruction in condition.values() if instruction.is_root), None)
  if root is not None and root.opcode == "fusion":  # The comparison of two operands.
    inner = computations.get(root.called[0], {})
    compare = next((i for i in inner.values() if i.is_root), None)
    operands = [condition[name] for name in root.operands if name in condition]
  else:
    compare, operands = root, [condition[name] for name in root.operands if name in condition] if root else []
  if compare is None or compare.opcode != "compare" or "direction=LT" not in compare.attributes:
    return None
  constants = [i.arguments for i in operands if i.opcode == "constant" and i.arguments.lstrip("-").isdigit()]
  return float(constants[0]) if len(constants) == 1 else None


def _flops(instruction: Instruction, by_name: Mapping[str, Instruction]) -> float:
  if instruction.opcode not in ("dot", "convolution"):
    return 0.0
  operands = _operands(instruction, by_name)
  if len(operands) < 2 or not operands[0] or not operands[1]:
    return 0.0
  left, right, result = operands[0][0].dims, operands[1][0].dims, instruction.shapes[0].dims
  if instruction.opcode == "dot":
    match = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.attributes)
    axes = [int(axis) for axis in match[1].split(",") if axis] if match else []
    return 2.0 * math.prod(result) * math.prod(left[axis] for axis in axes)
  return _convolution_flops(instruction.attributes, left, right, result)


def _convolution_flops(attributes: str, left: Sequence[int], right: Sequence[int], result: Sequence[int]) -> float:
  """Twice the multiplications of elements that are neither padding nor the gaps of a dilation.

  On TPUs a batch of products is a convolution whose dilated windows meet one element each.
  """
  of_left, of_right, of_result = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", attributes).groups()
  window = dict(re.findall(r"(\w+)=(\S+?)(?=[ }])", match[1])
                if (match := re.search(r"window=\{([^}]*\})", attributes)) else [])
  number = math.prod(result[of_result.index(letter)] for letter in "bf") * right[of_right.index("i")]
  for i, letter in enumerate(sorted(filter(str.isdigit, of_result))):
    at = lambda key, default, i=i: window[key].split("x")[i] if key in window else default
    size, length = right[of_right.index(letter)], left[of_left.index(letter)]
    stride, dilation, spread = (int(at(key, "1")) for key in ("stride", "lhs_dilate", "rhs_dilate"))
    low = int(at("pad", "0_0").split("_")[0])
    places = (np.arange(result[of_result.index(letter)])[:, None] * stride + np.arange(size) * spread - low)
    number *= int(((places >= 0) & (places <= (length - 1) * dilation) & (places % dilation == 0)).sum())
  if groups := re.search(r"batch_group_count=(\d+)", attributes):
    return 2.0 * number / int(groups[1])
  return 2.0 * number


def _collective(instruction: Instruction) -> str | None:
  if instruction.opcode == "send" and (match := _BETWEEN_SLICES.search(instruction.attributes)):
    kind = match[2].lower().replace("_", "-")
    return kind if kind in COLLECTIVES else "collective-permute"
  kind = instruction.opcode.removesuffix("-start")
  return kind if kind in COLLECTIVES else None


def _between_slices(instruction: Instruction, sent: Collective, of_slice: int) -> Collective:
  """Returns the collective of devices with equal places in several slices of `of_slice` devices."""
  number = 0
  for part in _BETWEEN_SLICES.search(instruction.attributes)[1].split(","):
    first, _, last = part.partition(":")
    number += int(last or first) - int(first) + 1
  sent.groups = np.arange(number * of_slice).reshape(number, of_slice).T
  sent.bytes = instruction.shapes[0].bytes * (number if sent.kind == "all-gather" else 1)
  return sent


def _described(instruction, kind, by_name, scatters, times, source, in_loop) -> Collective:
  operands = [shape for shapes in _operands(instruction, by_name) for shape in shapes]
  # A start's result repeats its operands; those of a gather are parts, those of all else the whole.
  results = instruction.shapes
  if instruction.opcode.endswith("-start") and kind != "all-reduce" and len(results) > 1:
    results = results[len(results) // 2:] if len(results) % 2 == 0 else results[1:]
    results = [shape for shape in results if shape.dims]
  whole = results if kind == "all-gather" or not operands else operands
  largest = max(whole, key=lambda shape: shape.bytes, default=Shape("", ()))
  return Collective("reduce-scatter" if scatters else kind, largest.dtype, sum(shape.bytes for shape in whole),
                    groups(instruction.attributes), times, source, in_loop)


def _memory_bytes(instruction, by_name, computations) -> float:
  """Bytes of main memory that an instruction reads and writes; of a slice, a gather and an update in place a part."""
  opcode = instruction.opcode
  if opcode in _FREE or opcode.endswith(("-done", "-update")) or '"AllocateBuffer"' in instruction.attributes:
    return 0.0
  if opcode in ("copy-start", "slice-start"):  # (destination, source, context) or ((source), destination, context).
    arrays = [shape for shape in instruction.shapes if shape.dims]
    moved = min((shape.bytes for shape in arrays), default=0)
    return float(sum(moved for shape in arrays if shape.in_memory))
  operands = _operands(instruction, by_name)
  written = sum(shape.bytes for shape in instruction.shapes if shape.in_memory)
  if opcode in _PARTIAL_READS:
    from_memory = bool(operands and operands[0] and operands[0][0].in_memory)
    return float(written + instruction.bytes * from_memory)
  if opcode in ("dynamic-update-slice", "scatter"):
    part = sum(shape.bytes for shape in (operands[1 if opcode[0] == "d" else -1] if len(operands) > 1 else []))
    in_memory = any(shape.in_memory for shape in instruction.shapes)
    return float(part * in_memory * (1 if opcode[0] == "d" else 2) + part)
  inner = computations.get(instruction.called[0]) if opcode == "fusion" and instruction.called else None
  if inner is None:
    return float(written + sum(shape.bytes for shapes in operands for shape in shapes if shape.in_memory))
  read, in_place = _fusion_reads(inner, computations)
  total = 0.0
  for i, shapes in enumerate(operands):
    if any(shape.in_memory for shape in shapes):
      whole = sum(shape.bytes for shape in shapes if shape.in_memory)
      total += min(read.get(i, whole), whole)
  for i, shape in enumerate(instruction.shapes):
    if shape.in_memory:
      total += min(in_place.get(i, shape.bytes), shape.bytes)
  return total


def _fusion_reads(inner: Mapping[str, Instruction], computations: Mapping[str, Mapping[str, Instruction]],
                  ) -> tuple[dict[int, float], dict[int, float]]:
  """Bytes read of those parameters of a fusion that are read in part, and bytes written of those of its results that
  are one of them, changed in place."""
  users: dict[str, list[Instruction]] = {}
  for instruction in inner.values():
    for name in instruction.operands:
      users.setdefault(name, []).append(instruction)
  roots = _roots(inner)
  in_place, updates = {}, {}
  for i, root in enumerate(roots):
    if root is not None and root.opcode in ("dynamic-update-slice", "scatter"):
      update = inner.get(root.operands[1 if root.opcode == "dynamic-update-slice" else -1])
      if update is not None:
        in_place[i] = float(update.bytes)
        updates[root.name] = in_place[i] if root.opcode == "scatter" else 0.0  # Sums are read before.

  def seen_through(name: str) -> Iterator[tuple[str, Instruction]]:
    for user in users.get(name, []):
      if user.opcode in _SAME and not user.is_root:
        yield from seen_through(user.name)
      else:
        yield name, user

  def part(name: str, user: Instruction) -> float | None:
    """Returns the part of an array that a user reads; None for all."""
    first = bool(user.operands) and user.operands[0] == name
    if user.opcode in _PARTIAL_READS and first:
      return float(user.bytes)
    if user.name in updates and first:
      return updates[user.name]
    if user.opcode == "fusion" and user.called and user.called[0] in computations:  # TPUs have fusions in fusions.
      reads, _ = _fusion_reads(computations[user.called[0]], computations)
      parts = [reads.get(i) for i, operand in enumerate(user.operands) if operand == name]
      return None if None in parts else sum(parts)
    return None

  read = {}
  for instruction in inner.values():
    if instruction.opcode != "parameter" or not instruction.arguments.isdigit():
      continue
    parts = [part(name, user) for name, user in seen_through(instruction.name)]
    if parts and None not in parts:
      read[int(instruction.arguments)] = sum(parts)
  return read, in_place


def _roots(inner: Mapping[str, Instruction]) -> list[Instruction | None]:
  """The instructions that make the results of a computation, one for each."""
  root = next((i for i in inner.values() if i.is_root), None)
  results = [root] if root is None or root.opcode != "tuple" else [inner.get(name) for name in root.operands]

  def made_by(result):
    while result is not None and result.opcode in _SAME and result.operands:
      result = inner.get(result.operands[0])
    return result

  return [made_by(result) for result in results]
