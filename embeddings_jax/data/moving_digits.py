"""Moving digits: clips with known masks, tracks, actions and direction of time, a pure function of (seed, index).

Digits of scikit-learn's in colors of their own, and round patches of its photographs, move over a photograph; later
objects hide earlier ones. The first object is a digit; the others are digits or patches, as likely. With position x,
velocity v and one frame as the unit of time:

  physics      law
  gravity      dv = (g - drag v) dt, v changes its sign and loses energy at the borders: time has a direction
  reversible   dv = 0, and v changes its sign at the borders. x is uniform and v isotropic at first, a law that the
               motion keeps and that time reversal leaves alone: a clip and its reverse are equally likely
  actions      the first object alone is pushed: v <- v / 4 + push a, with a drawn from stay, up, down, left, right;
               borders stop it. The others move slowly as under `reversible`

Digits are rendered at broken positions by bilinear interpolation, so motion is smooth. Clips run forwards.
"""
import functools
from typing import NamedTuple

import numpy as np

from embeddings_jax.errors import check_choice

VERSION = 1  # Raise it when the same (seed, index) would give another clip.
NUM_FRAMES, SIZE, SIDE = 24, 32, 12
PHYSICS = ("gravity", "reversible", "actions")
ACTIONS = np.array([[0, 0], [-1, 0], [1, 0], [0, -1], [0, 1]])  # Stay, up, down, left, right: (row, column).
GRAVITY, DRAG, RESTITUTION, PUSH, SUBSTEPS = 0.35, 0.08, 0.7, 2.2, 4


class MovingClip(NamedTuple):
  """One clip.

  Attributes:
    frames: uint8 [frames, size, size, 3].
    masks: uint8 [frames, size, size], number of the visible object from 1, 0 is the background.
    tracks: float32 [frames, objects, 2], centers (row, column) in pixels, also of hidden objects.
    actions: int32 [frames], the action that leads to the next frame; of the last frame one that is not carried out.
    kinds: uint8 [objects], 1 for digits and 2 for patches.
    digit: Class of the first object.
  """

  frames: np.ndarray
  masks: np.ndarray
  tracks: np.ndarray
  actions: np.ndarray
  kinds: np.ndarray
  digit: int


def moving_digits(seed: int, index: int, *, physics: str = "gravity", num_frames: int = NUM_FRAMES, size: int = SIZE,
                  side: int = SIDE, objects: int = 2) -> MovingClip:
  """Makes one clip.

  Args:
    seed, index: Numbers of the set and of the clip in it.
    physics: One of `PHYSICS`.
    num_frames: Number of frames.
    size: Height and width in pixels.
    side: Height and width of an object.
    objects: Number of objects.
  """
  check_choice("physics", physics, PHYSICS)
  rng = np.random.default_rng([seed, index, PHYSICS.index(physics)])
  background = piece(rng, size)
  digits, classes = digit_images()
  shapes, kinds = [], np.full(objects, 2, np.uint8)
  for number in range(objects):
    chosen = rng.integers(len(digits))
    if number == 0:
      digit = int(classes[chosen])
    if number == 0 or rng.random() < 0.5:
      kinds[number] = 1
    shapes.append(colored(rng, digits[chosen], side) if kinds[number] == 1 else patch(rng, side))
  low, high = (side - 1) / 2, size - 1 - (side - 1) / 2
  actions = rng.integers(len(ACTIONS), size=num_frames).astype(np.int32)
  position, velocity = rng.uniform(low, high, (objects, 2)), rng.normal(size=(objects, 2))
  if physics == "gravity":
    tracks = _falling(position, 3 * velocity, num_frames, low, high)
  else:
    tracks = _bouncing(position, (0.3 if physics == "actions" else 1.8) * velocity, num_frames, low, high)
  if physics == "actions":
    tracks[:, 0] = _pushed(position[0], actions, low, high)
  frames, masks = _rendered(background, shapes, tracks, size, side)
  return MovingClip(frames, masks, tracks.astype(np.float32), actions, kinds, digit)


def _falling(position, velocity, num_frames, low, high):
  """Positions [frames, objects, 2] under gravity and friction."""
  states, step = [], 1 / SUBSTEPS
  for _ in range(num_frames):
    states.append(position)
    for _ in range(SUBSTEPS):
      velocity = velocity + step * (np.array([GRAVITY, 0]) - DRAG * velocity)
      position = position + step * velocity
      outside = (position < low) | (position > high)
      velocity = np.where(outside, -RESTITUTION * velocity, velocity)
      position = np.clip(position, low, high)
  return np.array(states)


def _bouncing(position, velocity, num_frames, low, high):
  """Positions of uniform motion between elastic borders, exactly: a line folded at them."""
  line = position + np.arange(num_frames)[:, None, None] * velocity - low
  room = high - low
  phase = np.mod(line, 2 * room)
  return low + np.where(phase > room, 2 * room - phase, phase)


def _pushed(position, actions, low, high):
  """Positions of an object that is pushed."""
  states, velocity = [], np.zeros(2)
  for action in actions:
    states.append(position)
    velocity = velocity / 4 + PUSH * ACTIONS[action]
    moved = np.clip(position + velocity, low, high)
    velocity, position = np.where(moved == position + velocity, velocity, 0), moved
  return np.array(states)


def _rendered(background, shapes, tracks, size, side):
  """Frames and masks of objects at these centers, the later ones in front."""
  num_frames = len(tracks)
  frames = np.broadcast_to(background, (num_frames, size, size, 3)).copy()
  frames = np.pad(frames, ((0, 0), (0, 1), (0, 1), (0, 0)))
  masks = np.zeros((num_frames, size + 1, size + 1), np.uint8)
  places = np.arange(side + 1)
  for number, (alpha, color) in enumerate(shapes):
    corner = tracks[:, number] - (side - 1) / 2
    whole = np.clip(np.floor(corner + 1e-9).astype(int), 0, size - side)
    part = np.clip(corner - whole, 0, 1)
    layers = np.pad(np.concatenate([alpha[..., None], alpha[..., None] * color], -1), ((1, 1), (1, 1), (0, 0)))
    down, right = part[:, 0, None, None, None], part[:, 1, None, None, None]
    moved = (1 - down) * layers[None, 1:] + down * layers[None, :-1]
    moved = (1 - right) * moved[:, :, 1:] + right * moved[:, :, :-1]
    rows = whole[:, 0, None] + places
    columns = whole[:, 1, None] + places
    at = np.arange(num_frames)[:, None, None], rows[:, :, None], columns[:, None, :]
    frames[at] = (1 - moved[..., :1]) * frames[at] + moved[..., 1:]
    masks[at] = np.where(moved[..., 0] > 0.5, number + 1, masks[at])
  return np.rint(255 * frames[:, :size, :size]).astype(np.uint8), masks[:, :size, :size]


def colored(rng, digit, side):
  """Opacity and color of a digit in a bright color."""
  import colorsys

  color = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.7, 1), rng.uniform(0.8, 1))
  return np.clip(1.4 * _resized(digit, side), 0, 1), np.broadcast_to(color, (side, side, 3))


def patch(rng, side):
  """Opacity and color of a round patch of a photograph."""
  away = np.arange(side) - (side - 1) / 2
  radius = np.sqrt(away[:, None] ** 2 + away ** 2)
  return np.clip(side / 2 - radius, 0, 1), piece(rng, side)


def piece(rng, size):
  """Returns a square of one of the photographs, [size, size, 3] in [0, 1]."""
  photographs = _photographs(3 if size <= 96 else 1)
  photograph = photographs[rng.integers(len(photographs))]
  row, column = (rng.integers(length - size + 1) for length in photograph.shape[:2])
  return photograph[row:row + size, column:column + size]


@functools.cache
def _photographs(shrink: int) -> list[np.ndarray]:
  """scikit-learn's photographs, shrunk by averaging."""
  from sklearn import datasets

  patches = []
  for image in datasets.load_sample_images().images:
    height, width = (length // shrink for length in image.shape[:2])
    cells = image[:height * shrink, :width * shrink].reshape(height, shrink, width, shrink, 3)
    patches.append(cells.mean((1, 3)) / 255)
  return patches


@functools.cache
def digit_images() -> tuple[np.ndarray, np.ndarray]:
  """Returns scikit-learn's digits, [n, 8, 8] in [0, 1], and their classes."""
  from sklearn import datasets

  digits = datasets.load_digits()
  return digits.images / 16, digits.target


def _resized(image: np.ndarray, side: int) -> np.ndarray:
  """A square image at another size, bilinear, the borders' pixels in the borders' middle."""
  place = np.linspace(0, len(image) - 1, side)
  weight = np.maximum(1 - np.abs(place[:, None] - np.arange(len(image))), 0)
  return weight @ image @ weight.T
