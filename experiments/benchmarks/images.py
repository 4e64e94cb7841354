"""Models of pictures beside what they are compared with."""
import statistics

import jax
import numpy as np
import optax
from absl import flags

from embeddings_jax.models.mae import mae
from embeddings_jax.types import InputError
from experiments.benchmarks.turns import by_turns, compared, matrix_rate

FLAGS = flags.FLAGS

TINY = dict(patch_size=4, dim=192, num_layers=12, num_heads=3, mlp_dim=768, decoder_dim=192, decoder_layers=4,
            decoder_heads=3, decoder_mlp_dim=768)
DECODER = dict(decoder_dim=512, decoder_layers=8, decoder_heads=16, decoder_mlp_dim=2048)
SIZES = {"base": dict(patch_size=16, dim=768, num_layers=12, num_heads=12, mlp_dim=3072, **DECODER),
         "large": dict(patch_size=16, dim=1024, num_layers=24, num_heads=16, mlp_dim=4096, **DECODER)}


def mae_step(rows: int = 128, side: int = 32) -> dict:
  """Seconds of a training step of a masked autoencoder, ours against `transformers` with torch.

  ViT-Tiny (12 layers of 192, 3 heads), a decoder of 4 such layers; 128 pictures of 32 x 32 x 3, patches of 4 x 4,
  75 % hidden, standardised patches, AdamW, float32; by turns.
  """
  ours, theirs, peer = _mae_steps(TINY, rows, side)
  turns = by_turns(ours, theirs, max(20, FLAGS.repeats))
  return compared(turns, f"{rows} pictures of {side} x {side}") | {"sizes": TINY, "peer": peer}


def mae_gpu(rows: int = 256, side: int = 224, steps: int = 5) -> dict:
  """Pictures a second of a masked autoencoder at 224 on a GPU in bfloat16, ours against `transformers` compiled.

  ViT-B/16 or ViT-L/16 (`--size`) with the paper's decoder, 256 pictures a step, 75 % hidden, AdamW with float32
  parameters; 20 turns of 5 steps each. The utilisation is that of the GPU's bfloat16 matrix rate, as in `bert_base`.
  Operations of a picture, forward once and backward twice that: of a stack of L layers over T tokens
  6 L T (4 D^2 + 2 D M) + 12 L T^2 D (T is 1 + 49 of the encoder, 1 + 196 of the decoder), and the products before,
  between and after the stacks.
  """
  if jax.default_backend() != "gpu":
    raise InputError(f"mae_gpu: needs a GPU, and the devices here are {jax.devices()}")
  import torch

  sizes = SIZES[FLAGS.size]
  rate = max(matrix_rate() for _ in range(3))
  ours, theirs, peer = _mae_steps(sizes, rows, side, "bfloat16", steps)
  turns = by_turns(ours, theirs, max(20, FLAGS.repeats))
  memory = {"memory": jax.devices()[0].memory_stats()["peak_bytes_in_use"],
            "memory_peer": torch.cuda.max_memory_allocated()}
  mine, other = (rows * steps / statistics.median(column) for column in zip(*turns))
  ratio = statistics.median(theirs / ours for ours, theirs in turns)
  used = mine * _operations(sizes, side) / rate
  gpu = jax.devices()[0].device_kind
  return {
      "summary": f"{gpu}: ViT-{FLAGS.size}/16 {mine:,.0f} pictures/s, {used:.0%} of the {rate / 1e12:.0f} TFLOP/s of "
                 f"products, {memory['memory'] / 1e9:.1f} GB; transformers with torch.compile {other:,.0f}, "
                 f"{memory['memory_peer'] / 1e9:.1f} GB: {ratio:.2f} x (median of {len(turns)} turns)",
      "pictures_per_second": round(mine), "pictures_per_second_peer": round(other), "ratio": round(ratio, 3),
      "utilisation": round(used, 3), "matrix_flops_per_second": round(rate), "rows": rows, **memory, "gpu": gpu,
      "peer": peer, "all": [[round(x, 4) for x in turn] for turn in turns],
  }


def _operations(sizes, side, channels: int = 3) -> float:
  """Of a picture's training step, a multiplication and an addition being two."""
  patches, pixels = (side // sizes["patch_size"])**2, sizes["patch_size"]**2 * channels
  seen = patches // 4
  stack = lambda layers, time, dim, mlp: layers * time * (6 * (4 * dim**2 + 2 * dim * mlp) + 12 * time * dim)
  dim, width = sizes["dim"], sizes["decoder_dim"]
  return (stack(sizes["num_layers"], 1 + seen, dim, sizes["mlp_dim"])
          + stack(sizes["decoder_layers"], 1 + patches, width, sizes["decoder_mlp_dim"])
          + 6 * (seen * pixels * dim + (1 + seen) * dim * width + (patches - seen) * pixels * width))


def _mae_steps(sizes, rows, side, dtype="float32", steps=1):
  """Two functions that make `steps` training steps each, ours and that of `transformers`; the latter's version."""
  import torch
  import transformers

  pixels = np.random.default_rng(FLAGS.seed).integers(0, 256, (rows, side, side, 3)).astype(np.uint8)
  model = mae(**sizes, dtype=dtype, unroll=sizes["num_layers"], optimizer=optax.adamw(1e-4, b2=0.95))
  batch = jax.device_put({"image": pixels})
  state = jax.jit(model.init)(jax.random.key(FLAGS.seed), batch)
  update = jax.jit(model.update, donate_argnums=0)

  device = "cuda" if jax.default_backend() == "gpu" else "cpu"
  peer = transformers.ViTMAEForPreTraining(transformers.ViTMAEConfig(
      hidden_size=sizes["dim"], num_hidden_layers=sizes["num_layers"], num_attention_heads=sizes["num_heads"],
      intermediate_size=sizes["mlp_dim"], image_size=side, patch_size=sizes["patch_size"],
      decoder_hidden_size=sizes["decoder_dim"], decoder_num_hidden_layers=sizes["decoder_layers"],
      decoder_num_attention_heads=sizes["decoder_heads"], decoder_intermediate_size=sizes["decoder_mlp_dim"],
      norm_pix_loss=True)).train().to(device)
  optimizer = torch.optim.AdamW(peer.parameters(), lr=1e-4, betas=(0.9, 0.95), fused=device == "cuda")
  forward = torch.compile(peer) if device == "cuda" else peer
  images = torch.tensor(pixels, device=device).permute(0, 3, 1, 2).contiguous()

  def ours() -> None:
    nonlocal state
    for _ in range(steps):
      state, metrics = update(state, batch, jax.random.key(FLAGS.seed))
    jax.block_until_ready((state, metrics))

  def theirs() -> None:
    for _ in range(steps):
      optimizer.zero_grad()
      with torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16"):
        loss = forward(pixel_values=images.float() / 127.5 - 1).loss
      loss.backward()
      optimizer.step()
    if device == "cuda":
      torch.cuda.synchronize()

  return ours, theirs, f"transformers {transformers.__version__}, torch {torch.__version__}"
