"""Builds what a config names: the model, and the training data."""
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from embeddings_jax import extensions
from embeddings_jax.data import catalog, pipelines, reading, stand_ins
from embeddings_jax.errors import check_choice
from embeddings_jax.ops import reduction
from embeddings_jax.runs import optimizers
from embeddings_jax.train.mesh import state_shardings
from embeddings_jax.types import InputError, Model, Prepared, PyTree, is_fact

PRECISIONS = ("default", "high", "highest")


def make_model(config: Mapping[str, Any], facts: Mapping[str, Any], num_steps: int) -> Model:
  """Calls the model's factory with the config's keyword arguments and the facts that it names.

  Args:
    config: Names the model; `model` and `optimizer` are the hyperparameters.
    facts: Facts of the data.
    num_steps: Updates over which schedules run.
  """
  name = config.get("factory") or config["name"]
  factory = find_factory(config)
  known = inspect.signature(factory).parameters
  arguments = dict(config["model"])
  unknown = set(arguments) - set(known)
  if unknown:
    raise InputError(f"model: {name} has no {', '.join(sorted(unknown))}; it has {', '.join(known)}")
  if facts.get("missing") and "missing" not in known:
    raise InputError(f"missing=marginalize: {name} needs every value; use drop")
  known_facts = facts_for(factory, {"num_steps": num_steps, **facts})
  if "parts" in known and "parts" not in arguments:
    arguments |= {key: _plain(arguments[key]) for key in ("losses", "options") if key in arguments}
    known_facts["parts"] = parts_of(arguments, facts, num_steps)
  if hasattr(arguments.get("encoder"), "keys"):
    weight = arguments.get("auxiliary_weight", 0)
    known_facts |= encoder_of(arguments.pop("encoder"), facts, num_steps, with_model=bool(weight))
  for argument in ("optimizer", "optimizers"):
    if argument in known:
      known_facts[argument] = optimizers.optimizer(config["optimizer"], num_steps)
  if "learning_rate" in known and config["optimizer"]:
    known_facts["learning_rate"] = optimizers.schedule(config["optimizer"], num_steps)
  arguments = {key: value for key, value in known_facts.items() if key in known} | arguments
  for key, parameter in known.items():
    if key not in arguments and is_fact(parameter.annotation) and parameter.default is parameter.empty:
      able = [other for other in pipelines.names() if key in pipelines.find(other).FACTS]
      raise InputError(f"model={name}: needs the fact {key!r}, which pipeline={config.get('pipeline', '')} does not "
                       f"give; {', '.join(able) or 'none'} may")
  model = with_gradient_dtype(factory(**arguments), config.get("gradient_dtype", ""))
  return with_precision(model, config.get("precision", ""))


def with_precision(model: Model, precision: str) -> Model:
  """Returns the model with products of float32 at least as exact as `precision` says, wherever it is traced.

  TPUs round factors of float32 to bfloat16, and GPUs to TF32, unless `high` (three products instead of one) or
  `highest` (six) is asked for. Products whose code names a precision keep it.
  """
  if not precision:
    return model
  check_choice("precision", precision, PRECISIONS)

  def traced(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **named: Any) -> Any:
      with jax.default_matmul_precision(precision):
        return function(*args, **named)
    return call

  return model._replace(init=traced(model.init), update=traced(model.update), embed=traced(model.embed),
                        outputs={name: traced(function) for name, function in model.outputs.items()})


def with_gradient_dtype(model: Model, dtype: str) -> Model:
  """Returns the model, the gradients of whose updates are sent in `dtype`; see `ops/reduction.py`."""
  if not dtype:
    return model
  check_choice("gradient_dtype", dtype, reduction.DTYPES)

  @functools.wraps(model.update)
  def update(*args: Any, **named: Any) -> Any:
    with reduction.gradients_in(dtype):
      return model.update(*args, **named)

  return model._replace(update=update)


def facts_for(factory: Callable[..., Any], facts: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the facts that a factory annotates as such."""
  return {key: facts[key] for key, parameter in inspect.signature(factory).parameters.items()
          if key in facts and is_fact(parameter.annotation)}


def find_factory(config: Mapping[str, Any]) -> Callable[..., Model]:
  """Returns the factory that a config names; configs of strangers can name nothing but models."""
  name = config.get("factory") or config["name"]
  module = find_module(name, ("models",))
  factory = getattr(module, name, None) if module else None
  if not callable(factory):
    raise InputError(f"model={name}: there is no model of that name")
  return factory


def depends_on_horizon(config: Mapping[str, Any]) -> bool:
  """Returns whether the number of steps that a run was planned for changes its updates."""
  parameters = inspect.signature(find_factory(config)).parameters
  scheduled = config["optimizer"] and not {"optimizer", "optimizers", "learning_rate"}.isdisjoint(parameters)
  return "num_steps" in parameters or bool(scheduled and optimizers.depends_on_num_steps(config["optimizer"]))


def encoder_of(options: Mapping[str, Any], facts: Mapping[str, Any], num_steps: int, *,
               with_model: bool) -> dict[str, Any]:
  """Returns the networks that a config's nested `encoder` names, as arguments of a factory.

  Args:
    options: `name` of a model with an encoder, or of a network of `nets/`, and its hyperparameters.
    facts: Facts of the data.
    num_steps: Updates over which schedules run.
    with_model: Also build the model itself.

  Returns:
    `encoder`, the network, and with `with_model` also `auxiliary`, the model.
  """
  options = dict(options)
  name = options.pop("name")
  try:
    module = network_module(name)
    network = module.encoder(**facts_for(module.encoder, facts) | options)
  except (ModuleNotFoundError, AttributeError) as error:
    raise InputError(f"model.encoder.name={name}: there is no such network") from error
  except TypeError as error:
    raise InputError(f"model.encoder: {name} cannot be built ({error})") from error
  of_encoder = {"encoder": network}
  if with_model:
    sgd = {"name": "sgd", "learning_rate": 0.0}  # Its optimizer is not used.
    arguments = inspect.signature(getattr(module, name)).parameters
    options = {key: value for key, value in options.items() if key in arguments}
    of_encoder["auxiliary"] = make_model({"name": name, "model": options, "optimizer": sgd}, facts, num_steps)
  return of_encoder


def parts_of(options: Mapping[str, Any], facts: Mapping[str, Any], num_steps: int) -> dict[str, Model]:
  """Returns the models that a config's `losses` names, of the network that its `encoder` describes.

  Args:
    options: `encoder`, `losses`, and `options` of each model beside the encoder's.
    facts: Facts of the data.
    num_steps: Updates over which schedules run.
  """
  encoder, parts = dict(options["encoder"]), {}
  for name in options["losses"]:
    known = inspect.signature(find_factory({"name": name})).parameters
    own = dict(options.get("options", {}).get(name, {}))
    if "encoder" in known:
      model = {"encoder": encoder, **own}
    elif name == encoder["name"]:
      model = {key: value for key, value in encoder.items() if key in known} | own
    else:
      raise InputError(f"model.losses.{name}: has a network of its own, and model.encoder.name={encoder['name']}")
    sgd = {"name": "sgd", "learning_rate": 0.0}  # Its optimizer is not used.
    parts[name] = make_model({"name": name, "model": model, "optimizer": sgd}, facts, num_steps)
  return parts


def _plain(value: Any) -> Any:
  """Returns nested dicts of a config's node."""
  return {key: _plain(part) for key, part in value.items()} if hasattr(value, "items") else value


def network_module(name: str) -> Any:
  """Returns the module that exports `encoder(**hyper)`: of a model, or of `nets/`."""
  module = find_module(name, ("models", "nets"))
  if module is None:
    raise ModuleNotFoundError(name)
  return module


def find_module(name: Any, rooms: Sequence[str]) -> Any:
  """Returns the module of that name in the first room that has one, or None."""
  public = isinstance(name, str) and name.isidentifier() and not name.startswith("_")
  modules = (extensions.find(room, name) for room in rooms) if public else ()
  return next(filter(None, modules), None)


def first_state(model: Model, batch: Mapping[str, Any], mesh: jax.sharding.Mesh, seed: int) -> PyTree:
  """The state before the first step, laid out as in training; its shapes are a `batch`'s."""
  with jax.set_mesh(mesh):
    rng = jax.random.split(jax.random.key(seed))[0]
    layout = state_shardings(jax.eval_shape(model.init, rng, batch), mesh, model.rules)
    return jax.jit(model.init, out_shardings=layout)(rng, batch)


def read_dataset(config: Mapping[str, Any], *, dataset: Any = None, data_dir: str | None = None,
                 cache_dir: str | None = None, encoder: Any = None, allow_code: bool = False) -> Any:
  """Returns the dataset that a config's `data` names, as its pipeline reads it; arguments: see `prepare`."""
  options = config["data"]
  if not config.get("pipeline"):  # A network or vectors from elsewhere.
    return dataset or catalog.load(options["name"], data_dir=data_dir, cache_dir=cache_dir, allow_code=allow_code)
  module = pipelines.find(config["pipeline"])
  if dataset is None and not options["name"]:
    raise InputError("data is missing: a name of the catalog, tfds:NAME, or a path")
  keys = pipelines.reader_options(module)
  dataset = module.READ(options["name"], dataset=dataset, encoder=encoder, data_dir=data_dir, cache_dir=cache_dir,
                        allow_code=allow_code, **{key: options[key] for key in keys if key in options})
  if options.get("codes") and dataset.kind != "codes":
    from embeddings_jax.runs import codes  # Which loads a run, as this module builds one.

    dataset = codes.read(options["codes"], dataset, cache_dir)
  return dataset


def stand_in(config: Mapping[str, Any], kind: str = "unknown") -> stand_ins.StandIn:
  """Returns typical facts and the batch shapes of a config, without reading its data.

  Args:
    config: Names the pipeline and the dataset.
    kind: Kind of a dataset that the catalog does not have.
  """
  entry = catalog.entries().get(config["data"]["name"])
  item = stand_ins.Item(entry.kind, entry.shape) if entry else stand_ins.Item(kind)
  return pipelines.find(config["pipeline"]).stand_in(item, batch_size=config["batch_size"], **config["data"])


def prepare(config: Mapping[str, Any], *, dataset: Any = None, data_dir: str | None = None,
            cache_dir: str | None = None, encoder: Any = None, allow_code: bool = False,
            progress: Callable[[str, int, int], None] = lambda *_: None) -> Prepared:
  """Makes the training data of a config: reads its dataset and calls its pipeline.

  Args:
    config: Names the `pipeline`; `data` are the keywords of its reader and its own.
    dataset: Replaces the dataset that `config["data"]` names.
    data_dir, cache_dir: Directories of the catalog's files and of derived data.
    encoder: Pretrained encoder.
    allow_code: Whether the dataset's name may be code; see `catalog.load`.
    progress: Receives `(unit, done, total)`.

  Raises:
    InputError: The pipeline, an option or the dataset is wrong.
  """
  module = pipelines.find(config["pipeline"])
  known = pipelines.options(module)
  for key in config["data"]:
    check_choice(f"pipeline={config['pipeline']}: data option", key, list(known))
  dataset = read_dataset(config, dataset=dataset, data_dir=data_dir, cache_dir=cache_dir, encoder=encoder,
                         allow_code=allow_code)
  pipelines.check_accepts(module, dataset, f"data={config['data']['name']}",
                          f"model={config['name']} with pipeline={config['pipeline']}")
  if config["pipeline"] != "task":  # Whose splits are told by the task's files.
    reading.refuse_test_split(dataset, config["data"]["name"])
  if config["data"].get("codes"):
    from embeddings_jax.runs.codes import load_quantizer

    encoder = load_quantizer(config["data"]["codes"])[1]
  function = pipelines.function(module)
  common = dict(encoder=encoder, batch_size=config["batch_size"], seed=config["seed"], cache_dir=cache_dir,
                data_dir=data_dir, progress=progress, vectors_of=_vectors_of)
  own = pipelines.own_options(module)
  return function(dataset, **{key: value for key, value in common.items()
                              if key in inspect.signature(function).parameters},
                  **{key: config["data"][key] for key in own if key in config["data"]})


def _vectors_of(run: str, layer: int, hop: int) -> Any:
  """See `runs/frames.py: vectors_of`; imported late, as it loads runs."""
  from embeddings_jax.runs import frames

  return frames.vectors_of(run, layer, hop)
