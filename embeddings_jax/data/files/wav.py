"""PCM sound from wav files, read by the chunks of RIFF: Python's own `wave` reads fewer files on older versions."""
import os
import struct
from collections.abc import Iterator

import numpy as np

from embeddings_jax.data.files.streams import opened
from embeddings_jax.types import InputError

MAX_RATE = 1_000_000  # Samples per second; a greater number is damage.
_PCM, _EXTENSIBLE = 1, 0xFFFE
_PCM_SUBFORMAT = bytes.fromhex("0100000000001000800000aa00389b71")
_STREAMED = (0xFFFFFFFF, 0x7FFFFFFF)  # Sizes that programs write into a pipe, where they cannot know better.


def read_wav(file: str | os.PathLike | bytes, name: str = "") -> tuple[np.ndarray, int]:
  """Reads a PCM wav of 8 or 16 bit; channels are averaged.

  Args:
    file: Path, or the content of a file.
    name: Name for error messages.

  Returns:
    int16 `[num_samples]`, and samples per second.

  Raises:
    InputError: Unreadable, not PCM, truncated or empty.
  """
  name = name or str(file)
  if not isinstance(file, bytes):
    with opened(file) as handle:
      file = handle.read()
  if not file:
    raise InputError(f"{name}: is empty")
  chunks = dict(_chunks(file, name))
  if b"fmt " not in chunks or len(chunks[b"fmt "][0]) < 16:
    raise InputError(f"{name}: not a PCM wav (it ends too early); convert it to 16 bit PCM")
  description, _ = chunks[b"fmt "]
  form, channels, rate, _, _, bits = struct.unpack("<HHIIHH", description[:16])
  if form == _EXTENSIBLE and description[24:40] == _PCM_SUBFORMAT:
    form = _PCM
  if form != _PCM:
    raise InputError(f"{name}: not a PCM wav (its format is {form:#06x}); convert it to 16 bit PCM")
  if bits not in (8, 16):
    raise InputError(f"{name}: {bits} bit samples; convert it to 16 bit PCM")
  if not channels or not 0 < rate <= MAX_RATE:
    raise InputError(f"{name}: not a PCM wav ({channels} channels, {rate} samples per second)")
  data, size = chunks.get(b"data", (b"", 0))
  width = bits // 8
  if size in _STREAMED:
    size = len(data) - len(data) % (channels * width)
  if not size:
    raise InputError(f"{name}: has no samples")
  if len(data) < size or size % (channels * width):
    raise InputError(f"{name}: truncated wav, {len(data)} of {size} bytes of samples")
  if width == 1:  # 8 bit samples are unsigned, around 128.
    samples = (np.frombuffer(data, np.uint8, size).astype(np.int16) - 128) * 256
  else:
    samples = np.frombuffer(data, "<i2", size // 2).astype(np.int16)
  if channels > 1:
    samples = np.rint(samples.reshape(-1, channels).mean(1)).astype(np.int16)
  return samples, rate


def _chunks(data: bytes, name: str) -> Iterator[tuple[bytes, tuple[bytes, int]]]:
  """Yields id, content and stated size of the chunks up to that of the samples; the last one may be truncated."""
  if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
    raise InputError(f"{name}: not a PCM wav (it does not begin with RIFF and WAVE); convert it to 16 bit PCM")
  offset = 12
  while offset + 8 <= len(data):
    kind, size = struct.unpack("<4sI", data[offset:offset + 8])
    yield kind, (data[offset + 8:offset + 8 + size], size)
    if kind == b"data":
      return
    offset += 8 + size + size % 2
