"""Images with boxes around objects."""
import functools
from pathlib import Path

import numpy as np

from embeddings_jax.data.boxes import Boxes
from embeddings_jax.data.cache import cached, digest
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.datasets.base import SKLEARN, Entry, Place
from embeddings_jax.data.pasted_digits import MOST, SIZE, VERSION, pasted_digits

NUM_TEST = 256


def _pasted_digits(name: str, place: Place, number: int, most: int) -> Dataset:
  """Images by number, generated into the cache once; the last ones are the test split."""
  total = number + NUM_TEST
  key = digest("pasted digits", VERSION, number, NUM_TEST, most)

  def build(path: Path) -> None:
    made = [pasted_digits(0, i, test=i >= number, most=most) for i in range(total)]
    fields = {field: np.concatenate([getattr(one, field) for one in made])
              for field in ("corners", "digit", "difficult", "color")}
    images = np.repeat(np.arange(total, dtype=np.int32), [len(one.digit) for one in made])
    with path.open("wb") as file:
      np.savez(file, images=np.stack([one.image for one in made]), image=images, **fields)

  with np.load(cached(place.cache_dir / f"pasted-digits-{key[:32]}.npz", build)) as stored:
    items, image = stored["images"], stored["image"]
    color = stored["color"]
    boxes = Boxes(stored["corners"], image, stored["digit"], stored["difficult"], [str(i) for i in range(10)])
  first = np.unique(image, return_index=True)[1]  # The labels of an image, for probes, are those of its first digit.
  split = {"train": np.arange(number), "test": np.arange(number, total)}
  return Dataset(name, "images", items, labels={"digit": boxes.label[first], "color": color[first]}, split=split,
                 fingerprint=key, boxes=boxes)


DATASETS = {
    "pasted-digits": Entry(
        "images", "1,280 pieces of photographs, 32x32, with one to three digits and their boxes", SKLEARN,
        functools.partial(_pasted_digits, number=1024, most=MOST), shape=(SIZE, SIZE, 3)),
    "pasted-digit": Entry(
        "images", "4,352 pieces of photographs, 32x32, with one digit, its class, color and box", SKLEARN,
        functools.partial(_pasted_digits, number=4096, most=1), shape=(SIZE, SIZE, 3)),
}
