"""Sound: wavs of every width, streamed ones, FLAC and Ogg, and clips of several rates."""
import struct
import sys

import numpy as np
import pytest

from embeddings_jax.data import reading
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.encoders.waveforms import WaveformEncoder
from embeddings_jax.data.files.wav import read_sound, read_wav
from embeddings_jax.types import InputError

VALUES = np.array([0, 1, -1, 1000, -32768, 32767, 12345, -4321])


def wav(samples: bytes, form=1, bits=16, rate=8000, size=None, riff=None):
  head = struct.pack("<HHIIHH", form, 1, rate, rate * bits // 8, bits // 8, bits)
  size = len(samples) if size is None else size
  body = struct.pack("<4sI", b"fmt ", 16) + head + struct.pack("<4sI", b"data", size) + samples
  return struct.pack("<4sI4s", b"RIFF", 4 + len(body) if riff is None else riff, b"WAVE") + body


def of_24_bits(values):
  return np.asarray(values, "<i4").view(np.uint8).reshape(-1, 4)[:, :3].tobytes()


@pytest.mark.parametrize("samples, form, bits", [
    (of_24_bits(VALUES * 256), 1, 24), ((VALUES * 65536).astype("<i4").tobytes(), 1, 32),
    ((VALUES / 32768).astype("<f4").tobytes(), 3, 32), ((VALUES / 32768).astype("<f8").tobytes(), 3, 64)])
def test_wavs_of_other_widths_have_the_values_of_16_bits(samples, form, bits):
  content = wav(samples, form, bits)
  values, rate = read_wav(content, "a.wav")
  np.testing.assert_array_equal(values, VALUES)
  assert values.dtype == np.int16 and rate == 8000


@pytest.mark.parity
def test_libraries_agree_on_24_bits_and_floats(tmp_path):
  import soundfile

  x = np.random.default_rng(0).uniform(-1, 1, (500, 2))
  for subtype in ("PCM_24", "PCM_32", "FLOAT", "DOUBLE", "PCM_U8"):
    soundfile.write(tmp_path / "a.wav", x, 8000, subtype=subtype)
    theirs = np.rint(soundfile.read(tmp_path / "a.wav")[0].mean(1) * 32768).clip(-32768, 32767)
    np.testing.assert_array_equal(read_wav(tmp_path / "a.wav")[0], theirs)


def test_values_beyond_one_are_cut_and_rounding_is_to_the_nearest():
  values, _ = read_wav(wav(np.array([1.5, -2, 1], "<f4").tobytes(), 3, 32), "a.wav")
  assert values.tolist() == [32767, -32768, 32767]
  assert read_wav(wav(of_24_bits([127, 129, -129]), 1, 24), "a.wav")[0].tolist() == [0, 1, -1]


@pytest.mark.parametrize("size, riff", [(0xffffffff, 0xffffffff), (0x7ffff000, None), (0, 0), (0, 0xffffffff)])
def test_streams_have_no_size(size, riff):
  content = wav(VALUES.astype("<i2").tobytes() + b"\1", size=size, riff=riff)  # Cut within a sample.
  assert read_wav(content, "a.wav")[0].tolist() == VALUES.tolist()


@pytest.mark.parametrize("content, message", [
    (wav(np.array([0, np.nan], "<f4").tobytes(), 3, 32), "a.wav: sample 1 .from 0. is not a finite number"),
    (wav(b"12", 2, 4), "a.wav: not a PCM wav .its format is 0x0002.; convert it"),
    (wav(b"1234", 1, 20), "a.wav: 20 bit samples; convert it"),
    (wav(b"12345", 1, 24), "a.wav: truncated wav, 5 of 5 bytes"),
    (wav(b"", size=0), "a.wav: has no samples"),
])
def test_bad_wavs_are_named(content, message):
  with pytest.raises(InputError, match=message):
    read_wav(content, "a.wav")


@pytest.mark.parity
def test_flac_and_ogg(tmp_path, monkeypatch):
  import soundfile

  tone = (8000 * np.sin(np.arange(4000) / 9)).astype(np.int16)
  soundfile.write(tmp_path / "a.flac", tone, 8000, subtype="PCM_16")
  soundfile.write(tmp_path / "b.ogg", np.stack([tone, tone], 1), 16000)
  values, rate = read_sound(tmp_path / "a.flac")
  assert rate == 8000 and values.dtype == np.int16
  np.testing.assert_array_equal(values, tone)
  values, rate = read_sound(tmp_path / "b.ogg")
  assert rate == 16000 and np.corrcoef(values, tone)[0, 1] > 0.99
  data = (tmp_path / "a.flac").read_bytes()
  for content, message in ((b"", "is empty"), (b"fLaC12", "not a sound that soundfile can read"),
                           (data[:len(data) // 2], "truncated|not a sound")):
    (tmp_path / "c.flac").write_bytes(content)
    with pytest.raises(InputError, match=f"c.flac: .*({message})"):
      read_sound(tmp_path / "c.flac")
  monkeypatch.setitem(sys.modules, "soundfile", None)
  with pytest.raises(InputError, match=r"a.flac: the package soundfile is missing.*embeddings_jax\[audio\]"):
    read_sound(tmp_path / "a.flac")


def test_resampling_is_said(tmp_path, caplog):
  tone = lambda rate: np.rint(8000 * np.sin(2 * np.pi * 200 * np.arange(rate) / rate)).astype("<i2")
  for name, rate in (("a.wav", 8000), ("b.wav", 16000)):
    (tmp_path / name).write_bytes(wav(tone(rate).tobytes(), rate=rate))
  with pytest.raises(InputError, match="b.wav: has 16000 samples per second, .*; convert them to one rate, as by"):
    reading.audio(str(tmp_path))
  dataset = reading.audio(str(tmp_path), rate=8000)
  assert dataset.rate == 8000 and [len(clip) for clip in dataset.items] == [8000, 8000]
  assert "1 of 2 clips are resampled to 8000 samples per second" in caplog.text
  middle = slice(100, -100)
  np.testing.assert_allclose(dataset.items[1][middle], tone(8000)[middle], atol=20)
  encoder = WaveformEncoder(8000)
  encoder.encode([str(tmp_path / "b.wav")] * 2)
  assert caplog.text.count("b.wav: is resampled from 16000 to 8000") == 1
  other = encoder.adapt(Dataset("d", "audio", [tone(16000)], 16000, fingerprint="f"))
  np.testing.assert_array_equal(other.items[0], dataset.items[1])
  assert other.rate == 8000 and "d: is resampled from 16000 to 8000" in caplog.text
  with pytest.raises(InputError, match="rate=-1: must be from 1 to 1000000"):
    reading.audio(str(tmp_path), rate=-1)
