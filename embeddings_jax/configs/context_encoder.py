"""Context encoders (Pathak et al. 2016, arXiv:1604.07379): fill holes in images.

Command: `python -m experiments.run --model=context_encoder [--preset=small --data_dir=DIR] [--data=FOLDER]`
Presets: `demo` two photographs cut into 2,080 images of 16 x 16 pixels; `tiny` for tests; `small` CIFAR-10 as JPEG by
the paper's network of features, with random regions; `paper` its network of generation on your own images of 128 x
128 pixels: holes in the middle, a bottleneck of 4,000, 0.1 % adversarial.
The generator has ten times the discriminator's rate, as in the authors' program.
Expected: demo, held-out squared error .0085 in a hole, difference across its border .054 (of the images .034), kNN
.950, linear probe .990 (1 seed, 41 seconds).
"""
import ml_collections

from embeddings_jax.configs import rotation


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  config = rotation.get_config(preset)
  config.model = dict(encoder=config.model.encoder.to_dict(), hole="region", overlap=0, bottleneck="channelwise",
                      decoder_channels=(64, 32, 16), discriminator_channels=(16, 32), adversarial_weight=0.0,
                      embed_layer="block_3", embed_grid=2)
  optimizer = config.optimizer.to_dict()
  if preset == "demo":
    config.data.update(dict(name="photographs", image_size=16))
    config.model.update(dict(hole="center", bottleneck="dense", bottleneck_dim=256, adversarial_weight=0.001))
    config.update(dict(steps=150, batch_size=32))
  elif preset == "tiny":
    config.model.update(dict(hole="center", bottleneck="dense", bottleneck_dim=8, decoder_channels=(4, 4),
                             discriminator_channels=(4, 4), adversarial_weight=0.001, embed_layer="", embed_grid=1))
  elif preset == "small":
    config.update(dict(batch_size=192))
  elif preset == "paper":
    config.model.encoder = dict(rotation.TRUNK, channels=(64, 64, 128, 256, 512), strides=(2, 2, 2, 2, 2))
    config.model.update(dict(hole="center", overlap=4, bottleneck="dense",
                             decoder_channels=(512, 256, 128, 64, 64, 32), discriminator_channels=(64, 128, 256, 512),
                             adversarial_weight=0.001, embed_layer="", embed_grid=1))
    config.data.update(dict(name="", image_size=128))
    optimizer = dict(name="adam", learning_rate=2e-3, b1=0.5)
    config.update(dict(batch_size=64))
  with config.unlocked():
    config.optimizer = ml_collections.ConfigDict(dict(
        generator=optimizer,
        discriminator=dict(optimizer, learning_rate=optimizer["learning_rate"] / 10)))
  return config
