"""Reads what the compiler made of a program."""
import math
import re

import jax

_COLLECTIVE = re.compile(r"\s*(?:ROOT )?%\S+ = (.*?) (all-\w+(?:-\w+)?|reduce-scatter|collective-\w+)\(")
_SHAPE = re.compile(r"\b(pred|[a-z]+(\d+))\w*\[([\d,]*)\]")


def collectives(compiled: jax.stages.Compiled) -> list[tuple[str, list[int]]]:
  """`(operation, bytes of each of its results on a device)` of every collective, those inside loops once each."""
  actual = []
  for line in compiled.as_text().splitlines():
    if match := _COLLECTIVE.match(line):
      operation = match[2].removesuffix("-start")
      if not operation.endswith("-done"):
        actual.append((operation, [int(bits or 8) // 8 * math.prod(int(n) for n in shape.split(",") if n)
                                   for _, bits, shape in _SHAPE.findall(match[1])]))
  return actual
