"""moto's objects as results of the API: the members that a shape of the service's model names, picked as moto does."""

from typing import Any

from botocore.model import ListShape, MapShape, Shape, StructureShape
from moto.core.serialize import AttributePickerContext, XFormedAttributePicker
from moto.core.utils import get_service_model

_PICK = XFormedAttributePicker()


def described(record: Any, service: str, shape_name: str) -> Any:
    """Return an object of moto's as the service describes it under that shape."""
    return _plain(record, get_service_model(service).shape_for(shape_name))


def _plain(value: Any, shape: Shape) -> Any:
    if isinstance(shape, StructureShape):
        picked = {name: _pick(value, name, member) for name, member in shape.members.items()}
        return {name: member for name, member in picked.items() if member is not None}
    if isinstance(shape, ListShape):
        return [_plain(item, shape.member) for item in value]
    if isinstance(shape, MapShape):
        return {key: _plain(item, shape.value) for key, item in value.items()}
    return value


def _pick(record: Any, name: str, shape: Any) -> Any:
    value = _PICK(AttributePickerContext(record, name, shape))
    return None if value is None else _plain(value, shape)
