"""Video: moving digits, which are made, and clips of the data directory."""
import functools
import json
from pathlib import Path

import numpy as np

from embeddings_jax.data.cache import cached, digest
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.datasets.base import NOT_STATED, SKLEARN, Entry, Place
from embeddings_jax.data.files.arrays import create_npy
from embeddings_jax.data.moving_digits import NUM_FRAMES, SIZE, VERSION, moving_digits
from embeddings_jax.data.video import Clips, load_clips

NUM_TRAIN, NUM_TEST = 640, 128


def _moving_digits(name: str, place: Place, physics: str) -> Dataset:
  """Clips by number, generated into the cache once; the last ones are the test split."""
  number = NUM_TRAIN + NUM_TEST
  key = digest("moving digits", VERSION, physics, number)

  def build(folder: Path) -> None:
    folder.mkdir()
    total = number * NUM_FRAMES
    arrays, digits = {}, []
    for i in range(number):
      clip = moving_digits(0, i, physics=physics)
      digits.append(int(clip.digit))
      for field in ("frames", "masks", "tracks", "actions", "kinds"):
        value = getattr(clip, field)
        value = np.broadcast_to(value, (NUM_FRAMES, len(value))) if field == "kinds" else value
        if field not in arrays:
          arrays[field] = create_npy(folder / f"{field}.npy", value.dtype, (total, *value.shape[1:]))
        arrays[field][i * NUM_FRAMES:(i + 1) * NUM_FRAMES] = value
    for value in arrays.values():
      value.flush()
    (folder / "digits.json").write_text(json.dumps(digits))

  path = cached(place.cache_dir / f"moving-digits-{key[:32]}", build)
  fields = ("frames", "masks", "tracks", "kinds", *(["actions"] if physics == "actions" else []))
  arrays = {field: np.load(path / f"{field}.npy", mmap_mode="r") for field in fields}
  items = Clips(arrays.pop("frames"), [NUM_FRAMES] * number, arrays)
  labels = {"digit": np.array(json.loads((path / "digits.json").read_text()))}
  split = {"train": np.arange(NUM_TRAIN), "test": np.arange(NUM_TRAIN, number)}
  return Dataset(name, "video", items, labels=labels, split=split, fingerprint=key)


def _clips(name: str, place: Place) -> Dataset:
  (path,) = place.files.values()
  return load_clips(str(path), cache_dir=str(place.cache_dir))._replace(name=name, fingerprint=place.fingerprint)


_SHAPE = (NUM_FRAMES, SIZE, SIZE, 3)
DATASETS = {
    "moving-digits": Entry(
        "video", "768 clips of digits and patches over photographs, with gravity and friction", SKLEARN,
        functools.partial(_moving_digits, physics="gravity"), shape=_SHAPE),
    "moving-digits-reversible": Entry(
        "video", "moving-digits without gravity or friction: backwards they obey the same law", SKLEARN,
        functools.partial(_moving_digits, physics="reversible"), shape=_SHAPE),
    "moving-digits-actions": Entry(
        "video", "moving-digits in which one digit is pushed by known actions", SKLEARN,
        functools.partial(_moving_digits, physics="actions"), shape=_SHAPE),
    "video-clips": Entry(
        "video", "four short real clips, every second frame, 48x64", NOT_STATED, _clips,
        {"video-clips/frames_48x64_every2nd.npz": "7510d2ac8199e57023823b4a06f6fa3197fdcc8a815cd51b35b64d0a8c371296"},
        shape=(1, 48, 64, 3)),
}
