"""Gradients that are scaled on their way back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wmjax.ops.gradients import scale_gradient


@pytest.mark.parametrize("factor", [0.0, 1e-6, 0.5])
def test_scaled_gradient(factor):
    value, grad = jax.value_and_grad(lambda x: jnp.sum(3 * scale_gradient(x, factor)))(jnp.array([2.0]))
    np.testing.assert_allclose(value, 6, rtol=1e-6)
    np.testing.assert_allclose(grad, 3 * factor, rtol=1e-6)
