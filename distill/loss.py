"""A loss of the student and its settings: what ``distillation`` of a configuration chooses among.

Another loss is a file like :mod:`endedge.distill.features` and a line in
:mod:`endedge.distill.objectives`. Configurations are read without PyTorch, so what computes is
imported where it is made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeAlias, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

if TYPE_CHECKING:
    from endedge.distill.losses import Objective
    from endedge.distill.model import DetectionModel

__all__ = ["DEFAULT", "LOSSES", "Gain", "Loss", "Make", "chosen", "register"]

DEFAULT = "responses"

Gain = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Make: TypeAlias = "Callable[[DetectionModel], Objective]"


class Loss(BaseModel):
    """The settings of a loss; its fields are the keys of a configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: ClassVar[str] = ""

    def towards(self, teacher: DetectionModel, device: str) -> Make:
        """What makes the loss of a student that learns from ``teacher`` on ``device``."""
        raise NotImplementedError

    @model_serializer(mode="wrap")
    def _named(self, settings: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The default goes without a name: so it was when there was no other."""
        named: dict[str, Any] = {} if self.name == DEFAULT else {"loss": self.name}
        named.update(settings(self))
        return named


LOSSES: dict[str, type[Loss]] = {}

L = TypeVar("L", bound=type[Loss])


def register(name: str) -> Callable[[L], L]:
    """Add a loss under ``name``. Raises :class:`ValueError` when the name is taken."""

    def add(loss: L) -> L:
        if name in LOSSES:
            raise ValueError(f"a loss named {name!r} is registered already")
        LOSSES[name], loss.name = loss, name
        return loss

    return add


def chosen(given: Any) -> Any:
    """The loss that a section of a configuration describes: its ``loss`` and that one's settings.
    Raises :class:`ValueError` that says what there is."""
    if not isinstance(given, dict):
        return given
    name = given.get("loss", DEFAULT)
    if name not in LOSSES:
        raise ValueError(f"no loss {name!r}; there are {', '.join(LOSSES)}")
    settings = {key: value for key, value in given.items() if key != "loss"}
    fields = LOSSES[name].model_fields
    if unknown := [key for key in settings if key not in fields]:
        raise ValueError(f"loss {name} has no {unknown[0]!r}; it has {', '.join(fields)}")
    try:
        return LOSSES[name].model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{first['loc'][0]}: {first['msg']}") from None
