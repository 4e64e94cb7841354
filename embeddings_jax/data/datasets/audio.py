"""Audio clips."""
from pathlib import Path

import numpy as np

from embeddings_jax.data import formats
from embeddings_jax.data.dataset import Dataset
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


DATASETS = {
    "fsdd": Entry(
        "audio", "Free Spoken Digit Dataset: 3,000 clips, 6 speakers, 8 kHz", "CC BY-SA 4.0", _spoken_digits,
        {"fsdd/recordings.tar.xz": "bc7c8b9ded33230354d11d3ac5e7daa70efc8e009877f66f0c2dcf6943835da3"}),
}
