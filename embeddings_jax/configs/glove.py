"""GloVe (Pennington, Socher & Manning 2014).

Command: `python -m experiments.run --model=glove`
Presets: `demo` documentation of Python and its libraries (2.7 M words), half a minute on two cores; `tiny` for tests;
`small` English Wikipedia of 2015 as a-z text (17 M words, 61 M cells, `--data_dir`), 15 passes, two to three minutes
on two cores; `paper` the settings of section 4.2 on about a billion words (`tfds:lm1b`) in 300 dimensions.
Expected: `small`, three seeds, WordSim-353 .513 ± .018, SimLex-999 .243 ± .008, MEN .518 ± .002,
analogies .359 ± .004, where the authors' C program has .492, .214, .494, .352 (one seed, in the same run as our
first); the same with `--config.model.accumulators=row`.
"""
import ml_collections


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict(dict(
      model=dict(x_max=10.0),
      pipeline="tiles",
      data=dict(name="pydocs"),
      epochs=15,
      batch_size=1,  # Tiles; more of them keep as many devices busy and learn the same.
      steps_per_dispatch=64,
      log_every=512,
      save_every=8192,
  ))
  if preset == "tiny":
    config.model.update(dict(dim=16))
    config.data.update(dict(window=5, min_count=2, max_documents=400, cells_per_tile=2048))
    config.update(dict(epochs=0, steps=40, batch_size=8, steps_per_dispatch=4, log_every=4, save_every=20))
  elif preset == "small":
    config.data.update(dict(name="enwiki-2015", normalize="a-z"))
    config.evals = ("word_similarity:ws353", "word_similarity:simlex999", "word_similarity:men", "analogies")
  elif preset == "paper":
    config.model.update(dict(dim=300, x_max=100.0))
    config.data.update(dict(name="tfds:lm1b", normalize="cased", max_size=400000, window=10, memory=16384))
    config.update(dict(epochs=50))
    config.evals = ("word_similarity:ws353", "word_similarity:simlex999", "word_similarity:men", "analogies")
  return config
