"""Convolutions of small grids equal sums written out in numpy."""

import itertools
import math
import types

import numpy as np
import pytest

from wmjax.nets import small_grids


@pytest.mark.parametrize("few", [False, True])
def test_every_small_grid_by_sums(few, monkeypatch):
    """All grids of 1 to 4 x 1 to 6, in value and gradient, smaller than the kernel too; in numpy nothing compiles.

    few: for each row of the kernel, as of few images; else by frequencies.
    """

    def pad(x, zero, widths):
        return np.pad(x, [(low, high) for low, high, _ in widths])

    monkeypatch.setattr(small_grids, "jnp", np)
    monkeypatch.setattr(small_grids, "lax", types.SimpleNamespace(pad=pad))
    monkeypatch.setattr(small_grids, "_FEW_IMAGES", 2**30 if few else 0)
    for k, rows, cols in itertools.product((1, 3, 5, 7), range(1, 5), range(1, 7)):
        rng = np.random.default_rng(0)
        shapes = (4, rows, cols, 3), (k, k, 3, 4), (4,)
        x, kernel, bias = (rng.normal(size=shape).astype(np.float32) for shape in shapes)
        g = np.cos(np.arange(4 * rows * cols * 4)).reshape(4, rows, cols, 4)
        h = k // 2
        padded, y, d_kernel = np.pad(x, ((0, 0), (h, h), (h, h), (0, 0))), np.zeros(g.shape), np.zeros(kernel.shape)
        d_padded = np.zeros(padded.shape)
        for a, b in itertools.product(range(k), repeat=2):
            under = np.s_[:, a : a + rows, b : b + cols]
            y += padded[under] @ kernel[a, b]
            d_padded[under] += g @ kernel[a, b].T
            d_kernel[a, b] = np.einsum("nxyc,nxyd->cd", padded[under], g)
        expected = (y + bias, d_padded[:, h : h + rows, h : h + cols], d_kernel, g.sum((0, 1, 2)))
        found = (small_grids.grid_conv.fun(x, kernel, bias), *small_grids._grid_bwd((x, kernel, bias), g))
        for ours, reference in zip(found, expected, strict=True):
            assert ours.shape == reference.shape, (k, rows, cols)
            np.testing.assert_allclose(ours, reference, atol=1e-4, err_msg=f"{k} on {rows} x {cols}")


def test_what_counts_as_a_small_grid():
    cases = {((16, 6, 6, 128), 5, 1): True, ((16, 6, 6, 128), 5, 2): False, ((16, 6, 6, 128), 4, 1): False}
    cases |= {((16, 6, 6, 128), 1, 1): False, ((16, 11, 6, 128), 5, 1): False, ((40, 6, 6, 256), 3, 1): True}
    cases |= {((10_000, 6, 6, 256), 3, 1): False}
    for arguments, small in cases.items():
        assert small_grids.is_small_grid(*arguments) == small, arguments


@pytest.mark.parametrize(("rows", "cols", "k"), [(6, 6, 5), (8, 8, 5), (6, 6, 3), (5, 4, 7), (1, 3, 5)])
def test_frequencies_are_as_few_as_they_can_be(rows, cols, k):
    """Of real numbers one product, of each pair of conjugate ones three."""
    size = rows + k // 2, cols + k // 2
    real = math.prod(2 if each % 2 == 0 else 1 for each in size)  # frequencies that are their own conjugates
    forward, of_kernel, inverse = small_grids.transforms(rows, cols, k)
    assert len(forward) == len(of_kernel) == inverse.shape[1] == real + 3 * (math.prod(size) - real) // 2
    assert small_grids.transforms(6, 6, 5)[0].shape == (94, 36)
