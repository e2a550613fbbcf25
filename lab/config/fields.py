"""What a section is made of: kinds of values with their units, and keys that came later."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from endedge.data.errors import BadInput
from endedge.data.storage import at_home
from endedge.data.units import parse_quantity

__all__ = [
    "LATER",
    "Bytes",
    "Count",
    "DeviceName",
    "File",
    "Hertz",
    "LabelledBy",
    "NonNegative",
    "Params",
    "Positive",
    "Precision",
    "Seconds",
    "Section",
    "Storage",
    "Students",
    "named",
    "parse_device",
]

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _quantity(unit: str, kind: type) -> BeforeValidator:
    """Let people write ``1.1 MB`` where a plain number in ``unit`` is meant."""
    return BeforeValidator(lambda v: kind(parse_quantity(v, unit)) if isinstance(v, str) else v)


def parse_device(said: object) -> str:
    """What people call a device → ``auto``, ``cpu``, ``cuda`` (any NVIDIA GPU), ``cuda:1`` or
    ``mps`` (a Mac's); a number is that GPU. Raises :class:`BadInput` for anything else."""
    text = str(said) if isinstance(said, str | int) and not isinstance(said, bool) else ""
    if text in ("auto", "cpu", "cuda", "mps"):
        return text
    if match := re.fullmatch(r"(?:cuda:)?([0-9]{1,3})", text):
        return f"cuda:{int(match[1])}"
    raise BadInput(
        f"device {said!r}; there are auto, cpu, cuda, one GPU by its number (0, cuda:1) and mps"
    )


def _device(said: object) -> str:
    try:
        return parse_device(said)
    except BadInput as error:
        raise ValueError(str(error)) from None


DeviceName = Annotated[str, BeforeValidator(_device)]
Bytes = Annotated[Count, _quantity("B", int)]
Storage = Annotated[int, Field(ge=0), _quantity("B", int)]
Params = Annotated[Count, _quantity("", int)]
Hertz = Annotated[Positive, _quantity("Hz", float)]
Seconds = Annotated[Positive, _quantity("s", float)]
Precision = Literal["auto", "fp32", "tf32", "bf16"]
LabelledBy = Literal["truth", "teacher", "mixed"]
File = Annotated[str, AfterValidator(at_home)]  # ~ is the user's home
# One file or several; one alone is written as before there were several.
Students = Annotated[
    tuple[File, ...],
    BeforeValidator(lambda v: (v,) if isinstance(v, str) else v),
    PlainSerializer(lambda v: v[0] if len(v) == 1 else list(v)),
]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


# Marks a key that came when there were results already. See :func:`named`.
LATER = "later"


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def named(section: BaseModel) -> dict[str, Any]:
    """A section as results are named by it: a key that came :data:`LATER` counts only where it
    says something else than its default, so older results keep their names."""
    whole = section.model_dump(mode="json")
    for key, field in type(section).model_fields.items():
        value = getattr(section, key)
        if LATER in field.metadata and value == field.get_default(call_default_factory=True):
            del whole[key]
        elif isinstance(value, Section):
            whole[key] = named(value)
        elif isinstance(value, Mapping):
            whole[key] |= {k: named(v) for k, v in value.items() if isinstance(v, Section)}
    return whole
