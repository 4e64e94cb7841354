"""Lower rooms never import higher ones."""
import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
# Room -> what it may import of the project, besides itself.
ALLOWED = {
    "errors": set(),
    "extensions": set(),
    "types": {"errors"},
    "ops": {"types"},
    "nets": {"types", "ops"},
    "data": {"extensions", "types", "errors"},
    "gradient": {"types", "ops"},
    "models": {"types", "ops", "nets", "gradient"},
    "eval": {"extensions", "types", "errors", "ops", "data"},
    "train": {"types", "ops", "data"},
    "interop": {"types", "nets", "data"},  # `data` for its reading of compressed files.
    "configs": set(),
    "figures": {"extensions", "types", "ops", "data", "eval", "train"},
    "runs": {"extensions", "types", "errors", "ops", "nets", "data", "gradient", "models", "eval", "train", "interop",
             "configs", "figures"},
    "plan": {"types", "errors", "ops", "data", "runs", "train"},
}


def imported(path):
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      yield node.module
      yield from (f"{node.module}.{alias.name}" for alias in node.names)


def python_files(folder):
  return sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("path", python_files("embeddings_jax"), ids=lambda p: str(p.relative_to(ROOT)))
def test_no_room_imports_a_higher_one(path):
  parts = path.relative_to(ROOT / "embeddings_jax").with_suffix("").parts
  if parts == ("__init__",):
    return
  room = parts[0]
  for name in imported(path):
    assert not name.startswith("experiments"), f"{path} imports {name}"
    if name.startswith("embeddings_jax."):
      target = name.split(".")[1]
      assert target == room or target in ALLOWED[room], f"{path} imports {name}"


def test_models_do_not_import_each_other():
  for path in python_files("embeddings_jax/models"):
    assert not [name for name in imported(path) if name.startswith("embeddings_jax.models")]


def test_flags_are_read_in_experiments_alone_and_matplotlib_by_figures_alone():
  for path in python_files("embeddings_jax") + python_files("experiments"):
    names = set(imported(path))
    if "experiments" not in path.parts:
      assert not any(name.startswith("absl.flags") or name == "absl" for name in names), path
    if path.parent.name != "figures":
      assert not any(name.startswith("matplotlib") for name in names), path


def test_torch_and_tensorflow_are_never_imported():
  for path in python_files("embeddings_jax") + python_files("experiments"):
    if path.parent.name == "benchmarks":  # There they are the peer.
      continue
    assert not {name.split(".")[0] for name in imported(path)} & {"torch", "tensorflow", "transformers"}, path


def test_there_is_no_room_for_odds_and_ends():
  assert not [path for path in ROOT.rglob("util*.py") if ".venv" not in path.parts]


def test_nothing_depends_on_asserts():
  """`python -O` leaves asserts out, and with them the work that they do, as a lookup in a defaultdict."""
  for path in python_files("embeddings_jax") + python_files("experiments"):
    assert not any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(path.read_text()))), path
