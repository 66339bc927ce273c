"""No number of a config may be negative or nan: it is refused by name in one line."""

import dataclasses
import importlib
import math

import pytest

from wmjax.planners import CEMConfig, ShootingConfig
from wmjax.types import UsageError

EXPERIMENTS = ("planet", "smaller_world_models", "environment_models")
CLASSES = {CEMConfig, ShootingConfig}
for name in EXPERIMENTS:
    CLASSES |= set(importlib.import_module(f"experiments.{name}.config").BLOCKS.values())
CLASSES |= {family.config for family in importlib.import_module("experiments.planet.config").MODELS.values()}
BAD = {
    int: (-1,),
    float: (-1.0, math.nan),
    tuple[int, ...]: ((), (-1,), (0,)),
}
CASES = [
    (cls, field.name, bad)
    for cls in sorted(CLASSES, key=repr)
    for field in dataclasses.fields(cls)
    for bad in BAD.get(field.type, ())
]


@pytest.mark.parametrize(("cls", "field", "bad"), CASES, ids=lambda value: getattr(value, "__name__", str(value)))
def test_numbers_out_of_range_are_refused_by_name(cls, field, bad):
    with pytest.raises(UsageError, match=field) as caught:
        dataclasses.replace(cls(), **{field: bad})
    assert len(str(caught.value).splitlines()) == 1
