"""Fills any JSON schema with the analysis, so that a prompt set's own schema gets a valid reply too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TYPES = {"string": str, "integer": int, "number": int, "array": list}

Schema = Mapping[str, Any]


def fill(schema: Schema, known: Mapping[str, Any], root: Schema | None = None) -> dict[str, Any]:
    """An object that fits a schema: known values by property name, else a plain value of the right type.

    ``known["summary"]`` stands in for any unknown text. References point into ``root``, by default the schema itself.
    """
    root = root or schema
    return {name: _value(part, known, name, root) for name, part in schema.get("properties", {}).items()}


def _value(schema: Schema, known: Mapping[str, Any], name: str, root: Schema) -> Any:
    schema = _resolved(schema, root)
    options = [schema["const"]] if "const" in schema else schema.get("enum")
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = kind[0]
    value = known.get(name)
    if options:
        return value if value in options else options[0]
    if kind == "array":
        return _items(schema, known, value, root)
    if isinstance(value, _TYPES.get(kind, ())):
        return value
    if kind == "object":
        return fill(schema, {**known, **value} if isinstance(value, Mapping) else known, root)
    plain = {"integer": schema.get("minimum", 0), "number": schema.get("minimum", 0), "boolean": False, "null": None}
    return plain.get(kind, known["summary"])


def _items(schema: Schema, known: Mapping[str, Any], value: Any, root: Schema) -> list[Any]:
    item = _resolved(schema.get("items", {}), root)
    if isinstance(value, list) and item.get("type") == "string":
        return [f"{place['what']} at row {place['row']}, column {place['column']}" for place in value]
    if isinstance(value, list) and "properties" in item:
        flat = {name: value for name, value in known.items() if not isinstance(value, list)}
        return [fill(item, {**flat, **place}, root) for place in value]
    return [_value(item, known, "", root) for _ in range(int(schema.get("minItems", 0)))]


def _resolved(schema: Any, root: Schema) -> Schema:
    """The schema that a reference or the first of several alternatives stands for."""
    if not isinstance(schema, Mapping):  # true: anything
        return {}
    if "$ref" in schema:
        found: Any = root
        for key in str(schema["$ref"]).removeprefix("#/").split("/"):
            found = found[int(key)] if isinstance(found, list) else found.get(key, {})
        return _resolved(found, root) if "$ref" not in found else {}
    for word in ("anyOf", "oneOf", "allOf"):
        if schema.get(word):
            return _resolved(schema[word][0], root)
    return schema
