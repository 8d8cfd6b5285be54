"""Every fact that was ever written must be read for ever.

``tests/golden/facts.jsonl`` holds one example of each tag. Lines are added, never changed:
a fact of another shape gets another tag. ``CUMULOG_GOLDEN=write`` adds what is missing.
"""

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import inspect

from schemas.envelope import Fact, action_types, encode, fact_types

GOLDEN = Path(__file__).parents[1] / "golden" / "facts.jsonl"


PATTERNS = {
    None: "x",
    r"^[A-Z]{3}\Z": "EUR",
    r"^/": "/x",
    # Of meters: their keys, tags of facts, units, names.
    r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*){1,3}\Z": "x.y",
    r"^[a-z_]+(\.[a-z0-9_]+){1,4}\Z": "x.y",
    r"^[A-Z][A-Za-z]*(-[A-Z][A-Za-z]*){0,3}\Z": "Hours",
    r"^[a-z][a-z0-9_]*\Z": "x",
    r"^https?://[^\s\x00-\x1f]+\Z": "https://x",
}


def example(kind: inspect.Type) -> Any:
    """Return a value of a type, the same each time: every optional part is there."""
    match kind:
        case inspect.StructType():
            fields = {f.encode_name: example(f.type) for f in kind.fields}
            return fields | ({kind.tag_field: kind.tag} if kind.tag_field else {})
        case inspect.UnionType():
            return example(next(t for t in kind.types if not isinstance(t, inspect.NoneType)))
        case inspect.VarTupleType() | inspect.ListType():
            return [example(kind.item_type)]
        case inspect.DictType():
            return {example(kind.key_type): example(kind.value_type)}
        case inspect.LiteralType():
            return kind.values[0]
        case inspect.BoolType():
            return True
        case inspect.IntType():
            return 1
        case inspect.StrType():
            return PATTERNS.get(kind.pattern, "1")
        case inspect.Metadata():
            return example(kind.type)
        case _:
            raise AssertionError(f"no example for {kind}")


def golden() -> dict[str, str]:
    """Return the examples by tag, as they were written."""
    lines = GOLDEN.read_text().splitlines() if GOLDEN.exists() else []
    return {json.loads(line)["type"]: line for line in lines}


def test_each_tag_has_its_example():
    known = golden()
    missing = {tag: t for tag, t in fact_types().items() if tag not in known}
    if os.environ.get("CUMULOG_GOLDEN") == "write":
        with GOLDEN.open("a") as file:
            for found in missing.values():
                value = msgspec.convert(example(inspect.type_info(found)), found)
                file.write(encode(value).decode() + "\n")
        missing = {}

    assert sorted(missing) == []


@pytest.mark.parametrize("tag", sorted(golden()))
def test_an_old_fact_is_read_and_says_the_same(tag):
    line = golden()[tag]

    fact = msgspec.json.decode(line, type=Fact)

    assert type(fact) is fact_types()[tag]
    assert said_then(json.loads(encode(fact)), json.loads(line)) == json.loads(line)


def said_then(now: Any, then: Any) -> Any:
    """Return a value without the fields that did not exist when another was written."""
    if isinstance(now, dict) and isinstance(then, dict):
        return {k: said_then(now[k], old) for k, old in then.items() if k in now}
    if isinstance(now, list) and isinstance(then, list) and len(now) == len(then):
        return [said_then(one, old) for one, old in zip(now, then, strict=True)]
    return now


def test_every_fact_says_what_it_means_for_metering():
    silent = [
        tag
        for tag, found in fact_types().items()
        if not any(w in (found.__doc__ or "").lower() for w in ("meter", "rated", "good"))
    ]

    assert silent == []


def test_tags_are_versioned_and_actions_are_named_as_their_type():
    assert all(tag.rpartition(".")[2].startswith("v") for tag in fact_types())
    assert all(name == found.__name__ for name, found in action_types().items())
