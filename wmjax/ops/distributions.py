"""Distributions, by distrax. They are built where they are used: what crosses doors and transformations are arrays.

distrax is imported by the first of them, for it imports TensorFlow Probability, most of a second that `--help` and what
is refused at the start need not wait for.
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
