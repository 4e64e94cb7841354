"""Speed and quality beside a peer, in the same process, by turns; ratios and medians, never single times.

  python -m experiments.benchmark loop --model=cpc --preset=small     our loop against its bare dispatches
  python -m experiments.benchmark sgns --data=enwiki-2015             skip-gram against gensim (extra `parity`)
  python -m experiments.benchmark cbow --data=enwiki-2015             continuous bag of words against gensim
  python -m experiments.benchmark glove --peer=GLOVE/build            counting and training against the C programs
  python -m experiments.benchmark ppmi                                our truncated SVD against scipy's `svds`
  python -m experiments.benchmark plsa                                topics of 20 Newsgroups against NMF
  python -m experiments.benchmark topics                              pLSA plain and tempered, LSA and tf-idf
  python -m experiments.benchmark lsa                                 our truncated SVD against scikit-learn's
  python -m experiments.benchmark lsa_stream                          the same beyond memory: what it takes of it
  python -m experiments.benchmark gmm                                 an iteration of EM against scikit-learn's
  python -m experiments.benchmark gmm_memory --rows=20000000          exact EM of a file: what it takes of memory
  python -m experiments.benchmark pairs --data=enwiki-2015            sentence pairs a second, one core
  python -m experiments.benchmark bert_step                           BERT's update against transformers with torch
  python -m experiments.benchmark bert_base --length=512              BERT-base on a GPU against torch.compile
  python -m experiments.benchmark simcse_step                         SimCSE's update against transformers with torch
  python -m experiments.benchmark mae_step                            MAE's update against transformers with torch
  python -m experiments.benchmark augment                             views of images: their share of a step
  python -m experiments.benchmark labels --workdir=W --figure=gain.png  accuracy by the number of labels
  python -m experiments.benchmark transfer --workdir=A,B --numbers=300,10000  where pretraining helps: 2 x 2
  python -m experiments.benchmark mask_ratios --data=digits --figure=ratios.png  why MAE hides three quarters
  python -m experiments.benchmark mae_gpu --size=large                MAE at 224 on a GPU against torch.compile
  python -m experiments.benchmark embed --data=enwiki-2015            sentence vectors, beside sentence-transformers
  python -m experiments.benchmark contrastive                         InfoNCE in chunks against all scores at once
  python -m experiments.benchmark mutual_information --figure=mi.png  lower bounds of a known mutual information
  python -m experiments.benchmark walks --data=blogcatalog            random walks: steps a second for several p, q
  python -m experiments.benchmark walk_peers --data=blogcatalog --peer=ensmallen=PYTHON,pecanpy=PYTHON  their walks
  python -m experiments.benchmark deepwalk --data=blogcatalog --peer=ensmallen=PYTHON  beside its walks and gensim
  python -m experiments.benchmark netmf --data=blogcatalog            NetMF against the same formula in scipy
  python -m experiments.benchmark large_graph --rows=1000000          a power law with a hub: memory and speed
  python -m experiments.benchmark unseen_nodes --data=cora --seeds=3  new nodes by walks, projection and neighbors
  python -m experiments.benchmark gan_ring --data=ring --seeds=3      modes that GANs find, by loss and schedule
  python -m experiments.benchmark generation_table --workdir=runs --data=fashion-mnist  distances of all runs
  python -m experiments.benchmark restoration_table --workdir=W --data=cifar10-jpeg  beside scikit-image
  python -m experiments.benchmark single_image_table --data=imagenet-sample-128  the deep image prior, likewise
  python -m experiments.benchmark principal_components --workdir=W    an autoencoder beside as many components
  python -m experiments.benchmark autoencoder_step                    the book's autoencoder's update against torch
  python -m experiments.benchmark pretext_table --workdir=runs        layers of all runs of pretext tasks
  python -m experiments.benchmark building                            pretext examples: their share of a step
  python -m experiments.benchmark lda --data=20news                   topics against scikit-learn's batch updates
  python -m experiments.benchmark copy_task --numbers=5,20,60         what recurrent cells carry over a gap
  python -m experiments.benchmark exciting_inputs --workdir=W --data=pasted-digits --layer=block_3  units by ascent
  python -m experiments.benchmark pointing --workdir=W --data=pasted-digits  whether maps of attention point at digits
  python -m experiments.benchmark detected_digits --workdir=W --data=pasted-digits --layer=block_3  R-CNN
  python -m experiments.benchmark detection_table --workdir=runs --data=pasted-digits --seeds=3  all runs' trunks

Each prints one JSON object; `--output` writes it as well, and the README's table is made from such files.
"""
import ast
import importlib
import json
import pathlib
import re
from collections.abc import Sequence

from absl import flags

from embeddings_jax.data.files.atomic import write_atomically
from embeddings_jax.errors import InputError, check_choice
from embeddings_jax.runs import workdir
from experiments import command, hardware

FLAGS = flags.FLAGS

flags.DEFINE_string("model", "", "Model of the benchmark `loop`.")
flags.DEFINE_string("preset", "demo", "Preset of --model.")
flags.DEFINE_string("data", "enwiki-2015", "Dataset.")
flags.DEFINE_string("data_dir", None, "Directory of the catalog's files (default: $EMBEDDINGS_DATA).")
flags.DEFINE_string("cache_dir", None,
                    "Directory of derived data (default: $EMBEDDINGS_CACHE, ~/.cache/embeddings_jax).")
flags.DEFINE_integer("repeats", 5, "Measurements of ours and of the peer, by turns.", lower_bound=1)
flags.DEFINE_integer("epochs", 1, "Epochs over the corpus, or over its co-occurrences.", lower_bound=1)
flags.DEFINE_string("peer", "", "For `glove` the folder of the programs cooccur, shuffle and glove, built from "
                    "stanfordnlp/GloVe; for `walk_peers` and `deepwalk` interpreters of environments of their own, "
                    "ensmallen=PYTHON,pecanpy=PYTHON.")
flags.DEFINE_integer("rows", 200_000, "Rows of `gmm` and `gmm_memory`, nodes of `large_graph`.", lower_bound=1000)
flags.DEFINE_integer("features", 32, "Features of these rows.", lower_bound=1)
flags.DEFINE_integer("components", 16, "Components of their mixture.", lower_bound=1)
flags.DEFINE_enum("covariance", "full", ["full", "tied", "diagonal", "spherical"], "Covariances of the components.")
flags.DEFINE_integer("length", 512, "Tokens of a row of `bert_base`.", lower_bound=8)
flags.DEFINE_float("attention_dropout", 0.0,
                   "Dropout of the attention weights of `bert_base`.", lower_bound=0.0, upper_bound=0.9)
flags.DEFINE_string("workdir", "",
                    "Work directory of the run for `labels`, `restoration_table`, `principal_components`, "
                    "`exciting_inputs`, `pointing` and `detected_digits`; two of `transfer`; a folder "
                    "of runs for `generation_table`, `pretext_table` and `detection_table`.")
flags.DEFINE_string("label", "", "Label whose classes weight the maps of `pointing` (default: none, and the image's "
                    "own embedding does).")
flags.DEFINE_string("layer", "", "Layer of `exciting_inputs`, `pointing`, `detected_digits` (default: the last) and "
                    "`detection_table` (default: chosen for each run on training images).")
flags.DEFINE_integer("finetune_steps", 0, "Updates of the trunk on training boxes before `detected_digits` and "
                     "`detection_table`; 0: it is frozen.", lower_bound=0)
flags.DEFINE_list("numbers", ["100", "300", "1000", "3000", "10000"], "Numbers of labels of `labels`, `transfer`.")
flags.DEFINE_list("rates", [], "Learning rates of `labels`, to choose from by `dev` (default: the recipe's).")
flags.DEFINE_enum("layers", None, ["last",
                  "mix", "concat"], "Layers that the heads of `labels` read (default: the recipe's).")
flags.DEFINE_bool("mixed", False, "Whether `labels` also trains on labels and proxy losses together.")
flags.DEFINE_list("ratios", ["0.15", "0.4", "0.6", "0.75", "0.9"], "Fractions of patches that `mask_ratios` hides.")
flags.DEFINE_integer("steps", 400, "Updates of each training of `labels` and `mask_ratios`.", lower_bound=1)
flags.DEFINE_integer("batch_size", 0, "Batch size of `mask_ratios` (0: the preset's).", lower_bound=0)
flags.DEFINE_enum("equal", "steps", ["steps",
                  "operations"], "Whether trainings of `mask_ratios` have equal steps or equal operations.")
flags.DEFINE_enum("size", "base", ["base", "large"], "Vision transformer of `mae_gpu`.")
flags.DEFINE_float("seconds", 5.0, "Approximate seconds of one measurement of `loop`.")
flags.DEFINE_integer("seed", 0, "Random seed.")
flags.DEFINE_integer("seeds", 1,
                     "Number of seeds of `sgns`, `cbow`, `labels`, `mask_ratios`, `gan_ring`, `pointing`, "
                     "`detected_digits`, `detection_table` and `unseen_nodes`, from --seed on.",
                     lower_bound=1)
flags.DEFINE_string("figure", "", "File to draw the figure of `mutual_information`, `labels`, `mask_ratios` or "
                    "`generation_table` in.")
flags.DEFINE_string("output", "", "File to write the result to.")


def main(argv: Sequence[str]) -> int:
  module_of = benchmarks()
  if len(argv) < 2:
    raise InputError(f"which benchmark? one of {', '.join(module_of)}")
  check_choice("benchmark", argv[1], list(module_of))
  command.parse([argv[0], *argv[2:]])
  if FLAGS.output:
    command.check_output(FLAGS.output)
  verb = getattr(importlib.import_module(f"experiments.benchmarks.{module_of[argv[1]]}"), argv[1])
  path_flags = ("--output", "--figure", "--data_dir", "--cache_dir", "--peer")
  shown = [re.sub(r"(?<=[=,])[^,]*?([^/,]+)/?(?=,|$)", r"runs/\1", argument) if argument.startswith("--workdir=")
           else argument for argument in argv[1:] if not argument.startswith(path_flags)]
  record = {"command": " ".join(["python -m experiments.benchmark", *shown]), **verb(),
            "device": hardware.processor(), "versions": workdir.versions(), "commit": workdir.commit()}
  if FLAGS.output:
    record |= hardware.measured_elsewhere(pathlib.Path(FLAGS.output), record)
  text = json.dumps(record, indent=1)
  print(text)
  if FLAGS.output:
    write_atomically(FLAGS.output, text + "\n")
  return 0


def benchmarks() -> dict[str, str]:
  """Returns the module of each benchmark: functions of `benchmarks/` that return a dict and need no arguments."""
  modules = {}
  for path in sorted(pathlib.Path(__file__).with_name("benchmarks").glob("*.py")):
    for node in ast.parse(path.read_text()).body:
      if (isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and node.returns is not None
          and ast.unparse(node.returns) == "dict" and len(node.args.defaults) == len(node.args.args)):
        modules[node.name] = path.stem
  return modules


if __name__ == "__main__":
  command.call(main)
