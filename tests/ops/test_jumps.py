"""Chunks of jumpy models against plain loops."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny_state_space import B
from wmjax.ops import jumps


@pytest.mark.parametrize("jump", [1, 2, 3])
def test_subsample_equals_loops(jump):
    rng, steps, size = np.random.default_rng(0), 4, 2
    time = jumps.rows(steps, jump)
    assert time == 1 + 3 * jump
    obs, action, reward = rng.normal(size=(B, time, 3)), rng.normal(size=(B, time, size)), rng.normal(size=(B, time))
    found = jumps.subsample(*(jnp.asarray(x, jnp.float32) for x in (obs, action, reward)), jump)
    plain = np.zeros((B, steps, 3)), np.zeros((B, steps, jump * size)), np.zeros((B, steps))
    for b, t in np.ndindex(B, steps):
        plain[0][b, t] = obs[b, t * jump]
        for i in range(jump if t else 0):
            arrival = (t - 1) * jump + 1 + i
            plain[1][b, t, i * size : (i + 1) * size] = action[b, arrival]
            plain[2][b, t] += reward[b, arrival]
    for one, other in zip(found, plain, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)
