"""Modules found by their file's name, in the package's rooms and in folders of one's own.

A room is a folder of modules of one kind: `models`, `nets`, `pipelines`, `encoders`, `datasets`, `eval`, `figures`. A
folder of one's own has rooms of the same names, with modules of the same form as the package's. Its modules run once
something names them, so add a folder only if you trust its code.
"""
import functools
import importlib
import importlib.util
import os
import pathlib
import sys
from types import ModuleType

_PACKAGE = pathlib.Path(__file__).parent
_IN_DATA = ("pipelines", "encoders", "datasets")
_folders: list[pathlib.Path] = []


def extend(folder: str | os.PathLike) -> None:
  """Adds a folder. The package's modules take precedence, then those of folders added earlier."""
  path = pathlib.Path(folder).resolve()
  if path not in _folders:
    _folders.append(path)


def names(room: str) -> list[str]:
  """Returns the names of the package's modules in a room."""
  return sorted(_in_package(room))


def modules(room: str) -> list[ModuleType]:
  """Returns all modules of a room, as `figures`: the package's, then those of the added folders."""
  return [importlib.import_module(_in_package(room)[name]) for name in names(room)] + [
      _load(path) for folder in _folders for path in sorted((folder / room).glob("*.py"))]


def find(room: str, name: str) -> ModuleType | None:
  """Returns the module of that name in a room, or None."""
  if name in _in_package(room):
    return importlib.import_module(_in_package(room)[name])
  for folder in _folders if name.isidentifier() else ():
    if (folder / room / f"{name}.py").is_file():
      return _load(folder / room / f"{name}.py")
  return None


@functools.cache
def _in_package(room: str) -> dict[str, str]:
  """Returns the modules of a room by name, those in the room's folders (families) included."""
  folder = _PACKAGE / "data" / room if room in _IN_DATA else _PACKAGE / room
  paths = [path for path in (*folder.glob("*.py"), *folder.glob("*/*.py")) if not path.stem.startswith("_")]
  return {path.stem: ".".join(path.relative_to(_PACKAGE.parent).with_suffix("").parts) for path in paths}


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
