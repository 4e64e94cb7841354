"""Damaged data files give a result or one clear line."""
import harness
import pytest
from data_readers import READERS


@pytest.fixture(scope="module")
def server():
  with harness.Server("data_readers") as server:
    yield server


@pytest.mark.parametrize("name", [reader.name for reader in READERS])
def test_damaged_files_are_refused_in_one_line(server, name):
  server.check(name, harness.FEW)


@pytest.mark.long
@pytest.mark.parametrize("name", [reader.name for reader in READERS])
def test_many_damaged_files_are_refused_in_one_line(server, name):
  server.check(name, harness.MANY)
