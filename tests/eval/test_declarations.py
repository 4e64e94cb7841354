"""Every protocol returns declared metrics only, and a perfect model beats a random one in the declared direction."""
from fnmatch import fnmatchcase
from types import SimpleNamespace

import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest

from embeddings_jax import eval as protocols
from embeddings_jax.data.boxes import Boxes
from embeddings_jax.data.dataset import as_dataset
from embeddings_jax.data.encoders.bags import BagEncoder
from embeddings_jax.data.graphs import read
from embeddings_jax.data.sources import array_source
from embeddings_jax.data.video import Clips
from embeddings_jax.data.words import Vocabulary
from embeddings_jax.eval import probing, text_classification

# What no model changes, and what a perfect one need not improve: its vectors may be as uniform as random ones.
HEURISTICS = ("common_neighbors", "jaccard", "adamic_adar", "preferential_attachment")
SAME = ("majority/", "unigram", "uniformity", "span/dev/", *HEURISTICS, "average")
SPLIT = {"train": np.arange(60), "dev": np.arange(60, 80), "test": np.arange(80, 120)}
LABEL = np.random.default_rng(0).permutation(np.arange(120) % 2)


def _noise(items):
  return np.random.default_rng(1).normal(size=(len(items), 4))


def _of_labels(name, perfect):
  """Items are the numbers of their rows, as texts; perfect vectors are those of the class."""
  embed = lambda items: np.eye(4)[LABEL[[int(item) for item in items]]]
  data = SimpleNamespace(name="made", kind="text", items=list(map(str, range(120))), labels={"class": LABEL},
                         split=SPLIT)
  return protocols.find(name).function(embed if perfect else _noise, data)


def _of_pairs(name, perfect):
  """Pairs, each in a plane of its own, whose angle says their score, from 0 to 5."""
  score = np.random.default_rng(2).uniform(0, 5, 120)

  def embed(sentences):
    pair = [int(sentence[1:]) for sentence in sentences]
    turn = [0 if sentence[0] == "a" else np.pi * (1 - score[i] / 5) for sentence, i in zip(sentences, pair)]
    turn, plane = np.array(turn)[:, None], np.eye(120)[pair]
    return np.concatenate([np.cos(turn) * plane, np.sin(turn) * plane], 1)

  data = SimpleNamespace(name="made", kind="pairs", items=[(f"a{i}", f"b{i}") for i in range(120)],
                         labels={"score": score}, split=SPLIT)
  return protocols.find(name).function(embed if perfect else _noise, data)


def _of_words(name, perfect, material, table):
  embed = lambda words: np.array([table[word] for word in words], float)
  return protocols.find(name).function(embed if perfect else _noise, material, vocabulary=dict.fromkeys(table))


def _analogies(perfect):
  table = {f"{sort}{i}": np.concatenate([np.eye(8)[i], [kind]]) for kind, sort in enumerate("ab") for i in range(8)}
  questions = [(f"a{i}", f"b{i}", f"a{j}", f"b{j}") for i in range(8) for j in range(8) if i != j]
  return _of_words("analogies", perfect, {"family": questions, "gram1": questions}, table)


def _categorization(perfect):
  table = {f"{category}{i}": np.eye(2)[side] for side, category in enumerate("ab") for i in range(20)}
  return _of_words("categorization", perfect, [(word, word[0]) for word in table], table)


def _synonyms(perfect):
  table = {f"{side}{i}": np.eye(20)[i] for side in "ab" for i in range(20)}
  questions = [(f"a{i}", [f"b{(i + j) % 20}" for j in range(4)], f"b{i}") for i in range(20)]
  return _of_words("synonyms", perfect, questions, table)


def _word_similarity(perfect):
  angle = np.linspace(0, 3, 30)
  table = {"w": [1, 0]} | {f"w{i}": [np.cos(x), np.sin(x)] for i, x in enumerate(angle)}
  return _of_words("word_similarity", perfect, [("w", f"w{i}", -x) for i, x in enumerate(angle)], table)


def _text_classification(perfect):
  table = {"good": [1, 0], "bad": [-1, 0]}
  data = SimpleNamespace(name="made", items=np.array(["good", "bad"])[LABEL].tolist(), labels={"class": LABEL},
                         split=SPLIT)
  if not perfect:  # The texts say nothing of their labels.
    data.items = np.random.default_rng(4).choice(["good", "bad"], 120).tolist()
  return _of_words("text_classification", True, data, table)


def _probing(perfect):
  def hidden(sentences):
    words = [word for words in sentences for word in words]
    vectors = np.random.default_rng(5).normal(size=(len(words), 3, 4))
    if perfect:
      vectors += 9 * np.eye(4)[[int(word) for word in words]][:, None]
    return vectors.astype(np.float32), np.ones(len(words), bool)

  items = [tuple(np.random.default_rng(i).choice(["0", "1"], 5).tolist()) for i in range(120)]
  tags = np.empty(120, object)
  tags[:] = items
  data = SimpleNamespace(name="made", kind="words", items=items, labels={"tags": tags}, split=SPLIT)
  return protocols.find("probing").function(None, data, hidden=hidden, untrained=hidden)


def _topics(perfect):
  noise = np.random.default_rng(6)
  words = [f"{group}{i}" for i in range(30) for group in "ab"]
  texts = [" ".join(f"{'ab'[g]}{i}" for i in noise.integers(0, 30, 40)) for g in LABEL]
  topics = np.array([[word.startswith(g) / 30 for word in words] for g in "ab"])
  embed = lambda items: np.array([[any(word[0] == g for word in item) for g in "ab"] for item in items], float)
  if not perfect:
    topics, embed = noise.dirichlet(np.ones(60), 2), lambda items: np.full((len(items), 2), 0.5)
  return protocols.find("topics").function(embed, SimpleNamespace(items=texts, split=SPLIT), topics=topics,
                                           encoder=BagEncoder(Vocabulary(words, np.full(60, 9)), "lower"))


def _held_out(perfect):
  loss, right = (1.0, 4.0) if perfect else (8.0, 1.0)
  source = array_source({"tokens": np.array([[1, 2, 3]] * 4, np.int32)}, 2, order="sequential", remainder="pad")
  values = {"loss": loss, "masked_loss": loss, "accuracy": right, "masked_accuracy": right, "next_share": 1.0,
            "forward_mse": loss, "shuffled_mse": loss}
  measure = lambda batch: {name: jnp.array([value, 4.0]) for name, value in values.items()}
  return protocols.find("held_out").function(None, None, measure=measure, source=source,
                                             counts=np.array([0, 5, 3, 2]))


def _finetuning(perfect):
  """A task of each kind; a random model guesses wrongly, or draws."""
  def ask(kind, arrays, right, wrong, dev=False, **task):
    """Guesses are always right on `dev`, from which the threshold of spans comes."""
    encoded = ({"dev": dict(arrays)} if dev else {}) | {"test": arrays}
    task = SimpleNamespace(**{"name": kind, "kind": kind, "parts": {"train": None, **encoded}, "labels": (), **task})
    guesses = lambda given: right if perfect or given is not arrays else wrong
    return protocols.find("finetuning").function(None, None, task=task, encoded=encoded,
                                                 predict=lambda given: np.array(guesses(given), float))

  other, drawn = np.random.default_rng(7).permutation(LABEL), np.random.default_rng(8).normal(size=120)
  tags, words = np.array([0, 1, 2]), {"example": np.array([0]), "word_starts": np.array([[0, 1, 2]])}
  # Spans: a question with the answer "cat", and one without; each row has scores of no answer, "cat" and "mat".
  spans = {"example": np.array([0, 1]), "offsets": np.array([[[-1, -1], [0, 3], [4, 7]]] * 2)}
  cat, none, mat = (np.array(row)[:, None].repeat(2, 1) for row in ((0, 1, -9), (0, -9, -9), (0, -9, 2)))
  return {
      **ask("classification", {"targets": {"label": LABEL}}, np.eye(2)[LABEL], np.eye(2)[other],
            labels=("bad", "good")),
      **ask("multiple_choice", {"targets": {"label": LABEL}}, np.eye(2)[LABEL], np.eye(2)[other]),
      **ask("regression", {"targets": {"label": np.arange(120.0)}}, np.arange(120), drawn),
      **ask("tagging", words, [np.eye(3)[tags]], [np.eye(3)[[2, 2, 0]]], labels=("B-a", "I-a", "O"), targets=[tags]),
      **ask("span", spans, [cat, none], [mat, mat], dev=True, items=[("q", "cat mat")] * 2,
            targets=[((0, "cat"),), ()]),
  }


def _of_nodes(name, perfect):
  graph = nx.planted_partition_graph(2, 60, 1.0, 0.0, seed=0)
  dataset = read("x", dataset=as_dataset(graph), held_out=0.3)._replace(labels={"class": np.repeat(["a", "b"], 60)})
  dataset = dataset._replace(attributes={"size": np.repeat([2.0, 7.0], 60)})
  vectors = np.repeat([[3.0, 0.0], [0.0, 3.0]], 60, 0) if perfect else np.random.default_rng(9).normal(size=(120, 2))
  actual = protocols.find(name).function(lambda items: vectors, dataset)
  if name == "node_classification":
    split = {"train": np.arange(0, 120, 2), "test": np.arange(1, 120, 2)}
    actual |= protocols.find(name).function(lambda items: vectors, dataset._replace(split=split))
  return actual


def _smooth_images():
  return np.random.default_rng(9).random((40, 1, 1, 1)) * np.linspace(0, 1, 12)[:, None, None] * np.ones((12, 1))


def _encode_images(items):
  return {"image": np.asarray(items), "mask": np.ones(len(items), np.float32)}


def _reconstruction(perfect):
  def reconstruct(batch):
    noise = np.random.default_rng(10).random(batch["image"].shape)
    return {"original": jnp.asarray(batch["image"]), "corrupted": jnp.zeros(batch["image"].shape),
            "reconstructed": jnp.asarray(batch["image"] if perfect else noise)}

  data = SimpleNamespace(items=_smooth_images(), split={"test": np.arange(40)})
  return protocols.find("reconstruction").function(None, data, encode=_encode_images, reconstruct=reconstruct)


def _polysemy(perfect):
  items = protocols.find("polysemy").lists.load("bank", None)
  noise = np.random.default_rng(1).normal(size=(sum(len(item.words) for item in items), 1, 4))
  senses = np.concatenate([np.full(len(item.words), item.sense == "river") for item in items])
  vectors = np.eye(4)[senses.astype(int)][:, None] if perfect else noise
  return protocols.find("polysemy").function(None, items, hidden=lambda _: (vectors, np.ones(len(vectors), bool)))


def _unit_usage(perfect):
  units = np.arange(60, dtype=np.int32).reshape(6, 10) % 7
  actual = {"original": units, "reconstructed": units if perfect else np.zeros_like(units), "mask": units > 0}
  source = array_source({"signal": np.zeros((6, 3), np.int16)}, 6, order="sequential", remainder="pad")
  function = protocols.find("unit_usage").function
  return function(None, None, reconstruct=lambda batch: actual, encode=None, source=source)


def _unit_purity(perfect):
  """Clips of three frames of a class; the frames of a perfect network differ by class and place."""
  clips = [np.full(9, i, np.int16) for i in range(120)]
  rng = np.random.default_rng(3)
  kinds = lambda clips: [np.eye(6)[3 * LABEL[clip[0]] + np.arange(3)] for clip in clips]
  frames = lambda clips: {"1": kinds(clips) if perfect else [rng.normal(size=(3, 6)) for _ in clips]}
  data = SimpleNamespace(name="made", items=clips, labels={"class": LABEL}, split=SPLIT)
  return protocols.find("unit_purity").function(None, data, frames=frames, num_units=6)


def _likelihood(perfect):
  data = SimpleNamespace(items=_smooth_images(), split={"test": np.arange(40)})
  bound = lambda batch, rng, num: jnp.full(len(batch["image"]), -5.0 - 9 * (not perfect))
  measure = lambda batch: {"kl_loss": jnp.array([4.0, 4.0])}
  return protocols.find("likelihood").function(_noise, data, encode=_encode_images, bound=bound, measure=measure)


def _compression(perfect):
  """Codes are images of four gray values; a random decoder answers noise."""
  items = np.random.default_rng(11).integers(0, 256, (80, 4)).astype(np.uint8).repeat(16, 1).reshape(80, 8, 8, 1)
  data = SimpleNamespace(name="made", items=items, split={"train": np.arange(60), "test": np.arange(60, 80)})
  embed = lambda images: np.asarray(images).reshape(len(images), 4, 16)[..., 0] / 255
  decode = lambda codes: codes.repeat(16, 1).reshape(-1, 8, 8, 1)
  noise = lambda codes: np.random.default_rng(12).random((len(codes), 8, 8, 1))
  return {key: value for key, value in protocols.find("compression").function(
      embed, data, decode=decode if perfect else noise).items() if "pca" not in key and "jpeg" not in key}


def _propagation(perfect):
  """A square that moves by its width; features tell its four pixels from each other and the rest, or nothing."""
  masks = np.zeros((4, 8, 8), np.uint8)
  for t in range(4):
    masks[t, 2:4, 2 * t:2 * t + 2] = 1
  tracks = np.array([[[2.5, 2 * t + 0.5]] for t in range(4)])
  data = SimpleNamespace(name="made", kind="video", split={}, items=Clips(
      masks[..., None], [4], {"masks": masks, "tracks": tracks}))
  places = np.arange(8) % 2 + 2 * (np.arange(8)[:, None] % 2)
  codes = np.eye(5)[masks * (1 + places)] if perfect else np.random.default_rng(13).normal(size=(4, 8, 8, 2))
  return {key: value for key, value in protocols.find("propagation").function(
      None, data, maps=lambda frames: {"last": codes}, top_k=1).items() if key.startswith("radius")}


def _segmentation(perfect):
  masks = np.random.default_rng(14).integers(0, 2, (6, 8, 8)).astype(np.uint8)
  data = SimpleNamespace(name="made", kind="video", split={}, items=Clips(
      np.zeros((6, 8, 8, 1), np.uint8), [6], {"masks": masks}))
  codes = np.eye(2)[masks] if perfect else np.random.default_rng(15).normal(size=(6, 8, 8, 2))
  return {key: value for key, value in protocols.find("segmentation").function(
      None, data, maps=lambda frames: {"last": codes}, frames=6).items() if key.startswith("last")}


def _layer_probes(perfect):
  images = np.arange(120, dtype=np.uint8).reshape(-1, 1, 1, 1)
  maps = lambda images: {"last": (np.eye(2)[LABEL[images[:, 0, 0, 0]]] if perfect else _noise(images))[:, None, None]}
  data = SimpleNamespace(name="made", items=images, labels={"class": LABEL}, split=SPLIT)
  return protocols.find("layer_probes").function(None, data, maps=maps)


def _boxes(name, perfect):
  """Bright squares on dark images; the features of one are the brightness of parts, or noise."""
  top = 4 * np.random.default_rng(16).integers(0, 3, (16, 2))
  images = np.zeros((16, 16, 16, 1), np.uint8)
  for image, (row, column) in zip(images, top):
    image[row:row + 8, column:column + 8] = 250
  boxes = Boxes(np.concatenate([top, top + 8], 1).astype(np.float32), np.arange(16), np.zeros(16, int),
                np.zeros(16, bool), ["a"])
  split = {"train": np.arange(8), "test": np.arange(8, 16)}
  data = SimpleNamespace(name="made", items=images, boxes=boxes, split=split)
  cells = lambda images: images.reshape(len(images), 4, 4, 4, 4, 1).mean((2, 4)) / 255
  noise = lambda images: np.random.default_rng(len(images)).normal(size=(len(images), 4, 4, 1))
  maps = cells if perfect else noise
  if name == "localization":
    return {key: value for key, value in protocols.find(name).function(
        None, data, maps=lambda images: {"last": maps(images)}, shape=(16, 16, 1)).items() if key.startswith("last")}
  return protocols.find(name).function(lambda images: maps(images).reshape(len(images), -1), data, shape=(16, 16, 1),
                                       scales=(0.5,), ratios=(1.0,), step=0.25, trials=1)


def _generation(perfect):
  """Rows in the plane; random samples lie elsewhere and have one class."""
  rows = np.random.default_rng(13).normal(size=(120, 2)) + 5 * LABEL[:, None]
  data = SimpleNamespace(name="made", kind="rows", items=rows, image_shape=None, labels={"class": LABEL}, split=SPLIT)
  draw = lambda num, seed: rows[80:80 + num] if perfect else np.full((num, 2), 9.0)
  return protocols.find("generation").function(None, data, generators={"prior": draw},
                                               encode=lambda items: {"x": np.asarray(items)})


def _codebook(perfect):
  data = SimpleNamespace(items=np.zeros((40, 1)), split={"test": np.arange(40)})
  codes = lambda batch: (np.arange(len(batch["mask"])) % (8 if perfect else 2))[:, None]
  return protocols.find("codebook").function(None, data, codes=codes, num_codes=8, encode=lambda items: {
      "x": np.asarray(items), "mask": np.ones(len(items))})


CASES = {
    **{name: lambda perfect, name=name: _of_labels(name, perfect)
       for name in ("clustering", "few_shot", "image_similarity", "knn", "linear_probe", "retrieval", "transfer")},
    **{name: lambda perfect, name=name: _of_pairs(name, perfect)
       for name in ("pair_retrieval", "pair_verification", "sts")},
    "analogies": _analogies, "categorization": _categorization, "synonyms": _synonyms,
    "word_similarity": _word_similarity, "text_classification": _text_classification, "probing": _probing,
    **{name: lambda perfect, name=name: _of_nodes(name, perfect)
       for name in ("node_classification", "node_regression", "link_prediction")},
    "topics": _topics, "held_out": _held_out, "finetuning": _finetuning,
    "reconstruction": _reconstruction, "likelihood": _likelihood,
    "compression": _compression, "propagation": _propagation, "segmentation": _segmentation,
    **{name: lambda perfect, name=name: _boxes(name, perfect) for name in ("detection", "localization")},
    "generation": _generation, "codebook": _codebook,
    "layer_probes": _layer_probes, "unit_usage": _unit_usage,
    "unit_purity": _unit_purity, "polysemy": _polysemy,
}


def _declared(key, metrics):
  last = key.rsplit("/", 1)[-1]
  return metrics.get(last) or next((metrics[pattern] for pattern in metrics if fnmatchcase(last, pattern)), None)


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
  monkeypatch.setattr(probing, "STEPS", 20)
  monkeypatch.setattr(probing, "RATE", 1e-2)
  monkeypatch.setattr(text_classification, "STEPS", {"frozen": 20, "finetuned": 20})
  monkeypatch.setattr(text_classification, "ROUNDS", 2)


def test_every_protocol_has_a_case():
  assert set(CASES) == set(protocols.protocol_names())


@pytest.mark.parametrize("name", CASES)
def test_metrics_are_declared_with_their_direction(name):
  metrics = protocols.find(name).metrics
  perfect, random = CASES[name](True), CASES[name](False)
  returned = {**random, **perfect}
  assert [key for key in returned if _declared(key, metrics) is None] == []
  assert [name for name in metrics if not any(_declared(key, {name: metrics[name]}) for key in returned)] == []
  for key in perfect:
    better = _declared(key, metrics).higher_is_better
    if better is not None and not any(part in key for part in SAME):
      gain = perfect[key] - random[key]
      assert (gain if better else -gain) > 0, (key, perfect[key], random[key])
