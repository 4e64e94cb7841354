"""The text of compiled HLO as data: computations, instructions, groups of devices, and lines of code."""
import dataclasses
import functools
import math
import re

import numpy as np

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_NAME = re.compile(r"^\s*(ROOT )?%?([\w.\-]+) = ")
_SHAPE = re.compile(r"\b([a-z]+\d*\w*)\[([\d,<=]*)\](\{[^{}]*\})?")
_MEMORY = re.compile(r"S\((\d+)\)")



@dataclasses.dataclass(frozen=True)
class Shape:
  """An array: data type, sizes, and whether it lies in the device's main memory."""

  dtype: str
  dims: tuple[int, ...]
  in_memory: bool = True

  @property
  def bytes(self) -> int:
    if self.dtype in ("token", "opaque"):
      return 0
    bits = re.search(r"\d+", self.dtype)
    return math.ceil(math.prod(self.dims) * (int(bits[0]) if bits else 8) / 8)


@dataclasses.dataclass
class Instruction:
  """A line of a computation."""

  name: str
  opcode: str
  shapes: list[Shape]
  operands: list[str]
  attributes: str
  is_root: bool
  arguments: str  # The text between the parentheses.

  @functools.cached_property
  def called(self) -> list[str]:
    """Names of the computations that run where the instruction stands."""
    names = []
    for key in ("calls", "body", "to_apply", "true_computation", "false_computation"):
      if key == "to_apply" and self.opcode != "call":  # Of a reduction: one addition for each element.
        continue
      names += re.findall(rf"\b{key}=%?([\w.\-]+)", self.attributes)
    if branches := re.search(r"branch_computations=\{([^}]*)\}", self.attributes):
      names += [name.strip().lstrip("%") for name in branches[1].split(",")]
    return names

  @property
  def channel(self) -> str | None:
    match = re.search(r"channel_id=(\d+)", self.attributes)
    return match[1] if match else None

  @property
  def bytes(self) -> int:
    return sum(shape.bytes for shape in self.shapes)


def parse(text: str) -> tuple[dict[str, dict[str, Instruction]], str]:
  """Returns the computations, name -> instructions by name, and the name of the entry."""
  computations: dict[str, dict[str, Instruction]] = {}
  entry, current, last = "", None, None
  for line in text.splitlines():
    if current is None:
      if match := _HEADER.match(line):
        current = computations.setdefault(match[2], {})
        entry = match[2] if match[1] else entry
    elif line.rstrip() == "}":
      current = None
    elif instruction := _instruction(line):
      current[instruction.name] = last = instruction
    elif current:  # Attributes of a kernel may have lines of their own.
      last.attributes += line
  return computations, entry


def _instruction(line: str) -> Instruction | None:
  match = _NAME.match(line)
  if not match:
    return None
  rest = line[match.end():]
  end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
  shapes = _shapes(rest[:end])
  rest = rest[end:].lstrip()
  start = rest.index("(")
  end = _closing(rest, start)
  arguments = rest[start + 1:end]
  return Instruction(match[2], rest[:start], shapes, re.findall(r"%([\w.\-]+)", arguments), rest[end + 1:],
                     bool(match[1]), arguments)


def _closing(text: str, start: int) -> int:
  """Index of the parenthesis that closes the one at `start`."""
  depth = 0
  for i in range(start, len(text)):
    depth += (text[i] == "(") - (text[i] == ")")
    if not depth:
      return i
  return len(text) - 1


def _shapes(text: str) -> list[Shape]:
  shapes = []
  for dtype, dims, layout in _SHAPE.findall(text):
    memory = _MEMORY.search(layout)
    shapes.append(Shape(dtype, tuple(int(d.lstrip("<=")) for d in dims.split(",") if d),
                        memory is None or memory[1] == "0"))
  return shapes


def groups(attributes: str) -> np.ndarray | None:
  """Returns the groups of devices [num_groups, size] that an instruction names in one of three notations; None: all.

  `{{0,1},{2,3}}` lists them; `[2,2]<=[2,2]T(1,0)` is a shape into which the numbers go that are counted in the second
  shape and transposed; `mesh['x'=2,'y'=2], device_ids=([2,2]T(1,0)) {'y'}` are the lines along an axis of a mesh.
  """
  if match := re.search(r"source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}", attributes):
    pairs = re.findall(r"\{(\d+),(\d+)\}", match[1])
    return np.array([[int(a), int(b)] for a, b in pairs if a != b] or [[0, 0]])
  if match := re.search(r"replica_groups=\{((?:\{[\d,]+\},?)+)\}", attributes):
    return np.array([[int(i) for i in group.split(",")] for group in re.findall(r"\{([\d,]+)\}", match[1])])
  if match := re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", attributes):
    return _counted(match[2], match[3]).reshape(_integers(match[1]))
  if match := re.search(r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))? "
                        r"\{([^}]*)\}", attributes):
    sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", match[1])}
    devices = _counted(match[2], match[3]) if match[2] else np.arange(math.prod(sizes.values()))
    axes = [list(sizes).index(name) for name in re.findall(r"'([^']+)'", match[4])]
    devices = np.moveaxis(devices.reshape(tuple(sizes.values())), axes, range(-len(axes), 0))
    return devices.reshape(-1, math.prod(list(sizes.values())[axis] for axis in axes))
  return None


def _counted(shape: str, order: str | None) -> np.ndarray:
  counted = np.arange(math.prod(_integers(shape))).reshape(_integers(shape))
  return (counted.transpose(_integers(order)) if order else counted).ravel()


def _integers(text: str) -> tuple[int, ...]:
  return tuple(int(part) for part in text.split(","))


class Sources:
  """Lines of code by the frames of an instruction's metadata."""

  def __init__(self, text: str):
    self._files = {number: value.strip().strip('"') for number, value in self._table(text, "FileNames").items()}
    self._locations = self._table(text, "FileLocations")
    self._frames = self._table(text, "StackFrames")
    parents = {number: _field(value, "parent_frame_id") for number, value in self._frames.items()}
    # Parents are numbered from 1, of which 1 is none; older texts numbered them as the frames.
    shift = int(any(parent == number > 1 for number, parent in parents.items()))
    self._parents = {number: parent - shift for number, parent in parents.items()}

  @staticmethod
  def _table(text: str, name: str) -> dict[int, str]:
    match = re.search(rf"^{name}\n((?:\d+ .*\n)*)", text, re.MULTILINE)
    lines = match[1].splitlines() if match else []
    return {int(number): value for number, _, value in (line.partition(" ") for line in lines)}

  def of(self, attributes: str) -> str:
    """`file:line` of the innermost code of the project that is no kernel, else of the innermost."""
    if match := re.search(r'source_file="([^"]*)" source_line=(\d+)', attributes):
      return _place(match[1], int(match[2]))
    match = re.search(r"stack_frame_id=(\d+)", attributes)
    frame = int(match[1]) if match else 0
    places: list[tuple[str, int]] = []
    while frame in self._frames and len(places) < 100:
      location = self._locations.get(_field(self._frames[frame], "file_location_id"), "")
      places.append((self._files.get(_field(location, "file_name_id"), ""), _field(location, "line")))
      if self._parents[frame] == frame:
        break
      frame = self._parents[frame]
    own = [place for place in places if "embeddings_jax/" in place[0]
           and not any(name in place[0] for name in ("ops/sharding.py", "ops/kernels/"))]
    return _place(*(own or places)[0]) if places else ""


def _field(text: str, key: str) -> int:
  match = re.search(rf"\b{key}=(\d+)", text)
  return int(match[1]) if match else 0


def _place(path: str, line: int) -> str:
  head, mark, tail = path.rpartition("embeddings_jax/")
  return f"{tail if mark else path.rpartition('/')[2]}:{line}"
