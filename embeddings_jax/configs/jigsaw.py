"""Jigsaw puzzles (Noroozi & Favaro 2016, arXiv:1603.09246): predicts how the tiles of an image were shuffled.

Command: `python -m experiments.run --model=jigsaw [--preset=small --data_dir=DIR] [--data=FOLDER]`
Presets: `demo` digits of 16 x 16 pixels, all 24 permutations of 2 x 2 tiles; `tiny` for tests; `small` CIFAR-10 as
JPEG, tiles of 8 x 8 pixels in cells of 10, eight puzzles an image; `paper` the recipe of Kolesnikov et al. 2019
(arXiv:1901.09005) on your own images of 292 x 292 pixels: gray with probability .66, a crop of 255, cells of 85,
tiles of 64 pixels, eight puzzles an image, 35 epochs.
Noroozi & Favaro's own: `--preset=paper
--config.model.gray=0.3 --config.model.crop=225 --config.model.puzzles=1 --config.model.num_permutations=1000`.
Expected: demo, held-out puzzles .939 (chance .042), kNN .964, linear probe .983 (1 seed, 91 seconds beside other
work). Puzzles of smooth pieces of photographs of 16 x 16 pixels are hardly solved in 400 updates (.069).
"""
import ml_collections

from embeddings_jax.configs import rotation


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  config = rotation.get_config(preset)
  config.model = dict(encoder=config.model.encoder.to_dict(), puzzles=8, tile=8, gray=0.66, projector_dims=(64,),
                      predictor_dims=(256,), embed_layer="block_3", embed_grid=2)
  if preset == "demo":
    config.model.update(dict(num_permutations=24, cells=2, tile=7))
    config.data.update(dict(name="digits", image_size=16))
    config.update(dict(steps=150))
  elif preset == "tiny":
    config.model.update(dict(num_permutations=6, puzzles=2, cells=2, tile=3, projector_dims=(8,), predictor_dims=(8,),
                             embed_layer="", embed_grid=1))
  elif preset == "small":
    config.update(dict(batch_size=448))  # As many operations as 256 whole images.
  elif preset == "paper":
    config.model.encoder = dict(name="resnet", depth=50, stem="imagenet", dtype="bfloat16")
    config.model.update(dict(tile=64, crop=255, projector_dims=(1000,), predictor_dims=(4096,), embed_by="patches",
                             embed_layer="", embed_grid=1))
    config.data.update(dict(name="", image_size=292))
    config.optimizer.learning_rate = 0.1
    config.update(dict(epochs=35, batch_size=256))
  return config
