"""Settings as frozen dataclasses: written over from plain dicts (config files), checked field by field."""

import dataclasses
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from tagclip.errors import UsageError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Settings = TypeVar("Settings", bound="DataclassInstance")


def overlay(base: Settings, values: Any, where: str) -> Settings:
    """`base` with `values`, nested dicts included, written over it.

    Args:
        base: a dataclass of settings, not changed.
        values: field name -> value; a dict for a field that is itself a dataclass.
        where: name of the settings in messages.

    Raises:
        UsageError: a field that does not exist or a value of the wrong type.
    """
    if not isinstance(values, dict):
        raise UsageError(f"{where} must be a dict of settings, not {values!r}")
    types = get_type_hints(type(base))
    changes = {}
    for name, value in values.items():
        option = f"{where}.{name}"
        if name not in types:
            raise UsageError(f"unknown setting {option}: {type(base).__name__} has {', '.join(types)}")
        current = getattr(base, name)
        if dataclasses.is_dataclass(current) and not isinstance(current, type):
            changes[name] = overlay(current, value, option)
        else:
            changes[name] = _checked(value, types[name], option)
    return dataclasses.replace(base, **changes)


def _checked(value: Any, kind: Any, option: str) -> Any:
    """`value` as the annotated type: an int is a float, a list is a tuple, nothing else is converted."""
    origin, choices = get_origin(kind), get_args(kind)
    if origin is Literal:
        if value in choices:
            return value
    elif origin in (Union, UnionType):
        if value is None and type(None) in choices:
            return None
        kinds = [choice for choice in choices if choice is not type(None)]
        kinds.sort(key=lambda choice: (get_origin(choice) or choice) is type(value))  # the last one's error is shown
        for choice in kinds[:-1]:
            try:
                return _checked(value, choice, option)
            except UsageError:
                pass
        return _checked(value, kinds[-1], option)
    elif origin is dict:
        if isinstance(value, dict):
            return {
                _checked(name, choices[0], option): _checked(item, choices[1], f"{option}.{name}")
                for name, item in value.items()
            }
    elif origin is tuple:
        if isinstance(value, list | tuple) and (choices[-1] is Ellipsis or len(value) == len(choices)):
            return tuple(_checked(item, choices[0], option) for item in value)
    elif kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif type(value) is kind:
        return value
    raise UsageError(f"{option} is {value!r}, but should be {getattr(kind, '__name__', str(kind))}")
