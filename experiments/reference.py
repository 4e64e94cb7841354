"""Writes the sources of the API reference: the pages, and one page per module for mkdocstrings.

`python -m experiments.reference --output=FOLDER`; `scripts/docs` builds the site from it.
"""
import pathlib
import shutil
from collections.abc import Sequence

from absl import flags

from embeddings_jax.errors import InputError
from experiments import command, pages

FLAGS = flags.FLAGS
flags.DEFINE_string("output", "", "Folder to write; what it holds is replaced.")

CONFIG = """site_name: embeddings_jax
docs_dir: source
site_dir: site
use_directory_urls: false
strict: true
theme:
  name: material
  features: [navigation.indexes]
markdown_extensions: [admonition, pymdownx.superfences, attr_list]
plugins:
- search
- mkdocstrings:
    handlers:
      python:
        paths: [REPOSITORY]
        options:
          docstring_style: google
          docstring_options: {warn_unknown_params: false, warnings: false, returns_named_value: false}
          show_root_heading: true
          show_source: false
          members_order: source
          filters: ["!^_"]
"""


def main(argv: Sequence[str]) -> int:
  command.parse(argv)
  if not FLAGS.output:
    raise InputError("--output=: is missing; name a folder")
  folder = pathlib.Path(FLAGS.output)
  if folder.exists() and any(folder.iterdir()) and not (folder / "mkdocs.yml").exists():
    raise InputError(f"--output={folder}: holds other files; name a new folder")
  shutil.rmtree(folder, ignore_errors=True)
  source = folder / "source"
  for name in (*pages.PAGES, "embeddings_jax/CHANGELOG.md", "experiments/results/gallery.png",
               "experiments/results/results.csv"):
    (source / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(pages.ROOT / name, source / name)
  modules = [".".join(path.relative_to(pages.ROOT).with_suffix("").parts).removesuffix(".__init__")
             for path in sorted((pages.ROOT / "embeddings_jax").rglob("*.py"))]
  (source / "reference").mkdir()
  for name in modules:
    (source / "reference" / f"{name}.md").write_text(f"# {name}\n\n::: {name}\n")
  links = "".join(f"- [{name}]({name}.md)\n" for name in modules)
  (source / "reference" / "README.md").write_text(f"# API reference\n\n{links}")
  (folder / "mkdocs.yml").write_text(CONFIG.replace("REPOSITORY", str(pages.ROOT.resolve())))
  return 0


if __name__ == "__main__":
  command.call(main)
