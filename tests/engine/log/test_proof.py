"""A proof holds for the record it is about, and for no other byte."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.log.checkpoint import sign
from engine.log.commit import leaf_hash, merkle_root, open_commit, size_of
from engine.log.proof import ProofBroken, audit_path, check_proof, make_proof, root_of
from tests.engine.log.test_export import KEY, KEYS, SIZES, a_checkpoint
from tests.engine.log.test_verify import a_log


@st.composite
def proofs(draw):
    """A proof, with the ordinal it was asked for and the record that has it."""
    messages, firsts = a_log(tuple(draw(SIZES)))
    place = draw(st.integers(0, len(messages) - 1))
    last = draw(st.integers(place, len(messages) - 1))
    records = [bytes(raw) for raw in open_commit(messages[place][1]).records]
    index = draw(st.integers(0, len(records) - 1))
    request = firsts[place] + sum(size_of(record) for record in records[:index])
    ordinal = request + draw(st.integers(0, size_of(records[index]) - 1))
    commits = [data for _, data in messages[place : last + 1]]
    proof = make_proof(ordinal, commits, sign(a_checkpoint(*messages[last]), KEY))
    return proof, request, records[index]


@given(made=proofs())
def test_a_proof_proves_its_record(made):
    proof, ordinal, record = made

    report = check_proof(proof, KEYS)

    assert report.ordinal == ordinal
    assert report.request_id == json.loads(record)["request"]["request_id"]
    assert report.signed
    # Whoever lays it out for reading does no harm.
    pretty = json.dumps(json.loads(proof), indent=2, ensure_ascii=False).encode()
    assert check_proof(pretty, KEYS) == report


@given(made=proofs(), data=st.data())
def test_nothing_in_a_proof_can_be_changed(made, data):
    """Its stated ordinal excepted, as far as it stays in the commit."""
    proof, _, record = made
    place = data.draw(st.integers(0, len(proof) - 1))
    altered = proof[:place] + bytes([proof[place] ^ 1]) + proof[place + 1 :]
    try:
        report = check_proof(altered, KEYS)
    except ProofBroken:
        return

    told = json.loads(altered)
    assert msgspec.json.encode(told["record"], order="sorted") == record
    assert {**told, "ordinal": 0} == {**json.loads(proof), "ordinal": 0}
    assert report.request_id == told["record"]["request"]["request_id"]


@given(made=proofs())
def test_a_proof_shows_no_other_record(made):
    proof, _, record = made
    salt = json.loads(record)["salt"]

    assert proof.count(b'"salt"') == 1
    assert salt.encode() in proof


@pytest.mark.parametrize("count", range(1, 20))
def test_paths_lead_to_the_root(count):
    leaves = [leaf_hash(b"%d" % n) for n in range(count)]
    for index, leaf in enumerate(leaves):
        path = audit_path(leaves, index)
        assert root_of(leaf, index, count, path) == merkle_root(leaves)
        for wrong in (path[:-1], [*path, leaf]):
            if wrong != path:
                with pytest.raises(ProofBroken):
                    root_of(leaf, index, count, wrong)
    with pytest.raises(ProofBroken):
        root_of(leaves[0], count, count, [])
