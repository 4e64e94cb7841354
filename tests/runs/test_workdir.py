"""The work directory: locks, damaged files, a full disk."""
import contextlib
import errno
import fcntl
import json
import os
import pathlib
import resource
import signal
import subprocess
import sys

import numpy as np
import pytest
from etils import epath

from embeddings_jax.data.files.atomic import write_atomically
from embeddings_jax.runs import build, metrics_log, presets, workdir
from embeddings_jax.runs.load import load_run
from embeddings_jax.types import InputError


@pytest.fixture
def path(tmp_path):
  return epath.Path(tmp_path / "w")


def test_a_second_run_is_refused_and_told_who_holds_the_directory(path):
  lines = []
  first, second = workdir.Lock(path), workdir.Lock(path, lines.append)
  first.acquire()
  with pytest.raises(InputError, match=rf"is in use by process {os.getpid()} on \S+ since 20\d\d-"):
    second.acquire(patience=0.01)
  assert len(lines) == 1 and "waiting up to 0 s" in lines[0]
  with pytest.raises(InputError, match="is in use by process"), monkeypatched(workdir, "PATIENCE", 0):
    with workdir.prepared(path, {}, overwrite=True):  # Not even to be moved aside.
      pass
  first.release()
  second.acquire(patience=0)
  second.release()


@contextlib.contextmanager
def monkeypatched(module, name, value):
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(module, name, value)
    yield


def test_a_lock_dies_with_its_process(path):
  path.mkdir()
  code = ("import fcntl, os, sys, time\nfile = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)\n"
          "fcntl.flock(file, fcntl.LOCK_EX)\nprint('held', flush=True)\ntime.sleep(60)")
  holder = subprocess.Popen([sys.executable, "-c", code, str(path / ".lock")], stdout=subprocess.PIPE, text=True)
  assert holder.stdout.readline() == "held\n"
  lock = workdir.Lock(path, [].append)
  with pytest.raises(InputError, match="is in use by another process"):
    lock.acquire(patience=0)
  holder.kill()
  holder.communicate()
  lock.acquire(patience=5)
  lock.release()


def test_a_run_that_waits_gets_the_new_directory_when_the_old_one_is_moved_aside(path):
  first, lines = workdir.Lock(path), []
  first.acquire()
  waiting = workdir.Lock(path, lines.append)
  moved = path.parent / "aside"

  def free(seconds):
    if not moved.exists():
      path.rename(moved)
      first.release()
      path.mkdir()

  with monkeypatched(workdir.time, "sleep", free):
    waiting.acquire(patience=5)
  assert os.path.samestat(os.fstat(waiting._file), os.stat(path / ".lock"))
  waiting.release()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP])
def test_a_file_system_without_locks_is_reported_and_the_run_continues(path, number):
  lines = []

  def refuse(*args):
    raise OSError(number, os.strerror(number))

  with monkeypatched(fcntl, "flock", refuse), workdir.prepared(path, {}, overwrite=False, report=lines.append):
    assert path.exists()
  assert len(lines) == 1 and f"cannot be locked ({os.strerror(number)})" in lines[0]


def test_a_link_planted_at_a_lock_or_a_draft_is_not_followed(path):
  path.mkdir()
  victim = path.parent / "victim"
  victim.write_text("precious")
  for name in (".lock", ".results.json.draft", ".metrics.jsonl.draft", ".config.json.draft"):
    os.symlink(victim, path / name)
  with pytest.raises(InputError, match="cannot be written"):
    workdir.Lock(path).acquire()
  workdir.write_json(path / "results.json", {})
  workdir.write_json(path / "config.json", {})
  metrics_log.MetricsLog(path).start(0)
  assert victim.read_text() == "precious"


@contextlib.contextmanager
def full_disk(size=64):
  """Writing beyond `size` bytes of a file fails, as on a full disk."""
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
  resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


WRITERS = {
    "results.json": lambda path: workdir.write_json(path, {"text": "x" * 100}),
    "embeddings.npy": lambda path: workdir.write_array(path, np.ones((1000, 100), np.float32)),
    "vocabulary.txt": lambda path: write_atomically(path, "word\n" * 100),
    "metrics.jsonl": lambda path: log_lines(path.parent, 10),
}


def log_lines(path, number):
  lines = []
  log = metrics_log.MetricsLog(path, lines.append)
  try:
    log.start(0)
    for step in range(1, number + 1):
      log.write(step, {"loss": 1.0})
  finally:
    log.close()
  return lines


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_an_error_that_names_the_file_and_leaves_the_old_one(path, name):
  path.mkdir()
  if name != "metrics.jsonl":
    (path / name).write_text("old")
  with full_disk(), pytest.raises(OSError) as raised:
    WRITERS[name](path / name)
  assert raised.value.filename == str(path / name) and raised.value.strerror
  assert name == "metrics.jsonl" or (path / name).read_text() == "old"
  assert [entry.name for entry in path.iterdir()] == [name] + ["tensorboard"] * (name == "metrics.jsonl")


def test_without_space_tensorboard_is_given_up_with_one_line_and_the_log_goes_on(path, monkeypatch):
  path.mkdir()
  monkeypatch.setattr(metrics_log._Events, "_masked_crc", lambda self, data: full())
  lines = log_lines(path, 50)
  assert lines == [f"{path / 'tensorboard'}: No space left on device; the run continues without TensorBoard events"]
  assert [record["step"] for record in metrics_log.read_metrics(path)] == list(range(1, 51))


def full():
  raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_arrays_are_those_of_numpy(path):
  for array in (np.arange(6.0).reshape(2, 3), np.zeros((0, 4), np.float32), np.ones((3, 2), np.float16)[:, ::-1]):
    workdir.write_array(path.parent / "x.npy", array)
    loaded = np.load(path.parent / "x.npy")
    assert loaded.dtype == array.dtype
    np.testing.assert_array_equal(loaded, array)


def test_tensorboard_events_have_the_format_of_the_library(path):
  from tensorboardX.proto.event_pb2 import Event
  from tensorboardX.record_writer import RecordWriter

  path.mkdir()
  log_lines(path, 2)
  (file,) = (path / "tensorboard").iterdir()
  content, events, place = file.read_bytes(), [], 0
  with contextlib.closing(RecordWriter(str(path / "same"))) as writer:
    while place < len(content):
      data = content[place + 12:place + 12 + int.from_bytes(content[place:place + 8], "little")]
      place += 16 + len(data)
      writer.write(data)
      events.append(Event.FromString(data))
  assert (path / "same").read_bytes() == content
  scalars = [(event.step, [(value.tag, value.simple_value) for value in event.summary.value]) for event in events]
  assert [(step, values[:1]) for step, values in scalars] == [(0, []), (1, [("loss", 1.0)]), (2, [("loss", 1.0)])]


def test_damaged_lines_of_the_log_are_named_and_skipped(path):
  path.mkdir()
  lines = ['{"step": 1, "loss": 3.0, "name": "x", "flag": true}', "{", "[1]", '{"loss": 1}',
           '{"step": 2, "loss": NaN}', '{"step": true}', '{"step": 3, "loss": 1' + "0" * 400 + "}", "\udcff",
           '{"step": 4, "loss": 1.5}', '{"step":']
  (path / "metrics.jsonl").write_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))
  said = []
  assert metrics_log.read_metrics(path, said.append) == [
      {"step": 1, "loss": 3.0}, {"step": 2}, {"step": 3}, {"step": 4, "loss": 1.5}]
  assert [line.partition(":")[0].rpartition(" ")[2] for line in said] == ["2", "3", "4", "6", "8"]
  assert all(line.endswith("the line is skipped") for line in said)


def test_what_is_not_finite_is_not_logged(path):
  path.mkdir()
  log = metrics_log.MetricsLog(path)
  log.start(0)
  log.write(1, {"loss": 1.0, "score": float("nan")})
  log.close()
  (record,) = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
  assert record.keys() == {"step", "loss", "seconds"}


def recorded(**changes):
  config = json.loads(presets.load_config("gmm", "tiny").to_json_best_effort())
  return {"format": workdir.FORMAT, "config": config, "trajectory": {}, "encoder": "",
          "facts": {"num_rows": 150, "num_features": 4}, "batch": {"x": [[150, 4], "float32"]}, "steps": 20} | changes


DAMAGED_RECORDS = {
    "list": ([], "holds a list, expected an object"),
    "config": (recorded(config=3), "field 'config' holds an integer"),
    "steps": (recorded(steps="20"), "field 'steps' holds a string"),
    "model": (recorded(config=recorded()["config"] | {"model": []}), "field 'model' holds a list"),
    "evals": (recorded(config=recorded()["config"] | {"evals": [3]}), "field 'evals'"),
    "batch": (recorded(batch={"x": [[150, -4], "float32"]}), "batch: field 'x'"),
    "dtype": (recorded(batch={"x": [[150, 4], "object"]}), "batch: field 'x'"),
    "fact": (recorded(facts={"counts": {"shape": [1 << 40], "dtype": "int64"}}), "asks for 8796093022208 bytes"),
    "format": (recorded(format=1), r"another version .* \(format 1, expected 3\); train it again"),
    "deep": ("[" * 100_000, "nested too deeply"),
}


@pytest.mark.parametrize("name", DAMAGED_RECORDS)
def test_a_damaged_record_is_one_clear_line(path, name):
  content, message = DAMAGED_RECORDS[name]
  path.mkdir()
  (path / "config.json").write_text(content if isinstance(content, str) else json.dumps(content))
  with pytest.raises(InputError, match=f"config.json.*{message}") as raised:
    workdir.read_record(path)
  assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["../../evil", "os", "evil.py:f", "gmm.x", 3, "__init__", "types"])
def test_a_record_can_name_nothing_but_models(name):
  with pytest.raises(InputError, match="there is no model of that name"):
    build.make_model(recorded()["config"] | {"factory": name}, {}, 1)


def test_a_record_of_a_model_that_cannot_be_built_is_one_clear_line(path):
  encoder = build.prepare(presets.load_config("gmm", "tiny"), data_dir=None, cache_dir=None).encoder
  encoder.save(path / "encoder")
  for harm in ({"num_components": "x"}, {"covariance": 7}, {"nothing": 1}):
    record = recorded(encoder=encoder.fingerprint)
    record["config"]["model"] |= harm
    workdir.write_json(path / "config.json", record)
    with pytest.raises(InputError) as raised:
      load_run(str(path))
    assert "\n" not in str(raised.value)


def test_older_records_have_the_defaults_of_newer_keys(path):
  record = recorded()
  for key in ("horizon", "best_metric", "evals_between"):
    del record["config"][key]
  path.mkdir()
  workdir.write_json(path / "config.json", record)
  read = workdir.read_record(path)
  assert (read["config"]["best_metric"], read["config"]["evals_between"]) == ("", [])
  assert read["horizon"] == workdir.recorded_horizon(path) == 20


def test_options_that_an_older_run_did_not_have_count_as_their_defaults(path):
  config = presets.load_config("gmm", "tiny").to_dict()
  course = workdir.trajectory(config, "f")
  older = json.loads(json.dumps(course))
  del older["model"]["power"], older["data"]["order"]
  assert workdir.default_path(config, "tiny", older) == workdir.default_path(config, "tiny", course)
  path.mkdir()
  workdir.write_json(path / "config.json", recorded(trajectory=older))
  with workdir.prepared(path, course, overwrite=False):
    pass
  course["model"]["power"] = 0.6
  assert workdir.default_path(config, "tiny", older) != workdir.default_path(config, "tiny", course)
  with pytest.raises(InputError, match="model.power was 0.7, now 0.6"):
    with workdir.prepared(path, course, overwrite=False):
      pass


RESULTS = {"steps": 20, "training": {"loss": 1.0}, "metrics": {}}


@pytest.mark.parametrize(("results", "step", "expected"), [
    (RESULTS, 20, True), (RESULTS, None, False), (RESULTS, 10, False), (None, 20, False),
    (RESULTS | {"pending": ["knn"]}, 20, False), ({"steps": 20, "metrics": {}}, 20, False),
    (RESULTS | {"training": {"converged": 1.0}, "steps": 10}, 10, True),
    (RESULTS | {"training": {"converged": 1.0}, "steps": 10}, 9, False)])
def test_a_run_has_finished_when_all_its_results_are_written(results, step, expected):
  assert workdir.is_finished(results, step, 20) is expected


def test_damaged_results_count_as_missing_for_the_run_and_are_an_error_for_a_reader(path):
  path.mkdir()
  for content in ("{", "[]", '{"steps": "x"}', '{"steps": 3, "metrics": {"a": "b"}}', '{"steps": 3, "training": 4}'):
    (path / "results.json").write_text(content)
    with pytest.raises(InputError, match="results.json"):
      workdir.read_results(path)
    said = []
    assert workdir.read_results(path, said.append) is None and said[0].endswith("it is written anew")


@pytest.mark.parametrize(("logged", "lost", "results", "refused"), [
    (0, [], None, False), (30, [], None, False), (200, [], None, True), (1, ["damaged-1"], None, True),
    (1, [], RESULTS, True), (0, [], RESULTS, True)])
def test_a_log_is_never_started_over(path, logged, lost, results, refused):
  """Before the second save is due, a killed run may have saved nothing."""
  path.mkdir()
  record = recorded()
  record["config"] |= {"save_every": 20, "steps_per_dispatch": 5}
  workdir.write_json(path / "config.json", record)
  (path / "metrics.jsonl").write_text("".join(f'{{"step": {step}}}\n' for step in range(1, logged + 1)))
  reached = results["steps"] if results else logged
  with pytest.raises(InputError, match=f"its log reaches step {reached}, .*overwrite=True") if refused else (
      contextlib.nullcontext()):
    workdir.check_restart(path, lost, results)


def test_versions_list_what_computes():
  assert workdir.versions().keys() >= {"python", "jax", "jaxlib", "optax", "scikit-learn", "scipy"}


def test_another_horizon_is_another_run_where_schedules_use_it(path):
  path.mkdir()
  workdir.write_json(path / "config.json", recorded(trajectory={"seed": 0}, steps=20))  # Of an older version.
  for course in ({"seed": 0}, {"seed": 0, "horizon": 20}):
    with workdir.prepared(path, course, overwrite=False):
      pass
  with pytest.raises(InputError, match="holds another run: horizon was 20, now 30; use another directory"):
    with workdir.prepared(path, {"seed": 0, "horizon": 30}, overwrite=False):
      pass
  for model, used in {"sgns": True, "byol": True, "bert": True, "gmm": False, "kmeans": False}.items():
    assert build.depends_on_horizon(presets.load_config(model, "tiny")) is used


def test_the_coordinator_listens_at_its_host_alone():
  code = "import sys; from experiments import run; print([run.bind_address(host) for host in sys.argv[1:]])"
  hosts = ("127.0.0.1:4000", "localhost:4000", "192.0.2.1:4000")
  done = subprocess.run([sys.executable, "-c", code, *hosts], capture_output=True, text=True,
                        env=os.environ | {"PYTHONPATH": str(pathlib.Path(__file__).parents[2])})
  *said, addresses = done.stdout.splitlines()
  assert addresses == "['127.0.0.1:4000', '127.0.0.1:4000', None]", done.stderr
  assert len(said) == 1 and "192.0.2.1:4000: cannot listen at 192.0.2.1 alone" in said[0]
