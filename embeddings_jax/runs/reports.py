"""Evaluates a run, and writes what it leaves behind: `results.json`, embeddings, figures, and a summary."""
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from embeddings_jax import figures
from embeddings_jax.data.files.atomic import write_atomically
from embeddings_jax.data.files.names import format_names
from embeddings_jax.eval.neighbors import neighbors
from embeddings_jax.eval.topics import top_words
from embeddings_jax.runs import build, evaluation, metrics_log, row_index, summary, workdir
from embeddings_jax.runs.evaluation import Evaluator
from embeddings_jax.types import Model, Prepared, PyTree

NEIGHBOR_RANKS = (100, 200, 300, 500, 700, 1000, 1500, 2000)  # Frequent words, past the function words.


class Report:
  """Evaluates states of one run, while it trains and when it is done."""

  def __init__(self, config: Any, data: Prepared, model: Model, mesh: jax.sharding.Mesh, data_dir: str | None,
               cache_dir: str | None, say: Callable[[str], None]):
    self._config, self._data, self._model, self._mesh = config, data, model, mesh
    self._dirs = {"data_dir": data_dir, "cache_dir": cache_dir}
    self._say = say
    self._said: set[str] = set()
    # One sample for all states and `embeddings.npy`.
    self._material = evaluation.subset(data.dataset, config.eval_items, config.seed)

  def evaluator(self, state: PyTree, **options: Any) -> Evaluator:
    """Returns the evaluator of a state; `options` replace arguments of `Evaluator`."""
    return Evaluator(self._model, state, self._data.encoder, **{**self._shared(), **options})

  def _shared(self) -> dict[str, Any]:
    # The config is of this command line, so it may name code.
    return dict(dataset=self._material, task=self._data.task, splits=self._data.splits, facts=self._data.facts,
                untrained=self.untrained, seed=self._config.seed, allow_code=True,
                report=self._say_once, **self._dirs)

  def between(self, state: PyTree, step: int) -> dict[str, float]:
    """Evaluates while the run trains; of a task the split `dev` alone, for `best_metric`."""
    task = self._data.task
    if task is not None:
      task = task._replace(parts={part: rows for part, rows in task.parts.items() if part in ("train", "dev")})
    names = self._config.evals_between or self._config.evals
    return self.evaluator(state, task=task).evaluate(names, lenient=True)

  def _say_once(self, line: str) -> None:
    """Reports what is left out, which the baselines leave out too."""
    if line not in self._said:
      self._said.add(line)
      self._say(line)

  def untrained(self, seed: int = 0) -> PyTree:
    """The state of the same model before its first step, with BatchNorm's statistics of a batch where it has some;
    `seed` is added to the config's."""
    batch = self._data.splits["train"].batch_at(0)
    state = build.first_state(self._model, batch, self._mesh, self._config.seed + seed)
    if "calibrated" not in self._model.outputs:
      return state
    with jax.set_mesh(self._mesh):
      return state._replace(extra=jax.jit(self._model.outputs["calibrated"])(state, batch))

  def baselines(self) -> tuple[dict[str, float], dict[str, float]]:
    """Evaluates untrained models and features without learning.

    Returns:
      `untrained/...`, means over `baseline_seeds` random seeds, and the metrics of each kind of features; the sample
      standard deviations of the `untrained/...`, {} with one seed.
    """
    each: dict[str, list[float]] = {}
    for seed in range(self._config.baseline_seeds):
      first = self.evaluator(self.untrained(seed))
      if first.embed(first.dataset.items).any():  # A closed form knows nothing before its first step.
        for key, value in first.evaluate(self._config.evals, lenient=True).items():
          each.setdefault(f"untrained/{key}", []).append(value)
    metrics = {key: float(np.mean(values)) for key, values in each.items()}
    spread = {key: float(np.std(values, ddof=1)) for key, values in each.items() if len(values) > 1}
    for name, features in self._data.encoder.baselines(self._data.dataset).items():
      plain = Evaluator(None, None, self._data.encoder, embed=features, **self._shared())
      names = [name for name in self._config.evals if plain.answers(name)]
      metrics |= {f"{name}/{key}": value for key, value in plain.evaluate(names, lenient=True).items()}
    return metrics, spread

  def finish(self, state: PyTree, step: int, path: epath.Path, *, seconds: float, record: Mapping[str, Any],
             write: bool, draw: bool = True, best: int | None = None) -> None:
    """Final evaluations and everything that is written from them.

    Args:
      state: what is evaluated.
      step: what training ended with.
      path: the work directory.
      seconds: wall time of the training.
      record: as in `config.json`.
      write: whether this process is the one that writes.
      draw: whether it draws figures.
      best: the step of `state`, where it was chosen.
    """
    evaluator = self.evaluator(state)
    pending = evaluator.expanded(self._config.evals)
    pending += ["baselines"] if self._config.baselines else []
    pending += ["figures"] if draw else []
    results = self._training(step, path, seconds, record, best) | {"pending": pending}

    def save(name: str = "", metrics: Mapping[str, float] | None = None) -> None:
      """Marks a part as done and writes what there is, so that a later failure or signal loses nothing."""
      if name:
        pending.remove(name)
      # What could not be asked is nan, which JSON does not know.
      results["metrics"] |= {key: round(float(value), 6) for key, value in (metrics or {}).items()
                             if np.isfinite(value)}
      if write:
        workdir.write_json(path / "results.json", {key: value for key, value in results.items()
                                                   if key != "pending" or value})

    save()
    names = self._data.encoder.names
    if names is not None:
      vectors = evaluator.embed(names)
    else:
      vectors, names = evaluator.embed(evaluator.dataset.items), self._material.names
      if self._material.rows is not None:
        self._say(f"embeddings and evaluations are of a sample, {len(self._material.items):,} of "
                  f"{len(self._data.dataset.items):,} items (eval_items={self._config.eval_items}; 0: all)")
    if write:
      if self._data.encoder.names is None:
        row_index.write(path / row_index.NAME, row_index.of_dataset(self._material))
      workdir.write_array(path / "embeddings.npy", vectors)
      if names is not None:
        write_atomically(path / "vocabulary.txt", format_names(names))
    save("", evaluator.evaluate(self._config.evals, lenient=True, done=save))
    if self._config.baselines:
      metrics, spread = self.baselines()
      if spread:
        results["baseline_seeds"] = self._config.baseline_seeds
        results["standard_deviations"] = {key: round(value, 6) for key, value in spread.items() if np.isfinite(value)}
      save("baselines", metrics)
    if not write:
      return
    drawn = []
    if draw:
      drawn = figures.draw(path, figures.Drawing(
          evaluator, vectors=vectors, log=metrics_log.read_metrics(path), metrics=results["metrics"],
          evals=self._config.evals, name=self._config.name))
      save("figures")
    self._summary(path, results, vectors, names, drawn, evaluator.provided("topics"))

  def _training(self, step: int, path: epath.Path, seconds: float, record: Mapping[str, Any],
                best: int | None) -> dict[str, Any]:
    """Returns what `results.json` says of the training alone."""
    logged = metrics_log.read_metrics(path)
    logged = [record for record in logged if "steps_per_second" in record] or logged  # Evaluations have no rates.
    training = {key: value for key, value in (logged or [{}])[-1].items() if key not in ("step", "seconds")}
    rate = training.pop("examples_per_second", 0.0)
    return {
        "model": self._config.name, "preset": record["preset"], "data": self._config.data.name, "metrics": {},
        "training": training, "seed": self._config.seed, "steps": step,
        **({} if best is None else {"best_step": best}), "examples_per_second": rate,
        **self._words_per_second(step, seconds), "wall_seconds": round(seconds, 1), "command": record["command"],
        "commit": workdir.commit(),
        "versions": workdir.versions(), "device": jax.devices()[0].device_kind, "num_devices": jax.device_count(),
        "mesh": dict(self._mesh.shape), "fingerprint": self._data.dataset.fingerprint,
        **({"note": record["note"]} if "note" in record else {}),
    }

  def _words_per_second(self, step: int, seconds: float) -> dict[str, float]:
    """Words of the text as it was read, in or out of the vocabulary, that went through training; for text."""
    source = self._data.splits["train"]
    if "num_raw_words" not in source.facts or not seconds:
      return {}
    # A closed form reads the text once, however many steps it takes.
    epochs = 1 if source.whole else step / source.facts["steps_per_epoch"]
    return {"words_per_second": round(epochs * source.facts["num_raw_words"] / seconds)}

  def _summary(self, path: epath.Path, results: Mapping[str, Any], vectors: np.ndarray, names: Any,
               drawn: Sequence[str], topics: Mapping[str, Any] | None) -> None:
    encoder = self._data.encoder
    if encoder.names is not None:
      words = [names[rank] for rank in NEIGHBOR_RANKS if rank < len(names)] or list(names[:5])
      for word, near in neighbors(vectors, names, words, k=6).items():
        self._say(f"  {word:>14}: {', '.join(name for name, _ in near)}")
    for number, words in enumerate(top_words(topics["topics"], 10) if topics else ()):
      self._say(f"  topic {number}: {' '.join(self._data.encoder.vocabulary.words[i] for i in words)}")
    for line in summary.table(results["metrics"], ("untrained", *encoder.baselines(self._data.dataset))):
      self._say(f"  {line}")
    for name, better in summary.surpassing(results["metrics"]).items():
      self._say(f"  {name} does better than the trained model in {', '.join(better)}")
    loss = results["training"].get("loss")
    for name in ("aic", "bic"):
      if name in results["training"]:
        self._say(f"  {name}: {results['training'][name]:.1f}")
    self._say(f"{results['model']}: {results['steps']} steps in {results['wall_seconds']} s"
              + (f", loss {loss:.4f}" if loss is not None else "")
              + (f", {results['words_per_second']:,} words/s" if "words_per_second" in results else ""))
    index = "vocabulary.txt" if self._data.encoder.names is not None else row_index.NAME
    made = ["results.json", f"embeddings.npy [{', '.join(map(str, vectors.shape))}]", f"{index} (its rows)", *drawn]
    self._say(f"{path}: {', '.join(made)}")
    self._say("embed your own: python -m experiments.embed "
              f"--workdir={shlex.quote(str(path))} --input=FILE --output=OUT.npy")
