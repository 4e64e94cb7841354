"""Baseline features against sums written out."""
import numpy as np
import pytest
from scipy.signal import get_window

from embeddings_jax.data.features import byte_ngrams, mfcc, mfcc_features


def test_mfcc_of_a_frame_by_hand():
  rng = np.random.default_rng(0)
  wave = rng.normal(size=200)
  windowed = wave * get_window("hamming", 200, fftbins=False)
  spectrum = np.abs([(windowed * np.exp(-2j * np.pi * k * np.arange(200) / 256)).sum() for k in range(129)])**2 / 256
  mel = lambda f: 2595 * np.log10(1 + f / 700)
  points = 700 * (10 ** (np.linspace(0, mel(4000), 42) / 2595) - 1)
  energies = [sum(max(0, min((8000 * k / 256 - a) / (b - a), (c - 8000 * k / 256) / (c - b))) * spectrum[k]
                  for k in range(129)) for a, b, c in zip(points, points[1:], points[2:])]
  logs = np.log(np.array(energies) + 1e-10)
  expected = [np.sqrt((1 if i == 0 else 2) / 40) * (logs * np.cos(np.pi * i * (np.arange(40) + 0.5) / 40)).sum()
              for i in range(20)]
  np.testing.assert_allclose(mfcc(wave, 8000)[0], expected, rtol=1e-5, atol=1e-5)


def test_mfcc_frames_scale_and_pooling():
  wave = (np.random.default_rng(0).normal(size=1000) * 3000).astype(np.int16)
  frames = mfcc(wave, 8000)
  assert frames.shape == ((1000 - 200) // 80 + 1, 20)
  np.testing.assert_allclose(mfcc(wave / 2.0**15, 8000), frames, rtol=1e-5)
  # Twice as loud: log 4 more in all 40 filters, which the orthonormal DCT puts in the first coefficient.
  louder = mfcc(wave / 2.0**14, 8000)
  np.testing.assert_allclose(louder[:, 0] - frames[:, 0], np.log(4) * np.sqrt(40), atol=1e-3)
  np.testing.assert_allclose(louder[:, 1:], frames[:, 1:], atol=1e-3)
  pooled = mfcc_features([wave, wave[:90]], 8000)
  np.testing.assert_allclose(pooled[0], np.concatenate([frames.mean(0), frames.std(0)]), rtol=1e-6)
  np.testing.assert_array_equal(pooled[1, 20:], 0)  # One frame has no deviation.
  assert mfcc_features([wave], 8000, deviation=False).shape == (1, 20)


def test_byte_ngrams_count():
  counts = byte_ngrams(["abab", b"\x00\xff", np.array([97, 98], np.uint8), ""], sizes=(1, 2), num_features=4096) ** 2
  single, pair = counts[:, :4096], counts[:, 4096:]
  assert single[0, 97] == pytest.approx(0.5) and single[0, 98] == pytest.approx(0.5)
  assert single[1, 0] == pytest.approx(0.5) and single[1, 255] == pytest.approx(0.5)
  # ab twice, ba once; the same pair falls in the same bucket in every item.
  np.testing.assert_allclose(np.sort(pair[0])[-2:], [1 / 3, 2 / 3], rtol=1e-6)
  assert pair[0].argmax() == pair[2].argmax() and pair[2].max() == pytest.approx(1)
  np.testing.assert_array_equal(counts[3], 0)


def test_tf_idf_is_scikit_learns():
  from sklearn.feature_extraction.text import TfidfVectorizer

  from embeddings_jax.data.encoders.bags import BagEncoder
  from embeddings_jax.data.features import tf_idf
  from embeddings_jax.data.words import Vocabulary

  noise = np.random.default_rng(0)
  texts = [" ".join(f"w{i}" for i in noise.integers(0, 30, noise.integers(1, 40))) for _ in range(300)] + [""]
  words = [f"w{i}" for i in range(25)]  # The others are unknown.
  encoder = BagEncoder(Vocabulary(words, np.ones(25)), "lower")
  fit = np.arange(0, 300, 2)
  theirs = TfidfVectorizer(vocabulary=words, sublinear_tf=True).fit([texts[i] for i in fit]).transform(texts)
  actual = tf_idf(texts, encoder.encode, 25, fit=fit)
  np.testing.assert_allclose(actual.toarray(), theirs.toarray(), atol=1e-6)
  assert not actual.toarray()[300].any()
