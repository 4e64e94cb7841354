"""Trains a model from a config: in memory (`ej.fit`), or in a work directory that the same call resumes."""
import contextlib
import json
import os
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import jax
from etils import epath

from embeddings_jax.data import pipelines
from embeddings_jax.data.dataset import as_dataset
from embeddings_jax.errors import InputError, check_choice
from embeddings_jax.eval import check_best_metric
from embeddings_jax.runs import (
    build,
    evaluation,
    metrics_log,
    optimizers,
    presets,
    pretrained,
    reports,
    word_start,
)
from embeddings_jax.runs import workdir as workdirs
from embeddings_jax.runs.load import load_run
from embeddings_jax.runs.run import Run
from embeddings_jax.train import loop
from embeddings_jax.train.checkpoints import Checkpoints
from embeddings_jax.train.mesh import check_batch_size, make_mesh
from embeddings_jax.train.profiler import Profiler
from embeddings_jax.train.signals import Signals
from embeddings_jax.types import Model, Prepared, PyTree


class Start(NamedTuple):
  """Initialization of a run: a pretrained network, word vectors, or neither."""

  network: pretrained.Pretrained | None = None
  words: word_start.WordStart | None = None

  @property
  def origin(self) -> Any:
    return self.network or self.words

  def initial(self, encoder: Any, report: Callable[[str], None]) -> Callable[[PyTree], PyTree] | None:
    if self.network:
      return pretrained.initial(self.network, report)
    return word_start.initial(self.words, encoder, report) if self.words else None


def fit(
    name: str,
    data: Any = None,
    *,
    preset: str = "demo",
    steps: int | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    data_options: Mapping[str, Any] | None = None,
    optimizer: Mapping[str, Any] | None = None,
    workdir: str | os.PathLike | None = None,
    init_from: str = "",
    mesh: jax.sharding.Mesh | None = None,
    data_dir: str | None = None,
    cache_dir: str | None = None,
    write: Callable[[int, Mapping[str, float]], None] | None = None,
    report: Callable[[str], None] = lambda line: None,
    **model_options: Any,
) -> Run:
  """Trains a model of the package on data of one's own or of the catalog.

  Args:
    name: A model of `presets.model_names()`.
    data: Array of rows [n, num_features], or of images [n, height, width, channels] (uint8, or floats in [0, 1]); a
      list of texts; a graph of networkx, a square sparse matrix of scipy or an array of edges [m, 2]; a `Dataset`; a
      path, glob or name of the catalog. None takes the preset's.
    preset: Config that all else is changed from.
    steps, batch_size, seed: Replace the preset's.
    data_options: Options of the reader and the pipeline, keys of `config.data`.
    optimizer: Options of the optimizer, keys of `config.optimizer`.
    workdir: Directory for checkpoints, log and results, which the same call resumes; None writes nothing.
    init_from: Pretrained network or word vectors to start from.
    mesh: Devices; see `make_mesh`.
    data_dir, cache_dir: Directories of the catalog's files and of derived data.
    write: Receives `(step, metrics)` every `log_every` steps, without a work directory.
    report: Receives lines about the run.
    **model_options: Hyperparameters, arguments of the model's factory.

  Returns:
    The trained run.

  Raises:
    InputError: An unknown name or option, or data that the model cannot read.
  """
  config = presets.load_config(name, preset)
  explicit = {f"model.{key}" for key in model_options}
  for key, value in {"steps": steps, "batch_size": batch_size, "seed": seed}.items():
    if value is not None:
      config[key] = value
  for node, options in (("model", model_options), ("data", data_options or {}), ("optimizer", optimizer or {})):
    explicit |= {f"{node}.{key}" for key in options}
    for key, value in options.items():
      check_choice(f"{node} option", key, sorted(config[node].keys()))
      presets.assign(config[node], key, value)
  presets.check_numbers(config)
  dataset = None
  if isinstance(data, (str, os.PathLike)):
    config.data.name = str(data)
  elif data is not None:
    dataset = as_dataset(data, cache_dir=cache_dir)
    config.data.name = dataset.name
  return train_config(config, preset=preset, explicit=explicit, dataset=dataset, workdir=workdir, init_from=init_from,
                      mesh=mesh, data_dir=data_dir, cache_dir=cache_dir, write=write, report=report)


def train_config(
    config: Any,
    *,
    preset: str = "",
    explicit: Collection[str] = (),
    dataset: Any = None,
    workdir: str | os.PathLike | None = None,
    default_workdir: bool = False,
    init_from: str = "",
    overwrite: bool = False,
    mesh: jax.sharding.Mesh | None = None,
    data_dir: str | None = None,
    cache_dir: str | None = None,
    allow_code: bool = False,
    figures: bool = False,
    command: str = "",
    save_minutes: float = 0.0,
    profile: str = "",
    signals: Signals | None = None,
    write: Callable[[int, Mapping[str, float]], None] | None = None,
    report: Callable[[str], None] = lambda line: None,
    progress: Callable[[int, int, Mapping[str, float]], None] | None = None,
    preparation: Callable[[str, int, int], None] = lambda *_: None,
) -> Run:
  """Trains, and with a work directory evaluates, what a completed config says.

  Args:
    config: A completed config.
    preset: Its name, for the record.
    explicit: Keys that the user set, as `model.dim`; what contradicts them is refused.
    dataset: Replaces the dataset that `config.data` names.
    workdir: Directory of the run; None trains in memory.
    default_workdir: Use `runs/MODEL-PRESET-HASH` where there is no `workdir`.
    init_from: Pretrained network or word vectors to start from.
    overwrite: Move an old run in the directory aside.
    mesh: Devices; see `make_mesh`.
    data_dir, cache_dir: Directories of the catalog's files and of derived data.
    allow_code: Whether the config may name code, `FILE.py:FUNCTION`, as data.
    figures: Draw figures in the work directory.
    command: How the run was started, for the record.
    save_minutes: Minutes after which a checkpoint is due, beside `config.save_every`; 0: never.
    profile: Steps `first:last` to profile, into `profile/` of the work directory.
    signals: Asks the training to stop.
    write: Receives `(step, metrics)`, without a work directory.
    report: Receives lines about the run.
    progress: Receives `(step, steps, metrics)` after every dispatch.
    preparation: Receives `(unit, done, total)` while data is prepared.

  Raises:
    InputError: An option, the data or the directory is wrong.
  """
  named = "optimizer.name" in explicit  # What a preset has for another optimizer is then left over.
  optimizers.check_options(config.optimizer, [key for key in config.optimizer
                                              if not named or f"optimizer.{key}" in explicit])
  mesh = make_mesh() if mesh is None else mesh
  start = find_start(init_from, config, explicit)
  check_evaluations(config)
  data = build.prepare(config, dataset=dataset, data_dir=data_dir, cache_dir=cache_dir, allow_code=allow_code,
                       encoder=start.network.encoder if start.network else None, progress=preparation)
  if data.dataset.note:
    report(data.dataset.note)
  source = data.splits["train"]
  steps = config.steps or config.epochs * data.facts["steps_per_epoch"]
  if not steps:
    raise InputError("steps is missing: the config has neither `steps` nor `epochs`")
  if not source.whole:
    check_batch_size(mesh, source.batch_size)
  initial = start.initial(data.encoder, report)
  if workdir is None and not default_workdir:
    horizon = config.horizon or steps
    model = build.make_model(config, data.facts, horizon)
    state = loop.train(model, source, steps=steps, seed=config.seed, mesh=mesh, signals=signals, initial=initial,
                       steps_per_dispatch=config.steps_per_dispatch, write=write, log_every=config.log_every,
                       progress=(lambda step, record: progress(step, steps, record)) if progress else None,
                       report=report)
    record = record_of(config, data, steps, horizon, {}, preset=preset, command=command, start=start)
    return _run(None, record, model, state, steps, data)

  trajectory = workdirs.trajectory(config.to_dict(), data.dataset.fingerprint,
                                   start.origin.fingerprint if start.origin else "")
  path = workdirs.located(workdir) if workdir else workdirs.default_path(config, preset, trajectory)
  horizon = config.horizon or (not overwrite and workdirs.recorded_horizon(path)) or steps
  if build.depends_on_horizon(config):
    trajectory["horizon"] = horizon
  model = build.make_model(config, data.facts, horizon)
  record = record_of(config, data, steps, horizon, trajectory, preset=preset, command=command, start=start)
  if "note" in record:
    report(f"init_from={init_from}: {record['note']}")
  if profile and "://" in str(path):
    raise InputError(f"profile={profile}: needs a local work directory")
  profiler = Profiler(profile, path / "profile") if profile else None
  directory = Directory(path, record, overwrite=overwrite, figures=figures, data_dir=data_dir, cache_dir=cache_dir,
                        report=report)
  with directory.opened():
    return directory.train(config, data, model, mesh, initial, signals, progress, save_minutes, profiler)


def find_start(init_from: str, config: Any, explicit: Collection[str]) -> Start:
  """Returns what a run starts from; sizes and tokenizer of a pretrained network are put into the config."""
  if not init_from:
    return Start()
  words = word_start.find(init_from)
  if words:
    return Start(words=words)
  network = pretrained.load(init_from)
  pretrained.adapt(config, network, explicit)
  return Start(network)


def check_evaluations(config: Any) -> None:
  """Raises unless the protocols and the metric of the best checkpoint are known."""
  for name in (*config.evals, *config.evals_between):
    evaluation.check(name)
  if config.best_metric:
    if not config.eval_every:
      raise InputError(f"best_metric={config.best_metric}: needs eval_every above 0")
    check_best_metric(config.best_metric)


def record_of(config: Any, data: Prepared, steps: int, horizon: int, trajectory: Mapping[str, Any], *, preset: str,
              command: str, start: Start) -> dict[str, Any]:
  """Returns the contents of `config.json`."""
  record = {
      "format": workdirs.FORMAT, "config": json.loads(config.to_json_best_effort()), "preset": preset,
      "trajectory": trajectory, "steps": steps, "horizon": horizon, "encoder": data.encoder.fingerprint,
      "facts": workdirs.described_facts(data.facts),
      "batch": workdirs.described_batch(data.splits["train"].batch_at(0)), "command": command,
      **({"init_from": str(start.origin.path)} if start.origin else {}),
  }
  if start.words and "validation" in data.splits and word_start.has_read(start.words, data.dataset.fingerprint):
    record["note"] = "the word vectors it started from had also read the validation documents"
  return record


class Directory:
  """The work directory of one run while it trains: locked, resumable, and complete when it ends."""

  def __init__(self, path: epath.Path, record: dict[str, Any], *, overwrite: bool, figures: bool,
               data_dir: str | None, cache_dir: str | None, report: Callable[[str], None]):
    self._path, self._record, self._overwrite, self._figures = path, record, overwrite, figures
    self._dirs = data_dir, cache_dir
    self._alone = jax.process_index() == 0  # The process that writes.
    self._report = report if self._alone else lambda line: None

  @contextlib.contextmanager
  def opened(self):
    """Creates and locks the directory, or checks that it holds the same run."""
    prepared = workdirs.prepared(self._path, self._record["trajectory"], overwrite=self._overwrite,
                                 report=self._report) if self._alone else contextlib.nullcontext()
    with prepared:
      if jax.process_count() > 1:  # Process 0 has made and locked the directory before any other looks into it.
        from jax.experimental import multihost_utils
        multihost_utils.sync_global_devices("work directory")
      yield

  def train(self, config: Any, data: Prepared, model: Model, mesh: jax.sharding.Mesh,
            initial: Callable[[PyTree], PyTree] | None, signals: Signals | None,
            progress: Callable[[int, int, Mapping[str, float]], None] | None, save_minutes: float,
            profiler: Profiler | None) -> Run:
    """Trains from the newest sound checkpoint, evaluates, and writes what a run leaves behind."""
    path, record, say, source = self._path, self._record, self._report, data.splits["train"]
    steps, trajectory = record["steps"], record["trajectory"]
    metadata = {"trajectory": trajectory, "encoder": record["encoder"], "versions": workdirs.versions()}
    checkpoints = Checkpoints(str(path / "checkpoints"), **workdirs.best_of(config), metadata=metadata, report=say)
    begun = checkpoints.newest_sound()
    old = workdirs.read_results(path, report=say)
    if workdirs.is_finished(old, begun, steps):
      say(f"{path}: finished at step {begun}" + ("; more steps continue it" if begun >= steps else ", converged"))
      return load_run(str(path), mesh)
    if begun:
      say(f"{path}: going on from step {begun}"
          + (f"; {steps} are asked for, so there is nothing to train, and what is there is evaluated"
             if begun >= steps else ""))
    else:
      workdirs.check_restart(path, checkpoints.rejected(), old)
    if self._alone:
      data.encoder.save(path / "encoder")
      workdirs.write_json(path / "config.json", record)
    devices = f"mesh {dict(mesh.shape)} of {jax.devices()[0].device_kind}" if mesh.size > 1 else (
        jax.devices()[0].device_kind)
    unit = pipelines.unit(pipelines.find(config.pipeline))
    say(f"{config.name}: {data.facts['num_rows']:,} {unit} of {data.dataset.name}, {steps} steps of batch "
        f"{source.batch_size}, on {devices}; in {path}")
    if record["horizon"] < steps and "horizon" in trajectory:
      say(f"schedules run over {record['horizon']} steps, beyond which the learning rate stays at its end")

    ending = reports.Report(config, data, model, mesh, *self._dirs, say)
    log = metrics_log.MetricsLog(path, say) if self._alone else None
    try:
      state = loop.train(
          model, source, steps=steps, seed=config.seed, mesh=mesh, steps_per_dispatch=config.steps_per_dispatch,
          checkpoints=checkpoints, save_every=config.save_every,
          evaluate=ending.between if config.eval_every else None, eval_every=config.eval_every,
          write=log.write if log else None, log_every=config.log_every, started=log.start if log else None,
          progress=(lambda step, values: progress(step, steps, values)) if progress and self._alone else None,
          signals=signals, initial=initial, report=say, save_minutes=save_minutes, profiler=profiler)
      step, best = checkpoints.latest(), checkpoints.best()
      if step < steps:
        say(f"{config.name}: converged after {step} of {steps} steps")
      if best not in (None, step):
        layout = jax.tree.map(lambda leaf: leaf.sharding, state)
        state, best, _ = checkpoints.restore(jax.eval_shape(lambda: state), layout, best)
        say(f"{config.best_metric} was best at step {best}, which is reported")
    finally:
      checkpoints.close()
      if log:
        log.close()
    ending.finish(state, step, path, seconds=log.seconds() if log else 0.0, record=record, write=self._alone,
                  draw=self._figures, best=best)
    return _run(path, record, model, state, step, data)


def _run(path: epath.Path | None, record: dict[str, Any], model: Model, state: PyTree, step: int,
         data: Prepared) -> Run:
  config = record["config"]

  def rebuild(**options: Any) -> Model:
    return build.make_model({**config, "model": {**config["model"], **options}}, data.facts, record["horizon"])

  return Run(path, record, model, state, step, data.encoder, rebuild, prepared=data)
