"""A second place for history: a folder, or S3; whole, checked, and never another's."""

import subprocess
import sys

import msgspec
import pytest

from projections.copies import Copies, copies_of
from projections.history import History
from projections.segment import HistoryBroken
from schemas.config import Config
from schemas.errors import InvalidInput, Unavailable
from schemas.units import DAY
from tests.projections.story import a_small_story
from tests.projections.test_history import Sealed


@pytest.fixture
def sealed(tmp_path):
    sealed = Sealed(a_small_story(), tmp_path / "here")
    sealed.seal(ordinals_max=20)
    return sealed


@pytest.fixture
def copies(sealed, tmp_path):
    return Copies(sealed.history, f"file://{tmp_path}/there")


def files(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_a_copy_is_the_same_files(sealed, copies, tmp_path):
    segments = sealed.history.segments()
    assert copies.look().waiting == len(segments)

    assert copies.copy() == segments
    assert copies.copy() == []

    assert files(tmp_path / "there") == files(sealed.history.directory)
    there = History(tmp_path / "there")
    assert there.verify() == segments
    assert [c for s in segments for c in there.commits(s)] == sealed.story.commits
    told = copies.look()
    assert (told.copied, told.segments, told.waiting) == (sealed.head, len(segments), 0)


def test_what_was_merged_here_is_merged_there(sealed, copies, tmp_path):
    copies.copy()
    while sealed.history.merge_due(10_000, sealed.story.now + DAY):
        pass

    assert len(copies.copy()) == 1

    assert files(tmp_path / "there") == files(sealed.history.directory)


def test_a_kill_between_two_steps_leaves_no_half_copy(sealed, copies, tmp_path, monkeypatch):
    """At each object that is written; what has no manifest is no copy, and the next goes on."""
    import obstore

    class Killed(BaseException):
        pass

    put = obstore.put
    at, died = 0, 0
    while True:
        seen = 0

        def killed(store, name, data, at=at):
            nonlocal seen
            if seen == at:
                raise Killed
            seen += 1
            put(store, name, data)

        monkeypatch.setattr(obstore, "put", killed)
        try:
            copies.copy()
            break
        except Killed:
            died += 1
        found = History(tmp_path / "there")
        assert found.verify() == sealed.history.segments()[: len(found.segments())]
        at = 1 if died % 2 else 2
    monkeypatch.undo()

    assert died > 3
    assert files(tmp_path / "there") == files(sealed.history.directory)


def test_another_history_is_not_overwritten(sealed, copies, tmp_path):
    copies.copy()
    other = Sealed(a_small_story(seed=2), tmp_path / "other")
    other.seal(ordinals_max=20)
    before = files(tmp_path / "there")

    with pytest.raises(HistoryBroken, match="another segment"):
        Copies(other.history, copies.url).copy()

    assert files(tmp_path / "there") == before


def test_what_is_damaged_here_is_not_copied(sealed, copies, tmp_path):
    path = sealed.history.path(sealed.history.segments()[0])
    path.write_bytes(path.read_bytes()[:-1])

    with pytest.raises(HistoryBroken):
        copies.copy()

    assert not list((tmp_path / "there").glob("*")) if (tmp_path / "there").exists() else True


def test_a_store_that_changes_bytes_is_told(sealed, copies, tmp_path, monkeypatch):
    import obstore

    put = obstore.put

    def other(store, name, data):
        put(store, name, data if name.endswith(".json") else b"other")

    monkeypatch.setattr(obstore, "put", other)

    with pytest.raises(Unavailable, match="other bytes"):
        copies.copy()

    assert list((tmp_path / "there").glob("*.json")) == []


def test_the_configuration_names_a_store(sealed, tmp_path):
    options = tmp_path / "options.json"
    assert copies_of(Config(state_dir="x"), sealed.history) is None
    for url in ("http://x", "s3://key:secret@bucket", "s3://bucket?x=1", "folder"):
        with pytest.raises(InvalidInput):
            copies_of(Config(state_dir="x", history_store=url), sealed.history)
    options.write_text('{"secret": 1, "aws_secret_access_key": "hidden"')
    named = Config(state_dir="x", history_store="s3://bucket", history_store_options=str(options))
    with pytest.raises(InvalidInput) as refused:
        copies_of(named, sealed.history)
    assert "hidden" not in str(refused.value)


@pytest.fixture
def s3():
    """A server that speaks S3, on a port of its own, with a bucket."""
    import http.client

    server = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        line = next(line for line in server.stderr if "Running on http" in line)
        address = line.split("http://")[1].split()[0]
        connection = http.client.HTTPConnection(address, timeout=20)
        connection.request("PUT", "/history", headers={"Host": address})
        assert connection.getresponse().status == 200
        connection.close()
        yield f"http://{address}"
    finally:
        server.kill()
        server.communicate()


def test_a_store_that_speaks_s3(sealed, s3, tmp_path):
    options = tmp_path / "options.json"
    told = {
        "aws_access_key_id": "key",
        "aws_secret_access_key": "secret",
        "aws_endpoint": s3,
        "aws_region": "us-east-1",
    }
    options.write_bytes(msgspec.json.encode(told))
    config = Config(
        state_dir=str(tmp_path),
        history_store="s3://history/cell-1",
        history_store_options=str(options),
    )
    copies = copies_of(config, sealed.history)

    assert copies.copy() == sealed.history.segments()
    assert copies.copy() == []
    while sealed.history.merge_due(10_000, sealed.story.now + DAY):
        pass
    copies.copy()

    found = copies.look()
    assert (found.copied, found.segments, found.waiting) == (sealed.head, 1, 0)
    assert found.store == "s3://history/cell-1"
    gone = Copies(sealed.history, "s3://nowhere/x", {**told, "aws_endpoint": s3})
    with pytest.raises(Unavailable) as failed:
        gone.copy()
    assert "secret" not in failed.value.reason
