"""An export shows by itself that it is whole, and names the first ordinal that is not."""

import gzip
import itertools

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from engine.log.checkpoint import Checkpoint, Loss, read_statement, sign
from engine.log.commit import ChainBroken, check_commit, open_commit, seal_commit
from engine.log.export import check_lines, export_lines, read_lines, write_export
from engine.log.signing import key_id
from tests.engine.log.test_verify import a_log, a_record

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
ID = key_id(KEY.public_key())
KEYS = {ID: KEY.public_key()}

SIZES = st.lists(
    st.lists(st.integers(0, 3), min_size=1, max_size=3).map(tuple), min_size=2, max_size=7
)


def a_checkpoint(seq, data, key=KEY, **changes):
    sealed = open_commit(data)
    head = check_commit(data, sealed.prev, sealed.first)
    fields = {
        "at": 5_000 + seq,
        "cell": "c",
        "hash": head.hash,
        "key": key_id(key.public_key()),
        "ordinal": head.next_first - 1,
        "sequence": seq,
    }
    return Checkpoint(**(fields | changes))


class Exported:
    """A log's lines: commits, and after some of them, always after the last, a checkpoint."""

    def __init__(self, sizes, signed=()):
        self.messages, self.firsts = a_log(tuple(sizes))
        self.signed = sorted({seq for seq in signed if seq < len(sizes)} | {len(sizes)})
        statements = [(s, sign(a_checkpoint(s, self.messages[s - 1][1]), KEY)) for s in self.signed]
        self.lines = list(export_lines(self.messages, statements))
        self.end = self.messages_end()

    def messages_end(self):
        return a_checkpoint(*self.messages[-1]).ordinal

    def first_of(self, place):
        """The first ordinal of the commit in this place, or the one behind the log."""
        return self.firsts[place] if place < len(self.firsts) else self.end + 1

    def with_commits(self, commits):
        """The lines with other commits, the checkpoints where they were."""
        lines, at = [], 0
        for line in self.lines:
            if line.startswith(b'{"signature"'):
                lines.append((at, line))
            else:
                at += 1
        result = []
        for place, data in enumerate(commits, 1):
            result.append(data)
            result += [line for after, line in lines if after == place]
        return result + [line for after, line in lines if after > len(commits)]

    def commits(self):
        return [data for _, data in self.messages]


def broken(lines, keys=KEYS, known=()):
    with pytest.raises(ChainBroken) as raised:
        check_lines(lines, keys, known)
    return raised.value.ordinal


@st.composite
def exports(draw):
    sizes = draw(SIZES)
    signed = draw(st.sets(st.integers(1, len(sizes))))
    return Exported(sizes, signed)


@given(exported=exports())
def test_an_intact_export_is_reported_whole(exported):
    report = check_lines(exported.lines, KEYS)

    assert (report.commits, report.ordinals) == (len(exported.messages), exported.end)
    assert report.checkpoints == len(exported.signed)
    assert report.signed
    assert not check_lines(exported.lines, None).signed


@given(exported=exports(), data=st.data())
def test_a_flipped_bit_is_found_at_its_commit(exported, data):
    """Anywhere in the file, line ends and signatures included."""
    file = b"".join(line + b"\n" for line in exported.lines)
    place = data.draw(st.integers(0, len(file) - 1))
    bit = 1 << data.draw(st.integers(0, 7))
    altered = file[:place] + bytes([file[place] ^ bit]) + file[place + 1 :]
    number = file.count(b"\n", 0, place)
    before = exported.lines[:number]
    commits = sum(line.startswith(b'{"at"') for line in before)
    is_commit = exported.lines[number].startswith(b'{"at"')

    def lines():
        *whole, rest = altered.split(b"\n")
        yield from whole
        if rest:
            raise EOFError

    found = broken(lines())

    if is_commit:
        assert found == exported.first_of(commits)
    else:
        # A damaged signature vouches for nothing since the one before it; or it is no line at all.
        vouched = [seq for seq in exported.signed if seq < commits]
        since = exported.first_of(vouched[-1]) if vouched else 1
        assert found in {since, exported.first_of(commits)}


@given(exported=exports(), data=st.data(), change=st.sampled_from(["remove", "swap", "insert"]))
def test_a_removed_swapped_or_inserted_commit_is_found_where_it_is(exported, data, change):
    commits = exported.commits()
    altered = list(commits)
    place = data.draw(st.integers(0, len(commits) - 1))
    match change:
        case "remove":
            del altered[place]
        case "swap":
            other = data.draw(st.integers(0, len(commits) - 1).filter(lambda n: n != place))
            altered[place], altered[other] = altered[other], altered[place]
        case "insert":
            altered.insert(place, commits[data.draw(st.integers(0, len(commits) - 1))])
    differs = next(n for n, (a, b) in enumerate(itertools.zip_longest(commits, altered)) if a != b)

    assert broken(exported.with_commits(altered)) == exported.first_of(differs)


@given(exported=exports(), data=st.data())
def test_a_cut_file_is_found_where_it_ends(exported, data):
    """At any byte, but for the end of a checkpoint: there it is an older export, and whole."""
    file = b"".join(line + b"\n" for line in exported.lines)
    cut = file[: data.draw(st.integers(0, len(file) - 1))]
    kept = cut[: cut.rfind(b"\n") + 1].splitlines()
    commits = [line for line in kept if line.startswith(b'{"at"')]

    def lines():
        yield from kept
        if cut[-1:] not in {b"", b"\n"}:
            raise EOFError

    if kept and kept[-1].startswith(b'{"signature"') and cut.endswith(b"\n"):
        assert check_lines(lines(), KEYS).commits == len(commits)
        # Whoever kept the last checkpoint sees it all the same.
        last = read_statement(exported.lines[-1], KEYS)
        assert broken(lines(), known=[last]) == exported.first_of(len(commits))
    else:
        assert broken(lines()) == exported.first_of(len(commits))


@given(exported=exports(), data=st.data())
def test_a_forged_commit_with_a_fitting_hash_is_found(exported, data):
    """Put in or in the place of another, and right in itself."""
    place = data.draw(st.integers(0, len(exported.messages) - 2))
    replaced = data.draw(st.booleans())
    original = open_commit(exported.messages[place][1])
    records = [a_record(99 + n, 0) for n in range(exported.first_of(place + 1) - original.first)]
    forged, _ = seal_commit("c-x", original.first, original.prev, 1, 1000 + place, records)
    commits = exported.commits()
    commits[place : place + replaced] = [forged]

    found = broken(exported.with_commits(commits))

    # Exactly there; or, where a checkpoint stands in between, from the one before it on.
    vouched = [exported.first_of(seq) for seq in exported.signed if seq <= place]
    assert found in {original.first, *(vouched[-1:] or [1])}


@given(exported=exports(), data=st.data())
def test_a_log_written_anew_from_some_place_on_is_found_by_its_checkpoint(exported, data):
    """Every hash fits; only what was signed does not. All since the last checkpoint is in doubt."""
    place = data.draw(st.integers(0, len(exported.messages) - 1))
    commits = exported.commits()
    prev = open_commit(commits[place]).prev
    for n, message in enumerate(commits[place:], place):
        sealed = open_commit(message)
        records = [bytes(raw) for raw in sealed.records]
        commits[n], prev = seal_commit("c-x", sealed.first, prev, 1, sealed.at, records)
    vouched = [seq for seq in exported.signed if seq <= place]

    found = broken(exported.with_commits(commits))

    assert found == (exported.first_of(vouched[-1]) if vouched else 1)


def test_a_checkpoint_of_another_key_is_not_believed():
    exported = Exported([(1,), (2,)])
    stranger = Ed25519PrivateKey.generate()
    exported.lines[-1] = sign(a_checkpoint(*exported.messages[-1], key=stranger), stranger)

    assert broken(exported.lines) == 1
    assert check_lines(exported.lines, None).commits == 2


def test_a_loss_that_was_accepted_is_told():
    exported = Exported([(1,), (2,)])
    last = a_checkpoint(*exported.messages[-1])
    loss = Loss(
        at=9_000,
        cell="c",
        hash=last.hash,
        key=ID,
        ordinal=last.ordinal,
        sequence=2,
        lost=last.ordinal + 7,
    )

    report = check_lines([*exported.lines, sign(loss, KEY)], KEYS)

    assert report.losses == ((last.ordinal + 1, last.ordinal + 7),)


@pytest.mark.parametrize("name", ["log.jsonl", "log.jsonl.gz"])
def test_a_file_is_written_whole_and_read_back(tmp_path, name):
    exported = Exported([(1,), (0, 2), (3,)], {1})
    path = tmp_path / name

    report = write_export(path, exported.lines, KEYS)

    assert list(read_lines(path)) == exported.lines
    assert check_lines(read_lines(path), KEYS) == report
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_what_is_not_whole_is_not_published(tmp_path):
    exported = Exported([(1,), (0, 2), (3,)])
    path = tmp_path / "log.jsonl"
    path.write_text("before")

    with pytest.raises(ChainBroken):
        write_export(path, exported.lines[:-1], KEYS)

    assert path.read_text() == "before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["log.jsonl"]


@given(data=st.data())
def test_a_damaged_compressed_file_names_an_ordinal_that_is_not_too_late(tmp_path_factory, data):
    exported = Exported([(1, 2, 3)] * 30)
    path = tmp_path_factory.mktemp("gz") / "log.jsonl.gz"
    write_export(path, exported.lines, KEYS)
    packed = path.read_bytes()
    header = 10  # of gzip: name, time and system say nothing of the content
    place = data.draw(st.integers(header, len(packed) - 1))
    altered = bytes([packed[place] ^ (1 << data.draw(st.integers(0, 7)))])
    path.write_bytes(packed[:place] + altered + packed[place + 1 :])
    try:
        damaged = gzip.decompress(path.read_bytes()).splitlines()
    except Exception:  # noqa: BLE001
        damaged = None
    if damaged == exported.lines:
        return  # a bit that nothing depends on

    assert 1 <= broken(read_lines(path)) <= exported.end + 1


def test_an_empty_file_is_not_a_whole_log(tmp_path):
    path = tmp_path / "log.jsonl"
    path.touch()

    assert broken(read_lines(path)) == 1
