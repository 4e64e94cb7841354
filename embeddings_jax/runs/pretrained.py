"""Networks that are trained already, for `init_from=DIR`: a work directory of ours, or a Hugging Face directory."""
import hashlib
import inspect
import json
import logging
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from etils import epath

from embeddings_jax.data import pipelines
from embeddings_jax.data.encoders.images import ImageEncoder
from embeddings_jax.data.files.json import read_json
from embeddings_jax.interop import huggingface, huggingface_bart, huggingface_vision
from embeddings_jax.interop.dense import Dense
from embeddings_jax.runs import build, presets
from embeddings_jax.runs.load import load_run
from embeddings_jax.runs.run import Run
from embeddings_jax.train.mesh import make_mesh, path_name, placed, state_shardings
from embeddings_jax.types import InputError, Model, PyTree

# Arguments of a trunk that weights do not depend on; a config's own stay as they are.
FREE = ("dropout", "attention_dropout", "dtype", "remat", "unroll", "init_std", "kernel_std", "position_init",
        "mask_ratio", "norm_pix", "norm_decay")
FOREIGN = ("parent", "name")  # Fields of every Flax module.


class Pretrained(NamedTuple):
  """A network with its tokenizer.

  Attributes:
    path: the directory.
    name: Name of our model, `bert`, `gpt` or `mae`.
    hyper: the arguments of that model's `encoder(**hyper)`.
    params: nested dict of float32 NumPy arrays, `encoder` and heads.
    encoder: makes the batches.
    fingerprint: SHA-256 (hex) of the parameters and the encoder.
    tokenizer: where its tokenizer is.
    pooling: how its makers pool the vectors of tokens; "": they do not say.
    normalize: whether they divide vectors by their lengths.
    step: updates made, of a run of ours.
    others: further arguments of the model, on which parameters beside the encoder depend.
    statistics: BatchNorm's running ones, by the names of their parameters.
    model: Name of the model that the network is a part of, whose arguments `others` are; "" where it is one itself.
    dense: Layers behind the pooling, which a run that starts from it leaves out.
  """

  path: epath.Path
  name: str
  hyper: dict[str, Any]
  params: dict[str, Any]
  encoder: Any
  fingerprint: str
  tokenizer: str
  pooling: str = ""
  normalize: bool = False
  step: int | None = None
  others: dict[str, Any] = {}
  statistics: Mapping[str, Any] = {}
  model: str = ""
  dense: tuple[Dense, ...] = ()


def load(directory: str) -> Pretrained:
  """Reads a work directory of ours or a Hugging Face directory.

  Raises:
    InputError: it is neither, or what is in it does not fit together.
  """
  path = epath.Path(directory)
  if not path.is_dir():
    raise InputError(f"init_from={directory}: no such directory")
  if (path / "config.json").exists() and "trajectory" in read_json(path / "config.json"):
    return of_run(load_run(str(path)))
  return _load_theirs(path)


def of_run(run: Run) -> Pretrained:
  """Returns the network of a run, also of one in memory.

  Raises:
    InputError: The run's model has no network to start from.
  """
  path = epath.Path(run.path) if run.path else epath.Path("in-memory")
  facts = run.prepared.facts if run.prepared else run.record["facts"]
  config = run.record["config"]
  name, options = config.get("factory") or config["name"], config["model"]
  owner = name
  if isinstance(options.get("encoder"), Mapping):  # Of a run that fine-tuned it.
    options = dict(options["encoder"])
    name = options.pop("name")
  module = build.network_module(name)
  if not (hasattr(run.encoder, "for_task") and hasattr(module, "encoder")):
    raise InputError(f"init_from={path}: holds a {name} of {run.encoder.kind}, which is no network to start from")
  known = inspect.signature(getattr(module, name, module.encoder)).parameters
  arguments = {key: value for key, value in facts.items() if key in known} | options
  others = _others(owner, facts, config["model"])
  parameters = inspect.signature(module.encoder).parameters
  vocabulary = {"vocab_size": 1} if "vocab_size" in parameters else {}
  fields = set(_hyper_fields(module.encoder(**vocabulary)))
  trunk = module.encoder(**{key: value for key, value in arguments.items() if key in fields})
  hyper = {key: getattr(trunk, key) for key in _hyper_fields(trunk)} | {"dtype": arguments.get("dtype", "float32")}
  # The parameters that embeddings are made with.
  params = run.state.params if run.state.average == () else run.state.average
  params = jax.tree.map(np.asarray, {part: value for part, value in params.items() if part != "head"})
  statistics = jax.tree.map(np.asarray, dict(run.state.extra).get("batch_stats", {}))
  return Pretrained(path, name, hyper, params, run.encoder, _fingerprint(params, run.encoder),
                    str(path / "encoder" / "tokenizer.json"), config["model"].get("pooling", ""), step=run.step,
                    others=others, statistics=statistics, model=owner if others and owner != name else "")


def _others(owner: str, facts: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the arguments of a model on which parameters beside the encoder depend."""
  known = inspect.signature(build.find_factory({"name": owner})).parameters
  arguments = {**{key: value for key, value in facts.items() if key in known}, **options}
  return {key: arguments.get(key, known[key].default)
          for key in getattr(build.network_module(owner), "PRETRAINING", ())}


def _load_theirs(path: epath.Path) -> Pretrained:
  if huggingface_vision.is_vision(path):
    hyper, others, params, shape = huggingface_vision.read(path)
    encoder = ImageEncoder(*shape, huggingface_vision.processor(path, shape))
    return Pretrained(path, "mae", hyper, params, encoder, _fingerprint(params, encoder), "", others=others)
  sentence = huggingface.sentence_model(path)
  if huggingface_bart.is_bart(sentence.folder):
    hyper, others, params = huggingface_bart.read(sentence.folder)
    texts = huggingface.text_encoder(sentence, hyper)
    return Pretrained(path, "bert", hyper, params, texts, _fingerprint(params, texts), str(sentence.folder),
                      sentence.pooling, sentence.normalize, others=others, model="sequence_autoencoder",
                      dense=sentence.dense)
  name, hyper, params = huggingface.read(path)
  texts = huggingface.text_encoder(sentence, hyper)
  return Pretrained(path, name, hyper, params, texts, _fingerprint(params, texts), str(sentence.folder),
                    sentence.pooling, sentence.normalize, dense=sentence.dense)


def adapt(config: Any, network: Pretrained, explicit: Collection[str]) -> None:
  """Puts the sizes of a pretrained network and its tokenizer into a config, in place.

  Args:
    config: Config of the new run: the same model's, or one whose `model.encoder` names a model.
    network: the network.
    explicit: keys that the user has set, as `model.dim`; what contradicts the network is refused.

  Raises:
    InputError: another model than the config's, or a key that contradicts it; both values are named.
  """
  where = f"init_from={network.path}"
  if network.dense:
    logging.warning("%s: its %d dense layers behind the pooling are left out", where, len(network.dense))
  module = build.network_module(network.name)
  known = inspect.signature(getattr(module, network.name, module.encoder)).parameters
  sizes = {key: value for key, value in network.hyper.items() if key in known and key not in FREE}
  fine_tuned = hasattr(config.model.get("encoder"), "keys")
  node, prefix = (config.model.encoder, "model.encoder") if fine_tuned else (config.model, "model")
  if fine_tuned:
    sizes["name"] = network.name
    fields = _hyper_fields(module.encoder(**network.hyper))
    accepted = {"name", *inspect.signature(module.encoder).parameters, *fields}
    for key in [key for key in node if key not in accepted]:  # Of another network.
      if f"{prefix}.{key}" in explicit:
        raise InputError(f"{prefix}.{key}={node[key]!r}: a {network.name} has no {key}; leave the option out")
      with node.unlocked():
        del node[key]
  elif network.name != (config.get("factory") or config["name"]):
    raise InputError(f"{where}: holds a {network.name}, no {config.get('factory') or config['name']}")
  else:
    sizes |= {key: value for key, value in network.others.items() if key not in FREE and value is not None}
  settings = [(node, prefix, sizes)]
  if fine_tuned and network.model == (config.get("factory") or config["name"]):
    settings.append((config.model, "model", network.others))
  for node, prefix, values in settings:
    for key, value in values.items():
      current = node.get(key)
      if f"{prefix}.{key}" in explicit and current != value:
        raise InputError(f"{prefix}.{key}={current!r}: {where} has {key}={value!r}; leave the option out")
      presets.assign(node, key, value)
  pooling = network.pooling
  if fine_tuned:
    whole = not hasattr(network.encoder, "encode_words") or network.name == "cpc"  # No element stands for the others.
    pooling = "last" if network.hyper.get("causal") else "mean" if whole else ""
    if (not hasattr(network.encoder, "encode_words") and "data.max_length" not in explicit
        and "max_length" in pipelines.options(pipelines.find(config.pipeline))):
      presets.assign(config.data, "max_length", getattr(network.encoder, "max_length", 0))
  if pooling and "pooling" in config.model and "model.pooling" not in explicit:
    presets.assign(config.model, "pooling", pooling)
  if not hasattr(network.encoder, "tokenizer"):
    return
  if "data.tokenizer" in explicit and str(config.data.tokenizer) != network.tokenizer:
    raise InputError(f"data.tokenizer={config.data.tokenizer}: {where} brings its own tokenizer; leave the "
                     "option out")
  presets.assign(config.data, "tokenizer", network.tokenizer)
  normalizer = json.loads(network.encoder.files()["tokenizer.json"]).get("normalizer") or {}
  presets.assign(config.data, "lowercase", bool(normalizer.get("lowercase", True)))
  longest = network.hyper.get("max_length", 1 << 30)
  for key in ("max_length", "window_length"):
    current = config.data.get(key)
    if current and current > longest:
      if f"data.{key}" in explicit:
        raise InputError(f"data.{key}={current}: {where} knows positions up to {longest}")
      config.data[key] = longest


def initial(network: Pretrained, report: Callable[[str], None] = print) -> Callable[[PyTree], PyTree]:
  """`state -> state` with the pretrained parameters in place; what it lacks stays as it is, and is reported.

  Raises (when called):
    InputError: a parameter of another shape.
  """
  named = {**network.params, "batch_stats": network.statistics}
  leaves = {path_name(path): value for path, value in jax.tree_util.tree_leaves_with_path(named)}

  def put(state: PyTree) -> PyTree:
    missing, used = {}, set()

    def choose(path, leaf):
      name = path_name(path)
      if name not in leaves:
        missing[name] = leaf
        return leaf
      if leaves[name].shape != leaf.shape:
        raise InputError(f"init_from={network.path}: params/{name} has shape {leaves[name].shape}, the model's has "
                         f"{leaf.shape}")
      used.add(name)
      return leaves[name].astype(leaf.dtype)

    params = jax.tree_util.tree_map_with_path(choose, state.params)
    extra = dict(state.extra)
    if network.statistics and "batch_stats" in extra:
      extra |= jax.tree_util.tree_map_with_path(choose, {"batch_stats": extra["batch_stats"]})
    # A slower copy of the parameters begins with the same ones; a frozen trunk is what `features` holds.
    for copy in {"target", "features"} & extra.keys():
      extra[copy] = jax.tree_util.tree_map_with_path(choose, extra[copy])
    average = state.average if state.average == () else jax.tree_util.tree_map_with_path(choose, state.average)
    fresh, unused = ", ".join(_roots(missing)), ", ".join(_roots(leaves.keys() - used))
    report(f"{network.path}: {len(used)} arrays of {network.name} taken over" + (f"; fresh: {fresh}" if fresh else "")
           + (f"; without use: {unused}" if unused else ""))
    return state._replace(params=params, average=average, extra=extra)

  return put


def _roots(names: Collection[str]) -> list[str]:
  """The parts of the network that leaves belong to, each once."""
  return list(dict.fromkeys(name.split("/")[0] for name in sorted(names)))


def as_run(network: Pretrained, pooling: str = "", **options: Any) -> Run:
  """Returns a pretrained network as a run.

  Args:
    network: The network.
    pooling: Pooling of its tokens' vectors (`ops/pooling.py`); "" for its own, else the mean.
    **options: Further arguments of the model's factory.
  """
  options["pooling"] = pooling or network.pooling or "mean"
  if not hasattr(build.network_module(network.name), network.name):
    raise InputError(f"{network.path}: a {network.name} is no model by itself; load the run that trained it")
  name = network.model or network.name
  factory = build.find_factory({"name": name})
  known = inspect.signature(factory).parameters
  trunk = {"encoder": build.network_module(network.name).encoder(**network.hyper)} if network.model else {}
  hyper = {key: value for key, value in (network.hyper | network.others).items() if key in known}
  facts = {"mask_id": 0, **getattr(network.encoder, "facts", {})}

  def rebuild(**others: Any) -> Model:
    chosen = facts | trunk | hyper | options | others
    return factory(**{key: value for key, value in chosen.items() if key in known}, optimizer=optax.identity())

  model, mesh = rebuild(), make_mesh()
  batch = {key: jax.ShapeDtypeStruct(value.shape, value.dtype) for key, value in network.encoder.example().items()}
  with jax.set_mesh(mesh):
    abstract = jax.eval_shape(model.init, jax.eval_shape(lambda: jax.random.key(0)), batch)
    fresh = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), abstract)
    state = placed(initial(network, logging.info)(fresh), state_shardings(abstract, mesh, model.rules))
  config = {"name": name, "model": hyper | options, "data": {}, "optimizer": {}, "evals": ()}
  return Run(network.path, {"config": config}, model, state, network.step or 0, network.encoder, rebuild,
             network.normalize, dense=network.dense)


def _hyper_fields(module: Any) -> list[str]:
  return [key for key in type(module).__dataclass_fields__ if key not in FOREIGN]


def _fingerprint(params: Mapping[str, Any], encoder: Any) -> str:
  content = hashlib.sha256(encoder.fingerprint.encode())
  for path, value in jax.tree_util.tree_leaves_with_path(params):
    content.update(f"{path_name(path)}{value.dtype.str}{value.shape}".encode())
    content.update(np.ascontiguousarray(value).data)
  return content.hexdigest()
