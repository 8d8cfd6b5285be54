"""Reading values from the command line without pydantic.

Typer builds a pydantic adapter for each parameter when a command is called, which costs more CPU
than all the rest of a command. Our parameters are text, whole numbers, flags, choices, paths and
lists of them, so they are read here. Should a later Typer no longer look at what ``quicken`` sets,
commands work as before and only start slower; tests/cli/test_start.py would tell.
"""

import enum
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, get_args, get_origin

import typer

HELP_NAMES = ["-h", "--help"]
ConfigArgument = Annotated[
    str, typer.Argument(help="The admin component's file, in a cluster.", metavar="ADMIN.JSON")
]
AuthorityOption = Annotated[
    str, typer.Option(help="The authority's file, when not where ADMIN.JSON says.")
]
TRUE = {"1", "true", "t", "yes", "y", "on"}
FALSE = {"0", "false", "f", "no", "n", "off", ""}


def quicken(command: Any) -> Any:
    """Have a command, and all below it, read its values here; return it."""
    help_option = command.get_help_option(SimpleNamespace(help_option_names=HELP_NAMES))
    for parameter in (help_option, *command.params):
        descriptor = getattr(parameter, "type_descriptor", None)
        if descriptor is not None and _kind(descriptor.annotation) is not None:
            parameter._runtime_param = Plain(descriptor)  # noqa: SLF001 (see above)
    for below in getattr(command, "commands", {}).values():
        quicken(below)
    return command


def _kind(annotation: Any) -> type | None:
    """Return what one value is, or None when it is nothing that we read."""
    if get_origin(annotation) is list:
        annotation = get_args(annotation)[0]
    known = (str, int, bool, Path, enum.Enum)
    return annotation if isinstance(annotation, type) and issubclass(annotation, known) else None


class Plain:
    """Reads the values of one parameter. Typer calls ``coerce``."""

    def __init__(self, descriptor: Any) -> None:
        self._kind: Any = _kind(descriptor.annotation)
        self._least = descriptor.parameter_info.min
        self._most = descriptor.parameter_info.max

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:  # noqa: ARG002 (Typer's signature)
        """Return the value, or all of them where a parameter may be repeated.

        Raises:
            BadParameter: it is not what the parameter takes.
        """
        many = param.multiple or param.nargs == -1
        if value is None:
            return () if many else None
        return [self._one(item) for item in value] if many else self._one(value)

    def _one(self, value: Any) -> Any:
        kind = self._kind
        if isinstance(value, kind):
            return value
        if kind is bool:
            return _flag(str(value).strip().lower())
        if issubclass(kind, enum.Enum):
            return _choice(kind, value)
        if kind is int:
            return self._number(value)
        return kind(value)

    def _number(self, value: Any) -> int:
        try:
            number = int(value)
        except ValueError:
            raise typer.BadParameter(f"{value!r} is not a whole number.") from None
        if self._least is not None and number < self._least:
            raise typer.BadParameter(f"{number} is less than {self._least}.")
        if self._most is not None and number > self._most:
            raise typer.BadParameter(f"{number} is more than {self._most}.")
        return number


def _flag(value: str) -> bool:
    if value not in TRUE | FALSE:
        raise typer.BadParameter(f"{value!r} is neither yes nor no.")
    return value in TRUE


def _choice(kind: type[enum.Enum], value: Any) -> enum.Enum:
    for member in kind:
        if value in {member, member.value}:
            return member
    choices = ", ".join(str(member.value) for member in kind)
    raise typer.BadParameter(f"{value!r} is not one of {choices}.")
