"""Mappings: what a provider says of somebody becomes a user with groups, or nobody."""

import msgspec
import pytest

from engine.domain.identity.mapping import claim_name, mapped, need_sound, wanted_claims
from schemas.errors import InvalidInput, Unauthorized
from schemas.identity import DomainRef, MappingRule

type Rules = tuple[MappingRule, ...]


def rules(*told: dict) -> Rules:
    return msgspec.convert(list(told), tuple[MappingRule, ...])


USER = {"user": {"name": "{0}", "email": "{1}"}}
NAMED = [{"type": "name"}, {"type": "email"}]
ANN = {"name": ("ann",), "email": ("ann@example.org",), "groups": ("crew", "staff")}


def test_places_are_filled_in_the_order_of_plain_remotes():
    told = rules(
        {
            "local": [USER, {"group": {"id": "g1"}}],
            "remote": [{"type": "groups", "any_one_of": ["crew"]}, *NAMED],
        }
    )

    found = mapped(told, ANN)

    assert (found.name, found.email, found.group_ids) == ("ann", "ann@example.org", ("g1",))


@pytest.mark.parametrize(
    ("remote", "matches"),
    [
        ({"type": "groups", "any_one_of": ["crew", "other"]}, True),
        ({"type": "groups", "any_one_of": ["other"]}, False),
        ({"type": "groups", "any_one_of": ["cre.*"]}, False),
        ({"type": "groups", "any_one_of": ["^cre.*"], "regex": True}, True),
        ({"type": "groups", "not_any_of": ["staff"]}, False),
        ({"type": "groups", "not_any_of": ["other"]}, True),
        ({"type": "groups", "not_any_of": ["st.ff"], "regex": True}, False),
        ({"type": "missing", "not_any_of": ["other"]}, False),
        ({"type": "missing"}, False),
    ],
)
def test_a_rule_matches_or_names_nobody(remote, matches):
    told = rules({"local": [USER], "remote": [*NAMED, remote]})

    if matches:
        assert mapped(told, ANN).name == "ann"
    else:
        with pytest.raises(Unauthorized):
            mapped(told, ANN)


def test_many_values_are_many_groups_and_lists_bound_them():
    told = rules(
        {
            "local": [USER, {"groups": "{2}", "domain": {"name": "Default"}}],
            "remote": [*NAMED, {"type": "groups", "whitelist": ["crew"]}],
        },
        {
            "local": [{"group_ids": "{0}"}, {"group": {"name": "all", "domain": {"id": "d"}}}],
            "remote": [{"type": "groups", "blacklist": ["crew"]}],
        },
    )

    found = mapped(told, ANN)

    assert found.group_names == (
        ("crew", DomainRef(name="Default")),
        ("all", DomainRef(id="d")),
    )
    assert found.group_ids == ("staff",)


def test_what_is_taken_for_one_value_is_one():
    told = rules({"local": [{"user": {"name": "{0}"}}], "remote": [{"type": "groups"}]})

    with pytest.raises(Unauthorized, match="several"):
        mapped(told, ANN)


def test_a_rule_without_a_user_makes_nobody():
    told = rules(
        {"local": [{"group": {"id": "admins"}}], "remote": [{"type": "name"}]},
        {"local": [USER], "remote": [*NAMED, {"type": "missing"}]},
    )

    with pytest.raises(Unauthorized, match="who this is"):
        mapped(told, ANN)


def test_a_value_that_looks_like_a_place_is_none():
    told = rules({"local": [USER], "remote": NAMED})

    assert mapped(told, {"name": ("{1}",), "email": ("e",)}).name == "{1}"


@pytest.mark.parametrize(
    ("kind", "claim"),
    [
        ("email", "email"),
        ("OIDC-preferred_username", "preferred_username"),
        ("HTTP_OIDC_EMAIL", "email"),
        ("OIDC_CLAIM_groups", "groups"),
    ],
)
def test_remotes_are_claims_as_web_servers_name_them_too(kind, claim):
    assert claim_name(kind) == claim


def test_only_what_a_mapping_looks_at_is_wanted():
    told = rules({"local": [USER], "remote": [*NAMED, {"type": "OIDC-groups"}]})

    assert wanted_claims(told) == {"name", "email", "groups"}


@pytest.mark.parametrize(
    "rule",
    [
        {"local": [{"user": {"name": "{2}"}}], "remote": NAMED},
        {
            "local": [{"user": {"name": "{1}"}}],
            "remote": [{"type": "a"}, {"type": "b", "any_one_of": ["x"]}],
        },
        {"local": [{"user": {"name": "x"}}, {"group": {}}], "remote": NAMED},
        {"local": [{"group": {"id": "x"}}], "remote": NAMED},
        {"local": [USER], "remote": [*NAMED, {"type": "c", "any_one_of": ["("], "regex": True}]},
        {"local": [USER], "remote": [*NAMED, {"type": "c", "any_one_of": [], "not_any_of": []}]},
    ],
)
def test_rules_that_cannot_be_used_are_not_taken(rule):
    with pytest.raises(InvalidInput):
        need_sound(rules(rule))
