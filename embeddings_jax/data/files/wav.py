"""Sound from wav files, read by the chunks of RIFF: Python's own `wave` reads fewer files. Others need a library."""
import contextlib
import io
import os
import struct
from collections.abc import Iterator

import numpy as np

from embeddings_jax.data.files.streams import opened, refusing
from embeddings_jax.types import InputError

MAX_RATE = 1_000_000  # Samples per second; a greater number is damage.
MAX_SAMPLES = 1 << 30  # Of all channels of one, of a compressed file.
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_SUBFORMAT = bytes.fromhex("000000001000800000aa00389b71")  # Behind the number of the format.
_BITS = {_PCM: (8, 16, 24, 32), _FLOAT: (32, 64)}
# Sizes that programs write into a pipe, where they cannot know better; some write 0, as they do for all of the file.
_STREAMED = frozenset((*range(0x7FFFF000, 0x80000000), *range(0xFFFFF000, 0x100000000)))
_BLOCK = 1 << 20  # Samples of all channels that are decompressed at once.
_WAY = "convert it to 16 bit PCM"


def read_sound(file: str | os.PathLike | bytes, name: str = "") -> tuple[np.ndarray, int]:
  """Reads a wav, or by the library soundfile a .flac or .ogg; see `read_wav`.

  Raises:
    InputError: As `read_wav`, or the library is missing.
  """
  name = name or str(file)
  if not name.lower().endswith((".flac", ".ogg", ".oga")):
    return read_wav(file, name)
  try:
    import soundfile
  except (ImportError, OSError) as error:
    raise InputError(f"{name}: the package soundfile is missing, which reads it; pip install "
                     "'embeddings_jax[audio]'") from error
  with opened(file) if not isinstance(file, bytes) else contextlib.nullcontext(io.BytesIO(file)) as handle:
    if not handle.read(1):
      raise InputError(f"{name}: is empty")
    handle.seek(0)
    with refusing(name, "not a sound that soundfile can read"):
      with soundfile.SoundFile(handle) as sound:
        if sound.frames > MAX_SAMPLES or not 0 < sound.samplerate <= MAX_RATE:
          raise InputError(f"{name}: damaged, or too long ({sound.frames} samples at {sound.samplerate} Hz)")
        rate, expected, parts = sound.samplerate, sound.frames, [np.zeros(0, np.int16)]
        # The stated length may be a lie, and would be allocated.
        while len(values := sound.read(_BLOCK // sound.channels, dtype="float64", always_2d=True)):
          parts.append(as_int16(values.mean(1) * 32768, name))
  samples = np.concatenate(parts)
  if not len(samples):
    raise InputError(f"{name}: has no samples")
  if len(samples) < expected:
    raise InputError(f"{name}: truncated, {len(samples)} of {expected} samples")
  return samples, rate


def read_wav(file: str | os.PathLike | bytes, name: str = "") -> tuple[np.ndarray, int]:
  """Reads a wav of integers of 8, 16, 24 or 32 bits, or of floats of 32 or 64; channels are averaged.

  Args:
    file: Path, or the content of a file.
    name: Name for error messages.

  Returns:
    int16 `[num_samples]`, and samples per second. Floats in [-1, 1] are scaled, others are cut.

  Raises:
    InputError: Unreadable, compressed, truncated or empty.
  """
  name = name or str(file)
  if not isinstance(file, bytes):
    with opened(file) as handle:
      file = handle.read()
  if not file:
    raise InputError(f"{name}: is empty")
  chunks = dict(_chunks(file, name))
  if b"fmt " not in chunks or len(chunks[b"fmt "][0]) < 16:
    raise InputError(f"{name}: not a PCM wav (it ends too early); {_WAY}")
  description, _ = chunks[b"fmt "]
  form, channels, rate, _, _, bits = struct.unpack("<HHIIHH", description[:16])
  if form == _EXTENSIBLE and description[26:40] == _SUBFORMAT:
    form = struct.unpack("<H", description[24:26])[0]
  if form not in _BITS:
    raise InputError(f"{name}: not a PCM wav (its format is {form:#06x}); {_WAY}")
  if bits not in _BITS[form]:
    raise InputError(f"{name}: {bits} bit samples; {_WAY}")
  if not channels or not 0 < rate <= MAX_RATE:
    raise InputError(f"{name}: not a PCM wav ({channels} channels, {rate} samples per second)")
  data, size = chunks.get(b"data", (b"", 0))
  width = bits // 8
  if size in _STREAMED or not size and data:
    size = len(data) - len(data) % (channels * width)
  if not size:
    raise InputError(f"{name}: has no samples")
  if len(data) < size or size % (channels * width):
    raise InputError(f"{name}: truncated wav, {len(data)} of {size} bytes of samples")
  samples = _decoded(data[:size], form, width)
  if channels > 1:
    samples = samples.reshape(-1, channels).mean(1)
  return as_int16(samples, name), rate


def as_int16(values: np.ndarray, name: str) -> np.ndarray:
  """Returns samples of the range of int16, rounded and cut.

  Raises:
    InputError: One is not finite.
  """
  if values.dtype == np.int16:
    return values
  if not np.isfinite(values).all():
    raise InputError(f"{name}: sample {np.argmax(~np.isfinite(values))} (from 0) is not a finite number")
  return np.clip(np.rint(values), -32768, 32767).astype(np.int16)


def _decoded(data: bytes, form: int, width: int) -> np.ndarray:
  """Returns samples in the range of int16: int16 itself where that holds them, else float64."""
  if form == _FLOAT:
    with np.errstate(over="ignore", invalid="ignore"):
      return np.frombuffer(data, f"<f{width}").astype(np.float64) * 32768
  if width == 1:  # 8 bit samples are unsigned, around 128.
    return (np.frombuffer(data, np.uint8).astype(np.int16) - 128) * 256
  if width == 2:
    return np.frombuffer(data, "<i2").astype(np.int16)
  if width == 4:
    return np.frombuffer(data, "<i4") / 65536
  whole = np.zeros((len(data) // 3, 4), np.uint8)
  whole[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
  return whole.view("<i4")[:, 0] / 65536


def _chunks(data: bytes, name: str) -> Iterator[tuple[bytes, tuple[bytes, int]]]:
  """Yields id, content and stated size of the chunks up to that of the samples; the last one may be truncated."""
  if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
    raise InputError(f"{name}: not a PCM wav (it does not begin with RIFF and WAVE); {_WAY}")
  offset, whole = 12, struct.unpack("<I", data[4:8])[0]
  while offset + 8 <= len(data):
    kind, size = struct.unpack("<4sI", data[offset:offset + 8])
    if kind == b"data":
      unknown = size in _STREAMED or not size and (not whole or whole in _STREAMED)
      yield kind, (data[offset + 8:] if unknown else data[offset + 8:offset + 8 + size], size)
      return
    yield kind, (data[offset + 8:offset + 8 + size], size)
    offset += 8 + size + size % 2
