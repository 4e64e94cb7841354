"""Writes the generated tables of the project's pages, between their markers `<!-- NAME -->`.

`python -m experiments.pages`; `tests/test_pages.py` checks that they are current.
"""
import ast
import importlib
import inspect
import pathlib
import re
import textwrap
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from embeddings_jax import eval as protocols
from embeddings_jax import extensions
from embeddings_jax.data import catalog, pipelines, reading
from embeddings_jax.nets.text_encoder import TextEncoder
from embeddings_jax.runs import build, optimizers, presets
from embeddings_jax.types import OUTPUTS, is_fact
from experiments import baselines, command

ROOT = pathlib.Path(__file__).parents[1]
FAMILIES = tuple(sorted(path.parent.name for path in (ROOT / "embeddings_jax/models").glob("*/__init__.py")))
COMMANDS = tuple(sorted(
    path.stem for path in (ROOT / "experiments").glob("*.py") if "def main(" in path.read_text()))
PAGES = ("README.md", "embeddings_jax/README.md", "embeddings_jax/data/README.md", "embeddings_jax/eval/README.md",
         "embeddings_jax/models/README.md", *(f"embeddings_jax/models/{name}/README.md" for name in FAMILIES),
         "experiments/README.md", "experiments/results/README.md", "scripts/README.md")


def main(argv: Sequence[str]) -> int:
  command.parse(argv)
  write()
  return 0


def write() -> None:
  """Writes all pages, and the complete results as CSV."""
  for name in PAGES:
    path = ROOT / name
    path.write_text(filled(path.read_text(), path))
  (baselines.FOLDER / "results.csv").write_text(baselines.complete())


def filled(text: str, path: pathlib.Path) -> str:
  """Returns a page's text with its tables made anew."""
  tables: dict[str, Callable[[], str]] = {
      "models": models, "splits": splits, "model reference": lambda: family(path.parent.name), "outputs": outputs,
      "pipelines": pipeline_table, "facts": facts, "datasets": datasets, "protocols": protocol_table,
      "commands": commands, "config": config_keys,
      "baselines": lambda: baselines.baseline_table(baselines.DETAILS), "benchmarks": baselines.benchmark_table}
  return re.sub(r"(<!-- ([a-z ]+) -->\n).*?(<!-- /\2 -->)",
                lambda match: match[1] + tables[match[2]]() + match[3], text, flags=re.DOTALL)


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
  """Returns a Markdown table."""
  cells = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
  return "".join("| " + " | ".join(row) + " |\n" for row in [list(columns), ["---"] * len(columns), *cells])


def summary(documented: Any) -> str:
  """Returns the first paragraph of a docstring on one line, without its final period."""
  paragraph = (inspect.getdoc(documented) or "").partition("\n\n")[0]
  return " ".join(paragraph.split()).removesuffix(".")


def arguments(function: Callable[..., Any]) -> dict[str, str]:
  """Returns the meanings of arguments or attributes, from that section of a docstring."""
  section = re.search(r"^(?:Args|Attributes):\n((?:  .*\n?|\n)*)", inspect.getdoc(function) or "", re.MULTILINE)
  meanings = {}
  for entry in re.split(r"\n(?=\S)", textwrap.dedent(section[1]).strip()) if section else ():
    names, _, text = entry.partition(": ")
    text = " ".join(text.split())
    meanings |= {name.strip("* \n"): text[:1].upper() + text[1:] for name in names.split(",")}
  return meanings


def options(function: Callable[..., Any], leave_out: Sequence[str] = ()) -> str:
  """Returns the table of a factory's or pipeline's options: name, default, meaning."""
  known, rows = arguments(function), []
  for name, parameter in inspect.signature(function).parameters.items():
    if parameter.kind is parameter.KEYWORD_ONLY and name not in leave_out:
      value = "" if parameter.default is parameter.empty else f"`{parameter.default!r}`"
      rows.append((f"`{name}`", "from the data" if is_fact(parameter.annotation) else value, known.get(name, "")))
  return table(("argument", "default", "meaning"), rows)


def config_module(name: str) -> ModuleType:
  return importlib.import_module(f"embeddings_jax.configs.{name}")


def family_of(name: str) -> str:
  """Returns the family of a config's model."""
  config = presets.load_config(name, "demo")
  return inspect.getmodule(build.find_factory(config)).__name__.split(".")[2]


def models() -> str:
  """Returns the table of models: one row for each config."""
  rows = []
  for name in sorted(presets.model_names(), key=lambda name: (family_of(name), name)):
    demo, small = (presets.load_config(name, preset).data.name for preset in ("demo", "small"))
    rows.append((f"[{family_of(name)}]({family_of(name)}/README.md)", f"`{name}`", summary(config_module(name)), demo,
                 small))
  return table(("family", "model", "what it is", "`demo` data", "`small` data"), rows)


def splits() -> str:
  """Returns the table of what each model sees and predicts, from the line `Split:` of its module's docstring."""
  rows = []
  for path in sorted(ROOT.glob("embeddings_jax/models/*/*.py"), key=lambda path: (path.parent.name, path.stem)):
    if path.stem != "__init__":
      text = ast.get_docstring(ast.parse(path.read_text())) or ""
      line = re.search(r"^Split: (.*?)\.(?:\n\n|$)", text, flags=re.DOTALL | re.MULTILINE)
      if line is None or line[1].count("|") != 2:
        raise ValueError(f"{path}: the docstring needs a line 'Split: item | what is seen | what is predicted.'")
      rows.append((path.parent.name, f"`{path.stem}`", *(" ".join(cell.split()) for cell in line[1].split("|"))))
  return table(("family", "model", "item t", "seen x", "predicted y"), rows)


def family(name: str) -> str:
  """Returns the reference of a family: every model's command, presets, results and arguments."""
  parts = []
  for model in presets.model_names():
    if family_of(model) != name:
      continue
    factory = build.find_factory(presets.load_config(model, "demo"))
    text = inspect.getdoc(config_module(model)).partition("\n\n")[2]
    labels = r"^(Command|Presets|Expected|Hardware|Time):"
    text = re.sub(labels, r"- **\1.**", text, flags=re.MULTILINE)
    parts.append(f"### `{model}`\n\n{summary(config_module(model))}.\n\n{text.strip()}\n\n")
    if factory.__name__ == model:
      parts.append(options(factory, ("optimizer",)) + "\n")
    else:
      parts.append(f"Arguments: those of `{factory.__name__}`.\n\n")
  return "".join(parts)


def outputs() -> str:
  """Returns the table of outputs that models may offer."""
  rows = [(f"`{name}`", f"`({', '.join(output.arguments)})`", output.meaning) for name, output in
          OUTPUTS.items()]
  return table(("output", "arguments", "meaning"), rows)


def pipeline_table() -> str:
  """Returns the pipelines' datasets, batches and options."""
  parts = []
  for name in pipelines.names():
    module = pipelines.find(name)
    function = pipelines.function(module)
    parts.append(f"### `{name}`\n\n{summary(function)}. Reads {', '.join(module.ACCEPTS)}.\n\n"
                 + options(function, pipelines.COMMON) + "\n")
  return "".join(parts)


def facts() -> str:
  """Returns the table of facts and the pipelines that declare them."""
  rows = []
  for name, meaning in sorted(pipelines.facts().items()):
    able = [pipeline for pipeline in pipelines.names() if name in pipelines.find(pipeline).FACTS]
    rows.append((f"`{name}`", meaning, ", ".join(able) if name not in pipelines.FACTS else "all"))
  return table(("fact", "meaning", "pipelines"), rows)


def datasets() -> str:
  """Returns the table of the catalog."""
  return table(("name", "kind", "description", "license", "files"), [
      (f"`{name}`", entry.kind, entry.description, entry.license, ", ".join(f"`{file}`" for file in entry.files)
       or "embedded") for name, entry in catalog.entries().items()])


def protocol_table() -> str:
  """Returns the table of protocols: what they need, their default dataset and their metrics."""
  rows = []
  for name in protocols.protocol_names():
    module, declared = extensions.find("eval", name), protocols.find(name)
    metrics = [f"`{metric}`" + ("" if known.higher_is_better is None else " ↑" if known.higher_is_better else " ↓")
               for metric, known in declared.metrics.items()]
    rows.append((f"`{name}`", summary(module), ", ".join(declared.needs), declared.default or "the run's own",
                 ", ".join(metrics)))
  return table(("protocol", "what it measures", "needs", "default dataset", "metrics"), rows)


def commands() -> str:
  """Returns every command with its flags, and with those of the modules that it shares."""
  parts = []
  for name in COMMANDS:
    tree = ast.parse((ROOT / f"experiments/{name}.py").read_text())
    text = " ".join((ast.get_docstring(tree) or "").partition("\n\n")[0].split())
    parts.append(f"### `python -m experiments.{name}`\n\n{text}\n\n"
                 + table(("flag", "default", "meaning"), flag_rows(name)) + "\n")
  return "".join(parts)


def flag_rows(name: str) -> list[tuple[str, str, str]]:
  """Returns the flags of a command: name, default, meaning."""
  tree = ast.parse((ROOT / f"experiments/{name}.py").read_text())
  shared = [alias.name for node in tree.body if isinstance(node, ast.ImportFrom) and node.module == "experiments"
            for alias in node.names if alias.name not in COMMANDS]
  return [row for module in (name, *shared) for row in _flags(module)]


def _flags(module: str) -> list[tuple[str, str, str]]:
  """Returns the flags that a module of `experiments` defines: name, default, meaning."""
  rows = []
  path = ROOT / f"experiments/{module}.py"
  for node in ast.walk(ast.parse(path.read_text())) if path.is_file() else ():
    if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("flags.DEFINE_"):
      default, meaning = node.args[1], node.args[3 if node.func.attr == "DEFINE_enum" else 2]
      shown = "" if ast.unparse(default) in ("None", "''", "[]") else f"`{ast.unparse(default)}`"
      meaning = "".join(part.value for part in ast.walk(meaning) if isinstance(part, ast.Constant)
                        and isinstance(part.value, str))
      rows.append((f"`--{node.args[0].value}`", shown, meaning))
  return rows


def config_rows(config: Any) -> list[tuple[str, Any, str]]:
  """Returns every key of a config with its value and meaning."""
  pipeline = pipelines.find(config.pipeline)
  meanings = {name: text for name, _, text in _default_rows()}
  options = {"model": arguments(build.find_factory(config)), "optimizer": optimizers.MEANINGS,
             "data": {"name": "Name or path of the dataset"} | arguments(reading.text) | arguments(pipeline.READ)
             | arguments(pipelines.function(pipeline))}
  rows = []
  for key, value in config.items():
    if key not in options:
      rows.append((key, value, meanings.get(key, "")))
      continue
    for name, nested in value.items():
      if hasattr(nested, "keys") and (key == "optimizer" or "name" in nested):
        known = optimizers.MEANINGS if key == "optimizer" else _network_arguments(nested.name)
        rows += [(f"{key}.{name}.{option}", setting, known.get(option, "")) for option, setting in nested.items()]
      else:
        rows.append((f"{key}.{name}", nested, options[key].get(name, "")))
  return rows


def _network_arguments(name: str) -> dict[str, str]:
  """Returns the meanings of a network's options: its own, those of its class, and of the model that it belongs to."""
  module = build.network_module(name)
  network = module.encoder
  meanings = {"name": "Network: a model that has an encoder, or a module of `nets/`"}
  for documented in (TextEncoder, network.__annotations__.get("return"), getattr(module, name, None), network):
    meanings |= arguments(documented) if documented is not None else {}
  return meanings


def config_keys() -> str:
  """Returns the table of the keys that every config has, with their comments."""
  rows = [(f"`{key}`", f"`{value}`", text) for key, value, text in _default_rows()]
  return table(("key", "default", "meaning"), rows)


def _default_rows() -> list[tuple[str, str, str]]:
  source = inspect.getsource(presets)
  call = next(node.value for node in ast.parse(source).body
              if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "DEFAULTS")
  lines, rows = source.split("\n"), []
  for keyword in call.keywords:
    comment = lines[keyword.value.end_lineno - 1].partition("#")[2].strip()
    rows.append((keyword.arg, ast.unparse(keyword.value), comment))
  return rows


if __name__ == "__main__":
  command.call(main)
