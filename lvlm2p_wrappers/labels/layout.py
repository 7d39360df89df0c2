"""The layout of a label set: one row a label, in Parquet files that Hugging Face's ``datasets`` reads as they are."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import ValidationError

from lvlm2p_wrappers.errors import UsageError
from lvlm2p_wrappers.labels.arrow import load_pyarrow
from lvlm2p_wrappers.records import EnvInfo, Family, View
from lvlm2p_wrappers.records.record import Count, Record

FORMAT = 1
"""The version of the layout."""

_KEY = b"lvlm2p"  # of the schema's metadata


class ArrayInfo(Record):
    """The shape and dtype of a student's observation."""

    shape: tuple[Count, ...]
    dtype: Literal["uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64", "bool"]


class LabelSetInfo(Record):
    """What all labels of a set have in common.

    Attributes:
        env_id: the environment.
        family: which bundled prompt set fits.
        actions: the actions' names, in the order of the probabilities.
        model: the model string that was asked; a row tells the model that answered.
        prompts: the prompt set, as it was named.
        fingerprint: the digest of the prompt set's files.
        observation: of the student's observations; None where the set has none.
        format: the version of the layout.
    """

    env_id: str
    family: Family
    actions: tuple[str, ...]
    model: str
    prompts: str
    fingerprint: str
    observation: ArrayInfo | None = None
    format: Count = FORMAT

    @property
    def env_info(self) -> EnvInfo:
        """What all views of the set have in common."""
        return EnvInfo(self.env_id, self.family, self.actions)

    def arrow_schema(self) -> Any:
        """The files' Arrow schema. Its metadata tell ``datasets`` which columns are pictures."""
        pa = load_pyarrow()
        columns = _columns(pa)
        if self.observation is not None:
            columns["observation"] = pa.binary()
        features = {name: _feature(pa, kind) for name, kind in columns.items()}
        metadata = {_KEY: self.model_dump_json(), b"huggingface": json.dumps({"info": {"features": features}})}
        return pa.schema(columns.items(), metadata=metadata)


def info_of_schema(schema: Any, file: object) -> LabelSetInfo:
    """What a file's schema says of the set.

    Raises:
        UsageError: if it is no label set's, or a newer version's.
    """
    found = (schema.metadata or {}).get(_KEY)
    if found is None:
        raise UsageError(f"{file} is no file of a label set: `lvlm2p label` did not write it")
    try:
        about = json.loads(found)
        if isinstance(number := about.get("format"), int) and number > FORMAT:
            raise UsageError(
                f"{file} has format {number}, and this lvlm2p reads formats up to {FORMAT}: "
                "upgrade with `pip install -U lvlm2p`"
            )
        info = LabelSetInfo.model_validate(about)
    except (ValueError, AttributeError, RecursionError, ValidationError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{file} is damaged: what it says of itself cannot be read") from None
    wanted = info.arrow_schema()
    if not schema.equals(wanted):
        differing = [field.name for field in wanted if field not in schema] or ["there is one too many"]
        raise UsageError(f"{file} has other columns than a label set: {', '.join(differing)}")
    return info


def view_digest(view: View) -> str:
    """What a view is known by in a set: what the model is told, the last actions included."""
    content = [view.key(), view.history]
    return hashlib.sha256(json.dumps(content, default=str).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _columns(pa: Any) -> dict[str, Any]:
    """The columns' types by name; ``observation`` follows where a set has observations."""
    picture = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    return {
        "image": picture,
        "earlier_images": pa.list_(picture),
        "mission": pa.string(),
        "carrying": pa.string(),
        "history": pa.list_(pa.string()),
        "actions": pa.list_(pa.string()),
        "probs": pa.list_(pa.float32()),
        "analysis": pa.string(),
        "action": pa.string(),
        "model": pa.string(),
        "prompts": pa.string(),
        "cost_usd": pa.float64(),
        "env_id": pa.string(),
        "source": pa.string(),
        "view": pa.string(),
    }


def _feature(pa: Any, kind: Any) -> Any:
    """A column's type in the words of ``datasets``."""
    if pa.types.is_list(kind):
        return {"feature": _feature(pa, kind.value_type), "_type": "Sequence"}
    if pa.types.is_struct(kind):
        return {"_type": "Image"}
    names = {"float": "float32", "double": "float64"}
    return {"dtype": names.get(str(kind), str(kind)), "_type": "Value"}
