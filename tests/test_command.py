"""The command line as a user meets it: results, resuming, mistakes."""
import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from absl import flags
from commands import call

import experiments
from embeddings_jax import configs
from embeddings_jax.data import own
from embeddings_jax.runs import presets
from embeddings_jax.runs.load import load_run
from embeddings_jax.train.signals import Interrupted, Signals
from embeddings_jax.types import InputError
from experiments import command, pages

ROOT = pathlib.Path(__file__).parents[1]


def start(*arguments, devices=1, **options):
  env = os.environ | {"JAX_NUM_CPU_DEVICES": str(devices), "PYTHONPATH": str(ROOT)}
  return subprocess.Popen([sys.executable, "-m", "experiments.run", "--nofigures", *map(str, arguments)],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, **options)


def records(workdir):
  return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  """A finished tiny run of gmm, in its default work directory."""
  folder = tmp_path_factory.mktemp("run")
  done = call("run", "--model=gmm", "--preset=tiny", "--figures", cwd=folder)
  assert done.returncode == 0, done.stderr
  (workdir,) = (folder / "runs").iterdir()
  assert workdir.name.startswith("gmm-tiny-")
  return workdir, done.stdout


@pytest.mark.parametrize(("name", "value", "refused"), [
    ("seed", 2**32, True), ("seed", 2**32 - 1, False), ("seed", -1, True), ("horizon", -1, True),
    ("save_every", -1, True),
    ("steps_per_dispatch", 0, True), ("baseline_seeds", 0, True), ("eval_every", 0, False), ("steps", 2**40, True)])
def test_numbers_of_every_config_have_bounds(name, value, refused):
  config = presets.load_config("sgns", "tiny")
  config[name] = value
  with pytest.raises(InputError, match=f"^{name}={value}: must be from [01] to ") if refused else (
      contextlib.nullcontext()):
    presets.check_numbers(config)


def test_a_signal_that_a_callback_swallows_is_sent_again(monkeypatch):
  class Swallows:
    def __del__(self):
      os.kill(os.getpid(), signal.SIGUSR1)

  monkeypatch.setattr(sys, "unraisablehook", experiments.redeliver)
  with Signals(), pytest.raises(Interrupted, match="SIGUSR1 received") as caught:
    Swallows()
    time.sleep(5)
  assert caught.value.exit_code == 75


def test_ctrl_c_during_imports_has_no_traceback():
  code = "import sys; sys.argv = {}; import experiments; raise KeyboardInterrupt"
  call = lambda argv: subprocess.run([sys.executable, "-c", code.format(argv)], cwd=ROOT, capture_output=True,
                                     text=True)
  assert call(["-m"]).stderr == "error: interrupted\n"
  assert "Traceback" in call(["mine.py"]).stderr  # Whoever imports the package keeps the hooks.


def test_code_has_the_suffix_of_python(tmp_path):
  (tmp_path / "mine.txt").write_text("def get_config(preset): return {}\n")
  with pytest.raises(InputError, match="mine.txt: must be a .py file"):
    presets.load_config("sgns", "tiny", str(tmp_path / "mine.txt"))
  with pytest.raises(InputError, match="mine.txt is not a .py file"):
    own.load_function(f"{tmp_path}/mine.txt:get_config", tmp_path)


def test_a_flag_of_numbers():
  values = flags.FlagValues()
  flags.DEFINE_list("shares", [], "", flag_values=values)
  values(["program", "--shares=.5,1"])
  assert command.listed(values["shares"], float) == [0.5, 1.0]
  for wrong in ("--shares=.5,half", "--shares=.5,0", "--shares=.5,,1"):
    values(["program", wrong])
    with pytest.raises(InputError, match=f"^{wrong}: must be numbers above 0"):
      command.listed(values["shares"], float)


@pytest.mark.parametrize(("given", "wanted"), [
    ("--xla_cpu_enable_fast_math=false", f"--xla_cpu_enable_fast_math=false {command.NO_YNNPACK_CONVOLUTIONS}"),
    ("--xla_cpu_experimental_ynn_fusion_type=", "--xla_cpu_experimental_ynn_fusion_type=")])
def test_convolutions_are_taken_from_ynnpack_unless_the_user_says_otherwise(given, wanted):
  code = ("import os, jax\nfrom experiments import command\n"
          "command.call(lambda _: print(os.environ['XLA_FLAGS'], jax.numpy.ones(3).sum()))")
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60,
                        env=os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": given})
  assert (done.returncode, done.stdout) == (0, f"{wanted} 3.0\n"), done.stderr


def test_a_run_leaves_all_its_files(finished):
  workdir, printed = finished
  names = {path.name for path in workdir.iterdir()}
  assert names >= {"config.json", "encoder", "metrics.jsonl", "tensorboard", "checkpoints", "results.json",
                   "embeddings.npy", "figures"}
  results = json.loads((workdir / "results.json").read_text())
  assert results["model"] == "gmm" and results["seed"] == 0 and results["steps"] == 20
  assert results["metrics"]["class/all/nmi"] > 0.6
  assert results["versions"]["jax"] and results["device"] == "cpu" and results["mesh"]["data"] == 1
  assert np.load(workdir / "embeddings.npy").shape == (150, 3)
  assert {path.name for path in (workdir / "figures").iterdir()} == {
      "loss.png", "mixture.png", "mixture_course.png", "responsibilities.png"}
  assert [record["step"] for record in records(workdir)] == [5, 10, 15, 20]
  assert "results.json" in printed and "class/all/nmi" in printed and "rows.tsv (its rows)" in printed
  assert "gmm: 150 rows of iris, 20 steps of batch 150, on cpu; in " in printed and "mesh" not in printed
  assert "higher is better" in printed and "trained" in printed


def test_the_best_checkpoint_is_what_is_reported_and_read(tmp_path):

  done = call("run", "--model=gmm", "--preset=tiny", f"--workdir={tmp_path / 'w'}", "--config.eval_every=5",
              "--config.steps_per_dispatch=5", "--config.best_metric=class/all/nmi")
  assert done.returncode == 0, done.stderr
  key = "class/all/nmi"
  measured = {record["step"]: record[key] for record in records(tmp_path / "w") if key in record}
  results = json.loads((tmp_path / "w" / "results.json").read_text())
  assert list(measured) == [5, 10, 15, 20] and results["steps"] == 20
  assert measured[results["best_step"]] == max(measured.values()) > measured[20]
  assert results["metrics"][key] == pytest.approx(max(measured.values()), abs=1e-6)
  assert "loss" in results["training"] and key not in results["training"]
  run = load_run(str(tmp_path / "w"))
  assert run.step == results["best_step"] and int(run.state.step) == run.step
  done = call("evaluate", f"--workdir={tmp_path / 'w'}")
  assert f"{key}: {results['metrics'][key]:.4f}" in done.stdout
  again = json.loads((tmp_path / "w" / "results.json").read_text())
  assert (again["steps"], again["best_step"]) == (20, run.step)


def test_a_finished_run_says_so(finished):
  done = call("run", "--model=gmm", "--preset=tiny", f"--workdir={finished[0]}")
  assert done.returncode == 0 and "finished at step 20" in done.stdout


def test_a_run_that_has_more_steps_than_are_asked_for_says_so_and_reports_what_it_has(finished, tmp_path):
  shutil.copytree(finished[0], tmp_path / "w")
  (tmp_path / "w" / "results.json").unlink()  # As if it had been interrupted.
  done = call("run", "--model=gmm", "--preset=tiny", "--steps=15", f"--workdir={tmp_path / 'w'}")
  assert done.returncode == 0, done.stderr
  assert "going on from step 20; 15 are asked for, so there is nothing to train" in done.stdout
  results = json.loads((tmp_path / "w" / "results.json").read_text())
  assert results["steps"] == 20
  assert results["metrics"] == json.loads((finished[0] / "results.json").read_text())["metrics"]


def test_embed_and_evaluate_need_the_work_directory_alone(finished, tmp_path):
  from sklearn.datasets import load_iris
  workdir, _ = finished
  rows = load_iris().data.astype(np.float32)
  np.save(tmp_path / "in.npy", rows)
  done = call("embed", f"--workdir={workdir}", f"--input={tmp_path / 'in.npy'}", f"--output={tmp_path / 'out.npy'}")
  assert done.returncode == 0, done.stderr
  np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), np.load(workdir / "embeddings.npy"))
  before = json.loads((workdir / "results.json").read_text())
  done = call("evaluate", f"--workdir={workdir}", "--protocols=clustering")
  assert done.returncode == 0 and "class/all/nmi" in done.stdout
  assert json.loads((workdir / "results.json").read_text()) == before


MISTAKES = {
    "model": (["--model=gnm"], "did you mean gmm?"),
    "no_model": ([], "--model=: is missing; one of"),
    "preset": (["--model=gmm", "--preset=smal"], "did you mean small?"),
    "data": (["--model=gmm", "--data=irs"], "did you mean 'iris'?"),
    "kind": (["--model=gmm", "--data=pydocs"], "holds text"),
    "key": (["--model=gmm", "--config.model.num_component=2"], "did you mean num_components?"),
    "type": (["--model=gmm", "--config.model.num_components=two"], "num_components=two"),
    "value": (["--model=gmm", "--config.model.num_components=0"], "num_components=0: must be at least 1"),
    "flag": (["--model=gmm", "--step=3"], "--step: no such flag; did you mean --steps?"),
    "argument": (["--model=gmm", "gmm"], "'gmm' is not a flag"),
    "mesh": (["--model=gmm", "--mesh=data:3"], "needs 3 devices, and there are 1"),
    "batch": (["--model=gmm", "--batch_size=0"], "--batch_size"),
    "missing_file": (["--model=gmm", "--data=./nothing.csv"], "nothing.csv"),
    "config_file": (["--config_file=nothing.py"], "--config_file=nothing.py: no such file"),
    "workdir": (["--model=gmm", "--preset=tiny", "--workdir=/proc/nowhere"], "/proc/nowhere: cannot be written"),
    "protocol": (["--model=gmm", "--config.evals=('clusterin',)"], "did you mean clustering?"),
    "profile": (["--model=gmm", "--preset=tiny", "--profile=9"], "--profile=9: must be first:last"),
    "coordinator": (["--model=gmm", "--num_processes=2"], "--coordinator=HOST:PORT"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_clear_line(name, tmp_path):
  arguments, expected = MISTAKES[name]
  done = call("run", *arguments, cwd=tmp_path)
  assert done.returncode == 2
  lines = done.stderr.strip().splitlines()
  assert len(lines) == 1 and lines[0].startswith("error: "), done.stderr
  assert expected in lines[0].replace("Did", "did")
  assert not (tmp_path / "runs").exists()


def test_another_trajectory_is_refused_and_overwrite_moves_it_aside(finished, tmp_path):
  workdir = tmp_path / "w"
  shutil.copytree(finished[0], workdir)
  options = ("--model=gmm", "--preset=tiny", f"--workdir={workdir}", "--seed=3", "--config.model.num_components=2")
  done = call("run", *options)
  assert done.returncode == 2
  assert "model.num_components was 3, now 2" in done.stderr and "seed was 0, now 3" in done.stderr
  done = call("run", *options, "--overwrite")
  assert done.returncode == 0, done.stderr
  assert len([path for path in tmp_path.iterdir() if path.name.startswith("w.")]) == 1
  assert np.load(workdir / "embeddings.npy").shape == (150, 2)


def test_a_sigterm_saves_and_exits_75_and_the_same_command_goes_on(tmp_path):
  arguments = ("--model=gmm", "--preset=tiny", "--steps=10000", "--config.model.tol=0.0",
               "--config.model.reg_covar=0.01", "--config.log_every=1000",
               "--config.steps_per_dispatch=10", "--config.save_every=0")
  whole = call("run", *arguments, f"--workdir={tmp_path / 'whole'}")
  assert whole.returncode == 0, whole.stderr
  process = start(*arguments, f"--workdir={tmp_path / 'w'}")
  while process.poll() is None:
    metrics = tmp_path / "w" / "metrics.jsonl"
    if metrics.exists() and metrics.stat().st_size:
      process.send_signal(signal.SIGTERM)
      break
    time.sleep(0.02)
  _, errors = process.communicate(timeout=60)
  assert process.returncode == 75 and "SIGTERM received: saved at step" in errors
  done = call("run", *arguments, f"--workdir={tmp_path / 'w'}")
  assert done.returncode == 0 and "going on from step" in done.stdout, done.stderr
  np.testing.assert_array_equal(np.load(tmp_path / "w" / "embeddings.npy"),
                                np.load(tmp_path / "whole" / "embeddings.npy"))
  without_times = lambda folder: [{k: r[k] for k in ("step", "loss", "log_likelihood")} for r in records(folder)]
  assert without_times(tmp_path / "w") == without_times(tmp_path / "whole")


def test_a_config_of_another_models_factory_resumes_in_its_own_directory(tmp_path):
  """`eigenfaces` trains `pca`: its directory has its name, more steps go on in it, other options have another one."""
  first = call("run", "--model=eigenfaces", "--preset=tiny", "--steps=1", cwd=tmp_path)
  assert first.returncode == 0, first.stderr
  (folder,) = (tmp_path / "runs").iterdir()
  assert folder.name.startswith("eigenfaces-tiny-")
  longer = call("run", "--model=eigenfaces", "--preset=tiny", "--steps=2", cwd=tmp_path)
  assert longer.returncode == 0, longer.stderr
  assert [path.name for path in (tmp_path / "runs").iterdir()] == [folder.name]
  other = call("run", "--model=eigenfaces", "--preset=tiny", "--config.model.dim=3", cwd=tmp_path)
  assert other.returncode == 0 and len(list((tmp_path / "runs").iterdir())) == 2


def test_what_a_cluster_asks_of_a_run(tmp_path):
  """A profile, a cache of programs, checkpoints by the clock, and the share of time in steps."""
  done = call("run", "--model=kmeans", "--preset=tiny", "--steps=60", "--config.steps_per_dispatch=2",
              "--config.log_every=2", "--config.save_every=0", "--config.model.tol=0.0", "--save_minutes=1e-9",
              "--profile=4:8", f"--compilation_cache={tmp_path / 'cache'}", f"--workdir={tmp_path / 'w'}")
  assert done.returncode == 0, done.stderr
  traces = list((tmp_path / "w" / "profile").rglob("*"))
  assert {"perfetto_trace.json.gz"} <= {path.name for path in traces}
  assert any(path.name.endswith(".xplane.pb") for path in traces)
  assert list((tmp_path / "cache").iterdir())
  assert len(list((tmp_path / "w" / "checkpoints").glob("[0-9]*"))) == 3  # As many as are kept, of more.
  shares = [record["goodput"] for record in records(tmp_path / "w") if "goodput" in record]
  assert shares and all(0 <= share < 1 for share in shares)


@pytest.mark.parametrize("name", ["run", "embed", "evaluate", "export", "neighbors", "sample", "visualize", "walks",
                                  "benchmark"])
def test_help_names_every_flag(name):
  done = call(name, "--help")
  assert done.returncode == 0
  assert all(f"  {row[0].strip('`')}: " in done.stdout for row in pages.flag_rows(name))


def test_help_of_a_model_names_every_key_with_a_meaning():
  text = call("run", "--help", "--model=bert").stdout
  keys = re.findall(r"^  --config\.([\w.]+)=", text, re.MULTILINE)
  assert {"model.dim", "optimizer.b1", "data.max_length", "steps"} <= set(keys)
  for name in presets.model_names():
    assert not [key for key, _, meaning in pages.config_rows(presets.load_config(name, "demo")) if not meaning]


def test_names_decide_which_options_there_are():
  names = ("--config.model.encoder.name=gpt", "--config.optimizer.name=sgd")
  shown = call("run", "--model=finetune", "--print_config", *names, "--config.model.encoder.norm=pre",
               "--config.optimizer.momentum=.9").stdout
  config = json.loads(shown)
  encoder, optimizer = config["model"]["encoder"], config["optimizer"]
  assert (encoder["name"], encoder["norm"]) == ("gpt", "pre") and "position_init" not in encoder
  assert (optimizer["name"], optimizer["momentum"]) == ("sgd", 0.9) and "b1" not in optimizer


def test_lists_and_config():
  listed = call("run", "--list_models").stdout.split()
  assert listed == sorted(path.stem for path in pathlib.Path(configs.__path__[0]).glob("[a-z]*.py"))
  listed = call("run", "--list_data").stdout
  assert all(name in listed for name in ("digits", "pydocs", "fsdd", "enwiki-2015"))
  config = json.loads(call("run", "--model=gmm", "--print_config", "--steps=9").stdout)
  assert config["steps"] == 9 and config["model"]["num_components"] == 3


def test_a_config_from_a_file(tmp_path):
  (tmp_path / "mine.py").write_text(
      "def get_config(preset):\n  return dict(name='gmm', model=dict(num_components=2), "
      "pipeline='rows', data=dict(name='iris'), epochs=3, evals=('clustering',))\n")
  done = call("run", f"--config_file={tmp_path / 'mine.py'}", f"--workdir={tmp_path / 'w'}")
  assert done.returncode == 0, done.stderr
  assert np.load(tmp_path / "w" / "embeddings.npy").shape == (150, 2)


def start_two(*arguments, devices):
  """Two processes of one run on loopback."""
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
  return [start(*arguments, f"--coordinator=127.0.0.1:{port}", "--num_processes=2", f"--process_id={i}",
                devices=devices) for i in range(2)]


@pytest.mark.slow
def test_a_sigterm_to_one_of_two_processes_saves_and_stops_both(tmp_path):
  both = start_two(
      "--model=gmm", "--preset=tiny", "--steps=100000", "--config.model.tol=0.0", "--config.log_every=10",
      "--config.steps_per_dispatch=10", f"--workdir={tmp_path / 'w'}", devices=1)
  metrics = tmp_path / "w" / "metrics.jsonl"
  while not (metrics.exists() and metrics.stat().st_size) and both[1].poll() is None:
    time.sleep(0.05)
  both[1].send_signal(signal.SIGTERM)
  errors = [process.communicate(timeout=120)[1] for process in both]
  assert [process.returncode for process in both] == [75, 75], errors
  saved = [re.search(r"SIGTERM received: saved at step (\d+)", text)[1] for text in errors]
  assert saved[0] == saved[1] and (tmp_path / "w" / "checkpoints" / saved[0]).is_dir()


@pytest.mark.long
@pytest.mark.parametrize("dead", [1, 0])
def test_a_dead_process_ends_the_other_with_one_line(dead, tmp_path):
  """Killed without a word; of the coordinator's death JAX may hear first, and aborts."""
  both = start_two(
      "--model=gmm", "--preset=tiny", "--steps=1000000", "--config.model.tol=0.0", "--config.log_every=10",
      "--heartbeat=4", "--config.steps_per_dispatch=10", f"--workdir={tmp_path / 'w'}", devices=1)
  metrics = tmp_path / "w" / "metrics.jsonl"
  while not (metrics.exists() and metrics.stat().st_size) and both[1].poll() is None:
    time.sleep(0.05)
  both[dead].kill()
  killed = time.monotonic()
  _, errors = both[1 - dead].communicate(timeout=120)
  assert time.monotonic() - killed < 30
  assert both[1 - dead].returncode in ((75,) if dead else (75, -6)), errors  # 134 in a shell.
  if both[1 - dead].returncode == 75:
    assert errors.strip().splitlines()[-1].startswith(f"error: process {dead} of the run is gone")


@pytest.mark.slow
@pytest.mark.parametrize("model", [
    "sgns", *(pytest.param(model, marks=pytest.mark.long) for model in ("gmm", "cpc", "node2vec"))])
def test_two_processes_give_the_losses_of_one(model, tmp_path):
  """Two processes of two devices on loopback, and one process of four."""
  arguments = (f"--model={model}", "--preset=tiny", "--steps=12", "--config.log_every=1",
               "--config.steps_per_dispatch=2", "--mesh=data:4", "--config.evals=()")
  one = call("run", *arguments, f"--workdir={tmp_path / 'one'}", devices=4)
  assert one.returncode == 0, one.stderr
  for process in start_two(*arguments, f"--workdir={tmp_path / 'two'}", devices=2):
    _, errors = process.communicate(timeout=180)
    assert process.returncode == 0, errors
  losses = [np.array([record["loss"] for record in records(tmp_path / name)]) for name in ("one", "two")]
  assert len(losses[0]) == 12
  np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
  if model == "sgns":
    facts, results = (json.loads((tmp_path / "one" / f"{name}.json").read_text()) for name in ("config", "results"))
    words = 12 / facts["facts"]["steps_per_epoch"] * facts["facts"]["num_raw_words"]
    assert results["words_per_second"] * results["wall_seconds"] == pytest.approx(words, rel=0.05)
  vectors = [np.load(tmp_path / name / "embeddings.npy") for name in ("one", "two")]
  np.testing.assert_allclose(vectors[1], vectors[0], rtol=1e-3, atol=1e-4)


def test_code_that_a_recorded_config_names_does_not_run(finished, tmp_path):
  workdir = tmp_path / "w"
  shutil.copytree(finished[0], workdir)
  code = f"{tmp_path / 'evil.py'}:f"
  (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\ndef f():\n  yield 'a text'\n")
  record = json.loads((workdir / "config.json").read_text())
  record["config"]["data"]["name"] = code
  record["config"]["evals"] = ["clustering", f"clustering:{code}"]
  (workdir / "config.json").write_text(json.dumps(record))
  done = call("evaluate", f"--workdir={workdir}")
  assert done.returncode == 0 and not (tmp_path / "ran").exists()
  assert done.stdout.count("is code, which a recorded config cannot run; if you trust it, give data=") == 2
  call("evaluate", f"--workdir={workdir}", f"--data={code}")
  assert (tmp_path / "ran").exists()


def test_more_steps_continue_a_run_with_its_first_schedules_under_optimized_python_too(tmp_path):
  """The first steps of the longer run are those of the shorter one, bit for bit; `-O` leaves out what asserts do."""
  words = np.random.default_rng(0).integers(0, 40, (300, 12))
  (tmp_path / "text.txt").write_text("\n".join(" ".join(f"word{chr(97 + i)}" for i in line % 26) for line in words))
  arguments = ("--model=sgns", "--preset=tiny", "--config.save_every=0", "--config.log_every=1", "--config.evals=()",
               f"--data={tmp_path / 'text.txt'}", "--config.data.min_count=1")
  done = subprocess.run([sys.executable, "-O", "-m", "experiments.run", "--nofigures", *arguments, "--steps=10",
                         f"--workdir={tmp_path / 'w'}"], capture_output=True, text=True,
                        env=os.environ | {"JAX_NUM_CPU_DEVICES": "1", "PYTHONPATH": str(ROOT)})
  assert done.returncode == 0, done.stderr
  short = np.load(tmp_path / "w" / "embeddings.npy")
  done = call("run", *arguments, "--steps=16", f"--workdir={tmp_path / 'w'}")
  assert done.returncode == 0 and "schedules run over 10 steps" in done.stdout, done.stdout + done.stderr
  record = json.loads((tmp_path / "w" / "config.json").read_text())
  assert (record["steps"], record["horizon"], record["trajectory"]["horizon"]) == (16, 10, 10)
  done = call("run", *arguments, "--steps=16", "--config.horizon=10", f"--workdir={tmp_path / 'v'}")
  assert done.returncode == 0, done.stderr
  longer = [np.load(tmp_path / name / "embeddings.npy") for name in ("w", "v")]
  np.testing.assert_array_equal(*longer)
  assert not np.array_equal(longer[0], short)
  logs = [[(record["step"], record["loss"]) for record in records(tmp_path / name)] for name in ("w", "v")]
  assert logs[0] == logs[1] and len(logs[0]) == 16
