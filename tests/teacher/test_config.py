"""The options of a teacher: one list, with defaults and checks."""

import dataclasses
import typing

import pytest

from lvlm2p_wrappers import Teacher, UsageError
from lvlm2p_wrappers.teacher.config import TeacherConfig, TeacherOptions


def test_type_checkers_know_the_options_that_there_are():
    assert list(typing.get_type_hints(TeacherOptions)) == [field.name for field in dataclasses.fields(TeacherConfig)]


def test_every_option_is_explained_where_users_read():
    for name in TeacherOptions.__annotations__:
        assert f"\n        {name}: " in Teacher.__doc__, name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rpm": 0.5}, "rpm must be a valid integer.*not 0.5"),
        ({"timeout_s": 0}, "timeout_s must be greater than 0, not 0"),
        ({"max_retries": -1}, "max_retries must be greater than or equal to 0, not -1"),
        ({"budget_usd": float("inf")}, "budget_usd must be a finite number, not inf"),
        ({"store": 3}, "store must be a valid string, not 3"),
        ({"fallback_models": [1]}, "fallback_models must be a valid string, not 1"),
    ],
)
def test_an_option_that_cannot_work_is_named_with_what_was_given(options, message):
    with pytest.raises(UsageError, match=message):
        Teacher("openai/gpt-4o-mini", **options)


def test_any_other_option_means_another_teacher(tmp_path):
    def share(**options):
        return Teacher.shared("openai/gpt-4o-mini", options)

    assert share() is share(store=tmp_path / "store.sqlite") is share(store=str(tmp_path / "store.sqlite"))
    assert share(prompts=tmp_path) is share(prompts=str(tmp_path))
    others = [share(max_tokens=5), share(budget_calls=3), share(fallback_models=["openai/gpt-4o"]), share(store=None)]
    assert len({*others, share()}) == 5
