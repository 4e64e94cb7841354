"""Parameter trees of transformers: made up, and compared."""
import chex
import jax
import jax.numpy as jnp
import numpy as np


def random_params(hyper, heads=(), seed=0):
  """Our parameter tree, filled at random."""
  random = np.random.default_rng(seed)
  d, h, m, n, v = (hyper[key] for key in ("dim", "num_heads", "mlp_dim", "num_layers", "vocab_size"))
  draw = lambda *shape: random.normal(size=shape).astype(np.float32)
  norm = lambda *axes: {"scale": draw(*axes, d), "bias": draw(*axes, d)}
  encoder = {
      "token_embedding": draw(v, d),
      "position_embedding": draw(hyper["max_length"] + hyper["position_offset"], d),
      "layers": {"attention_norm": norm(n), "mlp_norm": norm(n),
                 "qkv": {"kernel": draw(n, d, 3, h, d // h), "bias": draw(n, 3, h, d // h)},
                 "out": {"kernel": draw(n, h, d // h, d), "bias": draw(n, d)},
                 "up": {"kernel": draw(n, d, m), "bias": draw(n, m)},
                 "down": {"kernel": draw(n, m, d), "bias": draw(n, d)}}}
  if hyper["num_segments"]:
    encoder["segment_embedding"] = draw(hyper["num_segments"], d)
  if hyper["embedding_norm"]:
    encoder["embedding_norm"] = norm()
  if hyper["norm"] == "pre":
    encoder["final_norm"] = norm()
  parts = {"pooler": lambda: {"kernel": draw(d, d), "bias": draw(d)},
           "next_sentence": lambda: {"kernel": draw(d, 2), "bias": draw(2)},
           "masked": lambda: {"dense": {"kernel": draw(d, d), "bias": draw(d)}, "norm": norm(), "bias": draw(v)}}
  return {"encoder": encoder} | {head: parts[head]() for head in heads}


def equal(one, other):
  assert jax.tree.structure(one) == jax.tree.structure(other)
  chex.assert_trees_all_equal(one, other)


def check_gradients(actual, expected):
  """To 1e-4 of the largest entry in each layer; those of key biases are zero in theory."""
  for (path, one), other in zip(jax.tree_util.tree_leaves_with_path(actual), jax.tree.leaves(expected), strict=True):
    one = np.asarray(one)
    for a, b in zip(one, other) if "layers" in str(path) else [(one, other)]:
      if "qkv" in str(path) and "bias" in str(path):
        assert np.abs(a[1]).max() < 1e-6
        a, b = a[[0, 2]], b[[0, 2]]
      assert np.abs(a - b).max() <= 1e-4 * np.abs(b).max(), path


def images(number, height, width, channels, seed=0):
  """A batch of random images."""
  shape = (number, height, width, channels)
  return {"image": jnp.asarray(np.random.default_rng(seed).integers(0, 256, shape), jnp.uint8)}


def vit_params(hyper, num_patches, channels, seed=0):
  """A vision transformer's parameter tree, filled at random: small enough for products to stay of order 1."""
  random = np.random.default_rng(seed)
  d, h, m, n = (hyper[key] for key in ("dim", "num_heads", "mlp_dim", "num_layers"))
  pixels = hyper["patch_size"]**2 * channels
  draw = lambda *shape: (0.3 * random.normal(size=shape)).astype(np.float32)
  norm = lambda *axes: {"scale": 1 + draw(*axes, d), "bias": draw(*axes, d)}
  params = {
      "patch_embedding": {"kernel": draw(pixels, d), "bias": draw(d)}, "cls": draw(d), "final_norm": norm(),
      "layers": {"attention_norm": norm(n), "mlp_norm": norm(n),
                 "qkv": {"kernel": draw(n, d, 3, h, d // h), "bias": draw(n, 3, h, d // h)},
                 "out": {"kernel": draw(n, h, d // h, d), "bias": draw(n, d)},
                 "up": {"kernel": draw(n, d, m), "bias": draw(n, m)},
                 "down": {"kernel": draw(n, m, d), "bias": draw(n, d)}}}
  if hyper.get("positions") == "learned":
    params["position_embedding"] = draw(1 + num_patches, d)
  return params


def mae_params(hyper, num_patches, channels, seed=0):
  """A masked autoencoder's parameter tree, filled at random; `hyper` as `models.autoencoders.mae` takes it."""
  sizes = dict(patch_size=hyper["patch_size"], dim=hyper["decoder_dim"], num_layers=hyper["decoder_layers"],
               num_heads=hyper["decoder_heads"], mlp_dim=hyper["decoder_mlp_dim"])
  decoder = vit_params(sizes, num_patches, channels, seed + 1)
  random = np.random.default_rng(seed + 2)
  draw = lambda *shape: (0.3 * random.normal(size=shape)).astype(np.float32)
  width, pixels = hyper["decoder_dim"], hyper["patch_size"]**2 * channels
  return {"encoder": vit_params(hyper, num_patches, channels, seed),
          "decoder": {"embed": {"kernel": draw(hyper["dim"], width), "bias": draw(width)}, "mask_token": draw(width),
                      "layers": decoder["layers"], "final_norm": decoder["final_norm"],
                      "predict": {"kernel": draw(width, pixels), "bias": draw(pixels)}}}
