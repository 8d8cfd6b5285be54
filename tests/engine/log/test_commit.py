"""Commits are canonical, and whatever is changed in one is seen."""

import hashlib
import json
import shutil
import subprocess

import msgspec
import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from engine.log.commit import (
    GENESIS,
    ChainBroken,
    check_commit,
    joined,
    leaf_hash,
    merkle_root,
    open_commit,
    seal_commit,
    split_commit,
)
from schemas.compute import Keypair, KeypairCreated
from schemas.engine import ElectLeader, LeaderElected
from schemas.envelope import Accepted, Actor, Record, Refused, Request, decode_commit, encode


def a_record(number=1, *, facts=1, reply=None, reason=None):
    verdict = (
        Accepted(reply=reply or {})
        if reason is None
        else Refused(code="NotFound", status=404, reason=reason, fields={"id": "x", "count": 2})
    )
    return Record(
        salt=f"{number:016x}",
        request=Request(
            request_id=f"req-{number}",
            actor=Actor(kind="system"),
            action=ElectLeader(epoch=number, node="node-1"),
            submitted_at=1_700_000_000_000_000 + number,
        ),
        verdict=verdict,
        facts=tuple(LeaderElected(epoch=number, node="n", elected_at=5) for _ in range(facts)),
    )


def sealed(records, *, first=1, prev=GENESIS):
    return seal_commit("c-1", first, prev, 1, 1_700_000_000_000_000, records)


def hash_by_hand(data):
    """Compute a commit's hash with the standard library alone, as the documentation says."""

    def canonical(value):
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return text.encode()

    def tree(leaves):
        if len(leaves) == 1:
            return leaves[0]
        split = 1
        while split * 2 < len(leaves):
            split *= 2
        pair = tree(leaves[:split]) + tree(leaves[split:])
        return hashlib.sha256(b"\x01" + pair).digest()

    commit = json.loads(data)
    records = commit["records"]
    root = tree([hashlib.sha256(b"\x00" + canonical(record)).digest() for record in records])
    header = {key: commit[key] for key in ("at", "commit", "epoch", "first", "prev")}
    header |= {"count": len(records), "root": root.hex()}
    return hashlib.sha256(canonical(header)).hexdigest()


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 13])
def test_a_sealed_commit_passes_its_own_check(count):
    records = [a_record(number, facts=number % 3) for number in range(count)]

    data, digest = sealed(records, first=7)
    head = check_commit(data, GENESIS, 7)

    assert (head.commit, head.first, head.hash, head.epoch) == ("c-1", 7, digest, 1)
    assert head.next_first == 7 + count + sum(number % 3 for number in range(count))


def test_the_message_decodes_with_the_schema():
    records = [a_record(1), a_record(2, facts=0, reason="gone")]

    data, digest = sealed(records)
    commit = decode_commit(data)

    assert (commit.commit, commit.first, commit.prev, commit.hash) == ("c-1", 1, GENESIS, digest)
    assert list(commit.records) == records
    assert encode(commit) == data


def test_records_may_be_given_encoded():
    records = [a_record(1), a_record(2)]

    assert sealed(records) == sealed([encode(record) for record in records])


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_anybody_can_compute_the_hash(count):
    data, digest = sealed([a_record(number) for number in range(count)])

    assert hash_by_hand(data) == digest


@pytest.mark.skipif(not shutil.which("jq"), reason="jq is not installed")
def test_the_documented_shell_commands_give_the_hash(tmp_path):
    data, digest = sealed([a_record(1)])
    (tmp_path / "c.json").write_bytes(data)
    script = r"""
        root=$({ printf '\000'; jq -jcS '.records[0]' c.json; } | sha256sum | cut -d' ' -f1)
        jq -jcS --arg root $root \
            '{at, commit, count: (.records | length), epoch, first, prev, $root}' c.json | sha256sum
    """

    found = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, capture_output=True, check=True, timeout=30
    )

    assert found.stdout.split()[0].decode() == digest


def test_commits_chain():
    first, prev = sealed([a_record(1)])
    second, _ = sealed([a_record(2)], first=3, prev=prev)

    head = check_commit(first, GENESIS, 1)

    assert check_commit(second, head.hash, head.next_first).first == 3


# Characters outside of the basic plane sort differently as UTF-16 (RFC 8785) and as UTF-8.
names = st.text(st.characters(codec="utf-8", max_codepoint=0xFFFF), max_size=20)
texts = st.text(st.characters(codec="utf-8"), max_size=40)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)


@given(
    reply=st.dictionaries(names, values, max_size=5),
    reason=st.none() | texts,
    name=texts,
    facts=st.integers(0, 3),
)
def test_the_message_is_in_the_canonical_form_of_rfc_8785(reply, reason, name, facts):
    record = a_record(1, reply=reply, reason=reason, facts=facts)
    keypair = KeypairCreated(
        keypair=Keypair(name=name, user_id="u", public_key=name, fingerprint=name, created_at=1)
    )
    record = msgspec.structs.replace(record, facts=(*record.facts, keypair))

    data, digest = sealed([record, a_record(2)])

    assert rfc8785.dumps(json.loads(data)) == data
    assert hash_by_hand(data) == digest
    assert check_commit(data, GENESIS, 1).hash == digest


@given(data=st.data(), count=st.integers(1, 4))
def test_no_byte_of_a_commit_can_change_unseen(data, count):
    message, _ = sealed([a_record(number) for number in range(count)])
    place = data.draw(st.integers(0, len(message) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda b: b != message[place]))
    altered = message[:place] + bytes([byte]) + message[place + 1 :]

    with pytest.raises(ChainBroken) as raised:
        check_commit(altered, GENESIS, 1)

    assert raised.value.ordinal == 1


@given(st.binary(max_size=200))
def test_noise_is_not_a_commit(noise):
    with pytest.raises(ChainBroken):
        check_commit(noise, GENESIS, 1)


@pytest.mark.parametrize(
    ("alter", "why"),
    [
        (lambda m: m.replace(b'{"at":', b'{ "at":'), "canonical"),
        (lambda m: m[:-1] + b',"extra":1}', "unknown field"),
        (lambda m: b'{"at":1,' + m[1:], "canonical|hash"),
        (lambda m: m + b"\n", "canonical"),
        (lambda m: m[: m.index(b'"records":[')] + b'"records":[]}', "no record"),
        (lambda _: b"[" * 100_000, "not a commit"),
        (lambda _: b"", "not a commit"),
    ],
)
def test_what_no_hash_covers_is_refused_too(alter, why):
    message, _ = sealed([a_record(1)])

    with pytest.raises(ChainBroken, match=why):
        check_commit(alter(message), GENESIS, 1)


def said(check, *of):
    try:
        return check(*of)
    except ChainBroken as error:
        return str(error)


def test_taken_apart_a_commit_is_checked_as_whole():
    """Whatever byte is changed, cut or put in: the same head, or the same refusal."""
    data, _ = sealed([a_record(), a_record(2, facts=2)])
    head, parts = split_commit(data, GENESIS, 1)
    assert head == check_commit(data, GENESIS, 1)
    assert [joined(part) for part in parts] == open_commit_records(data)
    for place in range(len(data)):
        before, after = data[:place], data[place + 1 :]
        others = [before + after, before + b" " + data[place:], before + b"}" + after]
        others += [before + bytes([data[place] ^ 1]) + after]
        for other in (each for each in others if each != data):
            whole = said(check_commit, other, GENESIS, 1)
            assert said(lambda *of: split_commit(*of)[0], other, GENESIS, 1) == whole
            assert isinstance(whole, str)


def open_commit_records(data):
    return [bytes(record) for record in open_commit(data).records]


def test_a_record_of_another_form_is_not_taken_apart():
    """The chain holds, but what is put together again from its parts would not be it."""
    record = encode(a_record())
    for other in (record[:-1] + b',"z":1}', record.replace(b'"facts":', b'"facts": ')):
        data, _ = sealed([other])
        assert split_commit(data, GENESIS, 1) == (check_commit(data, GENESIS, 1), None)


def test_a_commit_out_of_place_is_refused():
    message, _ = sealed([a_record(1)], first=3)

    with pytest.raises(ChainBroken, match="ordinal 3"):
        check_commit(message, GENESIS, 1)
    with pytest.raises(ChainBroken, match="does not follow"):
        check_commit(message, "f" * 64, 3)


def test_one_record_can_be_proven_without_its_neighbours():
    """The tree is that of RFC 6962: a path of three hashes leads from one of five to the root."""
    leaves = [leaf_hash(encode(a_record(number))) for number in range(5)]

    def node(left, right):
        return hashlib.sha256(b"\x01" + left + right).digest()

    path_of_third = node(
        node(node(leaves[0], leaves[1]), node(leaves[2], leaves[3])),
        leaves[4],
    )

    assert merkle_root(leaves) == path_of_third
    assert merkle_root([]) == hashlib.sha256(b"").digest()
