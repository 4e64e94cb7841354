"""Report of a plan: memory, arithmetic, collectives, predicted time, and warnings."""
import collections
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from embeddings_jax.plan import hlo, programs
from embeddings_jax.plan.chips import Chip
from embeddings_jax.train import mesh as mesh_lib

REPEATED = 1.05  # Arithmetic of the compiled program by that of the traced one.
LARGE = 0.01  # Share of a device's memory.
SMALL_GATHER = 1 << 20  # Bytes.


def described(planned: programs.Planned, mesh: Mesh, rules: Sequence[Any], chip: Chip | None,
              slices: int = 1) -> dict[str, Any]:
  """Returns the plan of a run as plain data.

  Args:
    planned: Compiled programs.
    mesh: Their devices.
    rules: Sharding rules of the model.
    chip: Figures of a device; None: no time is predicted, and everything fits.
    slices: Number of slices, of consecutive devices.
  """
  shape = {axis: int(size) for axis, size in mesh.shape.items()}
  rows = programs.len_of(planned.batch)
  batch_bytes = sum(x.size * np.dtype(x.dtype).itemsize for x in jax.tree.leaves(planned.batch))
  plan: dict[str, Any] = {
      "mesh": shape, "devices": mesh.size, "slices": slices, "rows": rows, "batch_bytes": batch_bytes,
      "chip": chip._asdict() if chip else None, "state": held(planned),
      "replicated": replicated(planned, mesh, chip), "read_share": programs.read_share(mesh.devices),
      "programs": {name: program(compiled, shape, chip, slices) for name, compiled in planned.programs.items()},
      "skipped": dict(planned.skipped)}
  plan["warnings"] = warnings(plan, mesh_lib.replication_note(planned.state, mesh, rules))
  peak = max((one["memory"]["total"] for one in plan["programs"].values() if one["memory"]), default=0)
  plan["peak_bytes"], plan["fits"] = peak, chip is None or peak <= chip.memory
  return plan


def held(planned: programs.Planned) -> dict[str, dict[str, int]]:
  """Returns the bytes of the state by its fields, on a device and as a whole."""
  kinds: dict[str, dict[str, int]] = {}
  leaves = jax.tree_util.tree_leaves_with_path(planned.state)
  for (path, leaf), sharding in zip(leaves, jax.tree.leaves(planned.layout)):
    kind = kinds.setdefault(mesh_lib.path_name(path).split("/")[0], {"device": 0, "whole": 0})
    kind["device"] += programs.shard_bytes(leaf, sharding)
    kind["whole"] += leaf.size * np.dtype(leaf.dtype).itemsize
  return kinds


def replicated(planned: programs.Planned, mesh: Mesh, chip: Chip | None) -> list[dict[str, Any]]:
  """Returns the leaves above a hundredth of a device's memory that every device holds whole, the largest first."""
  least = chip.memory * LARGE if chip else 0
  leaves = jax.tree_util.tree_leaves_with_path(planned.state)
  whole = [{"path": mesh_lib.path_name(path), "bytes": leaf.size * np.dtype(leaf.dtype).itemsize}
           for (path, leaf), sharding in zip(leaves, jax.tree.leaves(planned.layout))
           if mesh.size > 1 and sharding.is_fully_replicated]
  return sorted((leaf for leaf in whole if leaf["bytes"] > least), key=lambda leaf: -leaf["bytes"])[:20]


def program(compiled: programs.Compiled, shape: Mapping[str, int], chip: Chip | None,
            slices: int = 1) -> dict[str, Any]:
  """Returns what one program holds, computes, sends, and how long that would take."""
  read = hlo.read(compiled.text)
  devices = math.prod(shape.values())
  total = read.flops * devices + compiled.kernel_flops
  result: dict[str, Any] = {
      "memory": memory(compiled.memory),
      "flops": {"asked": compiled.flops, "compiled": total,
                "ratio": total / compiled.flops if compiled.flops else None},
      "memory_traffic": read.memory_bytes, "collectives": together(read.collectives, shape, slices),
      "unknown_loops": read.unknown_loops}
  if chip:
    arithmetic = total / devices / chip.flops
    network = sum(one["network"] for one in result["collectives"])
    links = sum(one["traffic"] for one in result["collectives"]) - network
    result["seconds"] = predicted(arithmetic, read.memory_bytes / chip.bandwidth, links / chip.link,
                                  network / chip.network)
    peak = min(compiled.flops, total) / devices / chip.flops  # What the compiler leaves out is not needed.
    result["utilization"] = {way: peak / result["seconds"][way] if result["seconds"][way] else 0.0
                             for way in ("largest", "sum")}
  return result


def predicted(arithmetic: float, memory_time: float, links: float, network: float = 0.0) -> dict[str, float]:
  """Returns the seconds of each resource, the largest, as if all overlapped, and the sum, as if nothing did."""
  seconds = {"arithmetic": arithmetic, "memory": memory_time, "links": links, "network": network}
  return seconds | {"largest": max(seconds.values()), "sum": sum(seconds.values())}


def memory(statistics: Any) -> dict[str, int] | None:
  """Returns a device's bytes by kind; results that lie where arguments lay count once."""
  if statistics is None:
    return None
  kinds = {"arguments": statistics.argument_size_in_bytes, "results": statistics.output_size_in_bytes,
           "shared": -statistics.alias_size_in_bytes, "temporaries": statistics.temp_size_in_bytes,
           "code": statistics.generated_code_size_in_bytes}
  return kinds | {"total": sum(kinds.values())}


def together(collectives: Sequence[hlo.Collective], shape: Mapping[str, int],
             slices: int = 1) -> list[dict[str, Any]]:
  """Returns collectives of one kind, axis, type and line of code as one, those with the most traffic first.

  `count` is of executions, `bytes` of the largest array, `traffic` what a device sends in all, `network` to other
  slices.
  """
  devices = math.prod(shape.values())
  groups: dict[Any, dict[str, Any]] = {}
  for one in collectives:
    axes = ",".join(one.axes(shape))
    group = groups.setdefault((one.kind, axes, one.dtype, one.source), {
        "kind": one.kind, "axes": axes, "dtype": one.dtype, "source": one.source, "count": 0, "bytes": 0,
        "traffic": 0.0, "network": 0.0, "in_loop": False})
    group["count"] += int(one.count)
    group["bytes"] = max(group["bytes"], one.bytes)
    group["traffic"] += one.count * one.traffic(devices)
    group["network"] += one.count * one.network_traffic(devices, slices)
    group["in_loop"] |= one.in_loop
  return sorted(groups.values(), key=lambda group: -group["traffic"])


def warnings(plan: Mapping[str, Any], note: str) -> list[str]:
  """Returns lines on what is likely to be a mistake."""
  lines = [note] if note else []
  for leaf in plan["replicated"] if plan["chip"] else ():
    share = leaf["bytes"] / plan["chip"]["memory"]
    lines.append(f"{leaf['path']}: {size(leaf['bytes'])} whole on every device, {share:.0%} of its memory")
  for name, one in plan["programs"].items():
    ratio = one["flops"]["ratio"]
    if ratio and ratio > REPEATED:
      lines.append(f"{name}: devices compute {ratio:.2f} x the products that the program asks for: work is repeated")
    for group in one["collectives"]:
      if group["kind"] != "all-gather":
        continue
      where = f"{size(group['bytes'])} over {group['axes']} at {group['source'] or 'an unknown line'}"
      if group["bytes"] >= plan["batch_bytes"] and group["bytes"] > SMALL_GATHER:
        lines.append(f"{name}: gathers as much as a batch, {where}")
      elif group["dtype"] == "f32" and group["bytes"] > SMALL_GATHER:
        lines.append(f"{name}: gathers float32, {where}")
    if one["unknown_loops"]:
      lines.append(f"{name}: {len(one['unknown_loops'])} loops of unknown length count once")
  if plan["read_share"] > 1.001:
    lines.append(f"hosts read {plan['read_share']:.2f} x the rows of a batch")
  return list(collections.Counter(lines))


def size(number: float) -> str:
  """Bytes for people."""
  for unit, least in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
    if number >= least:
      return f"{number / least:.3g} {unit}"
  return f"{number:.0f} B"


def text(plan: Mapping[str, Any], most: int = 12) -> str:
  """Returns the plan as tables for people; `most` collectives of each program."""
  chip = plan["chip"]
  slices = plan["slices"] > 1
  lines = [f"{plan['devices']} devices{' of ' + chip['name'] if chip else ''}"
           f"{' in ' + str(plan['slices']) + ' slices' if slices else ''}, mesh "
           + ",".join(f"{axis}:{number}" for axis, number in plan["mesh"].items())
           + f", {plan['rows']} rows of {size(plan['batch_bytes'] / max(plan['rows'], 1))}; hosts read "
           f"{plan['read_share']:.2f} x", ""]
  lines += table(["state", "a device", "whole"],
                 [[name, size(kind["device"]), size(kind["whole"])] for name, kind in plan["state"].items()])
  kinds = ("arguments", "results", "shared", "temporaries", "code", "total")
  lines += table(["memory of a device", *kinds], [
      [name, *(size(one["memory"][kind]) if one["memory"][kind] >= 0 else "-" + size(-one["memory"][kind])
               for kind in kinds)] for name, one in plan["programs"].items() if one["memory"]])
  rows = []
  for name, one in plan["programs"].items():
    flops, seconds = one["flops"], one.get("seconds")
    row = [name, f"{flops['asked']:.3g}", f"{flops['compiled']:.3g}",
           f"{flops['ratio']:.2f}" if flops["ratio"] else "-", size(one["memory_traffic"])]
    if seconds:
      row += [f"{1e3 * seconds[part]:.3g}" for part in ("arithmetic", "memory", "links", *["network"] * slices,
                                                         "largest", "sum")]
      row += [f"{one['utilization'][way]:.0%}" for way in ("largest", "sum")]
    rows.append(row)
  timed = ["ms: arithmetic", "memory", "links", *["network"] * slices, "largest", "sum", "used: largest", "sum"]
  lines += table(["program", "FLOPs asked", "compiled", "ratio", "memory traffic", *(timed if chip else [])], rows)
  for name, one in plan["programs"].items():
    lines += table([f"collectives of {name}", "axes", "type", "count", "bytes", "sent",
                    *["to other slices"] * slices, "source"], [
        [group["kind"], group["axes"], group["dtype"], str(group["count"]), size(group["bytes"]),
         size(group["traffic"]), *[size(group["network"])] * slices, group["source"]]
        for group in one["collectives"][:most]])
  lines += [f"{name} is left out: {why}" for name, why in plan["skipped"].items()]
  lines += [f"warning: {line}" for line in plan["warnings"]]
  verdict = "" if not chip else (f"{'fits' if plan['fits'] else 'does not fit'}: {size(plan['peak_bytes'])} of "
                                 f"{size(chip['memory'])}")
  return "\n".join(lines + [verdict])


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
  """Lines of a table with aligned columns, and an empty one; nothing without rows."""
  if not rows:
    return []
  widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
  return ["  ".join(cell.ljust(width) if i == 0 else cell.rjust(width)
                    for i, (cell, width) in enumerate(zip(row, widths))).rstrip() for row in (header, *rows)] + [""]
