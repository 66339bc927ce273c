"""Checks of settings: what each refuses, and in which words."""

from types import SimpleNamespace

import pytest

from wmjax import checks
from wmjax.types import UsageError


@pytest.mark.parametrize(
    ("check", "good", "bad", "demand"),
    [
        (checks.above_zero, (1, 0.5), (0, -1.0, float("nan")), "must be above 0"),
        (checks.not_negative, (0, 0.5), (-1, float("nan")), "must be 0 or more"),
        (checks.between_0_and_1, (0, 1.0), (-0.1, 1.1, float("nan")), "must be between 0 and 1"),
        (checks.at_least_one, (1, 2), (0, -1), "must be at least 1"),
        (checks.widths, ((1,), (2, 3)), ((), (2, 0)), "give at least one width, each above 0"),
    ],
)
def test_the_message_names_block_field_value_and_demand(check, good, bad, demand):
    for value in good:
        check(SimpleNamespace(first=good[0], second=value), "model", "first", "second")
    for value in bad:
        with pytest.raises(UsageError) as error:
            check(SimpleNamespace(first=good[0], second=value), "model", "first", "second")
        assert str(error.value) == f"model second {value}: {demand}"


def test_a_value_that_is_no_choice_is_refused_with_all_choices():
    checks.one_of(SimpleNamespace(kind="a", size=2), "agent", kind=("a", "b"), size=(2, 1))
    with pytest.raises(UsageError, match="agent size 3: choose one of 2, 1"):
        checks.one_of(SimpleNamespace(kind="a", size=3), "agent", kind=("a", "b"), size=(2, 1))
