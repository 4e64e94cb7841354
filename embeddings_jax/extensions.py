"""Folders of one's own, in which models, pipelines, encoders, protocols and figures are found beside the package's.

A folder has `models/x.py`, `pipelines/x.py`, `encoders/x.py`, `eval/x.py` and `figures/x.py`, of the same form as the
package's. Its modules run once something names them, so add a folder only if you trust its code.
"""
import importlib.util
import os
import pathlib
import sys
from types import ModuleType

_folders: list[pathlib.Path] = []


def extend(folder: str | os.PathLike) -> None:
  """Adds a folder; those added first are asked first, and the package before all."""
  path = pathlib.Path(folder).resolve()
  if path not in _folders:
    _folders.append(path)


def folders() -> list[pathlib.Path]:
  """Returns the folders that have been added."""
  return list(_folders)


def modules(room: str) -> list[ModuleType]:
  """Returns all modules of a room, as `figures`, of the added folders."""
  return [_load(path) for folder in _folders for path in sorted((folder / room).glob("*.py"))]


def find(room: str, name: str) -> ModuleType | None:
  """Returns the module of that name in a room of the added folders, or None."""
  for folder in _folders if name.isidentifier() else ():
    if (folder / room / f"{name}.py").is_file():
      return _load(folder / room / f"{name}.py")
  return None


def _load(path: pathlib.Path) -> ModuleType:
  """Imports a file once; its name ends in that of the file, as a function of the same name is looked for in it."""
  name = f"extension{abs(hash(str(path.parent)))}.{path.stem}"
  if name not in sys.modules:
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
      spec.loader.exec_module(module)
    except BaseException:
      del sys.modules[name]
      raise
  return sys.modules[name]
