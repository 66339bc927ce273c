"""Rewards as bits against plain Python."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wmjax.ops import reward_bits

DIGITS = 4


@pytest.mark.parametrize(
    ("reward", "bits"),
    [
        (0.0, "0000 0 1"), (1.0, "1000 0 0"), (-6.0, "0110 1 0"), (15.0, "1111 0 0"),
        (40.0, "1111 0 0"), (2.9, "0100 0 0"), (-0.5, "0000 1 0"),
    ],
)  # fmt: skip
def test_bits_of_rewards(reward, bits):
    expected = [float(bit) for bit in bits.replace(" ", "")]
    np.testing.assert_array_equal(reward_bits.encode(jnp.array([reward]), DIGITS), [expected])


def test_log_prob_and_mean_equal_plain_sums():
    """Over all 64 settings of the bits of a random head."""
    logits = np.random.default_rng(0).normal(size=DIGITS + 2)
    share = 1 / (1 + np.exp(-logits))
    mean, total = 0.0, 0.0
    for bits in itertools.product([0, 1], repeat=DIGITS + 2):
        chance = math.prod(p if bit else 1 - p for p, bit in zip(share, bits, strict=True))
        size = sum(bit * 2**i for i, bit in enumerate(bits[:DIGITS]))
        mean += chance * (0 if bits[-1] else -size if bits[-2] else size)
        total += chance
        reward = -size if bits[-2] else size
        if (reward == 0) == bits[-1] and not (reward == 0 and bits[-2]):  # bits that some reward has
            found = reward_bits.log_prob(jnp.array(float(reward)), jnp.array(logits))
            np.testing.assert_allclose(found, math.log(chance), rtol=1e-5)
    assert total == pytest.approx(1)
    np.testing.assert_allclose(reward_bits.mean(jnp.array(logits)), mean, rtol=1e-5)


def test_leading_axes_stay():
    logits = jnp.ones((2, 3, DIGITS + 2))
    assert reward_bits.log_prob(jnp.zeros((2, 3)), logits).shape == reward_bits.mean(logits).shape == (2, 3)
    assert np.isfinite(jax.grad(lambda x: reward_bits.log_prob(jnp.zeros((2, 3)), x).sum())(logits)).all()
