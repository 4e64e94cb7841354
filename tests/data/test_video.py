"""Clips: the generator's physics, windows of frames, and files of clips."""
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from embeddings_jax.data import pipelines, video
from embeddings_jax.data.clip_windows import clip_source
from embeddings_jax.data.dataset import Dataset, as_dataset
from embeddings_jax.data.encoders import load_encoder
from embeddings_jax.data.encoders.clips import ClipEncoder
from embeddings_jax.data.moving_digits import ACTIONS, DRAG, GRAVITY, PUSH, _bouncing, moving_digits
from embeddings_jax.types import InputError


def numbered(lengths, shape=(2, 3, 1), beside=None):
  """Clips whose frame t of clip i is 20 i + t everywhere."""
  values = np.concatenate([20 * i + np.arange(length) for i, length in enumerate(lengths)]).astype(np.uint8)
  frames = np.broadcast_to(values[:, None, None, None], (len(values), *shape)).copy()
  return video.Clips(frames, lengths, beside and {"actions": values.astype(np.int32)})


def test_clips_are_views_of_one_array():
  clips = numbered([3, 4])
  assert len(clips) == 2 and clips.shape == (2, 3, 1) and clips.lengths.tolist() == [3, 4]
  assert [clip[0, 0, 0, 0] for clip in clips] == [0, 20] and clips[1].base is clips.frames
  assert [len(clip) for clip in clips[::-1]] == [4, 3] and clips[-1][-1, 0, 0, 0] == 23
  with pytest.raises(InputError, match="frames has 7 entries for 6 frames"):
    video.Clips(clips.frames, [3, 3])


def test_an_array_of_clips_is_a_dataset():
  array = np.arange(2 * 3 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 3, 4, 5, 3)
  dataset = as_dataset(array)
  assert dataset.kind == "video" and dataset.items.lengths.tolist() == [3, 3]
  np.testing.assert_array_equal(dataset.items[1], array[1])
  assert video.read("clips", dataset=dataset) is dataset


# The generator.


@pytest.mark.parametrize("physics", ["gravity", "reversible", "actions"])
def test_a_moving_clip_is_a_function_of_seed_and_index(physics):
  one, other = (moving_digits(3, 5, physics=physics) for _ in range(2))
  for first, second in zip(one, other):
    np.testing.assert_array_equal(first, second)
  assert (moving_digits(3, 6, physics=physics).frames != one.frames).any()
  assert one.frames.shape == (24, 32, 32, 3) and one.masks.max() == 2 and 0 <= one.digit <= 9


def test_masks_and_tracks_say_where_objects_are():
  """The last object is in front: the center of its mask is its track, and what is no object is the background."""
  clip = moving_digits(0, 1)
  pixels = np.stack(np.meshgrid(np.arange(32), np.arange(32), indexing="ij"), -1)
  away = (np.abs(pixels - clip.tracks[:, :, None, None]).max(-1) > 7).all(1)
  for t in range(24):
    both = away[0] & away[t]
    np.testing.assert_array_equal(clip.frames[0][both], clip.frames[t][both])
    entered = (clip.masks[t] == 2) & away[0]
    assert (clip.frames[t][entered] != clip.frames[0][entered]).any(-1).all()
  round_one = next(clip for clip in (moving_digits(0, i) for i in range(9)) if (clip.masks[0] == 2).sum() > 90)
  for mask, track in zip(round_one.masks, round_one.tracks):
    np.testing.assert_allclose(np.argwhere(mask == 2).mean(0), track[1], atol=0.2)


def test_reversible_motion_reversed_obeys_the_same_law():
  """From the last place with the velocity turned around it runs back, and speeds are as at first."""
  rng = np.random.default_rng(0)
  position, velocity = rng.uniform(5, 26, (50, 2)), rng.normal(size=(50, 2))
  track = _bouncing(position, velocity, 24, 5, 26)
  onward = _bouncing(position, velocity, 25, 5, 26)[24] - track[23]
  wall = np.abs(np.abs(onward) - np.abs(velocity)) > 1e-9  # A frame in which a border was met tells no velocity.
  back = _bouncing(track[23], -onward, 24, 5, 26)
  bounces = np.floor((position + 23 * velocity - 5) / 21) % 2
  turned = np.where(bounces, velocity, -velocity)
  np.testing.assert_allclose(_bouncing(track[23], turned, 24, 5, 26), track[::-1], atol=1e-9)
  np.testing.assert_allclose(back[:, ~wall.any(1)], track[::-1][:, ~wall.any(1)], atol=1e-9)


def test_gravity_and_friction_follow_their_equations():
  """Free flight accelerates by g - drag v; over a clip energy is lost."""
  lost = 0
  for i in range(20):
    track = moving_digits(0, i).tracks[:, 0].astype(np.float64)
    step = np.diff(track, axis=0)
    reach = np.abs(step).max(1, keepdims=True) + 1
    inside = ((track[:-1] - reach > 5.5) & (track[:-1] + reach < 25.5)).all(1)
    free = inside[:-1] & inside[1:]
    change = np.diff(step, axis=0)[free]
    expected = np.array([GRAVITY, 0]) - DRAG * (step[:-1][free] + step[1:][free]) / 2
    np.testing.assert_allclose(change, expected, atol=0.02)
    energy = (step**2).sum(1) / 2 - GRAVITY * (track[1:, 0] + track[:-1, 0]) / 2
    lost += energy[-1] < energy[0]
  assert lost == 20


def test_actions_push_the_first_object():
  clip = moving_digits(0, 2, physics="actions")
  position, velocity = clip.tracks[0, 0].astype(np.float64), np.zeros(2)
  for action, following in zip(clip.actions[:-1], clip.tracks[1:, 0]):
    velocity = velocity / 4 + PUSH * ACTIONS[action]
    moved = np.clip(position + velocity, 5.5, 25.5)
    velocity = np.where(moved == position + velocity, velocity, 0)
    position = moved
    np.testing.assert_allclose(following, position, atol=1e-4)


# Windows.


@pytest.mark.parametrize("resident", [True, False])
def test_windows_are_slices_of_the_chosen_clips(resident):
  clips = numbered([9, 4, 12, 7], beside=True)
  source = clip_source(clips, [0, 2], 3, 2, stride=2, hop=3, beside=("actions",), order="sequential",
                       remainder="pad", resident=resident)
  firsts = [0, 3, 40, 43, 46]  # Spans of 5 frames: clip 0 has room for 0 and 3, clip 2 for 0, 3 and 6.
  assert source.facts["num_rows"] == 5 and bool(source.resident) == resident
  actual = []
  for step in range(3):
    batch = source.batch_at(step)
    assert batch["clip"].shape == (2, 3, 2, 3, 1) and batch["clip"].dtype == np.uint8
    np.testing.assert_array_equal(batch["clip"][..., 0, 0, 0], batch["actions"])
    actual += batch["actions"][batch["mask"] > 0].tolist()
  assert actual == [[first, first + 2, first + 4] for first in firsts]
  part = source.feed_at(1, slice(1, 2))
  np.testing.assert_array_equal(np.asarray(source.assemble(source.resident, part)["actions"]), [[43, 45, 47]])


def test_jitter_is_a_function_of_seed_and_step_and_stays_in_the_clip():
  clips = numbered([12, 15])
  source = clip_source(clips, [0, 1], 4, 3, hop=4, jitter=True, seed=1)
  again = clip_source(clips, [0, 1], 4, 3, hop=4, jitter=True, seed=1, resident=False)
  starts = set()
  for step in range(40):
    values = np.asarray(source.batch_at(step)["clip"])[:, :, 0, 0, 0].astype(int)
    np.testing.assert_array_equal(values, again.batch_at(step)["clip"][:, :, 0, 0, 0])
    np.testing.assert_array_equal(np.diff(values), 1)
    starts |= set(values[:, 0])
  assert starts == set(range(9)) | set(range(20, 32))


def test_no_frame_of_a_held_out_clip_is_trained_on():
  dataset = Dataset("x", "video", numbered([9] * 10), split={"train": np.arange(8), "test": np.arange(8, 10)})
  for name, options in (("clips", dict(window=3, stride=2)), ("frame_pairs", dict(distance=3))):
    make = pipelines.function(pipelines.find(name))
    data = make(dataset, batch_size=2, seed=0, validation_fraction=0.25, **options)
    seen = {part: {int(frame) for step in range(40) for key in ("clip", "image", "positive")
                   for frame in np.ravel(source.batch_at(step).get(key, [])).tolist()}
            for part, source in data.splits.items()}
    held_out = {frame // 20 for frame in seen["validation"]}
    assert len(held_out) == 2 and {frame // 20 for frame in seen["train"]} == set(range(8)) - held_out
  with pytest.raises(InputError, match="holds out whole clips, and leaves none of 1 to train on"):
    make(Dataset("x", "video", numbered([9])), batch_size=1, seed=0, validation_fraction=0.5)
  with pytest.raises(InputError, match=r"clip 0: has 9 frames, and a window spans 11 \(window=6, stride=2\)"):
    pipelines.function(pipelines.find("clips"))(dataset, batch_size=2, seed=0, window=6, stride=2)
  with pytest.raises(InputError, match="actions=True: x has no actions; moving-digits-actions has"):
    pipelines.function(pipelines.find("clips"))(dataset, batch_size=2, seed=0, actions=True)


def test_two_frames_of_a_pair_are_their_distance_apart():
  data = pipelines.function(pipelines.find("frame_pairs"))(
      Dataset("x", "video", numbered([9, 12]), labels={"class": np.arange(2)}), batch_size=2, seed=0, distance=3)
  batch = data.splits["train"].batch_at(0)
  np.testing.assert_array_equal(np.asarray(batch["positive"]).astype(int) - np.asarray(batch["image"]), 3)
  assert data.dataset.kind == "images" and data.dataset.items[:, 0, 0, 0].tolist() == [4, 26]


def test_the_encoder_reads_the_middle_of_a_clip(tmp_path):
  encoder = ClipEncoder(2, 3, 1, window=3, stride=2)
  encoder.save(tmp_path / "e")
  loaded = load_encoder(tmp_path / "e")
  batch = loaded.encode(numbered([9, 6])[:])
  assert batch["clip"][:, :, 0, 0, 0].tolist() == [[2, 4, 6], [20, 22, 24]] and batch["mask"].tolist() == [1, 1]
  assert loaded.encode_frames(numbered([4]).frames)["clip"].shape == (4, 1, 2, 3, 1)
  with pytest.raises(InputError, match="clip 0: has 4 frames, and a window spans 5; give longer clips"):
    loaded.encode(numbered([4])[:])
  with pytest.raises(InputError, match=r"clip 0: is float32 \[9, 2, 3, 1\], expected uint8"):
    loaded.encode([np.zeros((9, 2, 3, 1), np.float32)])


# Files.


def test_arrays_and_their_masks(tmp_path):
  frames = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)
  masks = np.arange(5 * 64).reshape(5, 8, 8) % 3
  np.savez(tmp_path / "x.npz", **{"a": frames, "b": frames[:3], "a.masks": masks, "b.masks": masks[:3]})
  dataset = video.read(str(tmp_path / "x.npz"), cache_dir=str(tmp_path / "c"))
  assert dataset.kind == "video" and list(dataset.names) == ["a", "b"] and dataset.items.lengths.tolist() == [5, 3]
  np.testing.assert_array_equal(dataset.items[0], frames)
  np.testing.assert_array_equal(dataset.items.of("masks", 1), masks[:3])
  assert isinstance(dataset.items.frames, np.memmap)
  every = video.read(str(tmp_path / "x.npz"), cache_dir=str(tmp_path / "c"), every=2, image_size=16, channels=1)
  assert every.items.lengths.tolist() == [3, 2] and every.items.shape == (16, 16, 1)
  np.testing.assert_array_equal(every.items.of("masks", 0)[1], np.repeat(np.repeat(masks[2], 2, 0), 2, 1))
  few = video.read(str(tmp_path / "x.npz"), cache_dir=str(tmp_path / "c"), max_clips=1)
  assert list(few.names) == ["a"] and few.items.beside["masks"].shape == (5, 8, 8)


def test_folders_of_frames_with_classes_splits_and_masks(tmp_path):
  for split, kind, name, value in (("train", "run", "b", 1), ("train", "walk", "a", 2), ("test", "run", "c", 3)):
    folder = tmp_path / "x" / split / kind / name
    folder.mkdir(parents=True)
    for t in range(3):
      Image.fromarray(np.full((9, 8, 3), 10 * value + t, np.uint8)).save(folder / f"{t + 8}.png")
  dataset = video.read(str(tmp_path / "x"), cache_dir=str(tmp_path / "c"))
  assert dataset.labels["class"].tolist() == ["run", "run", "walk"] and dataset.split["test"].tolist() == [0]
  assert [clip[:, 0, 0, 0].tolist() for clip in dataset.items] == [[30, 31, 32], [10, 11, 12], [20, 21, 22]]
  davis = tmp_path / "davis"
  for name in ("cat", "dog"):
    for part in (video.FRAMES, video.MASKS):
      (davis / part / "480p" / name).mkdir(parents=True)
    for t in range(2):
      Image.fromarray(np.full((9, 8, 3), t, np.uint8)).save(davis / video.FRAMES / "480p" / name / f"{t}.jpg")
      palette = Image.fromarray(np.full((9, 8), 1 + t, np.uint8), mode="P")
      palette.putpalette([0, 0, 0, 200, 0, 0, 0, 200, 0])
      palette.save(davis / video.MASKS / "480p" / name / f"{t}.png")
  dataset = video.read(str(davis), cache_dir=str(tmp_path / "c"))
  assert list(dataset.names) == ["cat", "dog"] and dataset.items.of("masks", 1)[:, 0, 0].tolist() == [1, 2]
  last = davis / video.MASKS / "480p" / "dog" / "1.png"
  whole = last.read_bytes()
  last.write_bytes(whole[:40])
  with pytest.raises(InputError, match="1.png: is no mask that can be read"):
    video.read(str(davis), cache_dir=str(tmp_path / "c"))
  Image.fromarray(np.zeros((8, 8), np.uint8)).save(last)
  with pytest.raises(InputError, match=r"dog, frame 1: the mask is \[8, 8\] and does not fit 9 x 8 pixels"):
    video.read(str(davis), cache_dir=str(tmp_path / "c"))
  last.unlink()
  with pytest.raises(InputError, match="has 1 masks for 2 frames"):
    video.read(str(davis), cache_dir=str(tmp_path / "c"))


def test_frames_of_another_size_keep_what_is_beside_them(tmp_path):
  beside = {"masks": np.zeros((5, 4, 4), np.uint8), "tracks": np.full((5, 1, 2), 1.5, np.float32),
            "kinds": np.ones((5, 1), np.uint8)}
  dataset = Dataset("x", "video", video.Clips(np.zeros((5, 4, 4, 3), np.uint8), [2, 3], beside), fingerprint="x")
  items = video.read("x", dataset=dataset, image_size=8, cache_dir=str(tmp_path)).items
  assert items.shape == (8, 8, 3) and items.lengths.tolist() == [2, 3] and items.beside["masks"].shape == (5, 8, 8)
  assert (items.beside["tracks"] == 3.5).all() and items.beside["kinds"].all()  # The middle stays the middle.


@pytest.mark.parametrize("arrays, line", [
    ({"a": np.zeros((2, 8, 8, 3), np.uint8), "b": np.zeros((2, 8, 9, 3), np.uint8)},
     r"several sizes, a, frame 0 \[8, 8, 3\], b, frame 0 \[8, 9, 3\]; image_size=N"),
    ({"a": np.zeros((2, 8, 8, 3), np.uint8), "a.masks": np.zeros((2, 4, 4), int)},
     r"the masks of 'a' are int64 \[2, 4, 4\] and do not fit frames \[2, 8, 8, 3\]"),
    ({"a": np.zeros((2, 8, 8, 3), np.uint8), "b.masks": np.zeros((2, 8, 8), int)}, "'b.masks' are masks of no clip"),
    ({"a": np.zeros((2, 8, 8, 3), np.uint8), "a.masks": np.full((2, 8, 8), 300)}, "numbers from 300 to 300"),
    ({"a": np.zeros((2, 8, 8), np.float32)}, r"a is float32 \[2, 8, 8, 1\], expected uint8 \[frames, height"),
])
def test_bad_arrays_are_named(tmp_path, arrays, line):
  np.savez(tmp_path / "x.npz", **arrays)
  with pytest.raises(InputError, match=line):
    video.read(str(tmp_path / "x.npz"), cache_dir=str(tmp_path / "c"))


def test_video_files_need_the_extra(tmp_path, monkeypatch):
  (tmp_path / "x.mp4").write_bytes(b"no video")
  monkeypatch.setitem(sys.modules, "av", None)
  with pytest.raises(InputError, match=r"video files need a decoder, the extra `video`: pip install"):
    video.read(str(tmp_path / "x.mp4"), cache_dir=str(tmp_path / "c"))
  (tmp_path / "x.txt").write_text("no")
  with pytest.raises(InputError, match="x.txt: holds no clips; give .npz"):
    video.read(str(tmp_path / "x.txt"), cache_dir=str(tmp_path / "c"))


@pytest.mark.parity
def test_video_files_are_decoded_once(tmp_path):
  import av

  with av.open(str(tmp_path / "x.mp4"), "w") as container:
    stream = container.add_stream("mpeg4", rate=10)
    stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
    for t in range(6):
      frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 40 * t, np.uint8), format="rgb24")
      container.mux(stream.encode(frame))
    container.mux(stream.encode())
  items = video.read(str(tmp_path / "x.mp4"), cache_dir=str(tmp_path / "c")).items
  assert items.lengths.tolist() == [6] and items.shape == (48, 64, 3)
  assert np.abs(items[0].mean((1, 2, 3)) - 40 * np.arange(6)).max() < 6
  (tmp_path / "y.mp4").write_bytes(b"no video")
  with pytest.raises(InputError, match="y.mp4: cannot be decoded"):
    video.read(str(tmp_path / "y.mp4"), cache_dir=str(tmp_path / "c"))


def test_prepared_sets_of_tfds(tmp_path):
  class Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
      features = tfds.features
      return tfds.core.DatasetInfo(builder=self, features=features.FeaturesDict({
          "video": features.Tensor(shape=(3, 8, 8, 3), dtype=np.uint8),
          "label": features.ClassLabel(num_classes=2)}))

    def _split_generators(self, dl_manager):
      return {"train": self._generate_examples()}

    def _generate_examples(self):
      for i in range(4):
        yield i, {"video": np.full((3, 8, 8, 3), i, np.uint8), "label": i % 2}

  Tiny.name = "tiny_video"
  Tiny(data_dir=tmp_path, file_format="array_record").download_and_prepare()
  dataset = video.read("tfds:tiny_video", data_dir=str(tmp_path), cache_dir=str(tmp_path / "c"))
  values = [int(clip[0, 0, 0, 0]) for clip in dataset.items]
  assert sorted(values) == [0, 1, 2, 3] and dataset.items.lengths.tolist() == [3] * 4
  assert [int(label) for label in dataset.labels["class"]] == [value % 2 for value in values]
  with pytest.raises(InputError, match="should read tfds:"):
    video.read("tfds:")
