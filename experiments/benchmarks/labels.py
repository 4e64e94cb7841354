"""Benchmark of pretraining by the number of labels."""
from collections.abc import Callable
from typing import Any

import numpy as np
from absl import flags

from embeddings_jax import train
from embeddings_jax.eval.finetuning import finetuning
from embeddings_jax.eval.linear_probe import classifier
from embeddings_jax.figures import sweeps
from embeddings_jax.runs import build, inference, needs, presets, pretrained
from embeddings_jax.runs.load import load_run
from embeddings_jax.types import InputError, Model
from experiments import command
from experiments.spread import mean_and_std

FLAGS = flags.FLAGS
# Of other networks `finetune`.
RECIPES = {"mae": "vit_supervised", "resnet": "resnet_supervised", "convnet": "resnet_supervised"}


def labels() -> dict:
  """Accuracy on the test part by the number of labels (`--numbers`), of a run's network (`--workdir`) fine-tuned, of
  a linear classifier on its frozen vectors, and of the same network from scratch, by the recipe of `vit_supervised`,
  `resnet_supervised` or `finetune`, in float32 and perhaps of other `--layers`; on `--data`, which may be another set
  than the run's. The frozen vectors are those of `experiments.embed`. With `--mixed` also of the network from scratch
  on the labels' loss plus the proxy losses of `mixed` or `mixed_images`, by the weights of their presets.

  Each seed draws labels of its own; those of a smaller number are among those of a larger one. Of several learning
  rates (`--rates`) each training has the one with the highest accuracy on the part `dev`, as the linear classifier
  has its penalty from a fifth of its labels. Where nothing is chosen by it, a part `dev` is told beside the test
  part, as `rows_dev`: it may be the larger one. `--figure` draws the test part.
  """
  if not FLAGS.workdir:
    raise InputError("--workdir is missing: a run of bert, mae, simclr or rotation, say")
  numbers, rates = command.listed(FLAGS["numbers"], int), command.listed(FLAGS["rates"], float)
  run = load_run(FLAGS.workdir)
  source = pretrained.of_run(run)
  embed = inference.embedder(run.model, run.state, run.encoder)
  rows: dict[str, list[dict]] = {}
  vectors: dict[str, np.ndarray] = {}
  # By arm, one of each rate, for all numbers and seeds, whose trainings then share its program.
  models: dict[str, list[Model]] = {}
  arms = ("fine-tuned", "from scratch", *["mixed"] * FLAGS.mixed)
  for number in numbers:
    accuracies: dict[str, list[dict[str, float]]] = {
        name: [] for name in ("fine-tuned", "frozen", "from scratch", *arms[2:])}
    for seed in range(FLAGS.seed, FLAGS.seed + FLAGS.seeds):
      config = presets.load_config(RECIPES.get(source.name, "finetune"), "small")
      config.update(dict(seed=seed, steps=FLAGS.steps))
      config.data.update(dict(name=FLAGS.data, max_train=number))
      pretrained.adapt(config, source, ())
      config.model.pooling = source.pooling or config.model.pooling  # As the frozen vectors are pooled.
      config.model.layers = FLAGS.layers or config.model.layers
      if "dtype" in config.model.encoder:
        config.model.encoder.dtype = "float32"  # The same figures with a unit for products of bfloat16 and without.
      data = build.prepare(config, data_dir=FLAGS.data_dir, cache_dir=FLAGS.cache_dir, encoder=run.encoder)
      task = data.task
      if task.kind != "classification" or "test" not in task.parts:
        raise InputError(f"--data={FLAGS.data}: labels needs a task of classes with a test part")
      if not models:
        for rate in rates or [config.optimizer.learning_rate]:
          config.optimizer.learning_rate = rate
          models.setdefault("from scratch", []).append(build.make_model(config, data.facts, FLAGS.steps))
          if FLAGS.mixed:
            models.setdefault("mixed", []).append(build.make_model(_with_proxies(config), data.facts, FLAGS.steps))
        models["fine-tuned"] = models["from scratch"]
      for name in arms:
        initial = pretrained.initial(source, lambda _: None) if name == "fine-tuned" else None
        scores = [_trained(model, data, seed, initial) for model in models[name]]
        accuracies[name].append(max(scores, key=lambda score: score.get("dev", 0.0)))
      if not vectors:  # Of `dev` too, unless it chooses.
        vectors = {part: embed(_items(task, part)) for part in ("test", "dev")[:1 + (len(rates) < 2)]
                   if part in task.parts}
      probe = classifier(embed(_items(task, "train")), task.targets[task.parts["train"]], seed=seed)
      accuracies["frozen"].append({part: float((probe(of_part) == task.targets[task.parts[part]]).mean())
                                   for part, of_part in vectors.items()})
    for part in vectors:
      spreads = {name: mean_and_std([score[part] for score in scores]) for name, scores in accuracies.items()}
      rows.setdefault(part, []).append({
          "labels": number, **{name: round(mean, 4) for name, (mean, _) in spreads.items()},
          **{f"{name} std": round(std, 4) for name, (_, std) in spreads.items()}})
  if FLAGS.figure:
    sweeps.draw_label_gain(FLAGS.figure, rows["test"], f"{source.name} on {FLAGS.data}")
  others = ("frozen", *arms[1:])
  lines = [", ".join(f"{row['labels']:,}: {row['fine-tuned']:.3f} "
                     f"({', '.join(f'{row[name]:.3f}' for name in others)})" for row in rows[part]) for part in rows]
  return {"summary": f"{FLAGS.data}, accuracy by number of labels of {source.name} fine-tuned ({', '.join(others)})"
                     f": {'; on dev '.join(lines)} ({FLAGS.seeds} seed{'s' * (FLAGS.seeds > 1)})",
          **{"rows" if part == "test" else f"rows_{part}": rows[part] for part in rows}}


def _with_proxies(config: Any) -> Any:
  """Returns the config of the same network, data and optimizer that adds the proxy losses of `mixed`."""
  text = "max_length" in config.model.encoder and config.model.encoder.name not in RECIPES
  mixed = presets.load_config("mixed" if text else "mixed_images", "small")
  for key in ("encoder", "pooling"):
    mixed.model[key] = config.model[key]
  mixed.model.options.finetune.pooling = config.model.pooling
  for key in ("optimizer", "batch_size", "steps", "seed"):
    mixed[key] = config[key]
  return mixed


def _trained(model: Model, data: Any, seed: int, initial: Callable[[Any], Any] | None) -> dict[str, float]:
  """Accuracy on `test`, and on `dev` where there is one, after a training of `--steps`."""
  state = train(model, data.splits["train"], steps=FLAGS.steps, seed=seed, initial=initial)
  scores = finetuning(None, None, task=data.task, encoded=data.task.encoded,
                      predict=needs.predictor(model, state, data.encoder))
  return {part: scores[f"{data.task.name}/{part}/accuracy"] for part in data.task.parts if part != "train"}


def _items(task: Any, part: str) -> Any:
  """The clips, images or texts of a part."""
  items = task.texts
  return items[task.parts[part]] if isinstance(items, np.ndarray) else [items[i] for i in task.parts[part]]
