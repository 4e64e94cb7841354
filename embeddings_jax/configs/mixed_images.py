"""Labels and a pretext task over one trunk of images: the loss of the labels plus a weight times the pretext loss.

Command: `python -m experiments.run --model=mixed_images [--preset=small --data_dir=DIR --config.data.max_train=1000]`
Presets: `demo` digits at random places of 12 x 12 pixels, a minute or two on two cores; `tiny` for tests; `small` the
trunk of `rotation --preset=small` on CIFAR-10 as JPEG; `paper` a ResNet-18.
Another weight: `--config.model.losses.rotation=0.3`. The row without it: `--model=resnet_supervised`. With either,
`--init_from=W` starts from a run W of a pretext task.
Expected: demo, a minute on two cores: test accuracy .917 (one seed). CIFAR-10 with 1,000 labels after 100 updates
(`benchmark labels --mixed`, one seed): both losses at once .356, labels alone .381, `rotation` and then labels .422.
"""
import ml_collections

from embeddings_jax.configs import finetune, rotation


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  base = rotation.get_config(preset)
  config = finetune.supervised(base, base.model.encoder)
  config.factory = "mixed"
  config.model = ml_collections.ConfigDict(dict(
      encoder=base.model.encoder.to_dict(), losses=dict(finetune=1.0, rotation=0.5),
      options=dict(finetune=dict(pooling="mean", dropout=0.0)), pooling="mean"))
  if preset == "tiny":
    config.data.max_examples = 200
  return config
