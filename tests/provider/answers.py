"""A reply that fits the schema of a request and depends on its picture, for want of a model."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from .conversation import Seen


def fitting_answer(seen: Seen) -> str:
    """The JSON text of a value that fits the schema; equal pictures get equal answers, others differ.

    An object whose properties are all numbers is taken for a distribution: its values sum to 1.
    """
    if seen.schema is None:
        return "There is nothing to fill in."
    return json.dumps(_fill(seen.schema, seen.digest))


def _fill(schema: dict[str, Any], digest: bytes) -> Any:
    if "enum" in schema:
        return schema["enum"][digest[0] % len(schema["enum"])]
    kind = schema.get("type")
    if kind == "object":
        return _fill_object(schema.get("properties", {}), digest)
    if kind == "array":
        return [_fill(schema["items"], digest)] if digest[1] % 2 else []
    filled: dict[Any, Any] = {"integer": 1 + digest[2] % 6, "number": digest[3] / 255, "boolean": bool(digest[4] % 2)}
    return filled.get(kind, f"picture {digest.hex()[:8]}")


def _fill_object(properties: dict[str, Any], digest: bytes) -> dict[str, Any]:
    own = {name: hashlib.sha256(digest + name.encode()).digest() for name in properties}
    if all(each.get("type") == "number" for each in properties.values()):
        weights = {name: (1 + own[name][0]) ** 2 for name in properties}
        return {name: round(weight / sum(weights.values()), 6) for name, weight in weights.items()}
    return {name: _fill(properties[name], own[name]) for name in properties}
