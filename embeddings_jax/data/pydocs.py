"""The documentation of Python: its library's docstrings and topics, and those of a fixed list of packages.

A corpus that is on every machine which can run this project: some 50,000 documents and 3.4 million words about
mathematics and programming. Source files are parsed, never imported or run.
"""
import ast
import gc
import importlib.metadata
import importlib.util
import inspect
import os
import platform
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

from embeddings_jax.data.cache import cached, digest
from embeddings_jax.data.documents import Document, Documents, write_documents

VERSION = 1  # Of what is cached: raise it when the same sources would give other documents.

# Name to import -> name of the distribution, whose version is part of the cache's key. Each is required in setup.cfg:
# were one there with an extra alone, installing that would make another corpus, and a run could not go on.
PACKAGES = {
    "flax": "flax",
    "jax": "jax",
    "networkx": "networkx",
    "numpy": "numpy",
    "optax": "optax",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
}
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_SKIPPED = {"test", "tests", "testing", "idle_test", "site-packages", "dist-packages", "__pycache__", "node_modules"}


def pydocs(cache_dir: Path) -> Documents:
  """The corpus, from the cache or built into it; labels: `package`, which is `python` for the standard library."""
  versions = {name: _version(distribution) for name, distribution in PACKAGES.items() if _folder(name)}
  key = digest("pydocs", VERSION, platform.python_implementation(), platform.python_version(), versions)

  def build(folder: Path) -> None:
    # Millions of nodes of syntax trees, which no cycle holds: looking for cycles is half of the time.
    enabled = gc.isenabled()
    gc.disable()
    try:
      write_documents(folder, _documents(versions), "pydocs")
    finally:
      if enabled:
        gc.enable()

  return Documents(cached(cache_dir / f"pydocs-{key[:32]}", build))


def _documents(packages: list[str]) -> Iterator[Document]:
  library = Path(sysconfig.get_path("stdlib"))
  yield from _docstrings(library, "", "python")
  topics = library / "pydoc_data" / "topics.py"
  if topics.exists():
    for node in ast.parse(topics.read_bytes()).body:
      if isinstance(node, ast.Assign):
        for topic, text in sorted(ast.literal_eval(node.value).items()):
          yield Document(text.strip(), f"topic {topic}", {"package": "python"})
  for name in sorted(packages):
    yield from _docstrings(_folder(name), name, name)


def _version(distribution: str) -> str:
  try:
    return importlib.metadata.version(distribution)
  except importlib.metadata.PackageNotFoundError:  # A source tree on the path.
    return ""


def _folder(package: str) -> Path | None:
  try:
    spec = importlib.util.find_spec(package)  # Of a top-level name: nothing is imported.
  except (ImportError, ValueError):
    return None
  return Path(spec.origin).parent if spec and spec.origin else None


def _docstrings(root: Path, prefix: str, label: str) -> Iterator[Document]:
  """Docstrings of the modules below a folder, files and definitions in a fixed order."""
  for folder, subfolders, files in os.walk(root):
    subfolders[:] = sorted(name for name in subfolders if name not in _SKIPPED and name.isidentifier())
    for file in sorted(files):
      if not file.endswith(".py"):
        continue
      path = Path(folder, file)
      parts = [prefix, *path.relative_to(root).with_suffix("").parts]
      module = ".".join(part for part in parts if part and part != "__init__")
      try:
        with warnings.catch_warnings():
          warnings.simplefilter("ignore")  # Old escape sequences in other people's strings.
          tree = ast.parse(path.read_bytes())
      except (SyntaxError, ValueError, RecursionError):  # Templates and files for other versions.
        continue
      for name, text in _definitions(tree, module):
        yield Document(text, name, {"package": label})


def _definitions(node: ast.AST, name: str) -> Iterator[tuple[str, str]]:
  """Docstrings of a module, class or function and of all that is defined in it, at whatever depth."""
  if isinstance(node, _DOCUMENTED):
    text = ast.get_docstring(node)
    if text and text.strip():
      yield name, text.strip()
  elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
    yield from _added(node.value, name)
  for field in ("body", "orelse", "handlers", "finalbody", "cases"):  # Expressions hold no definitions.
    for child in getattr(node, field, ()):
      yield from _definitions(child, f"{name}.{child.name}" if isinstance(child, _DOCUMENTED) else name)


def _added(call: ast.Call, name: str) -> Iterator[tuple[str, str]]:
  """Returns the docstrings that NumPy and SciPy add to compiled functions: `add_newdoc([place,] name, text or
  (name, text))`."""
  if getattr(call.func, "id", getattr(call.func, "attr", "")) != "add_newdoc":
    return
  values = [getattr(arg, "value", None) for node in call.args for arg in getattr(node, "elts", [node])]
  texts = [value for value in values if isinstance(value, str)]
  if len(texts) > 1 and texts[-1].strip():
    names = texts[:-1] if "." in texts[0] else [name, *texts[:-1]]
    yield ".".join(names), inspect.cleandoc(texts[-1]).strip()
