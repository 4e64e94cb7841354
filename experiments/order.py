"""Sorts the frames of a clip: `python -m experiments.order --workdir=W --input=CLIP [--output=OUT.png]`.

The network of a run of `order_verification` gets frames of the clip in a random order. Those of every triple are
judged, and the order is printed whose triples are likeliest, up to the direction of time, with Kendall's tau between
it and the order of the clip. --output shows the frames as they were shuffled, as they were sorted, and as they are.

A clip is a folder of images, an array in a .npz or .npy file, or a video file; --clip says which, where there are
several. --data names a dataset instead, as moving-digits.
"""
from collections.abc import Sequence

import numpy as np
from absl import flags

from embeddings_jax.errors import InputError
from embeddings_jax.runs import presets
from experiments import command

FLAGS = flags.FLAGS

flags.DEFINE_string("workdir", "", "Work directory of a run of order_verification.")
flags.DEFINE_string("input", "", "Clips: a folder, glob or file.")
flags.DEFINE_string("data", "", "Name of a dataset, instead of --input.")
flags.DEFINE_string("clip", "0", "Clips by number, with commas between; of --data those of the test split.")
flags.DEFINE_integer("num", 0, "Frames that are sorted; 0: all of the window, 24 at most.", lower_bound=0)
flags.DEFINE_string("output", "", "PNG file.")
flags.DEFINE_string("data_dir", None, "Directory of the catalog's files (default: $EMBEDDINGS_DATA).")
flags.DEFINE_string("cache_dir", None,
                    "Directory of derived data (default: $EMBEDDINGS_CACHE, ~/.cache/embeddings_jax).")
flags.DEFINE_integer("seed", 0, "Random seed of the shuffling.", lower_bound=0, upper_bound=presets.MAX_SEED)


def main(argv: Sequence[str]) -> int:
  command.parse(argv)
  if not FLAGS.workdir:
    raise InputError("--workdir is missing: a run of order_verification")
  if bool(FLAGS.input) == bool(FLAGS.data):
    raise InputError("--input or --data is missing" if not FLAGS.input else "--input and --data: give one of them")
  if FLAGS.output:
    command.check_output(FLAGS.output, *([FLAGS.input] if FLAGS.input else []))
    if not FLAGS.output.endswith(".png"):
      raise InputError(f"--output={FLAGS.output}: must end in .png")
  from embeddings_jax.data import video
  from embeddings_jax.runs import sampling
  from embeddings_jax.runs.load import load_run
  from embeddings_jax.runs.ordering import order_frames

  run = load_run(FLAGS.workdir)
  if FLAGS.data:
    dataset = run.encoder.adapt(video.read(FLAGS.data, data_dir=FLAGS.data_dir, cache_dir=FLAGS.cache_dir))
    clips = [dataset.items[i] for i in dataset.split.get("test", range(len(dataset.items)))]
  else:
    clips = list(video.load_clips(FLAGS.input, cache_dir=FLAGS.cache_dir).items)
  rows, taus = [], []
  for number in FLAGS.clip.split(","):
    if not number.isdecimal() or int(number) >= len(clips):
      raise InputError(f"--clip={number[:20]}: must be a number from 0 to {len(clips) - 1}")
    result = order_frames(run, clips[int(number)], num=FLAGS.num, seed=FLAGS.seed)
    print(f"clip {number}: {' '.join(map(str, result.order))}  |tau| {result.tau:.3f}")
    taus.append(result.tau)
    rows += [result.frames[result.shuffled], result.frames[result.order], result.frames]
  if len(taus) > 1:
    print(f"mean |tau| {np.mean(taus):.3f}")
  if FLAGS.output:
    sampling.write_images(FLAGS.output, np.concatenate(rows) / np.float32(255), columns=len(rows[0]))
    print(f"{FLAGS.output}: shuffled, sorted, as they are")
  return 0


if __name__ == "__main__":
  command.call(main)
