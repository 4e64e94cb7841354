"""Descriptions of processors, without which a speed is not a measurement."""
import os
import pathlib
import platform
from collections.abc import Mapping
from typing import Any

from embeddings_jax.data.files.json import read_json

# Widest first; a processor is described by the first of each group that it has.
_UNITS = ((("avx512f", "AVX-512"), ("avx2", "AVX2"), ("avx", "AVX"), ("asimd", "NEON")),
          (("amx_bf16", "AMX bfloat16"), ("avx512_bf16", "AVX-512 bfloat16")))


def processor(cpuinfo: str | None = None) -> str:
  """Returns the processor's name, number of cores and vector units, e.g. `AMD EPYC, 2 cores, AVX2`.

  Args:
    cpuinfo: Content of `/proc/cpuinfo`; by default this machine's.
  """
  if cpuinfo is None:
    path = pathlib.Path("/proc/cpuinfo")
    cpuinfo = path.read_text() if path.exists() else ""
  lines = [line.split(":", 1) for line in cpuinfo.splitlines() if ":" in line]
  fields = {name.strip(): value.strip() for name, value in lines}
  name = fields.get("model name") or platform.processor() or platform.machine()
  flags = set(fields.get("flags", fields.get("Features", "")).split())
  units = [next((label for flag, label in group if flag in flags), None) for group in _UNITS]
  return ", ".join([name, f"{os.cpu_count()} cores", *filter(None, units)])


def measured_elsewhere(path: pathlib.Path, record: Mapping[str, Any]) -> dict[str, list]:
  """Keeps the ratios to the peer that an earlier result at `path` has from other processors, as `elsewhere`.

  A speed claim holds for the range of processors that it was measured on, so measuring on another one adds to a
  result instead of replacing it.
  """
  if not path.exists():
    return {}
  old = read_json(path)
  described = {key: old[key] for key in ("device", "ratio", "command", "commit") if key in old}
  entries = [*old.get("elsewhere", []), described]
  kept = [entry for entry in entries if "ratio" in entry and entry["device"] != record["device"]]
  return {"elsewhere": kept} if kept else {}
