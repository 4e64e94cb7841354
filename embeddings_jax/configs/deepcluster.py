"""DeepCluster (Caron et al. 2018, arXiv:1807.05520): learns the clusters of its own features.

Command: `python -m experiments.run --model=deepcluster [--preset=small --data_dir=DIR] [--data=FOLDER]`
Presets: `demo` digits at random places of 12 x 12 pixels, 30 clusters; `tiny` for tests; `small` 10,000 images of
CIFAR-10 as JPEG, 200 clusters; `paper` 10,000 clusters of your own images of 224 x 224 pixels, a ResNet-50.
Features of one cluster pulled together instead of a head: `--config.model.loss=supcon`.
The first pass only collects features: `loss` is 0 in it.
Expected: demo, kNN .494, below the untrained network's .733 (pixels .819; 1 seed, 30 seconds): on 1,797 digits a new
head has 140 updates before the next clustering. No run on more images has been measured.
"""
import ml_collections

from embeddings_jax.configs import rotation


def get_config(preset: str = "demo") -> ml_collections.ConfigDict:
  config = rotation.get_config(preset)
  config.model = dict(encoder=config.model.encoder.to_dict(), num_clusters=30, num_components=64, cluster_every=5,
                      shift=1, grid=2, embed_layer="block_3", embed_grid=2)
  config.pipeline = "numbered_images"
  del config.data["validation_fraction"]
  config.data.max_images = 0
  config.evals = ("knn", "linear_probe")
  if preset == "tiny":
    config.model.update(dict(num_clusters=5, num_components=4, num_turns=3, cluster_every=1, grid=1, embed_layer="",
                             embed_grid=1))
    config.data.max_images = 100  # Passes of six updates.
  elif preset == "small":
    config.model.update(dict(num_clusters=200, cluster_every=2, shift=4))
    config.data.max_images = 10_000
    config.update(dict(batch_size=200))
  elif preset == "paper":
    config.model.encoder = dict(name="resnet", depth=50, stem="imagenet", dtype="bfloat16")
    config.model.update(dict(num_clusters=10_000, num_components=256, cluster_every=1, shift=32, grid=1,
                             embed_layer="", embed_grid=1))
    config.data.update(dict(name="", image_size=224))
    config.optimizer.learning_rate = 0.05
    config.update(dict(epochs=500, batch_size=256))
  return config
