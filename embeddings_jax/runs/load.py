"""Loads a run: from its work directory, a Hugging Face directory, or a file of word vectors."""
import logging
import os
from collections.abc import Mapping
from typing import Any

import jax
from etils import epath

from embeddings_jax.data import encoders
from embeddings_jax.data.files.json import read_json
from embeddings_jax.errors import InputError
from embeddings_jax.interop import vector_catalog, word_vectors
from embeddings_jax.runs import build, workdir
from embeddings_jax.runs.run import Run
from embeddings_jax.train.checkpoints import CheckpointReader
from embeddings_jax.train.mesh import make_mesh, state_shardings


def load(path: str | os.PathLike, *, mesh: jax.sharding.Mesh | None = None, limit: int = 0) -> Run:
  """Loads what was trained, here or elsewhere.

  Args:
    path: Work directory of a run; a directory of Hugging Face or sentence-transformers (see `interop/`); a file of
      word vectors in a format of `interop/word_vectors.py`; or a name of `interop/vector_catalog.py`.
    mesh: Devices; see `make_mesh`.
    limit: Words to read of a file of word vectors, the first ones; 0: all.

  Raises:
    InputError: There is nothing of the kind, a file is damaged, or the files do not fit together.
  """
  from embeddings_jax.runs import pretrained, vectors

  location = epath.Path(vector_catalog.located(path))
  if is_run(location):
    return load_run(str(path), mesh)
  if location.is_dir():
    return pretrained.as_run(pretrained.load(str(path)))
  if not location.exists():
    raise InputError(f"{path}: no such file or directory")
  return vectors.as_run(word_vectors.read(location, limit=limit), location)


def is_run(path: epath.Path) -> bool:
  """Returns whether a path is the work directory of a run."""
  file = path / "config.json"
  return path.is_dir() and file.exists() and "trajectory" in read_json(file)


def load_run(path: str, mesh: jax.sharding.Mesh | None = None, pooling: str = "") -> Run:
  """Returns the best checkpoint of a work directory, else the newest sound one, with its model and encoder.

  The directory may be that of a run that trains: it is only read.

  Args:
    path: The work directory.
    mesh: See `make_mesh`.
    pooling: Replaces the model's own pooling.

  Raises:
    InputError: A file is missing or damaged, or they do not fit together.
  """
  folder = epath.Path(path)
  record = workdir.read_record(folder)
  encoder = encoders.load_encoder(folder / "encoder")
  if encoder.fingerprint != record["encoder"]:
    raise InputError(f"{folder / 'encoder'}: changed since the training began; it does not fit the checkpoints")
  mesh = mesh or make_mesh()
  with jax.set_mesh(mesh):
    try:
      model = _model(record)
      batch = workdir.stand_in_batch(record["batch"])
      abstract = jax.eval_shape(model.init, jax.eval_shape(lambda: jax.random.key(0)), batch)
    except InputError:
      raise
    except Exception as error:  # noqa: BLE001 - a damaged record can raise anything in a factory
      reason = (str(error).strip() or type(error).__name__).splitlines()[0]
      raise InputError(f"{folder / 'config.json'}: describes no model that can be built ({reason})") from error
    layout = state_shardings(abstract, mesh, model.rules)
    checkpoints = CheckpointReader(str(folder / "checkpoints"), **workdir.best_of(record["config"]),
                                   report=logging.warning)
    restored = checkpoints.restore(abstract, layout, preferred=checkpoints.best())
  if restored is None:
    raise InputError(f"{folder}: there is no complete checkpoint to read")
  run = Run(folder, record, model, restored[0], restored[1], encoder, lambda **options: _model(record, **options))
  return run.with_pooling(pooling) if pooling else run


def _model(record: Mapping[str, Any], **options: Any) -> Any:
  """Returns the model of a record, with some hyperparameters replaced."""
  config = {**record["config"], "model": {**record["config"]["model"], **options}}
  return build.make_model(config, workdir.stand_in_facts(record["facts"]), record["horizon"])
