import configparser
import importlib.util
import pathlib
import re
import sys

import numpy as np
import pytest

from embeddings_jax.data import pydocs
from embeddings_jax.data.documents import write_documents

MODULE = '''"""Module of lone surrogates \\ud800 and NUL \\0 in a text."""
raise SystemExit("imported!")
x = "not a docstring"
class A:
  """
  Class A.

    indented
  """
  def f(self):
    """Method f."""
    def inner():
      "Inner function."
  async def g(self): "Coroutine g."
  def empty(self): ""
if x:
  def h():
    """Function h."""
try:
  pass
except E as e:
  def caught():
    """In a handler."""
add_newdoc("ufunc", """
    Compiled function.
    """)
mine.add_newdoc("mine.core", ("array", "size"), "Compiled attribute.")
'''


@pytest.fixture
def package(tmp_path, monkeypatch):
  """A package which must not be imported, and nothing else to be documented."""
  folder = tmp_path / "mine"
  for path, text in {"__init__.py": MODULE, "b/a.py": '"""Module b.a."""', "tests/t.py": '"""A test."""',
                     "bad.py": "def (", "z.py": "'''Old \\d escape.'''", "a-b/c.py": '"""No module."""'}.items():
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_text(text)
  library = tmp_path / "stdlib"
  (library / "pydoc_data").mkdir(parents=True)
  (library / "pydoc_data" / "topics.py").write_text('# Topics\ntopics = {"while": "Loops.\\n", "assert": "Checks."}')
  monkeypatch.syspath_prepend(tmp_path)
  monkeypatch.setattr(pydocs, "PACKAGES", {"absent_package": "absent", "mine": "mine"})
  monkeypatch.setattr(pydocs.sysconfig, "get_path", lambda name: str(library))
  monkeypatch.setattr(pydocs.importlib.metadata, "version", lambda name: "1.0")
  return tmp_path


def test_documents_by_hand_without_importing(package):
  items = pydocs.pydocs(package / "cache")
  assert "mine" not in sys.modules
  assert dict(zip(items.names.tolist(), items)) == {
      "topic assert": "Checks.",
      "topic while": "Loops.",
      "mine": "Module of lone surrogates ? and NUL   in a text.",
      "mine.A": "Class A.\n\n  indented",
      "mine.A.f": "Method f.",
      "mine.A.f.inner": "Inner function.",
      "mine.A.g": "Coroutine g.",
      "mine.h": "Function h.",
      "mine.caught": "In a handler.",
      "mine.ufunc": "Compiled function.",
      "mine.core.array.size": "Compiled attribute.",
      "mine.z": "Old \\d escape.",
      "mine.b.a": "Module b.a.",
  }
  assert items.labels["package"].tolist() == ["python"] * 2 + ["mine"] * 11


def test_rebuilt_cache_is_the_same_and_a_kept_one_is_read(package, monkeypatch):
  first, second = pydocs.pydocs(package / "one"), pydocs.pydocs(package / "two")
  assert first.fingerprint == second.fingerprint
  assert [path.name for path in (package / "one").iterdir()] == [path.name for path in (package / "two").iterdir()]
  (package / "mine" / "new.py").write_text('"""New."""')
  assert pydocs.pydocs(package / "one").fingerprint == first.fingerprint  # A run in progress goes on with its text.
  monkeypatch.setattr(pydocs.importlib.metadata, "version", lambda name: "1.1")
  assert pydocs.pydocs(package / "one").fingerprint != first.fingerprint


def test_real_packages(tmp_path):
  """One real package, so that the test is quick."""
  before = set(sys.modules)
  assert importlib.util.find_spec("networkx") is not None
  folder = pydocs._folder("networkx")
  write_documents(tmp_path / "d", pydocs._docstrings(folder, "networkx", "networkx"), "networkx")
  assert not any(name.startswith("networkx") for name in set(sys.modules) - before)
  items = pydocs.Documents(tmp_path / "d")
  names = items.names.tolist()
  assert items[names.index("networkx.algorithms.link_analysis.pagerank_alg.pagerank")].startswith(
      "Returns the PageRank of the nodes in the graph.")
  assert not any(".tests." in name for name in names)
  assert len(items) > 1000 and np.all(items.labels["package"] == "networkx")


def test_no_extra_changes_the_corpus():
  setup = configparser.ConfigParser()
  setup.read(pathlib.Path(__file__).parents[2] / "setup.cfg")
  required = re.findall(r"^[\w-]+", setup["options"]["install_requires"], re.MULTILINE)
  assert set(pydocs.PACKAGES.values()) <= set(required)
