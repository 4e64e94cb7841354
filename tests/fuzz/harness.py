"""Fuzzing of readers: damaged files must give a result or an `InputError` of one line, and nothing else.

A module of readers holds `READERS`, a list of `Reader`. `Server` imports it in a process of its own, without JAX's
backend, and forks a child for every reader; the child is replaced after a crash or a hang. A case is a pure function
of the reader's name and the case's number:

    @pytest.fixture(scope="module")
    def server():
      with harness.Server("data_readers") as server:
        yield server

    @pytest.mark.parametrize("name", [reader.name for reader in READERS])
    def test_damaged_files_are_refused_in_one_line(server, name):
      server.check(name, harness.FEW)

By hand: `python tests/fuzz/harness.py MODULE CASES [READER ...]`.
"""
import faulthandler
import importlib
import json
import os
import pathlib
import random
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

FEW, MANY = 200, 10_000  # Cases of a reader: in every run of the tests, and with --slow.
SECONDS = 5  # Processor time of a case; one that only waits may take six times as long.
MEMORY = 1 << 30  # Address space of a child above what it has when it starts.
LONGEST_MESSAGE = 1000
_HERE = pathlib.Path(__file__).parent


class Reader(NamedTuple):
  """A reader and valid files for it.

  Attributes:
    name: Name of the reader in reports.
    seeds: Folders of valid files, each a mapping from relative paths to contents.
    read: Reads a folder in which one file was damaged. A reader of archives may pack the folder first, so that
      checksums do not hide the damage.
    damaged: Relative paths of the files that may be damaged; default: all.
  """

  name: str
  seeds: Sequence[Mapping[str, bytes]]
  read: Callable[[pathlib.Path], Any]
  damaged: Sequence[str] = ()


def reader_of_files(name: str, files: Mapping[str, bytes], read: Callable[[pathlib.Path], Any]) -> Reader:
  """A reader of single files; `read` takes the path of the file."""
  return Reader(name, [{file: content} for file, content in files.items()],
                lambda folder: read(next(path for path in folder.iterdir() if path.is_file())))


_NUMBERS = [b"0", b"-1", b"1", b"255", b"65536", b"2147483647", b"-2147483648", b"4294967296", b"9223372036854775807",
            b"18446744073709551616", b"1" + b"0" * 30, b"1" * 5000, b"1e308", b"1e999", b"nan", b"-inf", b"1.5", b"x",
            b"", b"\xd9\xa1", b"\xc2\xb2", b"1_0", b"0x10"]
_TOKENS = [b"\xef\xbb\xbf", b"\xff\xfe", b"\0", b"\r", b"\r\n", b"\n", b"\n\n", b"\t", b",", b'"', b'""', b"'", b"\\",
           b"{", b"}", b"[", b"]", b":", b"null", b"true", b'"x"', b"\xe2\x80\xa8", b"\xc2\x85", b"\xed\xa0\x80",
           b"\\ud800", b"\xcc\x81", b"\xe2\x80\x8d", b"\xf0\x9f\x98\x80", b"<doc ", b"</doc>", b"-DOCSTART-", b"../",
           b"/dev/zero", b"[" * 3000, b'{"a":' * 3000, b"a" * 5000, b"," * 5000, b"\x1b", b"\x0c", b"#", b" "]
_WORDS = [0, 1, 2, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff, 1 << 40, (1 << 63) - 1,
          (1 << 64) - 1]


def case(reader: Reader, number: int) -> dict[str, bytes]:
  """Files of a case: a seed with a damaged file, or one of random bytes. The first are the seeds as they are."""
  if number < len(reader.seeds):
    return dict(reader.seeds[number])
  rng = random.Random(f"{reader.name}:{number}")
  files = dict(rng.choice(reader.seeds))
  target = rng.choice([file for file in files if not reader.damaged or file in reader.damaged])
  if rng.random() < 0.1:
    files[target] = rng.randbytes(rng.choice((0, 1, 3, 16, 200, 5000)))
    return files
  if len(files) > 1 and rng.random() < 0.05:
    del files[target]
    return files
  data = bytearray(files[target])
  others = [content for seed in reader.seeds for content in seed.values()]
  for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
    data = _mutated(data, others, rng)
  files[target] = bytes(data)
  return files


def _mutated(data: bytearray, others: Sequence[bytes], rng: random.Random) -> bytearray:
  size = len(data)
  # Headers are short and decide most: half of the damage is near the beginning.
  place = lambda: rng.randrange(min(size, rng.choice((64, size)) or 1) or 1) if size else 0
  start = place()
  stop = min(size, start + rng.choice((1, 2, 4, 16, 100, 1000)))
  kind = rng.randrange(11)
  if kind == 0 and size:
    data[start] ^= 1 << rng.randrange(8)
  elif kind == 1 and size:
    data[start] = rng.randrange(256)
  elif kind == 2:
    del data[start:stop]
  elif kind == 3:
    data[start:start] = data[start:stop] * rng.choice((1, 2, 50))
  elif kind == 4:
    data[start:start] = rng.randbytes(rng.choice((1, 4, 100)))
  elif kind == 5:
    del data[rng.randrange(size + 1):]
  elif kind == 6:
    numbers = list(re.finditer(rb"-?\d+(?:\.\d+)?", bytes(data)))
    if numbers:
      match = rng.choice(numbers)
      data[match.start():match.end()] = rng.choice(_NUMBERS)
  elif kind == 7:
    data[start:start] = rng.choice(_TOKENS)
  elif kind == 8:
    width, order = rng.choice((1, 2, 4, 8)), rng.choice(("little", "big"))
    value = rng.choice(_WORDS) & (1 << 8 * width) - 1
    data[start:start + width] = value.to_bytes(width, order)
  elif kind == 9:
    lines = bytes(data).split(b"\n")
    first, second = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[first], lines[second] = lines[second], lines[first]
    data = bytearray(b"\n".join(lines))
  else:
    other = rng.choice(others)
    data[start:stop] = other[place() % (len(other) or 1):][:rng.choice((4, 100, 5000))]
  return data


def fuzz(reader: Reader, num_cases: int, first: int = 0) -> list[dict[str, Any]]:
  """Runs cases in children and returns the failures: `{"case", "what", "detail"}`."""
  failures, number = [], first
  while number < num_cases:
    receive, send = os.pipe()
    child = os.fork()
    if not child:
      os.close(receive)
      _serve(reader, number, num_cases, send)
    os.close(send)
    number, failed = _watch(child, receive, number)
    failures += failed
    os.close(receive)
  return failures


def _serve(reader: Reader, number: int, num_cases: int, send: int) -> None:
  """The child: reads case after case and reports each; never returns."""
  from embeddings_jax.types import InputError

  faulthandler.disable()
  devnull = os.open(os.devnull, os.O_RDWR)
  for stream in (0, 1, 2):
    os.dup2(devnull, stream)
  pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
  limit = pages * os.sysconf("SC_PAGE_SIZE") + MEMORY
  resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
  resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
  root = tempfile.mkdtemp(prefix="fuzz-")
  os.environ["EMBEDDINGS_CACHE"] = f"{root}/cache"
  for i in range(number, num_cases):
    folder = pathlib.Path(root, str(i))
    failure = None
    try:
      for name, content in case(reader, i).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
      reader.read(folder)
      shutil.rmtree(folder, ignore_errors=True)
    except InputError as error:
      message = str(error)
      if not message or "\n" in message or len(message) > LONGEST_MESSAGE:
        failure = {"case": i, "what": "unclear message", "detail": message[:300]}
      elif i < len(reader.seeds):
        failure = {"case": i, "what": "a valid file is refused", "detail": message}
    except BaseException as error:
      failure = {"case": i, "what": type(error).__name__,
                 "detail": "".join(traceback.format_exception(error, limit=-6))[-1500:]}
    shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(f"{root}/cache", ignore_errors=True)
    os.write(send, json.dumps(failure).encode() + b"\n" if failure else b"\n")
  shutil.rmtree(root, ignore_errors=True)
  os._exit(0)


def _watch(child: int, receive: int, number: int) -> tuple[int, list[dict[str, Any]]]:
  """Follows a child to its end; returns the number of the next case and the failures."""
  failures, buffer, begun, used = [], b"", time.monotonic(), 0.0
  while True:
    if select.select([receive], [], [], 0.5)[0]:
      data = os.read(receive, 1 << 16)
      if not data:
        break
      *lines, buffer = (buffer + data).split(b"\n")
      failures += [json.loads(line) for line in lines if line]
      number += len(lines)
      begun, used = time.monotonic(), _cpu(child)
    elif _cpu(child) - used > SECONDS or time.monotonic() - begun > 6 * SECONDS:
      os.kill(child, signal.SIGKILL)
      os.waitpid(child, 0)
      return number + 1, [*failures, {"case": number, "what": "hang", "detail": f"over {SECONDS} s"}]
  _, status = os.waitpid(child, 0)
  if status:
    failures.append({"case": number, "what": "crash", "detail": f"wait status {status}"})
    number += 1
  return number, failures


def _cpu(process: int) -> float:
  fields = pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
  return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Server:
  """A process that imports a module of readers once."""

  def __init__(self, module: str):
    self._module = module

  def __enter__(self) -> "Server":
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(_HERE.parents[1]), str(_HERE)]),
                   "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    self._process = subprocess.Popen([sys.executable, __file__, "--serve", self._module], stdin=subprocess.PIPE,
                                     stdout=subprocess.PIPE, text=True, env=environment)
    return self

  def __exit__(self, *_: Any) -> None:
    self._process.stdin.close()
    self._process.wait()

  def check(self, name: str, num_cases: int) -> None:
    """Fails with the first failing cases, each of which is kept in a folder that is named."""
    self._process.stdin.write(json.dumps([name, num_cases]) + "\n")
    self._process.stdin.flush()
    line = self._process.stdout.readline()
    assert line, "the process of the readers ended"
    failures = json.loads(line)
    assert not failures, f"{len(failures)} of {num_cases} cases of {name!r} failed:\n" + "\n".join(
        f"{failure['folder']}: {failure['what']}\n{failure['detail']}" for failure in failures[:5])


def _kept(reader: Reader, failures: list[dict[str, Any]]) -> list[dict[str, Any]]:
  """Writes failing cases to folders."""
  root = pathlib.Path(tempfile.gettempdir(), "fuzz-failures")
  for failure in failures[:20]:
    folder = root / f"{reader.name.replace('/', '-').replace(' ', '-')}-{failure['case']}"
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in case(reader, failure["case"]).items():
      path = folder / name
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(content)
    failure["folder"] = str(folder)
  return failures


def main(arguments: Sequence[str]) -> None:
  serving = arguments[0] == "--serve"
  readers = {reader.name: reader for reader in importlib.import_module(arguments[1 if serving else 0]).READERS}
  if serving:
    for line in sys.stdin:
      name, num_cases = json.loads(line)
      print(json.dumps(_kept(readers[name], fuzz(readers[name], num_cases))), flush=True)
    return
  for name in arguments[2:] or readers:
    begun = time.monotonic()
    failures = _kept(readers[name], fuzz(readers[name], int(arguments[1])))
    print(f"{name}: {len(failures)} failures in {time.monotonic() - begun:.1f} s", flush=True)
    shown = set()
    for failure in failures:
      key = (failure["what"], failure["detail"][-120:])
      if key not in shown:
        shown.add(key)
        print(f"  {failure.get('folder', failure['case'])}: {failure['what']}\n{failure['detail']}", flush=True)


if __name__ == "__main__":
  main(sys.argv[1:])
