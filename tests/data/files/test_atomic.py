"""Atomic writing: drafts follow no link, are cleaned up, and errors name the file."""
import errno
import os
import resource
import stat

import pytest

from embeddings_jax.data.files.atomic import replacing, write_atomically


def test_the_file_is_replaced_and_no_draft_is_left(tmp_path):
  path = tmp_path / "a.json"
  write_atomically(path, "old")
  write_atomically(path, b"new")
  assert path.read_bytes() == b"new" and os.listdir(tmp_path) == ["a.json"]
  umask = os.umask(0)
  os.umask(umask)
  assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


def test_an_error_leaves_the_old_file(tmp_path):
  path = tmp_path / "a.json"
  write_atomically(path, "old")
  with pytest.raises(RuntimeError), replacing(path) as file:
    file.write(b"half")
    raise RuntimeError
  assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.json"]


def test_a_link_at_the_name_is_replaced_not_followed(tmp_path):
  (tmp_path / "target").write_text("precious")
  (tmp_path / "a.json").symlink_to(tmp_path / "target")
  write_atomically(tmp_path / "a.json", "new")
  assert (tmp_path / "target").read_text() == "precious"
  assert not (tmp_path / "a.json").is_symlink()


def test_a_directory_at_the_name_is_an_error_with_its_number(tmp_path):
  (tmp_path / "d").mkdir()
  with pytest.raises(IsADirectoryError) as caught:
    write_atomically(tmp_path / "d", "x")
  assert (caught.value.errno, caught.value.filename) == (errno.EISDIR, str(tmp_path / "d"))
  assert os.listdir(tmp_path) == ["d"]


def test_errors_without_a_number_are_input_and_output_errors(tmp_path):
  with pytest.raises(OSError) as caught, replacing(tmp_path / "a.npy"):
    raise OSError("512 requested and 128 written")  # NumPy's.
  assert caught.value.strerror == "512 requested and 128 written"
  assert (caught.value.errno, caught.value.filename) == (errno.EIO, str(tmp_path / "a.npy"))


def test_errors_name_the_file(tmp_path):
  with pytest.raises(OSError) as caught:
    write_atomically(tmp_path / "absent" / "a.json", "x")
  assert caught.value.filename == str(tmp_path / "absent" / "a.json")
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 10, hard))  # Python ignores SIGXFSZ; the write fails with EFBIG.
  try:
    with pytest.raises(OSError) as caught:
      write_atomically(tmp_path / "big", b"0" * (1 << 20))
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
  assert caught.value.filename == str(tmp_path / "big") and os.listdir(tmp_path) == []
