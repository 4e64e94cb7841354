"""Pages are current, their commands and links are right, and every flag and option has a meaning."""
import inspect
import re
import shlex

import pytest

from embeddings_jax import eval as protocols
from embeddings_jax.data import pipelines
from embeddings_jax.runs import build, presets
from experiments import baselines, pages

COMMAND = re.compile(r"^(?:python -m experiments\.(\w+)|scripts/(run|test))((?: .*)?)$")
COMMON = {"help", "verbosity"}


@pytest.mark.parametrize("name", pages.PAGES)
def test_generated_tables_are_current(name):
  text = (pages.ROOT / name).read_text()
  assert pages.filled(text, pages.ROOT / name) == text, "run `python -m experiments.pages`"


def test_complete_results_are_current():
  assert (baselines.FOLDER / "results.csv").read_text() == baselines.complete()


@pytest.mark.parametrize("name", pages.PAGES)
def test_links_lead_to_files(name):
  path = pages.ROOT / name
  text = path.read_text()
  targets = re.findall(r"\]\(([^)#\s]+)", text) + re.findall(r"^\[\w+\]: (\S+)", text, re.MULTILINE)
  assert all((path.parent / target).exists() for target in targets if "://" not in target), targets


def test_readme_is_short():
  lines = (pages.ROOT / "README.md").read_text().splitlines()
  assert len(lines) <= 150 and max(map(len, lines)) <= 120
  assert lines.index("```python") < 60


def commands():
  for name in pages.PAGES:
    for block in re.findall(r"```\n(.*?)```", (pages.ROOT / name).read_text(), re.DOTALL):
      for line in block.splitlines():
        if match := COMMAND.match(line.partition("  #")[0].strip()):
          yield pytest.param(match[1] or match[2], shlex.split(match[3]), id=f"{name}:{line[:60]}")


@pytest.mark.parametrize("command, arguments", commands())
def test_commands_of_pages_have_their_flags(command, arguments):
  if command == "test":
    assert set(arguments) <= {"--parity", "--slow"}
    return
  known = {row[0].strip("`-") for row in pages.flag_rows(command)} | COMMON
  given = dict(argument.lstrip("-").partition("=")[::2] for argument in arguments)
  config = None
  if command == "run":
    pipeline = given.get("config.pipeline", "")
    config = presets.load_config(given.get("model", ""), given.get("preset", "demo"), "", pipeline)
  for name in given:
    if name.startswith("config."):
      node = config
      for key in name.split(".")[1:]:
        assert key in node, name
        node = node[key]
    else:
      assert name in known, name
  for protocol in given.get("protocols", "").split(",") if "protocols" in given else ():
    assert protocols.find(protocol.partition(":")[0])


def test_every_model_is_listed():
  text = (pages.ROOT / "embeddings_jax/models/README.md").read_text()
  assert all(f"| `{name}` |" in text for name in presets.model_names())


def test_every_flag_has_a_meaning():
  rows = [(command, *row) for command in pages.COMMANDS for row in pages.flag_rows(command)]
  assert not [row for row in rows if not row[-1].strip()] and len(rows) > 50


@pytest.mark.parametrize("name", presets.model_names())
def test_every_option_has_a_meaning(name):
  config = presets.load_config(name, "demo")
  factory, pipeline = build.find_factory(config), pipelines.find(config.pipeline)
  meanings = pages.arguments(factory) | pages.arguments(pipelines.function(pipeline))
  keywords = [key for key, value in inspect.signature(factory).parameters.items() if value.kind is value.KEYWORD_ONLY]
  assert not [key for key in (*keywords, *pipelines.own_options(pipeline)) if not meanings.get(key)]
