"""Hugging Face directories: read as `transformers` reads them, written so that it reads them, refused in one line."""
import json
import logging
import shutil

import numpy as np
import pytest
from networks import check_gradients, equal, random_params
from safetensors.numpy import load_file, save_file

from embeddings_jax.interop import huggingface
from embeddings_jax.types import InputError

BERT = dict(vocab_size=103, dim=12, num_layers=2, num_heads=3, mlp_dim=20, max_length=16, num_segments=2,
            positions="learned", position_offset=0, embedding_norm=True, norm="post", causal=False,
            norm_epsilon=1e-12, dropout=0.1, attention_dropout=0.2, activation="gelu")
ROBERTA = BERT | dict(position_offset=2, num_segments=1, norm_epsilon=1e-5)
GPT2 = BERT | dict(num_segments=0, embedding_norm=False, norm="pre", causal=True, norm_epsilon=1e-5,
                   activation="gelu_tanh")
GPT1 = GPT2 | dict(norm="post", mlp_dim=48)
NETWORKS = {"bert": ("bert", BERT), "roberta": ("bert", ROBERTA), "gpt2": ("gpt", GPT2), "openai-gpt": ("gpt", GPT1)}


HEADS = {"bert": ("pooler", "masked", "next_sentence"), "roberta": ("masked",), "gpt2": (), "openai-gpt": ()}


@pytest.fixture
def written(tmp_path):
  def write(kind, heads=None, **options):
    name, hyper = NETWORKS[kind]
    params = random_params(hyper, HEADS[kind] if heads is None else heads)
    huggingface.write(tmp_path / kind, name, hyper, params, **options)
    return tmp_path / kind, params
  return write


def change_config(folder, **changes):
  path = folder / "config.json"
  path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_tensors(folder, change):
  tensors = load_file(folder / "model.safetensors")
  change(tensors)
  save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize("kind", NETWORKS)
def test_what_is_written_is_read(kind, written):
  folder, params = written(kind)
  name, hyper, actual = huggingface.read(folder)
  assert (name, hyper) == NETWORKS[kind]
  equal(actual, params)


def test_a_base_model_has_no_prefix_and_no_heads(written):
  folder, params = written("bert", heads=("pooler",))
  assert "embeddings.word_embeddings.weight" in load_file(folder / "model.safetensors")
  assert json.loads((folder / "config.json").read_text())["architectures"] == ["BertModel"]
  equal(huggingface.read(folder)[2], params)


def test_shards_halves_and_old_names_are_read(written):
  import ml_dtypes
  folder, params = written("bert")
  tensors = load_file(folder / "model.safetensors")
  (folder / "model.safetensors").unlink()
  old = {name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
         for name, value in tensors.items()}
  halves = [{name: value.astype(dtype) for i, (name, value) in enumerate(old.items()) if i % 2 == j}
            for j, dtype in enumerate((np.float16, ml_dtypes.bfloat16))]
  for j, half in enumerate(halves):
    save_file(half, folder / f"part-{j}.safetensors")
  index = {"weight_map": {name: f"part-{j}.safetensors" for j, half in enumerate(halves) for name in half}}
  (folder / "model.safetensors.index.json").write_text(json.dumps(index))
  table = huggingface.read(folder)[2]["encoder"]["token_embedding"]
  assert table.dtype == np.float32
  np.testing.assert_allclose(table, params["encoder"]["token_embedding"], rtol=1e-2)
  (folder / "part-1.safetensors").unlink()
  with pytest.raises(InputError, match="part-1.safetensors: is missing"):
    huggingface.read(folder)
  index["weight_map"] = {"x": "../elsewhere.safetensors"}
  (folder / "model.safetensors.index.json").write_text(json.dumps(index))
  with pytest.raises(InputError, match="must name .safetensors files of this directory"):
    huggingface.read(folder)


def test_what_has_no_use_is_named(written, caplog):
  folder, params = written("bert")
  change_tensors(folder, lambda t: t.update({"bert.embeddings.position_ids": np.arange(16), "classifier.weight":
                                             np.zeros((2, 12), np.float32)}))
  with caplog.at_level(logging.WARNING):
    equal(huggingface.read(folder)[2], params)
  (record,) = caplog.records
  assert "no use here for bert.embeddings.position_ids, classifier.weight" in record.getMessage()


def test_a_tied_decoder_may_be_repeated_but_not_be_another(written):
  folder, params = written("gpt2")
  table = params["encoder"]["token_embedding"]
  change_tensors(folder, lambda t: t.update({"lm_head.weight": table}))
  equal(huggingface.read(folder)[2], params)
  change_tensors(folder, lambda t: t.update({"lm_head.weight": table + 1}))
  with pytest.raises(InputError, match="lm_head.weight is not the table of the input tokens"):
    huggingface.read(folder)


def test_pooling_of_sentence_models(written, tmp_path):
  folder, _ = written("bert", heads=("pooler",))
  assert huggingface.sentence_model(folder) == huggingface.SentenceModel(folder)
  (folder / "1_Pooling").mkdir()
  modules = [{"idx": i, "path": path, "type": f"sentence_transformers.models.{kind}"}
             for i, (path, kind) in enumerate([("", "Transformer"), ("1_Pooling", "Pooling"), ("2", "Normalize")])]
  (folder / "modules.json").write_text(json.dumps(modules))
  (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 12}')
  pooling = folder / "1_Pooling" / "config.json"
  pooling.write_text('{"pooling_mode_cls_token": false, "pooling_mode_mean_tokens": true}')
  assert huggingface.sentence_model(folder) == huggingface.SentenceModel(folder, "mean", True, 12, strip=True)
  pooling.write_text('{"pooling_mode": "cls"}')
  assert huggingface.sentence_model(folder).pooling == "cls"
  pooling.write_text('{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true}')
  with pytest.raises(InputError, match="cls_token.mean_tokens is not supported"):
    huggingface.sentence_model(folder)
  pooling.write_text('{"pooling_mode_mean_sqrt_len_tokens": true}')
  assert huggingface.sentence_model(folder).pooling == "mean_sqrt_len"
  modules[2]["type"] = "sentence_transformers.models.WeightedLayerPooling"
  pooling.write_text('{"pooling_mode": "cls"}')
  (folder / "modules.json").write_text(json.dumps(modules))
  with pytest.raises(InputError, match="module 2 is of type 'WeightedLayerPooling'; supported are a Transformer"):
    huggingface.sentence_model(folder)


def remove_weights(folder):
  (folder / "model.safetensors").unlink()


def pickle_only(folder):
  (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def garbage(folder):
  (folder / "model.safetensors").write_bytes(b"\x00" * 40)


DAMAGES = {
    "directory": (shutil.rmtree, "no such directory"),
    "config": (lambda folder: (folder / "config.json").unlink(), "config.json is missing"),
    "json": (lambda folder: (folder / "config.json").write_text("{"), "config.json: not JSON"),
    "weights": (remove_weights, "has no weights; model.safetensors is missing"),
    "pickle": (pickle_only, "pytorch_model.bin: is a pickle, which runs code"),
    "garbage": (garbage, "not a sound safetensors file"),
    "architecture": (lambda folder: change_config(folder, model_type="llama"), "'llama' .* known: bert, roberta"),
    "tensor": (lambda folder: change_tensors(folder, lambda t: t.pop("bert.encoder.layer.1.output.dense.bias")),
               "lack the tensor bert.encoder.layer.1.output.dense.bias"),
    "head": (lambda folder: change_tensors(folder, lambda t: t.pop("cls.predictions.bias")),
             "lack the tensor cls.predictions.bias"),
    "trunk": (lambda folder: change_tensors(folder, lambda t: t.pop("bert.embeddings.word_embeddings.weight")),
              "no tensor bert.embeddings.word_embeddings.weight, which a bert has"),
    "shape": (lambda folder: change_config(folder, intermediate_size=24),
              r"layer.0.intermediate.dense.weight has shape \(20, 12\), config.json says \(24, 12\)"),
    "layers": (lambda folder: change_config(folder, num_hidden_layers=3), "bert.encoder.layer.2"),
    "heads": (lambda folder: change_config(folder, num_attention_heads=5), "5 heads do not divide 12"),
    "relative": (lambda folder: change_config(folder, position_embedding_type="relative_key"),
                 "position_embedding_type='relative_key' is not supported"),
    "decoder": (lambda folder: change_config(folder, is_decoder=True, add_cross_attention=True), "is_decoder=True"),
    "activation": (lambda folder: change_config(folder, hidden_act="silu"), "activation 'silu' .* known: gelu"),
    "number": (lambda folder: change_config(folder, hidden_size="12"), "hidden_size is '12'; expected an"),
    "dtype": (lambda folder: change_tensors(folder, lambda t: t.update(
        {"cls.predictions.bias": np.zeros(103, np.int64)})), "of type I64, should be float32"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_directory_is_refused_in_one_line(name, written):
  folder, _ = written("bert")
  damage, message = DAMAGES[name]
  damage(folder)
  with pytest.raises(InputError, match=message) as error:
    huggingface.read(folder)
  assert "\n" not in str(error.value)


REFUSED = {
    "positions": ("bert", dict(positions="sinusoidal"), "positions='sinusoidal'"),
    "norm": ("bert", dict(norm="pre"), "norm='pre'"),
    "wide": ("openai-gpt", dict(mlp_dim=20), "mlp_dim=20, only 48"),
    "shape": ("gpt2", dict(mlp_dim=24), r"layers/up/kernel has shape \(2, 12, 20\)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_expressed_is_not_written(name, tmp_path):
  kind, change, message = REFUSED[name]
  ours, hyper = NETWORKS[kind]
  with pytest.raises(InputError, match=message):
    huggingface.write(tmp_path, ours, hyper | change, random_params(hyper, HEADS[kind]))


@pytest.mark.parity
@pytest.mark.parametrize("kind", NETWORKS)
def test_transformers_and_back_is_equal_bit_for_bit(kind, written, tmp_path):
  import transformers
  folder, params = written(kind)
  architecture = {"bert": "BertForPreTraining", "roberta": "RobertaForMaskedLM", "gpt2": "GPT2LMHeadModel",
                  "openai-gpt": "OpenAIGPTLMHeadModel"}[kind]
  model, report = getattr(transformers, architecture).from_pretrained(folder, output_loading_info=True)
  assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
  model.save_pretrained(tmp_path / "theirs")
  name, hyper, actual = huggingface.read(tmp_path / "theirs")
  assert (name, hyper) == NETWORKS[kind]
  equal(actual, params)


@pytest.mark.parity
def test_robertas_logits_loss_and_gradients_are_transformers(tmp_path):
  """Two padded rows; 3 heads, 1,003 tokens; positions from 2 on, the masked head's own names."""
  import jax
  import jax.numpy as jnp
  import optax
  import torch
  import transformers

  from embeddings_jax.models.language.bert import Bert
  torch.manual_seed(0)
  theirs = transformers.RobertaForMaskedLM(transformers.RobertaConfig(
      vocab_size=1003, hidden_size=36, num_hidden_layers=3, num_attention_heads=3, intermediate_size=50,
      max_position_embeddings=23, type_vocab_size=1, initializer_range=0.1, layer_norm_eps=1e-5)).eval()
  with torch.no_grad():
    for value in theirs.parameters():
      if value.ndim == 1:
        value.add_(0.1 * torch.randn(value.shape))
  theirs.save_pretrained(tmp_path / "model")
  name, hyper, params = huggingface.read(tmp_path / "model")
  assert name == "bert" and hyper["position_offset"] == 2 and hyper["max_length"] == 21
  random = np.random.default_rng(0)
  tokens = random.integers(4, 1003, (2, 19)).astype(np.int32)
  tokens[1, 11:] = -1
  positions = np.array([[0, 7, 18], [3, 10, 5]])
  targets = random.integers(4, 1003, (2, 3))
  labels = np.full(tokens.shape, -100)
  np.put_along_axis(labels, positions, targets, 1)
  answer = theirs(torch.tensor(np.where(tokens < 0, 1, tokens)).long(),
                  attention_mask=torch.tensor(tokens >= 0).long(), labels=torch.tensor(labels))
  answer.loss.backward()
  with torch.no_grad():
    for parameter in theirs.parameters():
      parameter.copy_(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
  theirs.save_pretrained(tmp_path / "gradient")
  expected = huggingface.read(tmp_path / "gradient")[2]
  params = random_params(hyper, ("pooler", "next_sentence")) | params  # Without effect here.

  def loss_fn(params):
    logits, _ = Bert(hyper).apply({"params": params}, jnp.asarray(tokens), None, jnp.asarray(positions))
    return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean(), logits

  with jax.default_matmul_precision("highest"):
    (loss, logits), gradient = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))(params)
  wanted = np.take_along_axis(answer.logits.detach().numpy(), positions[..., None], 1)
  np.testing.assert_allclose(logits, wanted, atol=1e-5)
  assert float(loss) == pytest.approx(answer.loss.item(), rel=1e-6)
  check_gradients({key: gradient[key] for key in ("encoder", "masked")}, expected)


def test_a_path_longer_than_paths_can_be_is_refused(tmp_path):
  with pytest.raises(InputError, match="modules.json: module 1: '1{40}'... is longer than a path can be"):
    huggingface._inside(tmp_path, "1" * 300, "modules.json: module 1")
