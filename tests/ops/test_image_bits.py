"""Images of few bits: bins by hand, noise that fills them, and back."""

import jax
import numpy as np
import pytest

from wmjax.ops import image_bits


@pytest.mark.parametrize(
    ("pixel", "bits", "start"),
    [
        *[(0, 5, -0.5), (7, 5, -0.5), (8, 5, -0.46875), (15, 5, -0.46875), (128, 5, 0.0), (248, 5, 0.46875)],
        *[(255, 5, 0.46875), (127, 1, -0.5), (128, 1, 0.0), (0, 8, -0.5), (1, 8, 1 / 256 - 0.5)],
        (255, 8, 255 / 256 - 0.5),
    ],
)
def test_image_bits_by_hand(pixel, bits, start):
    obs = np.array([pixel], np.uint8)
    np.testing.assert_array_equal(image_bits.bin_start(obs, bits), np.float32([start]))
    np.testing.assert_array_equal(image_bits.bin_centre(obs, bits), np.float32([start + 0.5 / 2**bits]))


@pytest.mark.parametrize("bits", [1, 5, 8])
def test_dequantised_pixels_fill_their_bin_and_stay_in_it(bits):
    obs = np.repeat(np.arange(256, dtype=np.uint8)[None], 200, axis=0)
    noisy = np.asarray(image_bits.dequantise(jax.random.key(0), obs, bits))
    place = (noisy - np.asarray(image_bits.bin_start(obs, bits))) * 2**bits
    assert place.min() >= 0 and place.max() <= 1
    assert place.min() < 0.01 and place.max() > 0.99 and abs(place.mean() - 0.5) < 0.01
    assert noisy.dtype == np.float32 and len(np.unique(place)) > 10_000


def test_floats_are_not_taken_for_images():
    with pytest.raises(AssertionError):
        image_bits.bin_start(np.zeros(3, np.float32), 5)


def test_to_uint8_shows_the_whole_range():
    image = np.float32([-0.7, -0.5, 0.0, 0.25, 0.5, 0.9])
    shown = image_bits.to_uint8(image)
    np.testing.assert_array_equal(shown, np.uint8([0, 0, 128, 191, 255, 255]))
    assert shown.dtype == np.uint8
    pixels = np.arange(256, dtype=np.uint8)
    back = np.asarray(image_bits.to_uint8(image_bits.bin_start(pixels, 8))).astype(int)
    assert np.abs(back - pixels).max() <= 1
