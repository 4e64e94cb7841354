"""Rate and distortion of images that are compressed to quantized codes, beside principal components and JPEG.

Protocol. A unit of the code with standard deviation s over training images is rounded to multiples of t s, for t of
2, 1, 1/2, 1/4; values outside of what the training images have are clipped to it. The rate is what an ideal
arithmetic coder needs with an entropy model of independent units, the histogram of each over training images with 1
added to every value: -sum_j log2 p_j(k_j), in bits for each pixel and channel. The distortion is the mean over images
of the PSNR of the decoded image. At most 5,000 training and 1,000 test images, evenly spaced; of a dataset without a
test split the images are those of the validation split that the pipeline held out.

`pca` is the same with as many principal components of the training images, whose steps are one number, t times the
root mean square of the s, as their basis is orthonormal. `jpeg` (Pillow, qualities 5, 10, 25, 50, standard tables)
counts the bits of the entropy-coded scan alone: of small images most of a file is headers. Compare the PSNR at
equal rates. Fashion-MNIST, `autoencoder` with codes of 16: .080 bits and 19.7 dB; as many components .070 bits and
17.5 dB; JPEG of quality 5 .534 bits and 19.9 dB.
"""
import io
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from embeddings_jax.errors import InputError
from embeddings_jax.types import Metric, Protocol, Source

STEPS = (2.0, 1.0, 0.5, 0.25)  # In standard deviations.
QUALITIES = (5, 10, 25, 50)
NUM_TRAIN, NUM_TEST = 5000, 1000


def compression(embed: Callable[[Any], np.ndarray], dataset: Any, *, decode: Callable[[np.ndarray], np.ndarray],
                source: Source | None = None) -> dict[str, float]:
  """Rates and distortions on the test split, or on the validation split of a dataset without one.

  Args:
    embed: Images -> codes [n, dim].
    dataset: Has `items`, uint8 [n, height, width, channels], and maybe the splits `train` and `test`.
    decode: Codes -> images in [0, 1].
    source: Held-out batches that the pipeline took from the training images.

  Returns:
    `{split}/step_{t}/` `bits_per_pixel` and `psnr`, and the same of `pca/step_{t}` and `jpeg/quality_{q}`.
  """
  part, train, test = _images(dataset, source)
  codes = [np.asarray(embed(items), np.float64) for items in (train, test)]
  clean, metrics = test / 255, {}
  for step, bits, back in quantized(*codes, codes[0].std(0)):
    metrics |= _row(f"{part}/step_{step:g}", clean, bits, decode(back.astype(np.float32)))
  mean, flat = train.reshape(len(train), -1).mean(0) / 255, train.reshape(len(train), -1) / 255
  number = min(codes[0].shape[1], *flat.shape)
  basis = np.linalg.svd(flat - mean, full_matrices=False)[2][:number]
  codes = [(items.reshape(len(items), -1) / 255 - mean) @ basis.T for items in (train, test)]
  spread = np.full(number, np.sqrt(codes[0].var(0).mean()))
  for step, bits, back in quantized(*codes, spread):
    metrics |= _row(f"{part}/pca/step_{step:g}", clean, bits, (mean + back @ basis).reshape(clean.shape))
  if test.shape[3] in (1, 3):
    for quality in QUALITIES:
      pairs = [jpeg(image, quality) for image in test]
      metrics |= _row(f"{part}/jpeg/quality_{quality}", clean, np.array([bits for bits, _ in pairs]),
                      np.stack([image for _, image in pairs]) / 255)
  return metrics


def _images(dataset: Any, source: Source | None) -> tuple[str, np.ndarray, np.ndarray]:
  """Returns the name of the split that is compressed, training images and images of that split, evenly spaced."""
  if {"train", "test"} <= set(dataset.split):
    part, train, test = "test", *(np.asarray(dataset.split[name]) for name in ("train", "test"))
    test = dataset.items[_spaced(test, NUM_TEST)]
  elif source is not None and "test" not in dataset.split:
    batches = [source.batch_at(step) for step in range(source.facts["steps_per_epoch"])]
    part, test = "validation", np.concatenate([np.asarray(batch["image"])[batch["mask"] > 0] for batch in batches])
    held_out = {image.tobytes() for image in test}
    train = np.array([i for i, image in enumerate(dataset.items) if np.asarray(image).tobytes() not in held_out])
    test = test[_spaced(np.arange(len(test)), NUM_TEST)]
  else:
    raise InputError(f"compression: {dataset.name} has no splits 'train' and 'test', and none was held out")
  return part, np.asarray(dataset.items[_spaced(train, NUM_TRAIN)]), np.asarray(test)


def _spaced(rows: np.ndarray, most: int) -> np.ndarray:
  return rows[np.linspace(0, len(rows) - 1, min(len(rows), most)).astype(int)]


def quantized(train: np.ndarray, test: np.ndarray, spread: np.ndarray,
              ) -> Iterator[tuple[float, np.ndarray, np.ndarray]]:
  """Yields the step, the bits of each test code, and the test codes as they are decoded, for each of `STEPS`.

  Args:
    train, test: Codes [n, dim].
    spread: Unit of the steps, [dim].
  """
  for step in STEPS:
    width = np.maximum(step * spread, 1e-12)
    known, queries = (np.rint((codes - train.mean(0)) / width).astype(np.int64) for codes in (train, test))
    low, high = known.min(0), known.max(0)
    queries = np.clip(queries, low, high)
    bits = np.zeros(len(test))
    for unit in range(train.shape[1]):
      counts = 1 + np.bincount(known[:, unit] - low[unit], minlength=high[unit] - low[unit] + 1)
      bits -= np.log2(counts / counts.sum())[queries[:, unit] - low[unit]]
    yield step, bits, train.mean(0) + queries * width


def jpeg(image: np.ndarray, quality: int) -> tuple[int, np.ndarray]:
  """Returns the bits of a JPEG's entropy-coded scan, and the decoded image."""
  from PIL import Image

  file = io.BytesIO()
  Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, "JPEG", quality=quality)
  data = file.getvalue()
  start = data.index(b"\xff\xda")  # The scan's own header, then the scan, then the end's two bytes.
  header = 2 + int.from_bytes(data[start + 2:start + 4], "big")
  decoded = np.asarray(Image.open(io.BytesIO(data))).reshape(image.shape)
  return 8 * (len(data) - start - header - 2), decoded


def _row(name: str, clean: np.ndarray, bits: np.ndarray, decoded: np.ndarray) -> dict[str, float]:
  errors = np.square(clean - np.clip(decoded, 0, 1)).mean((1, 2, 3))
  return {f"{name}/bits_per_pixel": float(bits.mean() / np.prod(clean.shape[1:])),
          f"{name}/psnr": float(-10 * np.log10(np.maximum(errors, 1e-12)).mean())}


PROTOCOL = Protocol(compression, needs=("embed", "decode"),
                    metrics={"bits_per_pixel": Metric(None, "bits"), "psnr": Metric(True, "dB")})
