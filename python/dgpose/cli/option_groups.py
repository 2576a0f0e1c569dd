"""Options that several commands have, written once: option groups.

An option group is a dataclass whose fields are options, `Annotated[type, typer.Option(...)]`. A
command under `with_groups` takes it as one parameter; typer sees the fields in its place:

    @app.command()
    @with_groups
    def train(out: Out, *, config: Config = None, run: RunOptions) -> None: ...

Where a command has another default or help for a field, a subclass of the group says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Any, TypeVar, get_type_hints

__all__ = ["with_groups"]

T = TypeVar("T")


def with_groups(command: Callable[..., T]) -> Callable[..., T]:
    """The command with the options of its groups as parameters; all are given by name.

    Raises:
        ValueError: two parameters of one name.
    """
    declared = signature(command, eval_str=True)
    groups: dict[str, Any] = {
        name: parameter.annotation
        for name, parameter in declared.parameters.items()
        if is_dataclass(parameter.annotation)
    }
    flat: list[Parameter] = []
    for name, parameter in declared.parameters.items():
        if name in groups:
            flat += _options(groups[name])
        else:
            flat.append(parameter.replace(kind=Parameter.KEYWORD_ONLY))

    @wraps(command)
    def call(**values: Any) -> T:
        made = {
            name: group(**{field.name: values.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        return command(**values, **made)

    # Typer reads signature and annotations; through __wrapped__ it would find the command's own.
    vars(call).pop("__wrapped__")
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in flat}
    flattened = Signature(flat, return_annotation=declared.return_annotation)
    call.__signature__ = flattened  # type: ignore[attr-defined]
    return call


def _options(group: Any) -> list[Parameter]:
    """The fields of a group as parameters."""
    types = get_type_hints(group, include_extras=True)
    return [
        Parameter(
            field.name,
            Parameter.KEYWORD_ONLY,
            default=Parameter.empty if field.default is MISSING else field.default,
            annotation=types[field.name],
        )
        for field in fields(group)
    ]
