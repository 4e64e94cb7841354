"""`--init_from`: networks that are trained already, of others and of ours."""
import json
import shutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from commands import call
from networks import equal, images, mae_params, random_params
from safetensors.numpy import save_file

from embeddings_jax import array_source, train
from embeddings_jax.data.tokenizer_training import train_bpe, train_wordpiece
from embeddings_jax.gradient import gradient_model
from embeddings_jax.interop import huggingface, huggingface_vision
from embeddings_jax.models.autoencoders import mae
from embeddings_jax.runs import build, inference, presets, pretrained
from embeddings_jax.runs.load import load_run
from embeddings_jax.runs.run import l2_normalize
from embeddings_jax.train.checkpoints import Checkpoints
from embeddings_jax.types import InputError

TEXTS = ["The cat sat on the mat.", "A dog, a cat and another dog!", "mat", "", "the cat sat and sat on a dog"]
SIZE = dict(dim=12, num_layers=2, num_heads=3, mlp_dim=48, max_length=20)


def write(folder, name, tokenizer, **change):
  """A directory of random weights, and its parameters."""
  hyper = SIZE | dict(vocab_size=tokenizer.get_vocab_size(), position_offset=0) | change | (
      dict(num_segments=2, embedding_norm=True, norm="post", activation="gelu", norm_epsilon=1e-12)
      if name == "bert" else dict(num_segments=0, embedding_norm=False, causal=True, norm="post",
                                  activation="gelu_tanh", norm_epsilon=1e-5))
  params = random_params(hyper, ("pooler", "masked", "next_sentence") if name == "bert" else ())
  files = huggingface.tokenizer_files(tokenizer.to_str().encode(), hyper["max_length"])
  huggingface.write(folder, name, hyper, params, files)
  return params


@pytest.fixture(scope="module")
def sentences(tmp_path_factory):
  """A sentence-transformers directory of a tiny BERT."""
  folder = tmp_path_factory.mktemp("bert")
  params = write(folder, "bert", train_wordpiece(TEXTS * 9, 90))
  modules = [{"idx": i, "path": path, "type": f"sentence_transformers.models.{kind}"}
             for i, (path, kind) in enumerate([("", "Transformer"), ("pooling", "Pooling"), ("", "Normalize")])]
  (folder / "modules.json").write_text(json.dumps(modules))
  (folder / "pooling").mkdir()
  (folder / "pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
  return folder, params


def vectors(network, texts, **options):
  run = pretrained.as_run(network, **options)
  return inference.embedder(run.model, run.state, run.encoder)(texts)


def test_texts_are_embedded_as_each_alone_by_the_trunk(sentences):
  actual = pretrained.load(str(sentences[0]))
  assert (actual.name, actual.pooling, actual.normalize) == ("bert", "mean", True)
  assert {key: actual.hyper[key] for key in SIZE} == SIZE
  from embeddings_jax.models.language.bert import encoder
  items = [*TEXTS, ("the cat", "sat on a mat")] * 40  # More than a batch, of several lengths.
  trunk = encoder(**actual.hyper)
  apply = jax.jit(lambda params, tokens, segments: trunk.apply({"params": params}, tokens, segments, method="hidden"))
  for pooling, choose in (("", lambda hidden: hidden[-1].mean(0)), ("cls:1", lambda hidden: hidden[1, 0])):
    vectors_of = vectors(actual, items, pooling=pooling)
    assert vectors_of.shape == (240, 12)
    for item, vector in zip(items[3:6], vectors_of[3:]):
      batch = actual.encoder.encode([item])
      valid = batch["tokens"][0] >= 0
      hidden = apply(sentences[1]["encoder"], batch["tokens"][:, valid], batch["segments"][:, valid])
      hidden = np.asarray(hidden)[0]
      np.testing.assert_allclose(vector, choose(hidden), atol=2e-6)
    np.testing.assert_allclose(vectors_of[6:], np.tile(vectors_of[:6], (39, 1)), atol=2e-6)
  np.testing.assert_allclose(np.linalg.norm(l2_normalize(vectors_of), axis=1), 1, rtol=1e-6)


def test_at_most_four_widths_are_compiled(sentences):
  """And vectors are the same whether texts share rows, as they do where the model can, or not."""
  run = pretrained.as_run(pretrained.load(str(sentences[0])))
  shapes = set()
  model = run.model._replace(outputs={}, embed=lambda state, batch: shapes.add(batch["tokens"].shape) or (
      run.model.embed(state, batch)))
  texts = ["cat " * (i % 17) for i in range(300)]
  padded = inference.embedder(model, run.state, run.encoder)(texts)
  assert 1 < len({width for _, width in shapes}) <= len(shapes) <= 4 and max(width for _, width in shapes) <= 20
  shapes.clear()
  packed = lambda state, batch: shapes.add(batch["tokens"].shape) or run.model.outputs["embed_packed"](state, batch)
  embed = inference.embedder(run.model._replace(outputs={"embed_packed": packed}), run.state, run.encoder)
  np.testing.assert_allclose(embed(texts), padded, atol=2e-6)
  assert len(shapes) == 1


def test_states_of_one_run_share_their_programs(sentences):
  """As evaluations during training do: the second state traces nothing."""
  run = pretrained.as_run(pretrained.load(str(sentences[0])))
  traced = []
  packed = lambda state, batch: traced.append(1) or run.model.outputs["embed_packed"](state, batch)
  model = run.model._replace(outputs={"embed_packed": packed})
  doubled = run.state._replace(params=jax.tree.map(lambda leaf: 2 * leaf, run.state.params))
  first = inference.embedder(model, run.state, run.encoder)(TEXTS)
  number = len(traced)
  second = inference.embedder(model, doubled, run.encoder)(TEXTS)
  assert len(traced) == number > 0 and np.abs(first - second).max() > 1e-3


def test_dense_layers_and_root_mean_pooling_of_sentence_transformers(sentences, tmp_path):
  folder = tmp_path / "dense"
  shutil.copytree(sentences[0], folder)
  rng = np.random.default_rng(0)
  layers = [(rng.normal(size=(5, 12)), rng.normal(size=5), "activation.Tanh"), (rng.normal(size=(3, 5)), None,
                                                                                "linear.Identity")]
  modules = json.loads((folder / "modules.json").read_text())
  for i, (kernel, bias, activation) in enumerate(layers):
    (folder / f"{2 + i}_Dense").mkdir()
    tensors = {"linear.weight": kernel} | ({} if bias is None else {"linear.bias": bias})
    save_file({name: value.astype(np.float32) for name, value in tensors.items()},
              folder / f"{2 + i}_Dense" / "model.safetensors")
    (folder / f"{2 + i}_Dense" / "config.json").write_text(json.dumps({
        "in_features": kernel.shape[1], "out_features": len(kernel), "bias": bias is not None,
        "activation_function": f"torch.nn.modules.{activation}"}))
    modules.insert(2 + i, {"idx": 2 + i, "path": f"{2 + i}_Dense", "type": "sentence_transformers.models.Dense"})
  (folder / "modules.json").write_text(json.dumps(modules))
  pooled = pretrained.as_run(pretrained.load(str(sentences[0]))).embed(TEXTS, normalize=False)
  lengths = pretrained.load(str(folder)).encoder.encode(TEXTS)["tokens"]
  pooled *= np.sqrt((lengths >= 0).sum(1, keepdims=True))
  expected = np.tanh(pooled @ layers[0][0].T + layers[0][1]) @ layers[1][0].T
  run = pretrained.as_run(pretrained.load(str(folder)), pooling="mean_sqrt_len")
  np.testing.assert_allclose(run.embed(TEXTS), l2_normalize(expected), atol=1e-5)
  (folder / "2_Dense" / "config.json").write_text(json.dumps({
      "in_features": 12, "out_features": 5, "activation_function": "os.system"}))
  with pytest.raises(InputError, match="the activation 'os.system' is not supported"):
    pretrained.load(str(folder))


def test_best_widths_waste_the_least():
  from itertools import combinations

  from embeddings_jax.data.encoders.base import best_widths
  lengths = np.random.default_rng(0).geometric(0.03, 200)
  rounded = -(-lengths // 8) * 8
  waste = lambda widths: np.asarray(widths)[np.searchsorted(widths, rounded)].sum()
  known = np.unique(rounded)
  best = min(waste([*chosen, known[-1]]) for chosen in combinations(known[:-1], 3))
  actual = best_widths(lengths, 4)
  assert len(actual) == 4 and actual == sorted(actual) and waste(actual) == best
  assert best_widths(np.array([3, 3]), 4) == [8]


def test_the_state_gets_the_parameters_and_what_is_missing_stays_fresh(tmp_path, mesh_of):
  """On a small model with the names of a large one."""
  def model_of(width):
    def init_params(rng, batch):
      return {part: {"kernel": jax.random.normal(rng, (width,))} for part in ("encoder", "masked")}, {}

    def loss_fn(params, extra, batch, rng):
      error = batch["x"] @ params["encoder"]["kernel"] + params["masked"]["kernel"].sum()
      return (error**2).mean(), ({}, extra)

    return gradient_model(init_params, loss_fn, lambda params, extra, batch: batch["x"], optax.adam(0.1),
                          ema_decay=0.5)

  theirs = {"encoder": {"kernel": np.arange(3, dtype=np.float32)}, "pooler": {"bias": np.ones(2, np.float32)}}
  actual = pretrained.Pretrained("DIR", "bert", {}, theirs, None, "", "")
  model, source, said = model_of(3), array_source({"x": np.ones((8, 3), np.float32)}, 8), []
  options = {"source": source, "mesh": mesh_of(), "initial": pretrained.initial(actual, said.append)}
  fresh = train(model, source, steps=0, mesh=mesh_of())
  state = train(model, steps=0, **options)
  assert said == ["DIR: 1 arrays of bert taken over; fresh: masked; without use: pooler"]
  for params in (state.params, state.average):
    equal(params, {"encoder": theirs["encoder"], "masked": fresh.params["masked"]})
  checkpoints = Checkpoints(str(tmp_path / "c"))
  trained = train(model, steps=2, checkpoints=checkpoints, **options)
  again = train(model, steps=2, checkpoints=checkpoints, **options)  # A restored state is left alone.
  checkpoints.close()
  assert len(said) == 2 and not np.array_equal(trained.params["encoder"]["kernel"], theirs["encoder"]["kernel"])
  equal(trained, again)
  np.testing.assert_array_equal(theirs["encoder"]["kernel"], np.arange(3))  # Donated were copies.
  with pytest.raises(InputError, match=r"DIR: params/encoder/kernel has shape \(3,\), the model's has \(4,\)"):
    train(model_of(4), steps=0, **options)


def test_sizes_and_tokenizer_come_from_the_directory(tmp_path):
  write(tmp_path / "gpt", "gpt", train_bpe(TEXTS, 270))
  actual = pretrained.load(str(tmp_path / "gpt"))
  config = presets.load_config("gpt", "tiny")
  config.data.max_length = 64
  pretrained.adapt(config, actual, {"model.dropout"})
  tuned = presets.load_config("finetune", "tiny")
  pretrained.adapt(tuned, actual, ())
  assert tuned.model.encoder.name == "gpt" and tuned.model.pooling == "last"
  for node in (config.model, tuned.model.encoder):
    assert {key: node[key] for key in SIZE} == SIZE and node.vocab_size == 270
  assert config.data.tokenizer == str(tmp_path / "gpt") and config.data.max_length == 20
  for explicit, value, message in (("model.dim", 16, r"model.dim=16: .* has dim=12"),
                                   ("data.tokenizer", "x.json", "brings its own tokenizer"),
                                   ("data.max_length", 64, "data.max_length=64: .* up to 20")):
    config = presets.load_config("gpt", "tiny")
    node, key = explicit.split(".")
    config[node][key] = value
    with pytest.raises(InputError, match=message):
      pretrained.adapt(config, actual, {explicit})
  with pytest.raises(InputError, match="holds a bert, no gpt"):
    pretrained.adapt(presets.load_config("gpt", "tiny"), actual._replace(name="bert"), ())


def test_options_beside_the_architecture_are_those_of_any_run(tmp_path):
  """`dtype`, dropout and the like of an encoder; what the network has not is still named."""
  write(tmp_path / "bert", "bert", train_wordpiece(TEXTS * 9, 90))
  actual = pretrained.load(str(tmp_path / "bert"))
  tuned = presets.load_config("simcse", "tiny")
  changes = dict(dtype="bfloat16", dropout=0.3, attention_dropout=0.0, unroll=2)
  tuned.model.encoder.update(changes)
  pretrained.adapt(tuned, actual, {f"model.encoder.{key}" for key in changes})
  assert {key: tuned.model.encoder[key] for key in changes} == changes and tuned.model.encoder.dim == 12
  network = build.encoder_of(tuned.model.encoder.to_dict(), {}, 1, with_model=False)["encoder"]
  assert (network.dtype, network.dropout, network.attention_dropout) == ("bfloat16", 0.3, 0.0)
  with tuned.model.encoder.unlocked():
    tuned.model.encoder.cell_dim = 3
  with pytest.raises(InputError, match="cell_dim=3: a bert has no cell_dim"):
    pretrained.adapt(tuned, actual, {"model.encoder.cell_dim"})


@pytest.mark.parametrize("files,message", [
    ({"modules.json": '[{"path": "", "type": "x.Transformer"}]'}, "names no Pooling"),
    ({"modules.json": '[{"path": "../x", "type": "x.Transformer"}]'}, "module 0 lies outside of the directory"),
    ({"modules.json": '[{"path": 3, "type": "x.Transformer"}]'}, "'path' holds an integer, expected a string"),
    ({"modules.json": "{}"}, "modules.json: holds an object, expected a list"),
    ({"sentence_bert_config.json": '{"max_seq_length": "long"}'}, "max_seq_length is 'long'; expected an integer"),
    ({"sentence_bert_config.json": '{"tokenizer_args": {"a": 1}}'}, "tokenizer_args=.* is not supported"),
    ({"config_sentence_transformers.json": '{"default_prompt_name": "q", "prompts": {"q": "query: "}}'},
     "default_prompt_name='q' puts a prompt before every text"),
])
def test_options_of_sentence_models_that_are_not_supported(files, message, tmp_path):
  write(tmp_path, "bert", train_wordpiece(TEXTS * 9, 90))
  for name, data in (huggingface.sentence_files("cls", 12, 16, True) | files).items():
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(data if isinstance(data, bytes) else data.encode())
  with pytest.raises(InputError, match=message):
    pretrained.load(str(tmp_path))


def test_sentence_models_may_fold_case_and_strip_texts(tmp_path):
  write(tmp_path, "bert", train_wordpiece(TEXTS * 9, 90, lowercase=False))
  for name, data in huggingface.sentence_files("max", 12, 16, True).items():
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(data)
  plain = pretrained.load(str(tmp_path))
  assert (plain.pooling, plain.normalize, plain.encoder.max_length) == ("max", True, 16)
  (tmp_path / "sentence_bert_config.json").write_text('{"max_seq_length": 12, "do_lower_case": true}')
  folded = pretrained.load(str(tmp_path))
  assert folded.encoder.max_length == 12
  tokens = lambda found, text: [i for i in found.encoder.encode([text])["tokens"][0].tolist() if i >= 0]
  assert tokens(folded, " THE cat ") == tokens(plain, "the cat") != tokens(plain, "THE cat")


def test_directories_that_do_not_fit_together(sentences, tmp_path):
  write(tmp_path / "a", "bert", train_wordpiece(TEXTS * 9, 90), vocab_size=40)
  with pytest.raises(InputError, match="the tokenizer has 50 tokens, the network 40"):
    pretrained.load(str(tmp_path / "a"))
  for name in ("tokenizer.json", "vocab.txt"):
    (tmp_path / "a" / name).unlink()
  with pytest.raises(InputError, match="tokenizer.json: cannot be read as a tokenizer"):
    pretrained.load(str(tmp_path / "a"))
  with pytest.raises(InputError, match="nowhere: no such directory"):
    pretrained.load(str(tmp_path / "nowhere"))


def test_a_run_starts_from_a_directory_and_becomes_one(tmp_path):
  """Through the commands: run --init_from, export, embed; the work directory can do without the first directory."""
  write(tmp_path / "gpt", "gpt", train_bpe(TEXTS, 270))
  done = call("run", "--model=gpt", "--preset=tiny", "--steps=2", f"--init_from={tmp_path / 'gpt'}",
              f"--workdir={tmp_path / 'w'}")
  assert done.returncode == 0, done.stderr
  assert "14 arrays of gpt taken over\n" in done.stdout
  (tmp_path / "gpt").rename(tmp_path / "elsewhere")
  record = json.loads((tmp_path / "w" / "config.json").read_text())
  assert record["trajectory"]["init_from"] == pretrained.load(str(tmp_path / "elsewhere")).fingerprint
  assert record["config"]["model"]["dim"] == 12
  done = call("export", f"--workdir={tmp_path / 'w'}", "--format=huggingface", f"--output={tmp_path / 'out'}")
  assert done.returncode == 0, done.stderr
  (tmp_path / "lines.txt").write_text("\n".join(TEXTS) + "\n")
  done = call("embed", f"--init_from={tmp_path / 'out'}", f"--input={tmp_path / 'lines.txt'}",
              f"--output={tmp_path / 'out.npy'}", "--pooling=last", "--normalize")
  assert done.returncode == 0 and "5 x 12 float32" in done.stdout, done.stderr
  ours, theirs = (pretrained.load(str(tmp_path / name)) for name in ("w", "out"))
  equal(ours.params, theirs.params)
  assert ours.encoder.facts == theirs.encoder.facts
  # By sentence-transformers' files the directory gives the vectors of the run.
  assert (theirs.pooling, theirs.normalize) == ("mean", False)
  run = load_run(str(tmp_path / "w"))
  np.testing.assert_array_equal(inference.embedder(run.model, run.state, run.encoder)(TEXTS), vectors(theirs, TEXTS))
  expected = l2_normalize(vectors(ours, TEXTS, pooling="last"))
  np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, atol=1e-6)


@pytest.mark.parity
def test_vectors_are_those_of_transformers(sentences):
  import torch
  import transformers
  model = transformers.AutoModel.from_pretrained(sentences[0]).eval()
  tokenizer = transformers.AutoTokenizer.from_pretrained(sentences[0])
  batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
  with torch.inference_mode():
    hidden = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
  weights = batch["attention_mask"][..., None]
  expected = torch.nn.functional.normalize((hidden * weights).sum(1) / weights.sum(1)).numpy()
  actual = l2_normalize(vectors(pretrained.load(str(sentences[0])), TEXTS))
  np.testing.assert_allclose(actual, expected, atol=1e-6)


@pytest.mark.parametrize("decoder", [True, False])
def test_a_vision_directory_is_a_mae(decoder, tmp_path):
  """Its embeddings, its sizes in a config, and a state that begins with it; without a decoder that stays fresh."""
  hyper = dict(patch_size=2, dim=16, num_layers=1, num_heads=2, mlp_dim=32, norm_epsilon=1e-12)
  others = dict(decoder_dim=8, decoder_layers=1, decoder_heads=2, decoder_mlp_dim=16)
  params = mae_params(hyper | others, 16, 1)
  if not decoder:
    del params["decoder"]
  huggingface_vision.write(tmp_path, hyper, {}, params, (8, 8, 1))
  actual = pretrained.load(str(tmp_path))
  assert (actual.name, actual.encoder.shape) == ("mae", (8, 8, 1))
  run = pretrained.as_run(actual, "cls")
  batch = images(3, 8, 8, 1)
  expected = mae.encoder(**hyper).apply(
      {"params": jax.tree.map(jnp.asarray, params["encoder"])}, batch, method="features")[:, 0]
  np.testing.assert_allclose(run.model.embed(run.state, batch), expected, atol=1e-5)

  config = presets.load_config("mae", "tiny")
  pretrained.adapt(config, actual, ())
  assert (config.model.dim, config.model.mlp_dim, config.model.decoder_dim) == (16, 32, 8 if decoder else 16)
  assert (config.model.mask_ratio, config.model.positions) == (0.75, "sincos2d")
  model = build.make_model(config.to_dict() | {"name": "mae"}, {}, 1)
  state = pretrained.initial(actual, lambda _: None)(model.init(jax.random.key(0), batch))
  for part, values in params.items():
    chex.assert_trees_all_equal(state.params[part], values)
  config.model.dim = 32
  with pytest.raises(InputError, match="model.dim=32: init_from=.* has dim=16"):
    pretrained.adapt(config, actual, ("model.dim",))
