"""Steps of environments compared, array by array."""

import numpy as np

from wmjax.types import Step

FIELDS = tuple(Step.__dataclass_fields__)


def assert_equal(step: Step, other: Step) -> None:
    arrays, others = arrays_of(step), arrays_of(other)
    assert arrays.keys() == others.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, others[name], err_msg=name)
        assert array.dtype == others[name].dtype, name


def arrays_of(step: Step) -> dict[str, np.ndarray]:
    """The arrays of a Step by name, those of an observation that is a dict too."""
    arrays = {field: getattr(step, field) for field in FIELDS}
    return arrays | arrays.pop("obs") if isinstance(step.obs, dict) else arrays
