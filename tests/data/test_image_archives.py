"""Images in archives: read without unpacking, whatever their paths say."""
import io
import logging
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from embeddings_jax.data.catalog import load
from embeddings_jax.data.encoders.images import ImageEncoder
from embeddings_jax.data.files import archives
from embeddings_jax.types import InputError


def picture(value, **options):
  file = io.BytesIO()
  Image.fromarray(np.full((8, 10, 3), value, np.uint8)).save(file, "PNG", **options)
  return file.getvalue()


MEMBERS = {"set/cat/b.png": picture(20), "set/cat/a.png": picture(10), "set/dog/../dog/c.PNG": picture(30),
           "__MACOSX/set/._a.png": b"x", "set/.DS_Store": b"x", "set/README.txt": b"about"}


def write(path, members, mode=""):
  if path.suffix == ".zip":
    with zipfile.ZipFile(path, "w") as archive:
      for name, content in members.items():
        archive.writestr(name, content)
    return
  with tarfile.open(path, f"w:{mode}") as archive:
    for name, content in members.items():
      member = tarfile.TarInfo(name)
      member.size = len(content)
      archive.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize("name, mode", [("a.zip", ""), ("a.tar", ""), ("a.tgz", "gz"), ("a.tar.xz", "xz")])
def test_archives_are_folders_of_classes(tmp_path, caplog, name, mode):
  caplog.set_level(logging.WARNING)
  write(tmp_path / name, MEMBERS, mode)
  dataset = load(str(tmp_path / name), cache_dir=tmp_path / "cache")
  assert dataset.kind == "images" and dataset.items.shape == (3, 8, 10, 3)
  assert dataset.names.tolist() == ["cat/a.png", "cat/b.png", "dog/c.PNG"]
  assert dataset.items[:, 0, 0, 0].tolist() == [10, 20, 30]
  assert dataset.labels["class"].tolist() == ["cat", "cat", "dog"]
  assert "1 files that are no images are left out, as 'set/README.txt'" in caplog.text
  items = ImageEncoder(8, 10, 3).read(tmp_path / name)
  assert [item[0, 0].tolist() for item in items] == [[10] * 3, [20] * 3, [30] * 3]
  assert sorted(path.name for path in tmp_path.iterdir()) == ["a" + name[1:], "cache"]


def test_paths_out_of_an_archive_write_nothing(tmp_path):
  write(tmp_path / "a.zip", {"../../evil.png": picture(1), "/abs/x.png": picture(2)})
  assert len(load(str(tmp_path / "a.zip"), cache_dir=tmp_path / "cache").items) == 2
  assert not list(tmp_path.parent.glob("evil*"))


@pytest.mark.parametrize("name, members, message", [
    ("a.zip", {"a.txt": b"x"}, "a.zip: holds 'a.txt' and no image; only archives of images are read, unpack it"),
    ("a.zip", {}, "a.zip: holds no image; unpack it and give the folder"),
    ("a.tar", {"a.csv": b"1,2"}, "a.tar: holds 'a.csv' and no image"),
    ("a.zip", {"x/a.png": picture(1), "x//a.png": picture(2)}, "a.zip: has two images of one name"),
    ("a.zip", {"a.png": b"no image"}, "1 of 1 images cannot be used: 1 broken, first a.png"),
])
def test_archives_that_are_not_read_are_named(tmp_path, name, members, message):
  write(tmp_path / name, members)
  with pytest.raises(InputError, match=message) as error:
    load(str(tmp_path / name), cache_dir=tmp_path / "cache")
  assert "\n" not in str(error.value)


def test_damaged_and_large_archives_are_named(tmp_path, monkeypatch):
  load_it = lambda name: load(str(tmp_path / name), cache_dir=tmp_path / "cache")
  write(tmp_path / "a.zip", {"a.png": picture(1)})
  data = (tmp_path / "a.zip").read_bytes()
  for content, message in ((b"PK\3\4", "not a .zip archive"), (b"", "not a .zip archive"),
                           (data.replace(b"\x89PNG", b"\x88PNG"), "damaged archive, 'a.png' cannot be read"),
                           (data.replace(b"PK\1\2\x14\3\x14\0\0", b"PK\1\2\x14\3\x14\0\1"), "'a.png' is encrypted")):
    (tmp_path / "b.zip").write_bytes(content)
    with pytest.raises(InputError, match=f"b.zip: {message}"):
      load_it("b.zip")
  (tmp_path / "b.tar").write_bytes(b"no archive" * 99)
  with pytest.raises(InputError, match="b.tar: damaged archive"):
    load_it("b.tar")
  monkeypatch.setattr(archives, "MAX_MEMBER", 20)
  write(tmp_path / "a.tar", {"a.png": picture(1)})
  for name in ("a.zip", "a.tar"):
    with pytest.raises(InputError, match=f"{name}: .*'a.png' has [0-9]+ bytes, too many"):
      load_it(name)
