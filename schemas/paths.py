"""Paths into facts: names of fields with dots between them, as ``server.flavor.vcpus``.

Invariant: what ``leaf`` has accepted for a type, ``reader`` reads of each value of that type; where
something on the way is not there (None, or a key that a mapping lacks), it reads None. Secrets
cannot be reached: no path leads into what is sealed.
"""

from collections.abc import Callable, Iterable
from operator import attrgetter
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, get_args, get_type_hints

import msgspec
from msgspec import Meta, Struct, inspect

from schemas.sealed import Sealed

type Leaf = Literal["number", "truth", "text"]
type Read = Callable[[Any], Any]
Path = Annotated[
    str, Meta(min_length=1, max_length=128, pattern=r"^[a-z0-9_]+(\.[A-Za-z0-9_:-]+){0,7}\Z")
]
# "" where there may be none.
PathOrNone = Annotated[
    str, Meta(max_length=128, pattern=r"^([a-z0-9_]+(\.[A-Za-z0-9_:-]+){0,7})?\Z")
]


class NoSuchPath(ValueError):
    """A type has nothing under that path, or nothing that can be counted or named."""


def leaf(of: type[Struct], path: str) -> Leaf:
    """Return what lies at the end of a path into a type.

    Raises:
        NoSuchPath: nothing does, or neither number, truth nor text; the message says which.
    """
    node: inspect.Type = inspect.type_info(of)
    done: list[str] = []
    for step in path.split("."):
        node = _step(_present(node, done), step, done)
        done.append(step)
    node = _present(node, done)
    if isinstance(node, inspect.IntType):
        return "number"
    if isinstance(node, inspect.BoolType):
        return "truth"
    if isinstance(node, inspect.StrType) or (
        isinstance(node, inspect.LiteralType)
        and all(isinstance(value, str) for value in node.values)
    ):
        return "text"
    raise NoSuchPath(f"{path!r} is neither a number, nor true or false, nor a text")


def reader(of: type[Struct], path: str) -> Read:
    """Return a function that reads a path of values of a type; the path is one ``leaf`` accepts."""
    steps = path.split(".")
    if _plain(of, steps):
        return attrgetter(path)

    def read(value: Any) -> Any:
        for step in steps:
            if value is None:
                return None
            value = value.get(step) if isinstance(value, dict) else getattr(value, step)
        return value

    return read


def narrowed(of: type[Struct], paths: Iterable[str]) -> type[Struct]:
    """Return a type that decodes what ``of`` does, but holds only what ``reader`` reads of paths.

    What is not read is not decoded, and so not checked.
    """
    config = of.__struct_config__
    if config.array_like or hasattr(of, "__post_init__"):
        return of
    wanted: dict[str, set[str]] = {}
    for path in paths:
        step, _, rest = path.partition(".")
        wanted.setdefault(step, set()).add(rest)
    hints = get_type_hints(of, include_extras=True)
    return msgspec.defstruct(
        of.__name__,
        [
            (field.name, _narrow(hints[field.name], wanted[field.name]), _as_there(field))
            for field in msgspec.structs.fields(of)
            if field.name in wanted
        ],
        frozen=True,
        kw_only=True,
        gc=False,
        tag=config.tag,
        tag_field=config.tag_field,
    )


def _narrow(kind: Any, paths: set[str]) -> Any:
    """Return a type for what is read of a value, if that is another."""
    kinds = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    there = [each for each in kinds if each is not NoneType]
    if "" in paths or len(there) != 1:
        return kind
    (only,) = there
    if not (isinstance(only, type) and issubclass(only, Struct)):
        return kind
    narrow = narrowed(only, paths)
    return narrow if len(kinds) == 1 else narrow | None


def _as_there(field: msgspec.structs.FieldInfo) -> Any:
    """Return a field of the same name in JSON, and the same if it is not there."""
    name = field.encode_name
    if field.default_factory is not msgspec.NODEFAULT:
        return msgspec.field(default_factory=field.default_factory, name=name)
    if field.default is not msgspec.NODEFAULT:
        return msgspec.field(default=field.default, name=name)
    return msgspec.field(name=name)


def _step(node: inspect.Type, step: str, done: list[str]) -> inspect.Type:
    where = ".".join(done) or "the fact"
    if isinstance(node, inspect.DictType):
        return node.value_type
    if isinstance(node, inspect.StructType):
        if node.cls is Sealed:
            raise NoSuchPath(f"{where} is sealed")
        for field in node.fields:
            if field.name == step:
                return field.type
        raise NoSuchPath(f"{where} has no field {step!r}")
    raise NoSuchPath(f"{where} has no fields")


def _present(node: inspect.Type, done: list[str]) -> inspect.Type:
    """Return what may lie there besides None."""
    while isinstance(node, inspect.Metadata):
        node = node.type
    if not isinstance(node, inspect.UnionType):
        return node
    there = [each for each in node.types if not isinstance(each, inspect.NoneType)]
    if len(there) != 1:
        raise NoSuchPath(f"{'.'.join(done)} may be of several types")
    return _present(there[0], done)


def _plain(of: Any, steps: list[str]) -> bool:
    """Return whether all but the last step lead to a struct that is always there."""
    for step in steps[:-1]:
        of = get_type_hints(of)[step]
        if not (isinstance(of, type) and issubclass(of, msgspec.Struct)):
            return False
    return True
