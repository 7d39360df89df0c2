"""The options of a teacher: every default and every check, once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypedDict

from pydantic import BeforeValidator, ConfigDict, Field, PositiveInt, ValidationError
from pydantic.dataclasses import dataclass

from lvlm2p_wrappers.errors import UsageError
from lvlm2p_wrappers.records import Scope
from lvlm2p_wrappers.store import DEFAULT, locate

OnError = Literal["raise", "skip"]


class TeacherOptions(TypedDict, total=False):
    """The keyword arguments of :class:`Teacher`, as both wrappers take them, for type checkers."""

    prompts: str | Path | None
    store: str | Path | None
    concurrency: int
    rpm: int | None
    rpm_scope: Scope
    budget_usd: float | None
    budget_calls: int | None
    budget_scope: Scope
    spent_usd: float
    spent_calls: int
    offline: bool
    fallback_models: Sequence[str]
    temperature: float | None
    max_tokens: int | None
    reasoning_effort: str | None
    timeout_s: float
    max_retries: int
    api_base: str | None
    render: str | None
    facts: str | None


def _as_text(path: Any) -> Any:
    return str(path) if isinstance(path, Path) else path


def _no_single_string(models: Any) -> Any:
    if isinstance(models, str):
        raise ValueError("must be a list of model strings")
    return models


Location = Annotated[str | None, BeforeValidator(_as_text)]
Seconds = Annotated[float, Field(gt=0)]
Dollars = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]
Models = Annotated[tuple[str, ...], BeforeValidator(_no_single_string)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(allow_inf_nan=False))
class TeacherConfig:
    """The checked options of a teacher. Equal ones, with the same model, mean one teacher in a process.

    What they mean stands in :class:`Teacher`.
    """

    prompts: Location = None
    store: Location = DEFAULT
    concurrency: PositiveInt = 16
    rpm: PositiveInt | None = None
    rpm_scope: Scope = "process"
    budget_usd: Dollars | None = None
    budget_calls: Count | None = None
    budget_scope: Scope = "process"
    spent_usd: Dollars = 0.0
    spent_calls: Count = 0
    offline: bool = False
    fallback_models: Models = ()
    temperature: float | None = None
    max_tokens: PositiveInt | None = None
    reasoning_effort: str | None = None
    timeout_s: Seconds = 60.0
    max_retries: Count = 4
    api_base: str | None = None
    render: str | None = None
    facts: str | None = None

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """Check a teacher's keyword arguments.

        Raises:
            UsageError: if a value cannot work.
            TypeError: if there is no such option.
        """
        if unknown := [name for name in options if name not in cls.__dataclass_fields__]:
            raise TypeError(f"a teacher has no option {unknown[0]!r}; it has {', '.join(cls.__dataclass_fields__)}")
        try:
            return cls(**options)
        except ValidationError as error:
            first = error.errors()[0]
            problem = first["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
            raise UsageError(f"{first['loc'][0]} {problem}, not {first['input']!r}") from None

    def located(self) -> Self:
        """The same options with the store's real path: what ``"default"`` means may change in a process."""
        place = locate(self.store)
        return replace(self, store=None if place is None else str(place))


def require_known(on_error: str, ask_every: int) -> None:
    """Raise if what a wrapper is to do on failure is misspelt, or how often it is to ask cannot be.

    Raises:
        UsageError: if it is.
    """
    if ask_every < 1:
        raise UsageError(f"ask_every must be at least 1, not {ask_every}")
    if on_error not in ("raise", "skip"):
        raise UsageError(f"on_error must be 'raise' or 'skip', not {on_error!r}")
