"""Digests of pytrees."""

import numpy as np
import pytest

from wmjax.storage import manifest


@pytest.mark.parametrize("other", [dict(a=np.ones(2), b=np.zeros(3)), dict(a=np.zeros(2), b=np.ones(2))])
def test_equal_trees_and_no_others_have_one_digest(other):
    tree = dict(a=np.ones(2), b=np.zeros(2))
    assert manifest.digest(tree) == manifest.digest(dict(a=np.ones(2), b=np.zeros(2))) != manifest.digest(other)
