"""JSON from outside: every fault is one line that names the file."""
import pytest

from embeddings_jax.data.files.json import json_field, parse_json, read_json
from embeddings_jax.types import InputError


@pytest.mark.parametrize("data, message", [
    (b"\xff\xfe{", "f.json: not UTF-8 at byte 0"),
    (b"{", "f.json: not JSON"),
    (b"[" * 100_000, "f.json: JSON nested too deeply"),
    (b"[1]", "f.json: holds a list, expected an object"),
    (b"null", "f.json: holds null, expected an object"),
    (b'{"a": ' + b"1" * 10_000 + b"}", "f.json: not JSON"),  # Python refuses integers of so many digits.
])
def test_bad_json_is_refused_in_one_line(tmp_path, data, message):
  with pytest.raises(InputError) as caught:
    parse_json(data, "f.json")
  assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


def test_good_json(tmp_path):
  (tmp_path / "f.json").write_bytes(b"\xef\xbb\xbf" + b'{"a": [1, 2.5, null]}')
  assert read_json(tmp_path / "f.json") == {"a": [1, 2.5, None]}
  with pytest.raises(InputError, match="no such file"):
    read_json(tmp_path / "absent.json")


@pytest.mark.parametrize("name, kind, expected", [
    ("i", int, 3), ("i", float, 3), ("f", float, 2.5), ("b", bool, True), ("s", str, "x"), ("absent", str, "default"),
    ("n", int, "default")])
def test_fields_of_the_right_type(name, kind, expected):
  record = {"i": 3, "f": 2.5, "b": True, "s": "x", "n": None}
  assert json_field(record, name, kind, "f.json", "default") == expected


@pytest.mark.parametrize("name, kind, message", [
    ("b", int, "f.json: field 'b' holds a boolean, expected an integer"),
    ("f", int, "f.json: field 'f' holds a number, expected an integer"),
    ("s", float, "f.json: field 's' holds a string, expected a number"),
    ("absent", str, "f.json: has no field 'absent'")])
def test_fields_of_another_type(name, kind, message):
  with pytest.raises(InputError, match=message):
    json_field({"b": True, "f": 2.5, "s": "x"}, name, kind, "f.json")
