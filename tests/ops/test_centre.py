"""Centres of images and images that are made smaller."""

import jax
import numpy as np
import pytest

from tests.fakes import normal
from wmjax.ops.centre import area_weights, crop, shrink


def test_a_crop_is_in_the_middle():
    image = np.zeros((1, 8, 8, 2), np.float32)
    image[:, 2:6, 2:6] = 1
    assert crop(image, 4).shape == (1, 4, 4, 2) and crop(image, 4).all() and crop(image, 8).mean() == 0.25
    image = normal(1, 5, 8, 1)  # of an odd rest the smaller half is above
    np.testing.assert_array_equal(crop(image, 2), image[:, 1:3, 3:5])


def test_a_pixel_of_a_smaller_image_is_the_mean_of_its_area():
    image = normal(2, 6, 6, 3)
    by_hand = image.reshape(2, 3, 2, 3, 2, 3).mean((2, 4))
    np.testing.assert_allclose(jax.jit(shrink, static_argnums=1)(image, 3), by_hand, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(area_weights(3, 2), [[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]], rtol=1e-6)


@pytest.mark.parametrize("side", [1, 8, 33, 56, 63, 64])
def test_areas_cover_every_pixel_once(side):
    """So a constant image stays as it is."""
    weights = area_weights(64, side)
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(weights.sum(0), side / 64, rtol=1e-5)
