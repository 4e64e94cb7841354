"""Directories of vision transformers: read as `transformers` reads them, written so that it reads them."""
import json
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import equal, images, mae_params, vit_params
from safetensors.numpy import load_file, save_file

from embeddings_jax.data.encoders.images import ImageEncoder
from embeddings_jax.data.processor import Processor
from embeddings_jax.interop import huggingface_vision
from embeddings_jax.models.autoencoders import mae as module
from embeddings_jax.types import InputError

HYPER = dict(patch_size=2, dim=24, num_layers=2, num_heads=3, mlp_dim=40, positions="sincos2d", activation="gelu",
             norm_epsilon=1e-12, pixel_mean=(0.25, 0.5, 0.75), pixel_std=(0.2, 0.3, 0.4))
OTHERS = dict(decoder_dim=16, decoder_layers=2, decoder_heads=2, decoder_mlp_dim=32, mask_ratio=0.5, norm_pix=True)
SHAPE = (8, 8, 3)


def learned():
  hyper = HYPER | dict(positions="learned", activation="gelu_tanh")
  random = np.random.default_rng(5)
  draw = lambda *shape: random.normal(size=shape).astype(np.float32)
  pooler = {"kernel": draw(24, 24), "bias": draw(24)}
  return hyper, {"encoder": vit_params(hyper, 16, 3), "pooler": pooler}


@pytest.fixture
def written(tmp_path):
  params = mae_params(HYPER | OTHERS, 16, 3)
  huggingface_vision.write(tmp_path, HYPER, OTHERS, params, SHAPE)
  return tmp_path, params


def change_tensors(folder, change):
  tensors = load_file(folder / "model.safetensors")
  change(tensors)
  save_file(tensors, folder / "model.safetensors")


def change_json(folder, file, **changes):
  path = folder / file
  path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_what_is_written_is_read(written, tmp_path):
  folder, params = written
  assert huggingface_vision.is_vision(folder)
  hyper, others, actual, shape = huggingface_vision.read(folder)
  assert (hyper, others, shape) == (HYPER, OTHERS, SHAPE)
  equal(actual, params)
  # Wide images, an encoder alone, learned positions.
  hyper, params = learned()
  params["encoder"]["position_embedding"] = params["encoder"]["position_embedding"][:13]
  huggingface_vision.write(tmp_path / "wide", hyper, {}, params, (6, 8, 3))
  actual = huggingface_vision.read(tmp_path / "wide")
  assert actual[0] == hyper and actual[1] == {} and actual[3] == (6, 8, 3)
  equal(actual[2], params)


@pytest.mark.parity
def test_a_round_trip_through_transformers_is_equal(written, tmp_path):
  from transformers import AutoImageProcessor, AutoModel, ViTMAEForPreTraining

  folder, params = written
  peer, info = ViTMAEForPreTraining.from_pretrained(folder, output_loading_info=True)
  assert not info["missing_keys"] and not info["unexpected_keys"]
  assert (peer.config.mask_ratio, peer.config.norm_pix_loss) == (0.5, True)
  peer.save_pretrained(tmp_path / "again")
  AutoImageProcessor.from_pretrained(folder, use_fast=False).save_pretrained(tmp_path / "again")
  hyper, others, actual, shape = huggingface_vision.read(tmp_path / "again")
  assert (hyper, others, shape) == (HYPER, OTHERS, SHAPE)
  equal(actual, params)

  hyper, params = learned()
  huggingface_vision.write(tmp_path / "vit", hyper, {}, params, SHAPE)
  peer, info = AutoModel.from_pretrained(tmp_path / "vit", output_loading_info=True)
  assert not info["missing_keys"] and not info["unexpected_keys"]
  peer.save_pretrained(tmp_path / "vit again")
  actual = huggingface_vision.read(tmp_path / "vit again")
  assert actual[0] == hyper | dict(pixel_mean=(0.5, 0.5, 0.5), pixel_std=(0.5, 0.5, 0.5))
  equal(actual[2], params)


@pytest.mark.parity
@pytest.mark.parametrize("classifier", [False, True])
def test_vectors_are_transformers(classifier, tmp_path, caplog):
  import torch
  from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor, ViTModel

  torch.manual_seed(0)
  peer = (ViTForImageClassification if classifier else ViTModel)(ViTConfig(
      hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40, image_size=(6, 8),
      patch_size=2, initializer_range=0.2)).eval()
  peer.save_pretrained(tmp_path)
  processor = ViTImageProcessor(size={"height": 6, "width": 8}, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.4])
  processor.save_pretrained(tmp_path)
  with caplog.at_level(logging.WARNING):
    hyper, others, params, shape = huggingface_vision.read(tmp_path)
  assert shape == (6, 8, 3) and others == {} and hyper["positions"] == "learned"
  assert ("pooler" in params) != classifier
  assert ("classifier.weight" in caplog.text) == classifier

  batch = images(4, 6, 8, 3)
  pixels = processor(list(np.asarray(batch["image"])), return_tensors="pt")["pixel_values"]
  actual = peer(pixel_values=pixels, output_hidden_states=True)
  with jax.default_matmul_precision("highest"):
    model = module.mae(**hyper)
    state = jax.jit(model.init)(jax.random.key(0), batch)
    state = state._replace(params=state.params | jax.tree.map(jnp.asarray, params))
    layers = np.asarray(jax.jit(model.outputs["hidden"])(state, batch))
    embedded = jax.jit(model.embed)(state, batch)
  for ours, theirs in zip(layers[:, :-1].swapaxes(0, 1), actual.hidden_states):
    np.testing.assert_allclose(ours, theirs.detach().numpy(), atol=1e-5)
  if not classifier:
    np.testing.assert_allclose(layers[:, -1], actual.last_hidden_state.detach().numpy(), atol=1e-5)
    np.testing.assert_allclose(embedded, actual.last_hidden_state[:, 0].detach().numpy(), atol=1e-5)
    pooled = np.tanh(layers[:, -1, 0] @ params["pooler"]["kernel"] + params["pooler"]["bias"])
    np.testing.assert_allclose(pooled, actual.pooler_output.detach().numpy(), atol=1e-5)


PROCESSORS = [
    dict(size={"height": 6, "width": 8}), dict(size=[6, 8], resample=3), dict(size=[6, 8], resample=0),
    dict(size={"height": 9, "width": 13}, do_center_crop=True, crop_size={"height": 6, "width": 8}, resample=1),
    dict(size={"shortest_edge": 7}, do_center_crop=True, crop_size={"height": 6, "width": 8}, resample=3),
    dict(size={"shortest_edge": 4}, do_center_crop=True, crop_size={"height": 6, "width": 8}),  # Padded.
    dict(do_resize=False, do_center_crop=True, crop_size={"height": 6, "width": 8}),
    dict(size=[6, 8], do_rescale=False), dict(size=[6, 8], rescale_factor=1 / 127.5),
    dict(size=[6, 8], do_normalize=False),
    dict(size=[6, 8], image_mean=[0.1, 0.2, 0.3], image_std=[0.5, 0.25, 2]),
    dict(image_processor_type="DeiTImageProcessorFast", crop_size={"height": 6, "width": 8}),
    dict(size=7, default_to_square=False, do_center_crop=True, crop_size={"height": 6, "width": 8}),
    dict(image_processor_type="CLIPImageProcessor", size=10, crop_size={"height": 6, "width": 8}),
]


@pytest.mark.parity
@pytest.mark.parametrize("options", PROCESSORS)
def test_pixels_are_those_of_transformers(options, tmp_path):
  from PIL import Image
  from transformers import AutoImageProcessor

  hyper, params = learned()
  params["encoder"]["position_embedding"] = params["encoder"]["position_embedding"][:13]
  huggingface_vision.write(tmp_path, hyper, {}, params, (6, 8, 3))
  options = {"image_processor_type": "ViTImageProcessor"} | options
  (tmp_path / "preprocessor_config.json").write_text(json.dumps(options))
  actual = huggingface_vision.read(tmp_path)[0]
  encoder = ImageEncoder(6, 8, 3, huggingface_vision.processor(tmp_path, (6, 8, 3)))
  peer = AutoImageProcessor.from_pretrained(tmp_path)
  random = np.random.default_rng(0)
  for i, shape in enumerate([(6, 8, 3), (20, 31, 3), (33, 17, 3), (7, 5, 3)]):
    pixels = random.integers(0, 256, shape, np.uint8)
    Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    expected = peer(Image.fromarray(pixels), return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
    for item in (pixels, str(tmp_path / f"{i}.png")):
      image = encoder.encode([item])["image"][0].astype(np.float64) / 255
      ours = (image - np.array(actual["pixel_mean"])) / np.array(actual["pixel_std"])
      np.testing.assert_allclose(ours, expected, atol=1e-5 * np.abs(expected).max())


def test_the_steps_of_a_processor_survive_the_encoders_folder(tmp_path):
  encoder = ImageEncoder(6, 8, 1, Processor(9, 3, (6, 8)))
  encoder.save(tmp_path)
  again = ImageEncoder.load(tmp_path)
  picture = np.random.default_rng(0).integers(0, 256, (30, 20), np.uint8)
  assert again.processor == encoder.processor and again.fingerprint == encoder.fingerprint
  np.testing.assert_array_equal(again.encode([picture])["image"], encoder.encode([picture])["image"])
  assert "processor" not in ImageEncoder(6, 8, 1).options()


@pytest.mark.parametrize("options,message", [
    (dict(image_processor_type="ConvNextImageProcessor"), "'ConvNextImageProcessor' is not supported; known: ViT"),
    (dict(do_pad=True), "do_pad=True is not supported"),
    (dict(size={"shortest_edge": 8, "longest_edge": 20}), "size=.* is not supported; expected height and width"),
    (dict(size=12), "makes images of 12 x 12 pixels, config.json's image_size is 8 x 8"),
    (dict(size=[8, 8], resample=9), "resample=9; expected a filter of Pillow"),
    (dict(size=[8, "8"]), "expected a height and width from 1 to 65536"),
    (dict(size=[8, 8], image_mean=[0.5]), "image_mean is .0.5., expected 3 numbers"),
])
def test_processors_that_are_not_supported(written, options, message):
  folder, _ = written
  (folder / "preprocessor_config.json").write_text(json.dumps(options))
  with pytest.raises(InputError, match=message):
    huggingface_vision.read(folder)
    huggingface_vision.processor(folder, SHAPE)


def test_what_is_written_fits_pictures_as_the_run_does(written):
  """Images that need no resizing agree bit for bit; others differ by the rounding of the crop."""
  folder, _ = written
  encoder = ImageEncoder(*SHAPE, huggingface_vision.processor(folder, SHAPE))
  assert encoder.processor == Processor(8, 3, (8, 8))
  picture = np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)
  np.testing.assert_array_equal(encoder.encode([picture])["image"][0], picture)


def test_tensors_that_do_not_fit_are_named(written):
  folder, _ = written
  name = "decoder.decoder_layers.1.attention.attention.key.weight"
  change_tensors(folder, lambda tensors: tensors.update({name: np.zeros((16, 15), np.float32)}))
  with pytest.raises(InputError, match=rf"{name} has shape \(16, 15\), config.json says \(16, 16\)"):
    huggingface_vision.read(folder)
  change_tensors(folder, lambda tensors: tensors.pop(name))
  with pytest.raises(InputError, match=f"the weights lack the tensor {name}"):
    huggingface_vision.read(folder)
  change_tensors(folder, lambda tensors: tensors["vit.embeddings.position_embeddings"].__iadd__(0.01))
  with pytest.raises(InputError, match="vit.embeddings.position_embeddings are no sines and cosines"):
    huggingface_vision.read(folder)


@pytest.mark.parametrize("file,change,message", [
    ("config.json", dict(model_type="swin"), "'swin' .* is unknown; known: vit_mae, vit"),
    ("config.json", dict(qkv_bias=False), "qkv_bias=False is not supported"),
    ("config.json", dict(hidden_act="swish"), "the activation 'swish' is not supported"),
    ("config.json", dict(image_size=9), "image_size is .9, 9., expected multiples of patch_size=2"),
    ("config.json", dict(hidden_size="24"), "hidden_size is '24'; expected an integer"),
    ("config.json", dict(num_attention_heads=5), "the heads do not divide 24 dimensions"),
    ("config.json", dict(num_channels=1), r"image_mean is \[.*\], expected 1 numbers"),
    ("preprocessor_config.json", dict(rescale_factor=0), "rescale_factor is 0.0; it must be above 0"),
    ("preprocessor_config.json", dict(image_std=[1, 0, 1]), "image_std is .*; it must be above 0"),
    ("preprocessor_config.json", dict(do_rescale="no"), "'do_rescale' holds a string, expected a boolean"),
])
def test_what_is_not_supported_is_named(written, file, change, message):
  folder, _ = written
  change_json(folder, file, **change)
  with pytest.raises(InputError, match=message):
    huggingface_vision.read(folder)


def test_what_cannot_be_written_is_named(tmp_path):
  params = mae_params(HYPER | OTHERS, 16, 3)
  with pytest.raises(InputError, match="vit_mae cannot have positions='learned'"):
    huggingface_vision.write(tmp_path, HYPER | dict(positions="learned"), OTHERS, params, SHAPE)
  with pytest.raises(InputError, match=r"params/encoder/patch_embedding/kernel has shape \(12, 24\)"):
    huggingface_vision.write(tmp_path, HYPER, OTHERS, params, (8, 8, 1))
  del params["decoder"]["mask_token"]
  with pytest.raises(InputError, match="params/decoder/mask_token is missing"):
    huggingface_vision.write(tmp_path, HYPER, OTHERS, params, SHAPE)
