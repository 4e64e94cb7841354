"""Visible text of HTML pages."""
import html.parser
import os
import re

from embeddings_jax.data.files.streams import opened
from embeddings_jax.errors import InputError

MAX_BYTES = 1 << 26  # Of a page; longer ones are dumps of several.
_HIDDEN = ("script", "style", "template", "noscript", "head", "svg", "math", "iframe", "object", "select", "textarea")
_VOID = ("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr")
_BLOCKS = ("address", "article", "aside", "blockquote", "body", "br", "caption", "dd", "details", "div", "dl", "dt",
           "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr",
           "li", "main", "nav", "ol", "option", "p", "pre", "section", "summary", "table", "td", "th", "tr", "ul")
_CHARSET = re.compile(rb"<meta[^>]{0,200}charset\s*=\s*[\"']?\s*([\w-]{1,40})", re.IGNORECASE)


def read_html(path: str | os.PathLike, errors: str = "strict") -> tuple[str, str]:
  """Reads a page.

  The encoding is that of a byte order mark or of the page's `<meta charset>`, else UTF-8.

  Args:
    path: The file, perhaps compressed.
    errors: `strict` refuses bytes that are not of the encoding, `replace` puts replacement characters.

  Returns:
    Its title, and its visible text: a line for each block, without scripts, styles and what is `hidden`.

  Raises:
    InputError: It cannot be read or decoded, is longer than 64 MiB, or has no visible text.
  """
  with opened(path) as file:
    data = file.read(MAX_BYTES + 1)
  if len(data) > MAX_BYTES:
    raise InputError(f"{path}: is longer than {MAX_BYTES >> 20} MiB, too long for a page; write its text as .txt")
  named = _CHARSET.search(data[:4096])
  encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else named[1].decode() if named else "utf-8"
  try:
    text = data.removeprefix(b"\xef\xbb\xbf").decode(encoding, errors)
  except LookupError as error:
    raise InputError(f"{path}: names the unknown encoding {encoding!r}; convert it to UTF-8") from error
  except UnicodeDecodeError as error:
    raise InputError(f"{path}: not {encoding} at byte {error.start}; convert it, or go on with replacement "
                     "characters by errors=replace") from error
  page = _Page()
  page.feed(text)
  page.close()
  visible = page.text()
  if not visible:
    raise InputError(f"{path}: is empty, it has no visible text")
  return " ".join("".join(page.title).split()), visible


class _Page(html.parser.HTMLParser):
  """Collects the title and the visible text."""

  def __init__(self) -> None:
    super().__init__(convert_charrefs=True)
    self.title: list[str] = []
    self._text: list[str] = []
    self._open: list[tuple[str, bool]] = []  # Elements, and whether they hide what is in them.

  def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
    if tag in _BLOCKS:
      self._text.append("\n")
    if tag == "body":  # A head may have been left open.
      self._open = []
    if tag not in _VOID:
      style = dict(attributes).get("style") or ""
      hidden = tag in _HIDDEN or any(name == "hidden" for name, _ in attributes) or bool(
          re.search(r"display\s*:\s*none", style))
      self._open.append((tag, hidden))

  def handle_endtag(self, tag: str) -> None:
    if tag in _BLOCKS:
      self._text.append("\n")
    names = [name for name, _ in self._open]
    if tag in names:  # What was left open within it ends with it.
      del self._open[len(names) - 1 - names[::-1].index(tag):]

  def handle_data(self, data: str) -> None:
    if self._open and self._open[-1][0] == "title" and not any(name == "svg" for name, _ in self._open):
      self.title.append(data)
    elif not any(hidden for _, hidden in self._open):
      self._text.append(data)

  def text(self) -> str:
    """Returns the text, white space as a browser shows it."""
    lines = (" ".join(line.split()) for line in re.sub(r"[^\S\n]+", " ", self._joined()).split("\n"))
    return "\n".join(line for line in lines if line)

  def _joined(self) -> str:
    # Line breaks of the source are spaces; those of blocks were put there as pieces of their own.
    return "".join(piece if piece == "\n" else piece.replace("\n", " ") for piece in self._text)
