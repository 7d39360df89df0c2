"""A prompt set's own JSON schema: checked when the set is read, and applied to replies within a budget of steps.

A schema may come from a stranger: no address is opened, no pattern backtracks, and nothing refers to itself.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterator, Sized
from typing import Annotated, Any

import jsonschema
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match
from pydantic import StringConstraints, TypeAdapter
from pydantic_core import SchemaError
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from lvlm2p_wrappers.errors import BadReplyError
from lvlm2p_wrappers.prompts.sandbox import LimitError, Steps
from lvlm2p_wrappers.replies import find_json, no_constant

MOST_CHARACTERS = 16_000
"""How long a schema may be: checking that it is one takes up to a second then."""

MOST_PARTS = 10_000
"""How many parts a schema may have when every reference is replaced by what it refers to."""

MOST_PATTERN = 200
"""How many characters a pattern may have: matching takes time in proportion to them."""

_MOST_STEPS = 200_000
_REFUSED = {"$id", "$anchor", "$dynamicAnchor", "$dynamicRef", "patternProperties", "uniqueItems"}
_REFUSED |= {"unevaluatedItems", "unevaluatedProperties"}


class OwnSchema:
    """A JSON schema that a prompt set gives the analysis.

    Attributes:
        json: the schema.

    Raises:
        ValueError: if it is no JSON schema of an object, or one that cannot be checked in bounded time.
    """

    def __init__(self, text: str) -> None:
        if len(text) > MOST_CHARACTERS:
            raise ValueError(f"it has more than {MOST_CHARACTERS:,} characters")
        try:
            self.json: Any = json.loads(text, parse_constant=no_constant)
            if not isinstance(self.json, dict) or self.json.get("type") != "object":
                raise ValueError('the reply has to be an object: {"type": "object", ...}')
            Draft202012Validator.check_schema(self.json)
            _check_parts(self.json)
        except jsonschema.SchemaError as error:
            raise ValueError(error.message[:1000]) from None
        except RecursionError:
            raise ValueError("it is nested too deep, or refers to itself") from None

    def read(self, text: str) -> str:
        """Check a reply and return it as JSON text.

        Raises:
            BadReplyError: if it is not one JSON object of this form, or takes too long to check.
        """
        found = find_json(text)
        _steps.left = _MOST_STEPS
        try:
            error = best_match(_Validator(self.json, registry=Registry()).iter_errors(found))
        except (LimitError, RecursionError):
            raise BadReplyError("it takes too long to check; make it shorter", kind="keys", replies=(text,)) from None
        if error is not None:
            where = "/".join(map(str, error.absolute_path)) or "the reply"
            raise BadReplyError(f"{where}: {error.message}", kind="keys", replies=(text,))
        return json.dumps(found)


def _check_parts(schema: dict[str, Any]) -> None:
    """Refuse what cannot be checked in bounded time, following every reference."""
    resolver = Registry().resolver_with_root(DRAFT202012.create_resource(schema))
    parts = 0.0

    def check(part: Any, copies: float) -> None:
        nonlocal parts
        parts += copies
        if parts > MOST_PARTS:
            raise ValueError(f"it has more than {MOST_PARTS:,} parts, or refers to itself")
        if isinstance(part, dict):
            if refused := _REFUSED & part.keys():
                raise ValueError(f"{min(refused)} is not supported")
            if isinstance(part.get("pattern"), str):
                _matcher(part["pattern"])
            if isinstance(least := part.get("minItems"), int | float):
                copies *= max(1, min(least, MOST_PARTS + 1))
            if isinstance(reference := part.get("$ref"), str):
                check(_resolved(resolver, reference), copies)
        for child in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
            check(child, copies)

    check(schema, 1)


def _resolved(resolver: Any, reference: str) -> Any:
    try:
        return resolver.lookup(reference).contents
    except (Unresolvable, ValueError):
        problem = f'"$ref": {json.dumps(reference)} leads nowhere in this schema; no other one is opened'
        raise ValueError(problem) from None


@functools.lru_cache(maxsize=256)
def _matcher(pattern: str) -> TypeAdapter[str]:
    """Pydantic's regular expressions take linear time, and have no look-around or backreferences therefore."""
    if len(pattern) > MOST_PATTERN:
        raise ValueError(f"the pattern {pattern[:50]}... has more than {MOST_PATTERN} characters")
    try:
        return TypeAdapter(Annotated[str, StringConstraints(pattern=pattern)])
    except SchemaError as error:
        problem = re.split("[Ee]rror: ", str(error))[-1].strip()
        raise ValueError(f"the pattern {pattern!r} cannot be used: {problem}") from None


def _pattern(_validator: Any, pattern: str, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    if isinstance(instance, str):
        try:
            _matcher(pattern).validate_python(instance)
        except ValueError:
            yield ValidationError(f"{instance!r} does not match {pattern!r}")


def _counted(keyword: Callable[..., Any]) -> Callable[..., Iterator[ValidationError]]:
    """A keyword of JSON schema that takes a step for each item that it may look at."""

    def counted(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
        _steps.spend(1 + sum(len(each) for each in (value, instance) if isinstance(each, Sized)))
        yield from keyword(validator, value, instance, schema) or ()

    return counted


_steps = Steps()
_KEYWORDS = {**Draft202012Validator.VALIDATORS, "pattern": _pattern}
_Validator = jsonschema.validators.extend(Draft202012Validator, {n: _counted(k) for n, k in _KEYWORDS.items()})
