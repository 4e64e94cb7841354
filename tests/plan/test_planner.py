"""Plans of real runs for eight simulated devices, and for TPUs that are not there."""
import json
import os
import pathlib
import subprocess
import sys
import types

import jax
import numpy as np
import pytest
from commands import call
from jax.sharding import PartitionSpec as P

from embeddings_jax.plan import chips, programs, report, sweep
from embeddings_jax.train import mesh as mesh_lib
from embeddings_jax.types import InputError

ROOT = pathlib.Path(__file__).parents[2]


def plan(tmp_path, *arguments, code=0):
  done = call("plan", f"--output={tmp_path / 'plan.json'}", *arguments, devices=8)
  assert done.returncode == code, done.stderr
  return json.loads((tmp_path / "plan.json").read_text()), done.stdout


def test_a_mixture_on_eight_devices(tmp_path):
  """4,096 rows of 8 features, three components, two slices: the numbers are those of the formulas."""
  planned, text = plan(tmp_path, "--model=gmm", "--preset=tiny", "--devices=cpu:8", "--chip=v5e", "--num_rows=4096",
                     "--item_shape=8", "--config.model.num_components=3", "--noevaluation", "--mesh=dcn:2")
  assert planned["mesh"] == {"data": 8, "fsdp": 1, "model": 1} and planned["rows"] == 4096 and planned["fits"]
  assert planned["batch_bytes"] == 4096 * (8 + 1) * 4 and planned["read_share"] == 1
  update = planned["programs"]["update"]
  assert update["flops"]["ratio"] < 1.1
  # Sums of responsibilities, rows and products of rows; nothing as large as the rows.
  assert {group["kind"] for group in update["collectives"]} == {"all-reduce"}
  assert all(group["axes"] == "data" and group["bytes"] < 4 * 3 * 100 for group in update["collectives"])
  gathered = [group for group in planned["programs"]["init"]["collectives"] if group["kind"] == "all-gather"]
  assert all(group["bytes"] < 64 for group in gathered)
  seconds = update["seconds"]
  assert seconds["sum"] == pytest.approx(sum(seconds[part] for part in ("arithmetic", "memory", "links", "network")))
  # Of the 7 / 4 of an array that a device sends for its sum over eight, 1 / 4 goes to the other slice.
  assert seconds["links"] * 90e9 == pytest.approx(6 * seconds["network"] * 3.125e9)
  assert seconds["network"] * 3.125e9 == pytest.approx(sum(group["traffic"] for group in update["collectives"]) / 7)
  assert planned["slices"] == 2 and "8 devices of v5e in 2 slices" in text
  assert seconds["arithmetic"] == pytest.approx(update["flops"]["compiled"] / 8 / 197e12)
  assert "collectives of update" in text and text.rstrip().endswith("of 16 GB")


@pytest.mark.parametrize("arguments, code, words", [
    (("--model=gmm", "--preset=tiny", "--devices=cpu:8", "--chip=v5e", "--memory_gb=1e-6", "--noevaluation"), 3,
     "does not fit"),
    (("--model=gmm",), 2, "--topology=v5e:4x4 or --devices=cpu:16: give one of them"),
    (("--model=gmm", "--devices=gpu:8"), 2, "--devices=gpu:8: must be cpu and a number"),
    (("--model=gmm", "--topology=v5e"), 2, "--topology=v5e: must be a chip and sizes"),
    (("--model=gmm", "--topology=v9:4x4"), 2, "--chip=v9: unknown; one of v4"),
    (("--model=gmm", "--devices=cpu:8", "--sweep"), 2, "--sweep predicts times"),
    (("--model=gmm", "--devices=cpu:8", "--sweep", "--mesh=dcn:2"), 2, "--sweep compares meshes of one slice"),
    (("--model=gmm", "--devices=cpu:8", "--mesh=dcn:3"), 2, "needs 6 devices, and there are 8"),
    (("--model=gmm", "--preset=tiny", "--devices=cpu:8", "--mesh=model:2"), 2, "would repeat each other's work"),
    (("--model=bert", "--preset=tiny", "--devices=cpu:8", "--batch_size=12"), 2, "must be a multiple of the 8 data")])
def test_exit_codes(arguments, code, words):
  done = call("plan", *arguments, devices=8)
  assert done.returncode == code and words in done.stdout + done.stderr
  assert code == 3 or len(done.stderr.splitlines()) == 1


@pytest.mark.long
def test_a_sweep_ranks_meshes_and_predicts_more_devices(tmp_path):
  """Meshes over `model`, which would only repeat a mixture's work, are left out and said to be."""
  planned, text = plan(tmp_path, "--model=gmm", "--preset=tiny", "--devices=cpu:8", "--chip=v5e", "--num_rows=4096",
                     "--sweep")
  assert sorted(planned["ranking"]) == ["data:1,fsdp:8", "data:2,fsdp:4", "data:8"] == sorted(planned["plans"])
  times = [planned["plans"][spec]["programs"]["update"]["seconds"]["sum"] for spec in planned["ranking"]]
  assert times == sorted(times) and "data:4,model:2 is left out" in text
  rows = planned["scaling"]["data:8"]
  assert [row["devices"] for row in rows] == list(sweep.SIZES) and rows[0]["efficiency"] == 1


def test_what_rules_cannot_split_is_said_once(mesh_of):
  array = lambda *shape: jax.ShapeDtypeStruct(shape, np.float32)
  state = {"table": array(641, 100), "even": array(640, 100), "bias": array(641)}
  rules = [("table|even", P("model", "fsdp")), ("bias", P("model"))]
  mesh = mesh_of("fsdp:2,model:2")
  assert mesh_lib.undivided(state, mesh, rules) == {"table": "641 over model:2", "bias": "641 over model:2"}
  note = mesh_lib.replication_note(state, mesh, rules)
  assert "table and 1 more cannot be split evenly (641 over model:2)" in note and "0.3 MB" in note
  assert mesh_lib.replication_note(state, mesh_of("data:4"), rules) == ""


def test_rows_that_several_hosts_read(mesh_of):
  """Along `model` devices hold the same rows: hosts that differ along it alone read them twice."""
  hosts = lambda numbers: np.vectorize(lambda host: types.SimpleNamespace(process_index=host), otypes="O")(numbers)
  within = np.repeat(np.arange(4), 2).reshape(4, 1, 2)
  assert programs.read_share(hosts(within)) == 1
  assert programs.read_share(hosts(within.reshape(2, 2, 2).swapaxes(0, 2))) == 2
  assert programs.read_share(mesh_of("data:4,model:2").devices) == 1


def test_scaling_follows_the_ring():
  """An all-reduce of 80 MB among n devices sends 2 (n - 1) / n of it; along fsdp it stays."""
  chip = chips.by_name("v5e")
  group = lambda axes, kind, traffic: {"axes": axes, "kind": kind, "traffic": traffic}
  described = {"mesh": {"data": 4, "fsdp": 2, "model": 1}, "chip": chip._asdict(), "programs": {"update": {
      "seconds": {"arithmetic": 1e-3, "memory": 2e-3},
      "collectives": [group("data", "all-reduce", 80e6 * 2 * 3 / 4), group("fsdp", "all-gather", 9e6)]}}}
  rows = sweep.weak_scaling(described, (4, 7, 8, 64))
  assert [row["devices"] for row in rows] == [4, 8, 64]
  for row in rows:
    n = row["devices"] // 2
    assert row["seconds"]["links"] == pytest.approx((80e6 * 2 * (n - 1) / n + 9e6) / 90e9)
  assert rows[0]["efficiency"] == 1 and rows[0]["limit"] == "memory"
  assert sweep.meshes(8, model=False) == ["data:8", "data:2,fsdp:4", "data:1,fsdp:8"]


def test_warnings_name_what_is_wrong():
  program = {"flops": {"ratio": 1.3}, "unknown_loops": ["while.1"], "memory": None, "collectives": [
      {"kind": "all-gather", "bytes": 5 << 20, "dtype": "f32", "axes": "data", "source": "a.py:1"},
      {"kind": "all-gather", "bytes": 2 << 20, "dtype": "f32", "axes": "fsdp", "source": "b.py:2"},
      {"kind": "all-gather", "bytes": 2 << 20, "dtype": "bf16", "axes": "fsdp", "source": "c.py:3"}]}
  described = {"replicated": [{"path": "params/table", "bytes": 8e9}], "chip": chips.by_name("v5e")._asdict(),
               "batch_bytes": 4 << 20, "read_share": 2.0, "programs": {"update": program}}
  lines = report.warnings(described, "")
  assert [line.split(",")[0] for line in lines] == [
      "params/table: 8 GB whole on every device", "update: devices compute 1.30 x the products that the program asks "
      "for: work is repeated", "update: gathers as much as a batch", "update: gathers float32",
      "update: 1 loops of unknown length count once", "hosts read 2.00 x the rows of a batch"]


def test_chips_by_what_jax_calls_them():
  kinds = ("TPU v5 lite", "TPU v5p", "TPU v4", "TPU v6 lite", "NVIDIA H200")
  assert [chips.of_kind(kind).name for kind in kinds] == ["v5e", "v5p", "v4", "v6e", "h200"]
  assert chips.of_kind("cpu") is None
  with pytest.raises(InputError, match="chip=v3: unknown; "):
    chips.by_name("v3")


def on_tpu(tmp_path, *arguments, code=0):
  """A plan by libtpu, in a process of its own, which the XLA flags of these tests would end."""
  if not has_libtpu():
    pytest.skip("libtpu is not installed")
  env = {key: value for key, value in os.environ.items() if key not in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")}
  env |= {"PYTHONPATH": f"{ROOT}:{env.get('PYTHONPATH', '')}", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
  done = subprocess.run([sys.executable, "-m", "experiments.plan", f"--output={tmp_path / 'plan.json'}", *arguments],
                        env=env, cwd=ROOT, capture_output=True, text=True, timeout=1800)
  assert done.returncode == code, done.stderr[-2000:]
  return json.loads((tmp_path / "plan.json").read_text())


def has_libtpu():
  import importlib.util

  return importlib.util.find_spec("libtpu") is not None


@pytest.mark.long
def test_a_network_on_a_tpu_slice(tmp_path):
  """fsdp splits the state in four, gathers kernels in bfloat16, and repeats no products."""
  planned = on_tpu(tmp_path, "--model=bert", "--preset=demo", "--topology=v5e:4x4", "--mesh=data:4,fsdp:4",
                 "--batch_size=64", "--config.model.dtype=bfloat16", "--config.model.dim=256")
  update = planned["programs"]["update"]
  assert planned["fits"] and update["flops"]["ratio"] == pytest.approx(1, abs=0.05)
  assert planned["programs"].keys() == {"init", "update", "held_out", "embed"}
  gathered = [group for group in update["collectives"] if group["kind"] == "all-gather" and group["in_loop"]]
  assert gathered and all(group["axes"] == "fsdp" and group["dtype"] == "bf16" for group in gathered)
  assert planned["state"]["opt_state"]["device"] < 0.35 * planned["state"]["opt_state"]["whole"]


@pytest.mark.long
def test_only_sums_of_gradients_leave_a_slice(tmp_path):
  """Two slices of 4 x 4 chips: fsdp stays within one, and what crosses is the quarter of the gradient on a chip."""
  planned = on_tpu(tmp_path, "--model=bert", "--preset=demo", "--topology=v5e:4x4", "--mesh=dcn:2,data:4,fsdp:4",
                 "--batch_size=128", "--config.model.dtype=bfloat16", "--config.model.dim=256", "--noevaluation")
  update = planned["programs"]["update"]
  assert planned["devices"] == 32 and planned["mesh"] == {"data": 8, "fsdp": 4, "model": 1}
  out = [group for group in update["collectives"] if group["network"]]
  assert out and all(group["axes"].startswith("data") and group["kind"] == "all-reduce" for group in out)
  assert sum(group["network"] for group in out) < 0.5 * planned["state"]["params"]["device"]


@pytest.mark.long
def test_fsdp_of_images_sends_parameters_and_no_activations(tmp_path):
  """Activations of a device, [4 rows, 65 patches, 192], would be reduced over fsdp if products were split by it."""
  planned = on_tpu(tmp_path, "--model=mae", "--preset=demo", "--topology=v5e:4x4", "--mesh=data:4,fsdp:4",
                 "--batch_size=1024", "--config.model.dtype=bfloat16", "--config.model.dim=256",
                 "--config.model.mlp_dim=1024", "--config.model.num_heads=4", "--noevaluation")
  update = planned["programs"]["update"]
  assert update["flops"]["ratio"] == pytest.approx(1, abs=0.05)
  reduced = [group for group in update["collectives"] if group["kind"] == "all-reduce" and "fsdp" in group["axes"]]
  largest = 4 * 256 * 1024
  assert all(group["bytes"] <= largest for group in reduced)
  assert sum(group["traffic"] for group in update["collectives"]) < 6 * planned["state"]["params"]["whole"]


@pytest.mark.long
def test_a_mixture_starts_where_its_rows_are(tmp_path):
  """k-means++ of 64 centers among a million rows of 512 MB, 32 MB a device; one sum of statistics an update."""
  planned = on_tpu(tmp_path, "--model=gmm", "--preset=paper", "--config.batch_size=0", "--topology=v6e:4x4",
                 "--num_rows=4000000", "--item_shape=32", "--config.model.num_components=64", "--noevaluation")
  assert planned["fits"] and planned["batch_bytes"] > 500e6
  assert planned["programs"]["init"]["memory"]["total"] < planned["batch_bytes"]
  assert all(group["bytes"] < 1 << 20 for group in planned["programs"]["init"]["collectives"])
  assert [(group["kind"], group["count"]) for group in planned["programs"]["update"]["collectives"]] == [
      ("all-reduce", 1)]


@pytest.mark.long
def test_no_collective_is_as_large_as_the_vocabulary(tmp_path):
  vocabulary = 1_000_000
  planned = on_tpu(tmp_path, "--model=sgns", "--preset=tiny", "--config.data.name=",
                 f"--config.data.max_size={vocabulary}", "--config.model.dim=64", "--topology=v5e:4x4",
                 "--mesh=data:4,model:4", "--noevaluation")
  assert planned["state"]["input"]["device"] < 0.3 * planned["state"]["input"]["whole"]
  collectives = planned["programs"]["update"]["collectives"]
  assert collectives and max(group["bytes"] for group in collectives) < vocabulary


@pytest.mark.long
def test_scores_of_attention_stay_beside_the_processor(tmp_path):
  """The scores of one device and layer, [32 rows, 4 heads, 512, 512], take 134 MB and would be written and read
  several times; without dropout a kernel keeps them, with it a chunk of the queries' fits."""
  arguments = ("--model=bert", "--preset=demo", "--topology=v5e:4x4", "--batch_size=512", "--noevaluation",
               "--config.model.dtype=bfloat16", "--config.model.dim=256", "--config.model.num_heads=4",
               "--config.model.max_length=512", "--config.data.max_length=512", "--config.model.remat=dots")
  kernel, plain = (on_tpu(tmp_path, *arguments, f"--config.model.attention_dropout={rate}")["programs"]["update"]
                   for rate in (0.0, 0.1))
  # Less apart than what writing and reading them once in each of the two layers would add.
  assert abs(kernel["memory_traffic"] - plain["memory_traffic"]) < 2 * 2 * 134e6
  assert kernel["flops"]["ratio"] == pytest.approx(1, abs=0.05)
