"""Fills a JSON schema with what is known, whatever its properties are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TYPES = {"string": str, "integer": int, "number": int, "array": list}


def fill(schema: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """An object for a schema: what is known under a property's name, else something plain of its type.

    Args:
        schema: JSON schema of an object. ``$ref`` into itself and the first of several alternatives are followed.
        known: values by property name; ``summary`` also stands in for any text that is not known.
    """
    parts = schema.get("properties", {})
    return {name: _value(part, known, name, schema) for name, part in parts.items()}


def _value(schema: Mapping[str, Any], known: Mapping[str, Any], name: str, root: Mapping[str, Any]) -> Any:
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
        parts = schema.get("properties", {})
        return {key: _value(part, known, key, root) for key, part in parts.items()}
    plain = {"integer": schema.get("minimum", 0), "number": schema.get("minimum", 0), "boolean": False, "null": None}
    return plain.get(kind, known["summary"])


def _items(schema: Mapping[str, Any], known: Mapping[str, Any], value: Any, root: Mapping[str, Any]) -> list[Any]:
    item = _resolved(schema.get("items", {}), root)
    if isinstance(value, list) and item.get("type") == "string":
        return [f"{place['what']} at row {place['row']}, column {place['column']}" for place in value]
    if isinstance(value, list) and "properties" in item:
        return [
            {key: _value(part, {**known, **place}, key, root) for key, part in item["properties"].items()}
            for place in value
        ]
    return [_value(item, known, "", root) for _ in range(schema.get("minItems", 0))]


def _resolved(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema that a reference or the first of several alternatives stands for."""
    if "$ref" in schema:
        found: Any = root
        for step in str(schema["$ref"]).removeprefix("#/").split("/"):
            found = found.get(step, {})
        return _resolved(found, root) if "$ref" not in found else {}
    for word in ("anyOf", "oneOf", "allOf"):
        if schema.get(word):
            return _resolved(schema[word][0], root)
    return schema
