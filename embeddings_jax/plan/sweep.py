"""Ranks meshes, and says how a program scales, from one compiled program of each kind of mesh."""
import math
from collections.abc import Mapping, Sequence
from typing import Any

from embeddings_jax.plan import hlo
from embeddings_jax.plan.report import predicted

SIZES = (8, 16, 32, 64, 128, 256)


def meshes(num_devices: int, model: bool) -> list[str]:
  """Returns the meshes to compare: data alone, with `fsdp` of some sizes, and with `model` where the model has it."""
  kinds: list[dict[str, int]] = [{}] + [{"fsdp": size} for size in (4, 8, num_devices)]
  kinds += [{"model": size} for size in (2, 4)] + [{"fsdp": 4, "model": 2}] if model else []
  specs = []
  for kind in kinds:
    rest, left_over = divmod(num_devices, math.prod(kind.values()))
    if rest and not left_over:
      specs.append(",".join(f"{axis}:{size}" for axis, size in {"data": rest, **kind}.items()))
  return list(dict.fromkeys(specs))


def ranked(plans: Mapping[str, Mapping[str, Any]]) -> list[str]:
  """Returns meshes in order: those that fit first, by the predicted time of an update."""
  time = lambda spec: plans[spec]["programs"]["update"]["seconds"]["sum"]
  return sorted(plans, key=lambda spec: (not plans[spec]["fits"], time(spec)))


def weak_scaling(plan: Mapping[str, Any], sizes: Sequence[int] = SIZES) -> list[dict[str, Any]]:
  """Returns an update's predicted time on other numbers of devices with as many rows a device, `data` growing alone.

  Arithmetic and memory of a device stay; of collectives along `data` the traffic of a ring of the new size is taken.

  Args:
    plan: Of `report.described`, with a chip.
    sizes: Numbers of devices; those that the other axes do not divide are left out.
  """
  shape, update, chip = plan["mesh"], plan["programs"]["update"], plan["chip"]
  others = math.prod(size for axis, size in shape.items() if axis != "data")
  rows: list[dict[str, Any]] = []
  for devices in sizes:
    if devices % others:
      continue
    new = {**shape, "data": devices // others}
    sent = sum(group["traffic"] * _growth(group, shape, new) for group in update["collectives"])
    seconds = predicted(update["seconds"]["arithmetic"], update["seconds"]["memory"], sent / chip["link"])
    parts = {part: seconds[part] for part in ("arithmetic", "memory", "links")}
    rows.append({"devices": devices, "seconds": seconds, "limit": max(parts, key=parts.__getitem__)})
  for row in rows:
    row["efficiency"] = rows[0]["seconds"]["sum"] / row["seconds"]["sum"]
  return rows


def _growth(group: Mapping[str, Any], old: Mapping[str, int], new: Mapping[str, int]) -> float:
  axes = [axis for axis in group["axes"].split(",") if axis]
  before, after = (math.prod(shape[axis] for axis in axes) for shape in (old, new))
  if "data" not in axes or before == 1:
    return 1.0
  return hlo.traffic(group["kind"], 1.0, after) / hlo.traffic(group["kind"], 1.0, before)
