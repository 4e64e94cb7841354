import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from embeddings_jax.eval import neighbors as neighbors_lib
from embeddings_jax.eval.neighbors import combination, neighbors
from embeddings_jax.plan import hlo
from embeddings_jax.types import InputError


def test_worked_by_hand():
  names = ["east", "northeast", "north", "west", "far east"]
  vectors = np.array([[1, 0], [1, 1], [0, 2], [-3, 0], [9, 0]], np.float32)
  actual = neighbors(vectors, names, ["east", "west"], k=3)
  assert [name for name, _ in actual["east"]] == ["far east", "northeast", "north"]
  assert [value for _, value in actual["east"]] == pytest.approx([1, np.sqrt(0.5), 0], abs=1e-6)
  assert actual["west"][0][0] == "north"
  assert len(neighbors(vectors, names, ["north"], k=99)["north"]) == 4  # All the others.


@pytest.mark.parametrize("block", [3, 7, 100])
def test_equals_all_pairs(block):
  vectors = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
  unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
  cosine = unit @ unit.T - 2 * np.eye(50)
  names = [f"w{i}" for i in range(50)]
  actual = neighbors(vectors, names, names[:20], k=4, block=block)
  assert list(actual) == names[:20]
  for i in range(20):
    best = np.argsort(-cosine[i])[:4]
    assert [name for name, _ in actual[names[i]]] == [names[j] for j in best]
    np.testing.assert_allclose([value for _, value in actual[names[i]]], cosine[i, best], atol=1e-6)


def test_twins_find_each_other():
  noise = np.random.default_rng(1).normal(size=(30, 16))
  vectors = np.concatenate([noise, 2 * noise])  # Perfect: word i and i + 30 are the same direction.
  names = [f"w{i}" for i in range(60)]
  actual = neighbors(vectors, names, names, k=1)
  assert all(actual[names[i]][0][0] == names[(i + 30) % 60] for i in range(60))


def test_unknown_word_names_the_nearest():
  with pytest.raises(InputError, match="'nroth'.*'north'"):
    neighbors(np.eye(2), ["north", "south"], ["nroth"])
  with pytest.raises(InputError, match="2 names for 3 vectors"):
    neighbors(np.eye(3), ["north", "south"], ["north"])


def test_combination_by_hand():
  names = ["king", "queen", "man", "woman", "far"]
  vectors = np.array([[3, 0, 3], [1, 0, 0], [0, 0, 1], [0, 0.2, 0], [-1, 0, 0]], np.float32)
  # The unit vectors of king less man: (.707, 0, -.293), whose cosine to queen is .924.
  (first, value), second, *_ = combination(vectors, names, positive=["king"], negative=["man"])
  assert first == "queen" and value == pytest.approx(np.cos(np.pi / 8)) and second == ("woman", 0)
  assert len(combination(vectors, names, positive=["king", "man"], k=99)) == 3  # Those asked with are left out.
  with pytest.raises(InputError, match="'kin' is not in the vocabulary; the nearest name is 'king'"):
    combination(vectors, names, positive=["kin"])
  with pytest.raises(InputError, match="no word"):
    combination(vectors, names, positive=[])


def test_devices_share_the_rows(mesh_of):
  """Fewer rows than a multiple of the devices, ties between devices, and more neighbors than a device has rows."""
  vectors = np.random.default_rng(2).normal(size=(61, 8)).astype(np.float32)
  vectors[40] = vectors[3]
  vectors[57] = 2 * vectors[3]
  names = [f"w{i}" for i in range(61)]
  one, all_ = (neighbors(vectors, names, names, k=20, block=32, devices=jax.devices()[:num]) for num in (1, 8))
  for name in names:
    assert [near for near, _ in all_[name]] == [near for near, _ in one[name]]
    np.testing.assert_allclose([value for _, value in all_[name]], [value for _, value in one[name]], atol=1e-6)
  assert [near for near, _ in all_["w57"][:2]] == ["w3", "w40"]


def test_no_device_holds_the_table_or_all_cosines(monkeypatch):
  mesh = neighbors_lib._mesh(np.zeros(1), jax.devices())
  table = jax.ShapeDtypeStruct((4096, 64), np.float32, sharding=NamedSharding(mesh, P("rows")))
  compiled = neighbors_lib._nearest.lower(table, jax.ShapeDtypeStruct((32,), np.int32), 10, 4096, mesh).compile()
  sizes = [one.bytes for one in hlo.read(compiled.as_text()).collectives]
  # The words' vectors, and ten candidates of each device for each word, their cosines and numbers.
  assert max(sizes) <= 8 * 32 * 10 * 4
  assert compiled.memory_analysis().temp_size_in_bytes < 32 * 4096 * 4

  monkeypatch.setattr(neighbors_lib, "LARGE", 0)
  vectors = np.random.default_rng(3).normal(size=(21, 4)).astype(np.float32)
  names = [f"w{i}" for i in range(21)]
  query = dict(positive=["w3", "w20"], negative=["w7"], k=18)
  shared = combination(vectors, names, **query)
  monkeypatch.setattr(neighbors_lib, "LARGE", 1 << 26)
  alone = combination(vectors, names, **query)
  assert [name for name, _ in shared] == [name for name, _ in alone] and len(alone) == 18
