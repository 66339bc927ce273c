"""The weight of the KL: when it begins to rise, how fast, and the mean image that it waits for."""

import jax
import numpy as np

from wmjax.models.state_space import annealing


def test_the_kl_weight_rises_once_the_images_are_good_enough():
    """By a fixed factor, up to 1, whatever the images do from then on; no single good batch begins it."""
    images = np.zeros((2, 8, 8, 1), np.float32)
    images[0] = 1  # the mean image is grey: 64 log 2 nats an image
    update = jax.jit(annealing.update)

    def weights(*shares):
        state, found = annealing.initial((8, 8, 1)), []
        for updates, share in enumerate(shares):
            state = update(state, updates, images, share * 64 * np.log(2), 0.6)
            found.append(float(state.kl_weight))
        return np.array(found)

    np.testing.assert_allclose(weights(*[40] * 50, *[0.65] * 300), 1e-8, rtol=1e-5)
    np.testing.assert_allclose(weights(*[0.0] * 5, *[1.0] * 50), 1e-8, rtol=1e-5)
    found = weights(*[40] * 50, *[0.3] * 100, *[1.0] * 400)  # the average is 0.6 after 42 more updates
    begun = np.flatnonzero(found > 1.01e-8)[0]
    assert 88 <= begun <= 94
    rise = 1e-8 * 1.05 ** np.arange(1, len(found) - begun + 1)
    np.testing.assert_allclose(found[begun:], np.minimum(rise, 1), rtol=1e-3)
    assert found[-1] == 1


def test_the_mean_image_is_that_of_all_batches():
    batches = np.random.default_rng(0).uniform(size=(3, 4, 8, 8, 1)).astype(np.float32)
    state = annealing.initial((8, 8, 1))
    for updates, images in enumerate(batches):
        state = annealing.update(state, updates, images, 1.0, 0.5)
    np.testing.assert_allclose(state.mean_image, batches.mean(axis=(0, 1)), rtol=1e-5)
