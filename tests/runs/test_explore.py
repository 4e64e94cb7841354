"""The page to explore embeddings with: its data, its script in Node and in a browser, TensorBoard's files."""
import html.parser
import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from embeddings_jax.eval.neighbors import neighbors
from embeddings_jax.interop import word_vectors
from embeddings_jax.runs import explore, row_index
from embeddings_jax.runs.explore import Points
from embeddings_jax.runs.load import load
from embeddings_jax.types import InputError

HOSTILE = ['</script><script>document.title="broken"</script>', "<img src=x onerror=alert(1)>", "a&b",
           "\u2028'\"", "é"]
VECTORS = np.random.default_rng(0).normal(size=(30, 6)).astype(np.float32)
NAMES = [*HOSTILE, *(f"word{i}" for i in range(25))]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chromium-headless-shell")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)


def points(**labels):
  return Points(NAMES, VECTORS, labels, "vectors")


def data_of(page):
  return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


class Elements(html.parser.HTMLParser):
  def __init__(self, page):
    super().__init__()
    self.names, self.texts = [], []
    self.feed(page)

  def handle_starttag(self, tag, attributes):
    self.names.append(tag)

  def handle_data(self, text):
    self.texts.append(text)


def test_the_page_has_the_neighbors_of_the_command():
  content = data_of(explore.page(points(), k=5))
  assert content["names"] == NAMES and content["k"] == 5
  for row, near in enumerate(neighbors(VECTORS, NAMES, NAMES, k=5).values()):
    rows = content["near"][5 * row:5 * row + 5]
    assert [NAMES[i] for i in rows] == [name for name, _ in near]
    cosines = np.array(content["cosine"][5 * row:5 * row + 5]) / 1000
    np.testing.assert_allclose(cosines, [cosine for _, cosine in near], atol=6e-4)


def test_the_map_is_the_principal_components():
  place = explore.projected(VECTORS, "pca")
  left, values, _ = np.linalg.svd(VECTORS - VECTORS.mean(0), full_matrices=False)
  expected = left[:, :2] * values[:2]
  np.testing.assert_allclose(np.abs(place * expected.std(0).max()), np.abs(expected), atol=1e-4)
  assert explore.projected(np.ones((4, 1), np.float32), "pca").tolist() == [[0, 0]] * 4


def test_names_never_become_markup():
  plain = Elements(explore.page(Points([f"w{i}" for i in range(30)], VECTORS, {}, "t")))
  hostile = Elements(explore.page(points(kind=HOSTILE * 6)._replace(title=HOSTILE[0]), HOSTILE[1]))
  assert hostile.names == plain.names  # As many elements, and no others.
  assert "innerHTML" not in "".join(plain.texts) and "default-src 'none'" in explore.page(points())
  assert not re.search(r'(src|href)\s*=\s*"?https?:', explore.page(points()))


@pytest.mark.skipif(not shutil.which("node"), reason="needs node")
def test_the_script_searches_and_lists_neighbors(tmp_path):
  page = explore.page(points(), k=3)
  code = re.search(r'<script id="code">(.*?)</script>', page, re.DOTALL)[1]
  content = data_of(page)
  (tmp_path / "a.js").write_text(f"{code}\nconst data = {json.dumps(content)};" + """
    console.log(JSON.stringify({
      same: search(data.names, " WORD1 ", 20).map(i => data.names[i]), none: search(data.names, " ", 9),
      within: search(["banana", "an", "ana", "nan"], "an", 9), near: neighbors(data, 7),
      counts: classes(["b", "a", "c", "b"]), view: view([0, 4], [1, 2])}));""")
  done = subprocess.run(["node", tmp_path / "a.js"], capture_output=True, text=True, check=True, timeout=60)
  told = json.loads(done.stdout)
  assert told["same"] == ["word1", *(f"word1{i}" for i in range(10))] and told["none"] == []
  assert told["within"] == [1, 2, 0, 3]
  expected = neighbors(VECTORS, NAMES, ["word2"], k=3)["word2"]
  assert [NAMES[i] for i, _ in told["near"]] == [name for name, _ in expected]
  assert told["counts"] == [["b", 2], ["a", 1], ["c", 1]] and told["view"] == {"x": 2, "y": 1.5, "size": 4}


def test_files_of_tensorboards_projector_and_samples(tmp_path):
  said = []
  files = explore.write(points(), str(tmp_path / "w"), max_items=8, k=3, report=said.append)
  assert sorted(path.name for path in (tmp_path / "w").iterdir()) == sorted(files)
  np.testing.assert_allclose(np.loadtxt(tmp_path / "w" / "vectors.tsv"), VECTORS[:8], rtol=1e-4)
  assert (tmp_path / "w" / "metadata.tsv").read_text().splitlines()[4:] == ["é", "word0", "word1", "word2"]
  assert said == ["the first 8 of 30 rows"]
  explore.write(points(kind=[f"k{i}\t" for i in range(30)]), str(tmp_path / "v"), max_items=8, report=said.append)
  lines = [line.split("\t") for line in (tmp_path / "v" / "metadata.tsv").read_text().splitlines()]
  assert lines[0] == ["name", "kind"] and len(lines) == 9 and said[1] == "a random sample of 8 of 30 rows"
  assert all(" ".join(NAMES[int(kind[1:])].split()) == name for name, kind in lines[1:])
  with pytest.raises(InputError, match="2 rows are too few for a map"):
    explore.write(points()._replace(vectors=VECTORS[:2]), str(tmp_path / "u"))


def test_runs_of_words_and_of_documents(tmp_path):
  from types import SimpleNamespace

  word_vectors.write(tmp_path / "v.txt", ["a", "b", "c"], VECTORS[:3], "glove")
  of_words = explore.of_run(load(tmp_path / "v.txt"))
  assert of_words.names == ["a", "b", "c"] and not of_words.labels
  np.testing.assert_array_equal(of_words.vectors, VECTORS[:3])
  run = SimpleNamespace(config={"name": "lsa"}, path=tmp_path, encoder=SimpleNamespace(names=None))
  with pytest.raises(InputError, match="the run left no embeddings.npy"):
    explore.of_run(run)
  np.save(tmp_path / "embeddings.npy", VECTORS[:2])
  row_index.write(tmp_path / "rows.tsv", {"row": [0, 1], "item": [4, 7], "kind": ["u", "v"], "text": ["x y", "z"]})
  of_rows = explore.of_run(run)
  assert of_rows.names == ["document 4: x y", "document 7: z"] and of_rows.labels == {"kind": ["u", "v"]}


@pytest.mark.long
@pytest.mark.skipif(not BROWSER, reason="needs a browser")
def test_twenty_thousand_vectors_in_a_browser(tmp_path):
  """The page is opened with a word behind `#`, which it searches and chooses."""
  vectors = np.random.default_rng(1).normal(size=(20000, 50)).astype(np.float32)
  names = [f"word{i}" for i in range(20000)]
  names[:5] = HOSTILE
  kinds = [f"k{i % 3}" for i in range(20000)]
  explore.write(Points(names, vectors, {"kind": kinds}, "many"), str(tmp_path), k=10)
  dumped = subprocess.run([BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000",
                           "--dump-dom", f"file://{tmp_path}/index.html#word1234"], capture_output=True, text=True,
                          check=True, timeout=300).stdout
  near = re.search(r'<ol id="near">(.*?)</ol>', dumped, re.DOTALL)[1]
  shown = list(zip(re.findall(r'class="name">(.*?)</span>', near), re.findall(r'class="cosine">(.*?)</span>', near)))
  expected = neighbors(vectors, names, ["word1234"], k=10)["word1234"]
  assert [name for name, _ in shown] == [name for name, _ in expected]
  np.testing.assert_allclose([float(cosine) for _, cosine in shown], [value for _, value in expected], atol=6e-4)
  assert "Nearest to word1234, by cosine" in dumped and "k0 (6667)" in dumped and "<title>many</title>" in dumped
  assert re.search(r'<ol id="found">.*?word1234<.*?word12340<', dumped, re.DOTALL)
