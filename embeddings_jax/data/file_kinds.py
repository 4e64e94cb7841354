"""Kinds of files, told by their names and first bytes, and the way out for formats that are not read."""
import re
from pathlib import Path

from embeddings_jax.data import formats
from embeddings_jax.data.images import SUFFIXES
from embeddings_jax.errors import InputError

_IDX = re.compile(r"(\.idx|idx\d-ubyte)(\.gz|\.xz|\.bz2|\.zst)?$")
_TEXT = re.compile(r"\.(txt|text)(\.gz|\.xz|\.bz2|\.zst)?$")
_JSON_NAME = re.compile(r"\.(jsonl|ndjson|json)(\.gz|\.xz|\.bz2|\.zst)?$")
_ROWS = (".npy", ".csv", ".tsv", ".csv.gz", ".tsv.gz", ".csv.xz", ".tsv.xz", ".csv.bz2", ".tsv.bz2", ".csv.zst",
         ".tsv.zst")
_AUDIO = (".wav", ".wave", ".flac", ".ogg", ".oga")
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2", ".tar.zst")
_HTML = re.compile(r"\.(html?|xhtml)(\.gz|\.xz|\.bz2|\.zst)?$")
_ARROW = (".parquet", ".arrow", ".feather")
# Formats that would give nonsense if they were read as plain text, and what to do with them.
_FUNCTION = "or yield its texts from a function of yours, data=FILE.py:FUNCTION"
_TO_TEXT = f"write its texts to a .txt file, a document a line, {_FUNCTION}"
_UNREAD = {
    **dict.fromkeys(("xml", "pdf", "rtf", "doc", "docx", "odt",
                     "epub", "ipynb"), _TO_TEXT),
    **dict.fromkeys(("avro", "orc", "tfrecord", "array_record", "db", "sqlite", "sql",
                     "dta", "sav", "rds", "rda", "rdata"), f"write it as .csv, .npy or .txt, {_FUNCTION}"),
    **dict.fromkeys(("xls", "xlsx", "ods", "h5", "hdf5", "mat", "pkl", "pickle", "pt", "pth", "safetensors",
                     "joblib"), "write its numbers as .csv or .npy"),
    **dict.fromkeys(("7z", "rar"), "unpack it and give the folder"),
    **dict.fromkeys(("mp3", "opus", "m4a", "aac", "wma", "aif", "aiff"),
                    "convert its sound to .wav or .flac"),
    **dict.fromkeys(("mp4", "mkv", "avi", "webm", "mov"),
                    "models of video read it, as order_verification; or convert its sound to 16 bit PCM .wav"),
    **dict.fromkeys(("heic", "heif", "avif", "jxl", "jp2", "svg", "psd", "ico"), "convert it to .png or .jpg"),
}
# Beginnings of such formats, whatever the file is called.
_SIGNATURES = {b"%pdf-": "pdf", b"<!doctype": "html", b"<html": "html", b"<?xml": "xml", b"{\\rtf": "rtf",
               b"par1": "parquet"}
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # Byte order marks, which the reader of lines names.
_JSON = re.compile(rb'[\[\s]*\{\s*"(?:[^"\\]|\\.)*"\s*:')


def file_kind(file: Path) -> str:
  """Returns `rows`, `matrix`, `bags`, `idx`, `audio`, `images`, `archive`, `json`, `arrow`, `html`, `text` or
  `unknown`, by the name; what is all unknown is text."""
  name = file.name.lower()
  if name.endswith(_ROWS):
    return "rows"
  if name.endswith(".npz"):
    return "matrix"
  if name.endswith((".dat", ".ldac")):
    return "bags"
  if _IDX.search(name):
    return "idx"
  if name.endswith(_AUDIO):
    return "audio"
  if name.endswith(SUFFIXES):
    return "images"
  if _JSON_NAME.search(name):
    return "json"
  if name.endswith(_ARCHIVES):
    return "archive"
  if name.endswith(_ARROW):
    return "arrow"
  if _HTML.search(name):
    return "html"
  return "text" if _TEXT.search(name) else "unknown"


def check_text(file: Path) -> None:
  """Raises an `InputError` for a file that is not plain text by its name or first bytes, with the way out."""
  with formats.opened(file) as handle:
    begin = handle.read(1024)
  suffix = file_format(file)
  if suffix not in _UNREAD:
    plain = begin.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    suffix = next((name for signature, name in _SIGNATURES.items() if plain.startswith(signature)), "")
    suffix = "json" if _JSON.match(plain) else suffix
  if suffix:
    way = _UNREAD.get(suffix) or f"it is read from a file that is called .{suffix}"
    raise InputError(f"{file}: .{suffix} is not read as plain text; {way}" if suffix not in _UNREAD else
                     f"{file}: .{suffix} is not read; {way}")
  if file_kind(file) == "unknown" and b"\0" in begin and not begin.startswith(_UTF_16):
    raise InputError(f"{file}: is not text, and its name is none of .txt, .csv, .tsv, .npy, .wav, .idx, .jpg")
  if 4 * begin.count(0) > len(begin) and not begin.startswith(_UTF_16):  # Letters would be words.
    raise InputError(f"{file}: is UTF-16 or UTF-32, or no text; convert it, as by iconv -f UTF-16LE -t UTF-8")


def file_format(file: Path) -> str:
  """Returns the suffix of a file in lower case, without the dot and without that of its compression."""
  name = re.sub(r"\.(gz|xz|bz2|zst)$", "", file.name.lower())
  return name.rpartition(".")[2] if "." in name[1:] else ""
