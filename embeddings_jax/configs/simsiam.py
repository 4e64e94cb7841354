"""SimSiam (Chen & He 2021, arXiv:2011.10566): images whose views predict each other.

Command: `python -m experiments.run --model=simsiam [--preset=small --data_dir=DIR] [--data=fashion-mnist|FOLDER]`
Presets: those of `simclr`, with its network, data and changes of images; `paper` the recipe for CIFAR-10 of the
paper's appendix D, for 800 passes; there alone the predictor's rate stays while the others' falls (section 4.2).
Expected: small with `--steps=800`, 8 minutes: kNN .425 +- .016 (k = 200: .405 +- .017), linear probe .460 +- .017,
deviations .96, .99, .87 (3 seeds, two of them beside other work); the best of three untrained .384 (.373) and .379,
pixels: see `simclr`; kNN of Fashion-MNIST, as there (seed 1): .819 (.775). demo, digits at random places: linear
probe .719, with 5 labels a class .445; untrained .333 and .169, pixels .331 and .179 (1 seed). The paper's ResNet-18,
800 passes: linear probe .918.
"""
import ml_collections

from embeddings_jax.configs import simclr


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  config = simclr.get_config(preset)
  for key in ("temperature", "chunk_size"):
    del config.model[key]
  config.model.update(dict(projector_dims=(256, 256), predictor_dim=64))
  config.optimizer.constant = ()
  if preset == "demo":
    config.optimizer.learning_rate = 1e-3
    config.steps = 1000
  elif preset == "tiny":
    config.model.update(dict(projector_dims=(8, 8), predictor_dim=4))
  elif preset == "small":
    config.baselines = False
  elif preset == "paper":
    config.model.update(dict(projector_dims=(2048, 2048), predictor_dim=512, min_scale=0.2))
    config.optimizer = dict(name="sgd", learning_rate=0.06, schedule="cosine", weight_decay=5e-4, momentum=0.9,
                            constant=("predictor",))
    config.epochs = 800
  return config
