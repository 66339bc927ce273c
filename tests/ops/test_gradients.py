"""Gradients that are scaled on their way back, clipped, and applied."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wmjax.ops.gradients import clipped_adam, scale_gradient


@pytest.mark.parametrize("factor", [0.0, 1e-6, 0.5])
def test_scaled_gradient(factor):
    value, grad = jax.value_and_grad(lambda x: jnp.sum(3 * scale_gradient(x, factor)))(jnp.array([2.0]))
    np.testing.assert_allclose(value, 6, rtol=1e-6)
    np.testing.assert_allclose(grad, 3 * factor, rtol=1e-6)


def test_the_first_step_of_a_clipped_adam_by_hand():
    """[3, 4] clipped to a norm of 0.5 is [0.3, 0.4]; a step is the rate times g / (|g| + epsilon)."""
    optimizer, params = clipped_adam(0.5, 0.1, 0.2), jnp.zeros(2)
    step = optimizer.update(jnp.array([3.0, 4.0]), optimizer.init(params))[0]
    np.testing.assert_allclose(step, [-0.1 * 0.3 / 0.5, -0.1 * 0.4 / 0.6], rtol=1e-5)
