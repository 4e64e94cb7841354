"""Benchmark of the conditions under which pretraining helps."""
import pathlib

from absl import flags

from embeddings_jax.types import InputError
from experiments import command
from experiments.benchmarks import labels as by_labels

FLAGS = flags.FLAGS


def transfer() -> dict:
  """A 2 x 2 table of what pretraining adds: accuracy on the test part fine-tuned minus from scratch, for two runs
  (`--workdir=RELATED,OTHER`) and two numbers of labels (`--numbers=FEW,MANY`) of the task `--data`.

  Transfer from a task A to a task B is said to help where (1) both have the same form of input, (2) there are more
  data for A than for B, and (3) what A learns first is of use to B. The first holds of all cells, as one network
  reads both; columns are the second, rows the third. The recipe is that of the benchmark `labels`.
  """
  workdirs, numbers = [name for name in FLAGS.workdir.split(",") if name], command.listed(FLAGS["numbers"], int)
  if len(workdirs) != 2 or len(numbers) != 2 or numbers[0] >= numbers[1]:
    raise InputError(f"--workdir={','.join(workdirs)} --numbers={','.join(map(str, numbers))}: give two runs, and "
                     "two numbers of labels, the smaller first")
  rows, workdir_flag = [], FLAGS.workdir
  try:
    for workdir in workdirs:
      FLAGS.workdir = workdir
      cells = by_labels.labels()["rows"]
      rows.append({"run": pathlib.Path(workdir).name} | {
          f"{cell['labels']} labels": round(cell["fine-tuned"] - cell["from scratch"], 4) for cell in cells} | {
              f"{cell['labels']} labels, from scratch": cell["from scratch"] for cell in cells})
  finally:
    FLAGS.workdir = workdir_flag
  gains = lambda row: ", ".join(f"{number:,}: {row[f'{number} labels']:+.3f}" for number in numbers)
  lines = "; ".join(f"{row['run']} {gains(row)}" for row in rows)
  return {"summary": f"{FLAGS.data}, accuracy fine-tuned minus from scratch, by run and number of labels: {lines} "
                     f"({FLAGS.seeds} seed{'s' * (FLAGS.seeds > 1)})", "rows": rows}
