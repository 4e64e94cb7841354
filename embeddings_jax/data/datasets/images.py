"""Image files."""
from pathlib import Path

import numpy as np

from embeddings_jax.data import formats
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.datasets.base import NOT_STATED, Entry, Place
from embeddings_jax.data.images import by_folders, decoded


def _cifar10(name: str, place: Place) -> Dataset:
  """Images `{train,test}/<class>/NNNN.jpg`, which are decoded once."""
  (path,) = place.files.values()
  members = formats.tar_members(path)
  return by_folders(decoded(name, place.fingerprint, members, place.cache_dir, **place.image_options))


def _imagenet_sample(name: str, place: Place) -> Dataset:
  """Images `<id>_<class>.jpg`, whose short side is 128."""
  (path,) = place.files.values()
  members = ((Path(member).name, data) for member, data in formats.tar_members(path))
  options = {**place.image_options, "image_size": place.image_options.get("image_size") or 128}
  dataset = decoded(name, place.fingerprint, members, place.cache_dir, **options)
  classes = np.array([Path(file).stem.partition("_")[2] for file in dataset.names])
  return dataset._replace(labels={"class": classes})


DATASETS = {
    "cifar10-jpeg": Entry(
        "images", "CIFAR-10 as JPEG: 60,000 color images, 32x32, 10 classes (Krizhevsky 2009)", NOT_STATED,
        _cifar10,
        {"cifar10-jpeg/cifar10-jpeg.tar.xz": "ce53570ca4413e103ab391943f826508ad67d99be32e6ba57a3926529b940690"},
        shape=(32, 32, 3)),
    "imagenet-sample-128": Entry(
        "images", "1,000 photographs, one of each class of ImageNet, cropped to 128x128 (Deng et al. 2009)",
        "non-commercial research", _imagenet_sample,
        {"imagenet-sample-128/imagenet-sample-128.tar":
             "08105fa2095668536bcd8618121c3a484dfa667502156b35fe915995886d0a39"},
        shape=(128, 128, 3)),
}
