"""Commands with many options: each group of options is a frozen dataclass, and the command's signature is their sum.

A field of a group is annotated as a parameter of a Typer command is, `Annotated[type, typer.Option(...)]`. `--help` has
a section for each group, under its `title`.
"""

import dataclasses
import inspect
from collections import defaultdict
from collections.abc import Callable, Mapping
from copy import copy
from typing import Annotated, Any, ClassVar, Protocol, TypeVar, get_args

import typer
import typer.core
from typer.models import ArgumentInfo, OptionInfo


class OptionGroup(Protocol):
    """A frozen dataclass whose fields are options of a command."""

    title: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, Any]]


_Arguments = TypeVar("_Arguments")


def grouped_command(arguments: type[_Arguments], description: str) -> Callable[..., _Arguments]:
    """Return the function of a Typer command that takes the options of all groups and returns them as `arguments`.

    Args:
      arguments: a dataclass whose fields are groups of options; no two groups have a field of one name.
      description: the text of `--help`.
    """
    groups: dict[str, type[Any]] = {field.name: _type(field) for field in dataclasses.fields(arguments)}  # type: ignore[arg-type]
    parameters = [_parameter(field, group.title) for group in groups.values() for field in dataclasses.fields(group)]

    def command(**values: Any) -> _Arguments:
        return arguments(**{name: _filled(group, values) for name, group in groups.items()})

    command.__doc__ = description
    # Typer reads the signature of a function, and its annotations where the signature's are texts.
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def given_values(group: OptionGroup) -> dict[str, Any]:
    """Return the options of a group that are not None, by name."""
    values = ((field.name, getattr(group, field.name)) for field in dataclasses.fields(group))
    return {name: value for name, value in values if value is not None}


class GroupedCommand(typer.core.TyperCommand):
    """A command whose help has a section for each group of options."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the sections, in the order of the groups; arguments come first, `--help` last."""
        sections: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for parameter in sorted(self.get_params(ctx), key=lambda one: one.param_type_name != "argument"):
            if record := parameter.get_help_record(ctx):
                argument = parameter.param_type_name == "argument"
                title = "Arguments" if argument else getattr(parameter, "rich_help_panel", None) or "Others"
                sections[title].append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


def _type(field: "dataclasses.Field[Any]") -> Any:
    return field.type


def _parameter(field: "dataclasses.Field[Any]", title: str) -> inspect.Parameter:
    kind, *notes = get_args(field.type)
    info = next(copy(note) for note in notes if isinstance(note, OptionInfo | ArgumentInfo))
    info.rich_help_panel = title
    default = inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, info]
    )


def _filled(group: type[Any], values: Mapping[str, Any]) -> Any:
    return group(**{field.name: values[field.name] for field in dataclasses.fields(group)})
