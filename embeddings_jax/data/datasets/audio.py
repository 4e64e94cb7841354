"""Audio clips."""
from pathlib import Path

import numpy as np

from embeddings_jax.data import formats
from embeddings_jax.data.dataset import Dataset, content_digest
from embeddings_jax.data.datasets.base import Entry, Place


def _spoken_digits(name: str, place: Place) -> Dataset:
  """Recordings `<digit>_<speaker>_<index>.wav`; the usual test set is index 0 to 4."""
  (path,) = place.files.values()
  members = sorted(formats.tar_members(path))
  clips, rates = zip(*(formats.read_wav(data, member) for member, data in members))
  names = [Path(member).stem for member, _ in members]
  digit, speaker, index = (np.array(part) for part in zip(*(stem.split("_") for stem in names)))
  labels = {"digit": digit.astype(np.int64), "speaker": speaker}
  test = index.astype(np.int64) < 5
  return Dataset(name, "audio", list(clips), rates[0], names, labels=labels, fingerprint=place.fingerprint,
                 split={"train": np.flatnonzero(~test), "test": np.flatnonzero(test)})


# Of vowels, Hz (Peterson & Barney 1952).
_FORMANTS = ((730, 1090), (270, 2290), (300, 870), (530, 1840), (660, 1720), (570, 840))


def _syllables(name: str, place: Place) -> Dataset:
  """Words of three vowels with bursts of noise between them, by four synthetic speakers: a pulse train or noise
  through two resonators, whose frequencies and pitch are the speaker's."""
  from scipy.signal import lfilter

  rate, rng = 8000, np.random.default_rng(0)
  words = [rng.permutation(len(_FORMANTS))[:3] for _ in range(8)]

  def sound(length: int, pitch: float, formants: tuple[float, float]) -> np.ndarray:
    wave = rng.normal(size=length) * 0.05
    if pitch:
      wave[np.unique((np.arange(0, length * pitch / rate) * rate / pitch).astype(int) % length)] += 1
    for frequency in formants:
      radius = np.exp(-np.pi * 100 / rate)
      wave = lfilter([1 - radius], [1, -2 * radius * np.cos(2 * np.pi * frequency / rate), radius**2], wave)
    return wave / (np.abs(wave).max() + 1e-9) * np.hanning(length)

  clips, labels = [], []
  for index in range(320):
    word, speaker = index % 8, index // 8 % 4
    pieces = []
    for vowel in words[word]:
      scale = (0.9 + 0.1 * speaker) * rng.uniform(0.97, 1.03)
      length, pitch = int(rate * rng.uniform(0.09, 0.13)), (100 + 40 * speaker) * rng.uniform(0.95, 1.05)
      pieces += [0.3 * sound(300, 0, (2500, 3500)), sound(length, pitch, tuple(scale * f for f in _FORMANTS[vowel]))]
    clips.append(np.rint(np.concatenate(pieces) * 12_000).astype(np.int16))
    labels.append((word, speaker))
  word, speaker = np.array(labels).T
  test = np.arange(len(clips)) >= 256
  return Dataset(name, "audio", clips, rate, labels={"word": word, "speaker": speaker},
                 fingerprint=content_digest([np.concatenate(clips), word, speaker]),
                 split={"train": np.flatnonzero(~test), "test": np.flatnonzero(test)})


DATASETS = {
    "syllables": Entry("audio", "320 words of three vowels by 4 synthetic speakers, 8 kHz", "CC0", _syllables),
    "fsdd": Entry(
        "audio", "Free Spoken Digit Dataset: 3,000 clips, 6 speakers, 8 kHz", "CC BY-SA 4.0", _spoken_digits,
        {"fsdd/recordings.tar.xz": "bc7c8b9ded33230354d11d3ac5e7daa70efc8e009877f66f0c2dcf6943835da3"}),
}
