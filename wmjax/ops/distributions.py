"""Distributions, by distrax. They are built where they are used: only arrays cross doors and transformations.

distrax is imported inside the functions: it imports TensorFlow Probability, which takes most of a second, and neither
`--help` nor a refusal at the start should wait for that.
"""

import chex


def diagonal_gaussian(mean, std):
    """Over the last axis of two arrays of the same shape [..., Z], standard deviations > 0."""
    import distrax

    chex.assert_equal_shape((mean, std))
    return distrax.Independent(distrax.Normal(mean, std), 1)


def one_hot(logits):
    """The categorical over one-hot vectors [..., K] of logits [..., K]."""
    import distrax

    return distrax.OneHotCategorical(logits=logits)
