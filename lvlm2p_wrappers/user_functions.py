"""Functions of the user's own, named ``"module:function"`` where an argument has to stay a plain string."""

from __future__ import annotations

import importlib
import operator
import traceback
from pathlib import Path
from typing import Any

from lvlm2p_wrappers.errors import UsageError


class UserFunction:
    """A function that a user has named; the module is imported, since what somebody types himself is his word.

    >>> UserFunction("math:sqrt", "render")(9.0)
    3.0

    Args:
        name: ``"module:function"``; the function may be any callable, also ``"module:rules.teach"``.
        option: the argument that names it, for errors.

    Raises:
        UsageError: if there is no such function. Calling it raises one where the function raises.
    """

    def __init__(self, name: str, option: str) -> None:
        self._name = f"{option} {name!r}"
        module, _, attribute = name.partition(":")
        if not module or not attribute:
            raise UsageError(f"{self._name} names no function: write module:function")
        try:
            self._function = operator.attrgetter(attribute)(importlib.import_module(module))
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            raise UsageError(f"{self._name} cannot be imported ({why}); is its folder in PYTHONPATH?") from error
        if not callable(self._function):
            raise UsageError(f"{self._name} is a {type(self._function).__name__}, which cannot be called")

    @property
    def version(self) -> str | None:
        """The version that the function declares in its attribute ``version``; None where it declares none."""
        declared = getattr(self._function, "version", None)
        return None if declared is None else str(declared)

    def __call__(self, *arguments: Any) -> Any:
        """Call it.

        Raises:
            UsageError: if it raises, with the line where.
        """
        try:
            return self._function(*arguments)
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(last.filename).name}, line {last.lineno}"
            raise UsageError(f"{self._name} raised {type(error).__name__}: {error} ({where})") from error
