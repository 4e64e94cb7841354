"""Readers of data files and valid files for them."""
import bz2
import gzip
import io
import json
import lzma
import pathlib
import struct
import tarfile
import zipfile

import numpy as np
import zstandard
from harness import Reader, reader_of_files
from PIL import Image
from scipy import sparse

from embeddings_jax.data import bags, catalog, formats, task_files, tasks, wordsets
from embeddings_jax.data.cooccurrence import count_cooccurrences
from embeddings_jax.data.dataset import from_texts
from embeddings_jax.data.encoders.bytes import ByteEncoder
from embeddings_jax.data.encoders.images import ImageEncoder
from embeddings_jax.data.encoders.waveforms import WaveformEncoder
from embeddings_jax.data.files.graphs import read_graph
from embeddings_jax.data.images import decoded
from embeddings_jax.data.text import tokenize
from embeddings_jax.data.words import split_words


def load(path: pathlib.Path, **options):
  """Loads by path, and looks at all items."""
  dataset = catalog.load(str(path), cache_dir=path.parent / "cache", **options)
  return [dataset.items[i] for i in range(min(len(dataset.items), 100))], dataset.labels, dataset.note


def first(folder: pathlib.Path) -> pathlib.Path:
  return next(path for path in sorted(folder.iterdir()) if path.is_file())


def npy(values) -> bytes:
  file = io.BytesIO()
  np.save(file, values)
  return file.getvalue()


def wav(channels=1, bits=16, form=1) -> bytes:
  samples = np.arange(120, dtype="<i2").tobytes()
  head = struct.pack("<HHIIHH", form, channels, 8000, 16000, 2, bits)
  if form == 0xfffe:
    head += struct.pack("<HHI", 22, bits, 4) + bytes.fromhex("0100000000001000800000aa00389b71")
  body = struct.pack("<4sI", b"fmt ", len(head)) + head + struct.pack("<4sI", b"data", len(samples)) + samples
  return struct.pack("<4sI4s", b"RIFF", 4 + len(body), b"WAVE") + body


def picture(kind: str, mode: str = "RGB", **options) -> bytes:
  values = np.random.default_rng(0).integers(0, 256, (12, 16, 4)).astype(np.uint8)
  image = Image.fromarray(values).convert(mode)
  file = io.BytesIO()
  image.save(file, kind, **options)
  return file.getvalue()


def tar(**options) -> bytes:
  file = io.BytesIO()
  with tarfile.open(fileobj=file, mode="w", **options) as archive:
    for name, content in (("a/b.txt", b"text\n" * 9), ("c/" * 60 + "d", b"x"), ("empty", b"")):
      member = tarfile.TarInfo(name)
      member.size = len(content)
      archive.addfile(member, io.BytesIO(content))
  return file.getvalue()


def images_zip() -> bytes:
  file = io.BytesIO()
  with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
    for name, kind in (("x/a/1.png", "PNG"), ("x/b/2.jpg", "JPEG"), ("README", "GIF")):
      archive.writestr(name, picture(kind))
  return file.getvalue()


def images_tar() -> bytes:
  file = io.BytesIO()
  with tarfile.open(fileobj=file, mode="w") as archive:
    for name, kind in (("a/1.png", "PNG"), ("b/2.bmp", "BMP")):
      member, content = tarfile.TarInfo(name), picture(kind)
      member.size = len(content)
      archive.addfile(member, io.BytesIO(content))
  return file.getvalue()


def arrow_files() -> dict[str, bytes]:
  """Tables of Arrow, {} without its library."""
  try:
    import pyarrow
    import pyarrow.parquet
  except ImportError:
    return {}
  rows = pyarrow.table({"x": [1.0, 2, 3], "kind": ["u", "v", "u"], "n": pyarrow.array([1, 2, 3], pyarrow.int16())})
  texts = pyarrow.table({"text": ["one", None, "three"], "label": [0, 1, 0]})
  made = {}
  for name, table in (("rows", rows), ("texts", texts)):
    file = io.BytesIO()
    pyarrow.parquet.write_table(table, file)
    made[f"{name}.parquet"] = file.getvalue()
    for suffix, writer in (("arrow", pyarrow.ipc.new_stream), ("feather", pyarrow.ipc.new_file)):
      file = pyarrow.BufferOutputStream()
      with writer(file, table.schema) as output:
        output.write_table(table)
      made[f"{name}.{suffix}"] = file.getvalue().to_pybytes()
  return made


def sounds() -> dict[str, bytes]:
  """Compressed sounds, {} without the library."""
  try:
    import soundfile
  except (ImportError, OSError):
    return {}
  made = {}
  for kind in ("flac", "ogg"):
    file = io.BytesIO()
    soundfile.write(file, (1000 * np.sin(np.arange(900) / 5)).astype(np.int16), 8000, format=kind)
    made[f"a.{kind}"] = file.getvalue()
  return made


def npz_members(table, kind: str) -> dict[str, bytes]:
  file = io.BytesIO()
  sparse.save_npz(file, getattr(sparse, f"{kind}_array")(table), compressed=False)
  with zipfile.ZipFile(file) as archive:
    return {name: archive.read(name) for name in archive.namelist()}


def npz(members: dict[str, bytes], method=zipfile.ZIP_DEFLATED) -> bytes:
  file = io.BytesIO()
  with zipfile.ZipFile(file, "w", method) as archive:
    for name, content in members.items():
      archive.writestr(name, content)
  return file.getvalue()


def read_members(folder: pathlib.Path):
  """A matrix whose members are damaged, but not the archive: its checksums are right."""
  members = {path.name: path.read_bytes() for path in folder.iterdir()}
  (folder / "m.npz").write_bytes(npz(members))
  return load(folder / "m.npz")


def read_cached(folder: pathlib.Path):
  """Entries of a cache, whose texts and tokens must be the right ones whatever is damaged."""
  texts = ["the cat sat on a mat", "the dog sat on the cat"]
  dataset = from_texts(texts, cache_dir=folder)
  tokens = tokenize(dataset, normalize="lower", min_count=1, cache_dir=folder)
  cells = count_cooccurrences(tokens.tokens, len(tokens.encoder.names), key=tokens.fingerprint, window=2,
                              cache_dir=folder)
  data = bags.count_documents(dataset, cache_dir=folder)
  images = decoded("x", "f", [("a.png", PICTURES["a.png"]), ("b.png", PICTURES["a.png"])], folder)
  if list(dataset.items) != texts or len(tokens.tokens) != 13 or cells.count.sum() != 28 or (
      data.count.sum() != 12) or images.items.shape != (2, 12, 16, 3):
    raise AssertionError(f"{list(dataset.items)} {tokens.tokens} {cells.count.sum()} {data.count.sum()}")


def cache_seed() -> dict[str, bytes]:
  import tempfile

  with tempfile.TemporaryDirectory() as folder:
    read_cached(pathlib.Path(folder))
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(pathlib.Path(folder).rglob("*"))
            if path.is_file() and path.suffix != ".lock"}


def wrapped(data: bytes, name: str) -> dict[str, bytes]:
  return {f"{name}.gz": gzip.compress(data), f"{name}.xz": lzma.compress(data), f"{name}.bz2": bz2.compress(data),
          f"{name}.zst": zstandard.ZstdCompressor(write_checksum=True).compress(data)}


TABLE = np.array([[1.0, 0, 2, 0], [0, 0, 0, 0], [3, 0, 0, 4], [0, 5, 0, 0], [0, 6, 0, 0], [7, 0, 0, 8]])
TEXT = "One line.\n\nAnother, of “quotes” and हिन्दी.\r\ncafe\u0301 42\n".encode() * 3
MARKED = b'<doc id="1" url="u" title="A">\nA\n\nfirst\n</doc>\n<doc id="2" url="u" title="B">\nB\nsecond\n</doc>\n'
SQUAD = {"data": [{"title": "T", "paragraphs": [{"context": "The cat sat.", "qas": [
    {"id": "q1", "question": "Who?", "answers": [{"answer_start": 4, "text": "cat"}], "is_impossible": False},
    {"id": 2, "question": "Why?", "answers": [], "is_impossible": True}]}]}]}
CONLLU = "# text = x\n1-2\tcant\t_\t_\t_\t_\t_\t_\t_\t_\n" + "".join(
    f"{i}\tw{i}\tw\tNOUN\t_\t_\t0\troot\t_\t_\n" for i in range(1, 4)) + "\n"
PICTURES = {
    "a.png": picture("PNG"), "b.jpg": picture("JPEG"), "c.gif": picture("GIF", "P"), "d.bmp": picture("BMP"),
    "e.tif": picture("TIFF", compression="tiff_lzw"), "f.webp": picture("WEBP"), "g.ppm": picture("PPM"),
    "h.png": picture("PNG", "P"), "i.png": picture("PNG", "LA"), "j.tif": picture("TIFF", "CMYK"),
    "k.jpg": picture("JPEG", progressive=True, exif=Image.Exif()), "l.tiff": picture("TIFF", compression="jpeg"),
    "m.webp": picture("WEBP", lossless=True), "n.tif": picture("TIFF", compression="tiff_adobe_deflate")}

READERS: list[Reader] = [
    reader_of_files("graphs", {
        "a.txt": b"# comment\n1 2\n2 3\n3 1\n", "b.csv": b"a,b,1.5\nb,c,2\n", "c.adjlist": b"1 2 3\n2 1\n9\n",
        "d.npz": npz({"edges.npy": npy(np.array([[0, 1], [5, 2]]))})}, read_graph),
    reader_of_files("text", {"a.txt": TEXT, "text8": b"anarchism originated as", "w.txt": MARKED}, load),
    reader_of_files("text in blocks", {"a.txt": TEXT, "w.txt": MARKED, "b.txt": TEXT.replace(b"\n", b"\r")},
                    lambda path: load(path, documents="auto", errors="replace")),
    reader_of_files("words", {"a.txt": TEXT}, lambda path: tokenize(
        from_texts([path.read_bytes().decode("utf-8", "replace")], cache_dir=path.parent / "cache"),
        normalize="lower", min_count=1, boundaries="sentence", cache_dir=path.parent / "cache")),
    reader_of_files("csv rows", {
        "a.csv": b"x,y\n1,2\n3.5,-4e1\n5,6\n", "b.tsv": b"1\t2\n3\t4\n", "c.csv": b",0,1\na,1,2\nb,3,4\n",
        "d.csv": b'"rownames","x"\n"1",9007199254740993\n"2",\n', "e.csv": b"x y\n1,2,3\n4,5,6\n".replace(b" ", b","),
        "f.csv": "\ufeffid,ü\r\n1,2\r\n2,4\r\n3,5\r\n".encode()}, lambda path: load(path, missing="marginalize")),
    reader_of_files("csv sentences", {
        "a.csv": b'sentence1,sentence2,score\n"The ""cat""\nsat",A cat,4.0\nRain,"It, rained",4.5\n',
        "b.tsv": b"a b\tc d\t1.5\ne\tf\t2\n", "c.csv": b"anchor,positive,negative\na,b,c\nd,e,f\n",
        "d.tsv": b"premise\thypothesis\tgold_label\na\tb\t-\nc\td\tneutral\n"}, load),
    reader_of_files("npy rows", {"a.npy": npy(np.arange(12.0).reshape(3, 4)), "b.npy": npy(np.eye(3, dtype=">i8")),
                                 "c.npy": npy(np.asfortranarray(np.ones((2, 3), np.float16))),
                                 "d.npy": npy(np.full((2, 2), 2**60 + 1))}, load),
    reader_of_files("npy images", {"a.npy": npy(np.zeros((2, 8, 8, 3), np.uint8))},
                    lambda path: ImageEncoder(8, 8, 1).read(path)),
    reader_of_files("npz", {f"{kind}.npz": npz(npz_members(TABLE, kind)) for kind in ("csr", "csc", "coo")} |
                    {"stored.npz": npz(npz_members(TABLE, "csr"), zipfile.ZIP_STORED)}, load),
    Reader("npz members", [npz_members(TABLE, kind) for kind in ("csr", "csc", "coo", "dia", "bsr")] +
           [npz_members(TABLE[:4], "csr")], read_members),
    Reader("lda-c", [{"a.dat": b"2 0:1 3:2\n0\n1 1:1.5\n", "vocab.txt": b"a\nb\nc\nd\n"},
                     {"a.dat": b"1 0:1\n1 5:2\n"}],
           lambda folder: load(folder / "a.dat"), damaged=["a.dat", "vocab.txt"]),
    Reader("idx", [{"a.idx": b"\0\0\x08\x02" + struct.pack(">2I", 2, 3) + bytes(range(6))},
                   {"b.idx": b"\0\0\x0d\x02" + struct.pack(">2I2f", 2, 1, 1, 2)},
                   {"train-images-idx3-ubyte": b"\0\0\x08\x03" + struct.pack(">3I", 2, 2, 2) + bytes(range(8)),
                    "train-labels-idx1-ubyte": b"\0\0\x08\x01" + struct.pack(">I", 2) + b"\1\2"}], load),
    reader_of_files("wav", {"a.wav": wav(), "b.wav": wav(2), "c.wav": wav(bits=8), "d.wav": wav(form=0xfffe)}, load),
    reader_of_files("wide wav", {"a.wav": wav(bits=24), "b.wav": wav(2, 32), "c.wav": wav(bits=32, form=3),
                                 "d.wav": wav(bits=64, form=3)}, load),
    reader_of_files("archives of images", {"a.zip": images_zip(), "b.tar": images_tar(),
                                           "c.tgz": gzip.compress(images_tar())},
                    lambda path: load(path, bad="skip")),
    reader_of_files("own texts", {
        "a.csv": b'id,text,label\n7,"one, two",a\n9,three,b\n', "b.tsv": b"text\tclass\none\tu\ntwo\tv\n",
        "c.jsonl": b'{"text": "one", "label": 1}\n{"text": "two"}\n',
        "d.json": b'[{"sentence1": "a", "sentence2": "b"}]',
        "e.html": b"<!DOCTYPE html><meta charset=utf-8><title>T &amp; U</title><p>one<br>2<script>x</script>&lt;</p>",
        "f.csv": b"text;label\none;a\ntwo;b\n"}, load),
    reader_of_files("csv dialects", {"a.csv": b"x;y;kind\n1,5;2;u\n3;4,25;v\n",
                                     "b.csv": b"1.5,2,setosa\n3,4,virginica\n", "c.tsv": b"x\ty\n1,5\t2\n"}, load),
    reader_of_files("task records", {
        "train.csv": b"text,label\none,a\ntwo,b\n",
        "a.jsonl": b'{"text": "one", "label": 1}\n{"text": "x", "label": 2}\n'},
        lambda path: tasks.load_examples(str(path), cache_dir=path.parent / "cache")),
    *([reader_of_files("arrow", arrow_files(), load)] if arrow_files() else []),
    *([reader_of_files("compressed sound", sounds(), load)] if sounds() else []),
    reader_of_files("pairs of words", {"a.txt": b"tiger cat 7.35\nbook paper 7.46\n",
                                       "b.csv": b"w1,w2,score\na,b,1\n"},
                    lambda path: wordsets.word_similarity(str(path))),
    Reader("analogies in two files", [{"w.questions": b"good better rough\n", "w.answers": b"JJ_JJR rougher\n"}],
           lambda folder: wordsets.analogies(str(folder / "w.questions"))),
    reader_of_files("pictures", PICTURES, load),
    reader_of_files("images of a size", PICTURES, lambda path: load(path, image_size=16, channels=1, bad="skip")),
    reader_of_files("compressed", wrapped(TEXT, "a.txt") | wrapped(b"x,y\n1,2\n", "b.csv"), load),
    reader_of_files("tar", {"a.tar": tar(), "b.tar": tar(format=tarfile.GNU_FORMAT), "c.tar.gz": gzip.compress(tar()),
                            "d.tar.xz": lzma.compress(tar(format=tarfile.USTAR_FORMAT), preset=0)},
                    lambda path: list(formats.tar_members(path))),
    reader_of_files("task table", {
        "train.tsv": b"sentence\tlabel\na b\tyes\nc\tno\n",
        "b.tsv": b"index\tquestion1\tquestion2\tis_duplicate\n0\ta\tb\t1\n",
        "c.tsv": b"s\t1\t*\ttext here\ns\t0\t\tmore\n", "d.tsv": b"sentence1\tsentence2\tscore\na\tb\t2.5\n"},
        task_files.read_examples),
    reader_of_files("task squad", {"train.json": json.dumps(SQUAD).encode(), "b.json.gz": gzip.compress(
        json.dumps(SQUAD).encode())}, task_files.read_examples),
    reader_of_files("task swag", {"train.csv": b'sent1,sent2,ending0,ending1,label\n"a, b",c,d,e,0\nf,g,h,"i\nj",1\n',
                                  "b.csv": b"ctx,ending_0,ending_1,ending_2,label\na,b,c,d,2\n"},
                    task_files.read_examples),
    reader_of_files("task conll", {"train.conll": b"-DOCSTART- -X- O\n\nEU B-ORG\nrejects O\n\nGerman B-MISC\n",
                                   "b.txt": b"w\tx\tNOUN\nv\ty\tVERB\n\n", "c.iob": b"a b O\nc d B\n"},
                    task_files.read_examples),
    reader_of_files("task conllu", {"train.conllu": CONLLU.encode() * 2}, task_files.read_examples),
    Reader("task folder", [
        {f"{part}.tsv": b"sentence\tlabel\n" + b"".join(b"text %d\t%s\n" % (i, b"ab"[i % 2:][:1]) for i in range(20))
         for part in ("train", "dev", "test")}], lambda folder: tasks.as_task(tasks.load_examples(str(folder)))),
    reader_of_files("word sets", {"a.txt": b": capital\nAthens Greece Oslo Norway\n: gram1\na b c d\n"},
                    lambda path: wordsets.analogies(str(path))),
    reader_of_files("synonyms", {"a.txt": b"rug sofa ottoman carpet carpet\nbig\tvery large\tsmall\tvery large\n"},
                    wordsets.synonyms),
    reader_of_files("items", {"a.txt": TEXT, "list.txt": b"a.wav\n\nb.wav\n"}, lambda path: (
        ByteEncoder(9).read(path), WaveformEncoder(8000).read(path),
        [split_words(line, "cased") for line in formats.read_lines(path)])),
    Reader("cache", [cache_seed()], read_cached),
]
