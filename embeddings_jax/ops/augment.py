"""Random changes of images, on the device: those of SimCLR and BYOL.

Chen et al. 2020 (arXiv:2002.05709), figure 4 and appendix A; Grill et al. 2020 (arXiv:2006.07733), appendix B.

An op is a pure function `(rng, image) -> image`: float32 [height, width, channels] in [0, 1] before and after, with 1
or 3 channels (red, green, blue). Factories make ops, `compose` makes one of several, `augmented` maps one over a
batch. What an op does once its numbers are drawn is a function of its own (`resized_crop`, `adjust_hue`, ...).

Under `vmap` both sides of a condition are computed, so whether an op applies is a choice between two images, or
between a matrix and the identity; at probability 0 nothing is computed. Crops, shifts and blurs are two matrix
products each, one for either axis: they need no gather, which is slow, and no kernel that differs from image to
image, which no convolution takes. A product also ends what XLA fuses: what follows does not compute again what came
before.

Colors are those of Pillow, as in the PyTorch half of SimCLR's appendix A. BYOL's program adds to brightness, and
scales saturation in HSV. It and SimCLR's blur with black around the image, here it is mirrored.
"""
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int, Shaped

from embeddings_jax.ops.pixels import to_float
from embeddings_jax.ops.sharding import DATA_AXES, constrain
from embeddings_jax.types import InputError

Op = Callable[[Array, Array], Array]  # (rng, image [h, w, c]) -> image [h', w', c]

METHODS = ("bilinear", "bicubic")
VIEWS = ("simclr", "byol")
PADDINGS = ("reflect", "edge")
LUMA = (0.299, 0.587, 0.114)  # ITU-R 601: how bright red, green and blue are.
_TRIALS = 10  # Boxes drawn, of which the first that fits is taken, as torchvision does.


def compose(*ops: Op) -> Op:
  """The ops one after another; the i-th gets the key `fold_in(rng, i)`."""

  def composed(rng, image):
    for i, op in enumerate(ops):
      image = op(jax.random.fold_in(rng, i), image)
    return image

  return composed


def augmented(op: Op, rng: Array, images: Shaped[Array, "batch height width channels"]) -> Float[
    Array, "batch new_height new_width channels"]:
  """Every image changed by `op`, float32.

  The key of an image is `fold_in(rng, its row in the global batch)`: the result is the same on any mesh, and no
  image leaves its device.

  Args:
    op: Change of one image.
    rng: a key.
    images: bytes, or floats in [0, 1].
  """
  rows = P(DATA_AXES)
  numbers = constrain(jnp.arange(images.shape[0]), rows)
  one = lambda number, image: op(jax.random.fold_in(rng, number), to_float(image))
  return constrain(jax.vmap(one)(numbers, constrain(images, rows)), rows)


def simclr_augmentation(
    size: int, *, strength: float = 1.0, blur: bool = True, color: bool = True,
    scale: tuple[float, float] = (0.08, 1.0),
) -> Op:
  """SimCLR's: crop and resize with flip, color jitter (.8), color drop (.2), blur (.5).

  Args:
    size: Size of the result, in pixels.
    strength: s of the color jitter: .8 s for brightness, contrast and saturation, .2 s for hue. The paper's is 1 on
      ImageNet and .5, without blur, on CIFAR-10 (appendix B.9).
    blur: Whether to blur, by a kernel of a tenth of the image.
    color: Whether to change colors.
    scale: share of the area that a crop has.
  """
  ops = [random_resized_crop(size, scale=scale, method="bicubic"), horizontal_flip()]
  if color:
    tone = 0.8 * strength
    ops += [color_jitter(brightness=tone, contrast=tone, saturation=tone, hue=0.2 * strength, probability=0.8),
            color_drop(0.2)]
  if blur:
    ops.append(gaussian_blur(_tenth(size), probability=0.5))
  return compose(*ops)


def byol_augmentation(size: int, *, view: int = 0, scale: tuple[float, float] = (0.08, 1.0)) -> Op:
  """BYOL's T (view 0: always blurred) and T' (view 1: blurred at .1, solarized at .2), of its table 6."""
  if view not in (0, 1):
    raise InputError(f"view={view}: BYOL has two, 0 and 1")
  return compose(
      random_resized_crop(size, scale=scale, method="bicubic"),
      horizontal_flip(),
      color_jitter(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, probability=0.8),
      color_drop(0.2),
      gaussian_blur(_tenth(size), probability=(1.0, 0.1)[view]),
      solarize(0.5, probability=(0.0, 0.2)[view]))


def pair_of_views(
    name: str, size: int, *, strength: float = 1.0, blur: bool = True, min_scale: float = 0.08,
) -> tuple[Op, Op]:
  """Returns the augmentations of an image's two views: `simclr`, the same twice, or `byol`, two different ones.

  Args:
    name: One of `VIEWS`.
    size: Size of a view, in pixels.
    strength, blur: Options of `simclr_augmentation`; `byol` has its own.
    min_scale: the smallest share of the area that a crop has.
  """
  _check_choice("augmentation", name, VIEWS)
  scale = (min_scale, 1.0)
  if name == "byol":
    return byol_augmentation(size, view=0, scale=scale), byol_augmentation(size, view=1, scale=scale)
  return (simclr_augmentation(size, strength=strength, blur=blur, scale=scale),) * 2


def two_views(
    rng: Array, images: Shaped[Array, "batch height width channels"], name: str, size: int = 0,
    positives: Shaped[Array, "batch height width channels"] | None = None, **options: Any,
) -> list[Float[Array, "batch size size channels"]]:
  """Two views of each image, float32, by `pair_of_views`, whose `options` are given; 0: as high as the images. With
  `positives` the second view is one of these, as of another frame of the same clip."""
  ops = pair_of_views(name, size or images.shape[1], **options)
  pair = images, images if positives is None else positives
  return [augmented(op, jax.random.fold_in(rng, i), seen) for i, (op, seen) in enumerate(zip(ops, pair))]


def _tenth(size: int) -> int:
  """The odd number of pixels around a tenth: 23 of 224, 3 of 32."""
  return 2 * (size // 20) + 1


# Where things are.


def random_resized_crop(
    size: int, *, scale: tuple[float, float] = (0.08, 1.0), ratio: tuple[float, float] = (3 / 4, 4 / 3),
    method: str = "bilinear",
) -> Op:
  """A `random_box` of the image, resized to `size` x `size` pixels."""
  _check_crop(scale, ratio)
  _check_choice("method", method, METHODS)
  if size < 1:
    raise InputError(f"size={size}: must be at least 1 pixel")

  def crop(rng, image):
    box = random_box(rng, *image.shape[:2], scale=scale, ratio=ratio)
    return resized_crop(image, box, size, method=method)

  return crop


def random_box(
    rng: Array, height: int, width: int, *, scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Int[Array, "4"]:
  """Left, top, right and bottom of a random part of an image, in whole pixels.

  Its share of the area is uniform in `scale`, the logarithm of width / height uniform in that of `ratio`, its place
  uniform. Boxes that the image does not hold are drawn again; after ten it is the largest of an allowed ratio.
  """
  _check_crop(scale, ratio)
  rng_area, rng_ratio, rng_left, rng_top = jax.random.split(rng, 4)
  area = height * width * jax.random.uniform(rng_area, (_TRIALS,), minval=scale[0], maxval=scale[1])
  aspect = jnp.exp(jax.random.uniform(rng_ratio, (_TRIALS,), minval=math.log(ratio[0]), maxval=math.log(ratio[1])))
  allowed = min(max(width / height, ratio[0]), ratio[1])
  largest = min(height, round(width / allowed)), min(width, round(height * allowed))
  heights, widths = (
      jnp.append(jnp.round(jnp.sqrt(drawn)).astype(jnp.int32), max(1, last))
      for drawn, last in zip((area / aspect, area * aspect), largest))
  chosen = jnp.argmax((heights >= 1) & (heights <= height) & (widths >= 1) & (widths <= width))
  box_height, box_width = heights[chosen], widths[chosen]
  corner = lambda rng, room: jnp.floor(jax.random.uniform(rng) * (room + 1)).astype(jnp.int32)
  left, top = corner(rng_left, width - box_width), corner(rng_top, height - box_height)
  return jnp.stack([left, top, left + box_width, top + box_height])


def resized_crop(
    image: Float[Array, "height width channels"], box: Shaped[Array, "4"], size: int, *, method: str = "bilinear",
) -> Float[Array, "{size} {size} channels"]:
  """`Image.resize((size, size), method, box)` of Pillow: where it shrinks, the kernel widens with the pixels.

  Near the box's edge pixels beside it count, as they do there. The bicubic kernel (Keys 1981, a = -1/2) overshoots;
  the result is clipped to [0, 1].

  Args:
    image: an image.
    box: left, top, right, bottom in pixels, perhaps broken ones.
    size: Size of the result in pixels.
    method: `bilinear` or `bicubic`.
  """
  _check_choice("method", method, METHODS)
  left, top, right, bottom = box.astype(jnp.float32)
  rows = _interpolation(image.shape[0], top, bottom, size, method)
  columns = _interpolation(image.shape[1], left, right, size, method)
  return jnp.clip(_along_axes(rows, image, columns), 0, 1)


def resized(images: Shaped[Array, "batch height width channels"], size: int) -> Float[
    Array, "batch new_height new_width channels"]:
  """Whole images, resized to squares of `size` pixels as `resized_crop` does it; 0, or images of that size: as
  they are."""
  height, width = images.shape[1:3]
  if not size or (height, width) == (size, size):
    return to_float(images)
  box = jnp.array([0, 0, height, width], jnp.float32)
  return jax.vmap(lambda image: resized_crop(image, box, size, method="bicubic"))(to_float(images))


def _interpolation(length: int, start: Array, stop: Array, size: int, method: str) -> Float[Array, "{size} {length}"]:
  """Returns the weight of each of `length` pixels in each of the `size` pixels that [start, stop] becomes."""
  step = (stop - start) / size
  center = start + step * (jnp.arange(size) + 0.5)
  distance = jnp.abs(jnp.arange(length) + 0.5 - center[:, None]) / jnp.maximum(step, 1)
  if method == "bilinear":
    weight = jnp.maximum(1 - distance, 0)
  else:
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((2.5 - 0.5 * distance) * distance - 4) * distance + 2
    weight = jnp.where(distance < 1, near, jnp.where(distance < 2, far, 0))
  return weight / weight.sum(1, keepdims=True)


def _along_axes(
    rows: Float[Array, "new_height height"], image: Float[Array, "height width channels"],
    columns: Float[Array, "new_width width"],
) -> Float[Array, "new_height new_width channels"]:
  """Linear maps of the two axes. In full precision: TPUs would round pixels to 8 bits, GPUs to 11."""
  image = jnp.einsum("ih,hwc->iwc", rows, image, precision="highest")
  return jnp.einsum("jw,iwc->ijc", columns, image, precision="highest")


def random_shift(pixels: int, *, padding: str = "reflect") -> Op:
  """Moves the image by -pixels ... pixels in each direction, all equally likely.

  What comes in is its mirror image (`reflect`, without the edge itself) or its `edge`, as `numpy.pad` names them.
  """
  _check_choice("padding", padding, PADDINGS)
  if pixels < 0:
    raise InputError(f"pixels={pixels}: must not be negative")

  def shift(rng, image):
    if padding == "reflect" and pixels >= min(image.shape[:2]):
      raise InputError(f"pixels={pixels}: a mirror image of {image.shape[0]} x {image.shape[1]} pixels is smaller")
    return shifted(image, jax.random.randint(rng, (2,), -pixels, pixels + 1), padding=padding) if pixels else image

  return shift


def shifted(
    image: Float[Array, "height width channels"], offset: Int[Array, "2"], *, padding: str = "reflect",
) -> Float[Array, "height width channels"]:
  """The image whose pixel (row, column) is that of (row, column) + offset, continued as `random_shift` says."""
  _check_choice("padding", padding, PADDINGS)

  def places(length, offset):
    position, last = jnp.arange(length) + offset, length - 1
    position = last - jnp.abs(last - jnp.abs(position)) if padding == "reflect" else jnp.clip(position, 0, last)
    return (position[:, None] == jnp.arange(length)).astype(jnp.float32)

  return _along_axes(places(image.shape[0], offset[0]), image, places(image.shape[1], offset[1]))


def horizontal_flip(probability: float = 0.5) -> Op:
  """Left becomes right."""
  return _sometimes(probability, lambda rng, image: image[:, ::-1])


def rotation(probability: float) -> Op:
  """A square image turned by 90, 180 or 270 degrees, equally likely."""
  return _sometimes(probability, lambda rng, image: rotated(image, jax.random.randint(rng, (), 1, 4)))


def rotated(image: Float[Array, "height width channels"], quarters: int | Int[Array, ""]) -> Float[
    Array, "height width channels"]:
  """The square image turned counterclockwise by 0 to 3 quarters of a turn."""
  if image.shape[0] != image.shape[1]:
    raise InputError(f"rotation: images of {image.shape[0]} x {image.shape[1]} pixels are not square")
  quarter_turned = jnp.where(quarters % 2 == 1, jnp.rot90(image), image)
  return jnp.where(quarters >= 2, quarter_turned[::-1, ::-1], quarter_turned)


def cutout(size: int, probability: float, *, fill: float = 0.5) -> Op:
  """A gray square of `size` pixels (DeVries & Taylor 2017, arXiv:1708.04552), centered on any pixel.

  Near the edge a part of it is outside.
  """
  if size < 1:
    raise InputError(f"size={size}: must be at least 1 pixel")

  def cut(rng, image):
    center = jax.random.randint(rng, (2,), 0, jnp.array(image.shape[:2]))
    return cut_out(image, center - size // 2, size, fill=fill)

  return _sometimes(probability, cut)


def cut_out(
    image: Float[Array, "height width channels"], corner: Int[Array, "2"], size: int, *, fill: float = 0.5,
) -> Float[Array, "height width channels"]:
  """The image with `fill` in a square of `size` pixels, whose first row and column are `corner`."""
  rows, columns = ((jnp.arange(n) >= first) & (jnp.arange(n) < first + size) for n, first in zip(image.shape, corner))
  return jnp.where((rows[:, None] & columns)[..., None], fill, image)


# What colors are.


def gray(image: Float[Array, "height width channels"]) -> Float[Array, "height width 1"]:
  """Luma of ITU-R 601, Pillow's "L"; images of one channel are gray."""
  if image.shape[-1] == 1:
    return image
  red, green, blue = _channels(image)
  return (LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue)[..., None]


def color_drop(probability: float) -> Op:
  """The image in gray, in as many channels as before; those of one channel stay."""
  _check_probability(probability)

  def drop(rng, image):
    if not _is_colored(image):
      return image
    to_gray = jnp.tile(jnp.array(LUMA, jnp.float32)[:, None], (1, 3))
    mix = jnp.where(jax.random.bernoulli(rng, probability), to_gray, jnp.eye(3))
    return jnp.clip(jnp.einsum("hwc,cd->hwd", image, mix, precision="highest"), 0, 1)

  return drop if probability else compose()


def color_jitter(
    *, brightness: float = 0.0, contrast: float = 0.0, saturation: float = 0.0, hue: float = 0.0,
    probability: float = 1.0,
) -> Op:
  """Brightness, contrast, saturation and hue changed in random order, as in SimCLR's program, BYOL and torchvision.

  The factors of the first three are uniform in [max(0, 1 - strength), 1 + strength], hue moves by a part of a turn
  that is uniform in [-hue, hue]. After each the image is clipped to [0, 1]. Images of one channel have neither
  saturation nor hue.

  Args:
    brightness, contrast, saturation: strengths, at least 0.
    hue: strength, 0 to 1/2.
    probability: Probability of changing an image at all.
  """
  if min(brightness, contrast, saturation) < 0 or not 0 <= hue <= 0.5:
    raise InputError(f"brightness={brightness}, contrast={contrast}, saturation={saturation}, hue={hue}: must not be "
                     "negative, and hue at most 0.5")
  _check_probability(probability)
  if not probability * max(brightness, contrast, saturation, hue):
    return compose()

  def jitter(rng, image):
    rng_whether, rng_order, rng_factor, rng_hue, rng_turn = jax.random.split(rng, 5)
    applies = jax.random.bernoulli(rng_whether, probability)
    strengths = jnp.array([brightness, contrast, saturation if _is_colored(image) else 0], jnp.float32)
    change = jax.random.uniform(rng_factor, (3,), minval=jnp.maximum(-strengths, -1), maxval=strengths)  # Factor - 1.
    order = jax.random.permutation(rng_order, 3)
    colored = _is_colored(image) and hue > 0
    # Hue, by far the dearest, is computed once: of three places for the others before it and three after it each
    # image uses those that its order asks for, and nothing happens in the rest.
    num_before = jax.random.randint(rng_turn, (), 0, 4) if colored else 3
    used = ((jnp.arange(3) < num_before) == jnp.array([[True], [False]])) & applies
    chosen = (order[:, None] == jnp.arange(3)) & used[..., None]
    # All three are image + weights of (image, mean of gray, gray). Weights come from a product, because XLA makes a
    # product's result once; it would compute anything else that an image has one of anew for each pixel.
    weights = jnp.einsum("psk,kw->psw", chosen.astype(jnp.float32),
                         change[:, None] * jnp.array([[1., 0, 0], [1, -1, 0], [1, 0, -1]]), precision="highest")
    for late in (False, True) if colored else (False,):
      if late:
        shifted = adjust_hue(image, jax.random.uniform(rng_hue, minval=-hue, maxval=hue))
        image = jnp.where(applies, shifted, image)
      for of_image, of_mean, of_luma in weights[int(late)]:
        luma = gray(image)
        image = jnp.clip(image + (of_image * image + (of_mean * luma.mean() + of_luma * luma)), 0, 1)
    return image

  return jitter


def _blended(image, base, factor):
  return jnp.clip(factor * image + (1 - factor) * base, 0, 1)


def adjust_brightness(image: Float[Array, "height width channels"], factor: float | Float[Array, ""]) -> Float[
    Array, "height width channels"]:
  """`ImageEnhance.Brightness` of Pillow: from black (0) over the image (1) to more."""
  return _blended(image, 0, factor)


def adjust_contrast(image: Float[Array, "height width channels"], factor: float | Float[Array, ""]) -> Float[
    Array, "height width channels"]:
  """`ImageEnhance.Contrast` of Pillow: from the mean of its gray (0) over the image (1) to more."""
  return _blended(image, gray(image).mean(), factor)


def adjust_saturation(image: Float[Array, "height width channels"], factor: float | Float[Array, ""]) -> Float[
    Array, "height width channels"]:
  """`ImageEnhance.Color` of Pillow: from gray (0) over the image (1) to more."""
  return _blended(image, gray(image), factor)


def adjust_hue(image: Float[Array, "height width channels"], shift: float | Float[Array, ""]) -> Float[
    Array, "height width channels"]:
  """Hue in HSV moved by `shift` turns; the largest and the smallest channel of a pixel keep their values.

  A channel is largest - (largest - smallest) min(1, max(0, min(k, 4 - k))), k = 6 hue + 5, 3 or 1 (for red, green,
  blue) modulo 6.
  """
  if not _is_colored(image):
    return image
  red, green, blue = _channels(image)
  largest = jnp.maximum(jnp.maximum(red, green), blue)
  spread = largest - jnp.minimum(jnp.minimum(red, green), blue)
  scale = 1 / jnp.where(spread > 0, spread, 1)  # Of gray pixels the differences are 0 too.
  sixths = jnp.where(largest == red, (green - blue) * scale,
                     jnp.where(largest == green, 2 + (blue - red) * scale, 4 + (red - green) * scale))
  turns = sixths[..., None] / 6 + (shift + jnp.array([5 / 6, 1 / 2, 1 / 6], jnp.float32))
  k = 6 * (turns - jnp.floor(turns))  # CPUs take a vector's floor at once, but one remainder after another.
  return largest[..., None] - spread[..., None] * jnp.clip(jnp.minimum(k, 4 - k), 0, 1)


def solarize(threshold: float = 0.5, *, probability: float = 1.0) -> Op:
  """Values from the threshold on become 1 - value."""
  return _sometimes(probability, lambda rng, image: solarized(image, threshold))


def solarized(image: Float[Array, "height width channels"], threshold: float) -> Float[
    Array, "height width channels"]:
  """`ImageOps.solarize` of Pillow."""
  return jnp.where(image >= threshold, 1 - image, image)


# How sharp things are.


def gaussian_noise(std: float, probability: float) -> Op:
  """Adds independent noise of deviation `std` to every value, and clips to [0, 1]."""
  if std < 0:
    raise InputError(f"std={std}: must not be negative")
  return _sometimes(probability, lambda rng, image: jnp.clip(image + std * jax.random.normal(rng, image.shape), 0, 1))


def gaussian_blur(kernel_size: int, *, sigma: tuple[float, float] = (0.1, 2.0), probability: float = 1.0) -> Op:
  """`blurred` by a standard deviation that is uniform in `sigma`, in pixels."""
  _check_kernel(kernel_size)
  _check_probability(probability)
  if not 0 < sigma[0] <= sigma[1]:
    raise InputError(f"sigma={sigma}: must be a range above 0")

  def blur(rng, image):
    rng_whether, rng_sigma = jax.random.split(rng)
    drawn = jax.random.uniform(rng_sigma, minval=sigma[0], maxval=sigma[1])
    # Not a choice between two images: all that was done to this one would be computed for each of them again.
    return blurred(image, jnp.where(jax.random.bernoulli(rng_whether, probability), drawn, 0), kernel_size)

  return blur if probability else compose()


def blurred(image: Float[Array, "height width channels"], sigma: float | Float[Array, ""], kernel_size: int) -> Float[
    Array, "height width channels"]:
  """Mean of the `kernel_size` x `kernel_size` pixels around, weighted by a Gaussian.

  Beyond the edge is the mirror image without the edge itself, as in torchvision (scipy's `mirror`).

  Args:
    image: an image.
    sigma: standard deviation in pixels; 0 leaves the image as it is, bit for bit.
    kernel_size: odd.
  """
  _check_kernel(kernel_size)
  if kernel_size // 2 >= min(image.shape[:2]):
    size = " x ".join(map(str, image.shape[:2]))
    raise InputError(f"kernel_size={kernel_size}: too large for images of {size} pixels")

  def smoothing(length):
    position, center = jnp.arange(length), jnp.arange(length)[:, None]

    def weight(position, valid=True):
      distance = position - center
      gaussian = jnp.exp(-0.5 * (distance / jnp.maximum(sigma, 1e-3))**2)  # exp(-5e5) is 0.
      return jnp.where((jnp.abs(distance) <= kernel_size // 2) & valid, gaussian, 0)

    mirrored = weight(-position, position > 0) + weight(2 * (length - 1) - position, position < length - 1)
    total = weight(position) + mirrored
    return total / total.sum(1, keepdims=True)

  # A mean of values up to 1 may be rounded up to more.
  return jnp.clip(_along_axes(smoothing(image.shape[0]), image, smoothing(image.shape[1])), 0, 1)


def sobel(probability: float) -> Op:
  """Edges, `sobel_filtered`."""
  return _sometimes(probability, lambda rng, image: sobel_filtered(image))


def sobel_filtered(image: Float[Array, "height width channels"]) -> Float[Array, "height width channels"]:
  """Length of the gradient by Sobel's two filters, channel by channel; at most 1, that of an edge from 0 to 1.

  Beyond its edge the image goes on as at the edge (scipy's `reflect`).
  """
  padded = jnp.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
  smooth = lambda x, axis: _part(x, axis, 0) + 2 * _part(x, axis, 1) + _part(x, axis, 2)
  slope = lambda x, axis: _part(x, axis, 2) - _part(x, axis, 0)
  vertical, horizontal = slope(smooth(padded, 1), 0), slope(smooth(padded, 0), 1)
  return jnp.minimum(jnp.sqrt(vertical**2 + horizontal**2) / 4, 1)


def _part(x, axis, first):
  """All along an axis but two."""
  return jax.lax.slice_in_dim(x, first, first + x.shape[axis] - 2, axis=axis)


# What they share.


def _sometimes(probability: float, change: Op) -> Op:
  """`change` with a probability, the image itself otherwise."""
  _check_probability(probability)
  if not probability:
    return compose()

  def maybe(rng, image):
    rng_whether, rng_change = jax.random.split(rng)
    changed = change(rng_change, image)
    return changed if probability == 1 else jnp.where(jax.random.bernoulli(rng_whether, probability), changed, image)

  return maybe


def _is_colored(image: Array) -> bool:
  if image.shape[-1] not in (1, 3):
    raise InputError(f"images of {image.shape[-1]} channels: must have 1 (gray) or 3 (red, green, blue)")
  return image.shape[-1] == 3


def _channels(image: Array) -> tuple[Array, Array, Array]:
  _is_colored(image)
  return image[..., 0], image[..., 1], image[..., 2]


def _check_probability(probability: float) -> None:
  if not 0 <= probability <= 1:
    raise InputError(f"probability={probability}: must lie between 0 and 1")


def _check_kernel(kernel_size: int) -> None:
  if kernel_size < 1 or kernel_size % 2 == 0:
    raise InputError(f"kernel_size={kernel_size}: must be an odd number of pixels")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
  if value not in choices:
    raise InputError(f"{name}={value!r}: must be one of {', '.join(choices)}")


def _check_crop(scale: tuple[float, float], ratio: tuple[float, float]) -> None:
  if not 0 < scale[0] <= scale[1] <= 1:
    raise InputError(f"scale={scale}: must be a range of shares of the area, above 0 and at most 1")
  if not 0 < ratio[0] <= ratio[1]:
    raise InputError(f"ratio={ratio}: must be a range above 0, of width / height")
