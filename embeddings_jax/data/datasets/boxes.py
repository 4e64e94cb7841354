"""Images with boxes around objects."""
import numpy as np

from embeddings_jax.data.boxes import Boxes
from embeddings_jax.data.dataset import Dataset, content_digest
from embeddings_jax.data.datasets.base import SKLEARN, Entry, Place
from embeddings_jax.data.pasted_digits import SIZE, VERSION, pasted_digits

NUM_TRAIN, NUM_TEST = 1024, 256


def _pasted_digits(name: str, place: Place) -> Dataset:
  """Images by number; the last ones are the test split."""
  made = [pasted_digits(0, i, test=i >= NUM_TRAIN) for i in range(NUM_TRAIN + NUM_TEST)]
  images = np.stack([one.image for one in made])
  numbers = np.repeat(np.arange(len(made), dtype=np.int32), [len(one.digit) for one in made])
  corners, digit, difficult = (np.concatenate([getattr(one, field) for one in made])
                               for field in ("corners", "digit", "difficult"))
  boxes = Boxes(corners, numbers, digit, difficult, [str(i) for i in range(10)])
  split = {"train": np.arange(NUM_TRAIN), "test": np.arange(NUM_TRAIN, len(made))}
  # The label of an image is its first digit, for probes.
  first = np.array([one.digit[0] for one in made])
  fingerprint = content_digest([images, corners, digit, difficult, np.array([VERSION])])
  return Dataset(name, "images", images, labels={"digit": first}, split=split, fingerprint=fingerprint, boxes=boxes)


DATASETS = {
    "pasted-digits": Entry(
        "images", "1,280 pieces of photographs, 32x32, with one to three digits and their boxes", SKLEARN,
        _pasted_digits, shape=(SIZE, SIZE, 3)),
}
