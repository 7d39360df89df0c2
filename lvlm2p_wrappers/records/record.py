"""What every record has in common that may come from a file."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator

from lvlm2p_wrappers.picture import Picture
from lvlm2p_wrappers.saved_picture import SavedPicture

Integer = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Count = Annotated[int, Field(ge=0, lt=2**63)]


class Record(BaseModel):
    """A record that may come from a file: what it does not know it refuses, and infinity and NaN are no numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True)


def _read(value: Any) -> Picture:
    if isinstance(value, Picture):
        return value
    if isinstance(value, str):
        return SavedPicture.named(value)
    raise ValueError("a picture is given by its digest")


AnyPicture = Annotated[Picture, PlainValidator(_read), PlainSerializer(lambda picture: picture.digest)]
"""The field of a record that holds a picture: in files it is the digest."""
