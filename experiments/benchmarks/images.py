"""Models of images beside what they are compared with, and what a masked autoencoder learns by its masks."""
import functools
import statistics
import time

import jax
import numpy as np
import optax
from absl import flags

from embeddings_jax import train
from embeddings_jax.errors import InputError
from embeddings_jax.eval.linear_probe import probe_accuracy, split_rows
from embeddings_jax.figures import sweeps
from embeddings_jax.models.autoencoders.mae import mae
from embeddings_jax.models.contrastive.simclr import simclr
from embeddings_jax.nets import resnet
from embeddings_jax.ops.augment import two_views
from embeddings_jax.runs import build, inference, presets
from experiments import command
from experiments.benchmarks.turns import by_turns, compared, matrix_rate
from experiments.spread import mean_and_std

FLAGS = flags.FLAGS

TINY = dict(patch_size=4, dim=192, num_layers=12, num_heads=3, mlp_dim=768, decoder_dim=192, decoder_layers=4,
            decoder_heads=3, decoder_mlp_dim=768)
DECODER = dict(decoder_dim=512, decoder_layers=8, decoder_heads=16, decoder_mlp_dim=2048)
SIZES = {"base": dict(patch_size=16, dim=768, num_layers=12, num_heads=12, mlp_dim=3072, **DECODER),
         "large": dict(patch_size=16, dim=1024, num_layers=24, num_heads=16, mlp_dim=4096, **DECODER)}
ROWS = {"base": 256, "large": 128}


def mae_step(rows: int = 128, side: int = 32) -> dict:
  """Seconds of a training step of a masked autoencoder, ours against `transformers` with torch.

  ViT-Tiny (12 layers of 192, 3 heads), a decoder of 4 such layers; 128 images of 32 x 32 x 3, patches of 4 x 4,
  75 % hidden, standardized patches, AdamW, float32; by turns of 4 steps, ours in one dispatch, as the loop makes them
  (`steps_per_dispatch`, ten in the config of `mae`): XLA takes its memory anew for each dispatch, and 1 GB that was
  not touched before costs an eighth of a step here. Our decoder sees 64 images at a time.
  """
  ours, theirs, peer = _mae_steps(TINY, rows, side, steps=4, per_dispatch=4, decoder_chunk=64)
  turns = [(ours / 4, theirs / 4) for ours, theirs in by_turns(ours, theirs, max(20, FLAGS.repeats))]
  return compared(turns, f"{rows} images of {side} x {side}") | {"sizes": TINY, "peer": peer}


def mae_gpu(side: int = 224, steps: int = 5) -> dict:
  """Images a second of a masked autoencoder at 224 on a GPU in bfloat16, ours against `transformers` compiled.

  ViT-B/16 with 256 images a step or ViT-L/16 with 128 (`--size`), the paper's decoder, 75 % hidden, AdamW with
  float32 parameters; 20 turns of 5 steps each. The utilization is that of the GPU's bfloat16 matrix rate, as in
  `bert_base`.
  Operations for one image, forward once and backward twice that: a stack of L layers over T tokens has
  6 L T (4 D^2 + 2 D M) + 12 L T^2 D (T is 1 + 49 of the encoder, 1 + 196 of the decoder), and the products before,
  between and after the stacks.
  """
  if jax.default_backend() != "gpu":
    raise InputError(f"mae_gpu: needs a GPU, and the devices here are {jax.devices()}")
  import torch

  sizes, rows = SIZES[FLAGS.size], ROWS[FLAGS.size]
  rate = max(matrix_rate() for _ in range(3))
  ours, theirs, peer = _mae_steps(sizes, rows, side, "bfloat16", steps)
  turns = by_turns(ours, theirs, max(20, FLAGS.repeats))
  memory = {"memory": jax.devices()[0].memory_stats()["peak_bytes_in_use"],
            "memory_peer": torch.cuda.max_memory_allocated()}
  own, other = (rows * steps / statistics.median(column) for column in zip(*turns))
  ratio = statistics.median(theirs / ours for ours, theirs in turns)
  used = own * operations(sizes, side) / rate
  gpu = jax.devices()[0].device_kind
  return {
      "summary": f"{gpu}: ViT-{FLAGS.size}/16 {own:,.0f} images/s, {used:.0%} of the {rate / 1e12:.0f} TFLOP/s of "
                 f"products, {memory['memory'] / 1e9:.1f} GB; transformers with torch.compile {other:,.0f}, "
                 f"{memory['memory_peer'] / 1e9:.1f} GB: {ratio:.2f} x (median of {len(turns)} turns)",
      "pictures_per_second": round(own), "pictures_per_second_peer": round(other), "ratio": round(ratio, 3),
      "utilization": round(used, 3), "matrix_flops_per_second": round(rate), "rows": rows, **memory, "gpu": gpu,
      "peer": peer, "all": [[round(x, 4) for x in turn] for turn in turns],
  }


def augment(rows: int = 128, side: int = 32) -> dict:
  """The share of SimCLR's training step that drawing its views takes: ResNet-18 of full width, 128 images of 32 x
  32 x 3, the augmentation of CIFAR-10 and blur; the median of the turns of each."""
  images = np.random.default_rng(FLAGS.seed).integers(0, 256, (rows, side, side, 3)).astype(np.uint8)
  model = simclr(encoder=resnet.encoder(), projector_dims=(512, 128), temperature=0.5, strength=0.5)
  batch = jax.device_put({"image": images})
  state = jax.jit(model.init)(jax.random.key(FLAGS.seed), batch)
  update = jax.jit(model.update, donate_argnums=0)
  draw = jax.jit(lambda rng, images: two_views(rng, images, "simclr", strength=0.5))

  def step() -> None:
    nonlocal state
    state, metrics = update(state, batch, jax.random.key(FLAGS.seed))
    jax.block_until_ready((state, metrics))

  turns = by_turns(step, lambda: jax.block_until_ready(draw(jax.random.key(0), batch["image"])), FLAGS.repeats)
  whole, views = (statistics.median(column) for column in zip(*turns))
  return {"summary": f"drawing both views is {views / whole:.1%} of a SimCLR step of ResNet-18 on {rows} images of "
                     f"{side} x {side}, {views:.3f} s of {whole:.2f} s (median of {len(turns)} turns)",
          "share": round(views / whole, 4), "seconds": round(views, 4), "seconds_step": round(whole, 3),
          "all": [[round(x, 4) for x in turn] for turn in turns]}


def mask_ratios() -> dict:
  """Measures what a masked autoencoder learns by the share of patches that is hidden (He et al. 2022, figure 5):
  the linear
  probe of a training with each share (`--ratios`), in float32, by the preset `demo` (patches of 2 x 2 pixels)
  of `digits` or `small` of other `--data`; at most 10,000 test and 10,000 training images. `--figure` draws it.

  Each training has `--steps`, or with `--equal=operations` as many as make the `operations` of so many steps with
  three quarters hidden: what is hidden costs the encoder nothing, which is half of why much is hidden.
  """
  config = presets.load_config("mae", "demo" if FLAGS.data == "digits" else "small")
  config.data.name = FLAGS.data
  if FLAGS.data == "digits":
    config.data.image_size, config.model.patch_size = 0, 2
  config.model.dtype = "float32"  # The same figures on processors with a unit for products of bfloat16 and without.
  config.batch_size = FLAGS.batch_size or config.batch_size
  data, rows = build.prepare(config, data_dir=FLAGS.data_dir, cache_dir=FLAGS.cache_dir), []
  label = next(iter(data.dataset.labels.values()))
  parts = [np.sort(np.random.default_rng(0).permutation(part)[:10_000])
           for part in split_rows(data.dataset.split, label, 0)]
  cost = functools.partial(operations, config.model, *data.dataset.items.shape[2:])
  planned = []
  for ratio in command.listed(FLAGS["ratios"], float):
    steps = round(FLAGS.steps * cost() / cost(ratio)) if FLAGS.equal == "operations" else FLAGS.steps
    config.model.mask_ratio = ratio
    config.optimizer.warmup_steps = steps // 10  # The preset's would be most of a short training.
    planned.append((ratio, steps, build.make_model(config, data.facts, steps)))
  for ratio, steps, model in planned:
    accuracies, seconds = [], []
    for seed in range(FLAGS.seed, FLAGS.seed + FLAGS.seeds):
      start = time.perf_counter()
      state = train(model, data.splits["train"], steps=steps, seed=seed, steps_per_dispatch=config.steps_per_dispatch)
      seconds.append(time.perf_counter() - start)
      embed = inference.embedder(model, state, data.encoder)
      vectors = [embed(data.dataset.items[part]) for part in parts]
      accuracies.append(probe_accuracy(vectors[0], label[parts[0]], vectors[1], label[parts[1]]))
    mean, std = mean_and_std(accuracies)
    rows.append({"mask_ratio": ratio, "steps": steps, "accuracy": round(mean, 4), "std": round(std, 4),
                 "seconds": round(statistics.median(seconds), 1)})
  if FLAGS.figure:
    sweeps.draw_mask_ratios(FLAGS.figure, rows, FLAGS.data)
  lines = ", ".join(f"{row['mask_ratio']:.2f}: {row['accuracy']:.3f} ({row['steps']:,} in {row['seconds']:.0f} s)"
                    for row in rows)
  return {"summary": f"{FLAGS.data}, linear probe by share of hidden patches (steps and their time): {lines}",
          "rows": rows}


def operations(sizes, side, channels: int = 3, mask_ratio: float = 0.75) -> float:
  """Returns the operations of one image's training step by `mae`; a multiply-add counts as two.

  Args:
    sizes: Sizes of the networks, as the hyperparameters of `mae`.
    side: pixels of an image's side; `channels`: its channels.
    mask_ratio: share of the patches that is hidden.
  """
  patches, pixels = (side // sizes["patch_size"])**2, sizes["patch_size"]**2 * channels
  seen = int(patches * (1 - mask_ratio))
  stack = lambda layers, time, dim, mlp: layers * time * (6 * (4 * dim**2 + 2 * dim * mlp) + 12 * time * dim)
  dim, width = sizes["dim"], sizes["decoder_dim"]
  return (stack(sizes["num_layers"], 1 + seen, dim, sizes["mlp_dim"])
          + stack(sizes["decoder_layers"], 1 + patches, width, sizes["decoder_mlp_dim"])
          + 6 * (seen * pixels * dim + (1 + seen) * dim * width + (patches - seen) * pixels * width))


def _mae_steps(sizes, rows, side, dtype="float32", steps=1, per_dispatch=1, **hyper):
  """Two functions that make `steps` training steps each, ours `per_dispatch` at once, and that of `transformers`; the
  latter's version."""
  import torch
  import transformers

  pixels = np.random.default_rng(FLAGS.seed).integers(0, 256, (rows, side, side, 3)).astype(np.uint8)
  model = mae(**sizes, **hyper, dtype=dtype, unroll=sizes["num_layers"], optimizer=optax.adamw(1e-4, b2=0.95))
  batch = jax.device_put({"image": pixels})
  state = jax.jit(model.init)(jax.random.key(FLAGS.seed), batch)

  @functools.partial(jax.jit, donate_argnums=0)
  def update(state, batch, rngs):
    return jax.lax.scan(lambda state, rng: model.update(state, batch, rng), state, rngs)

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
    for rngs in jax.random.split(jax.random.key(FLAGS.seed), (steps // per_dispatch, per_dispatch)):
      state, metrics = update(state, batch, rngs)
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
