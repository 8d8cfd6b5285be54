"""The log as a file, checkpoints and proofs, as people use them."""

import gzip
import json

import pytest

from tests.cli.running import run


@pytest.fixture(scope="module")
def key(cloud, tmp_path_factory):
    path = tmp_path_factory.mktemp("key") / "cell.pub"
    path.write_text(cloud.run("audit", "key").output)
    return str(path)


@pytest.fixture(scope="module")
def exported(cloud, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "log.jsonl"
    told = cloud.json("log", "export", str(path))
    assert told["signatures"] == "checked"
    return path


def verify(*arguments):
    done = run("audit", "verify", *arguments, "-o", "json")
    return done.code, json.loads(done.output)


def test_an_export_is_checked_without_a_cloud(exported, key):
    code, told = verify("--export", str(exported), "--key", key)

    assert (code, told["intact"]) == (0, True)
    assert told["commits"] > 5
    code, told = verify("--export", str(exported))
    assert "not checked" in told["signatures"]


def test_a_tampered_export_is_named_for_what_it_is(exported, key, tmp_path):
    lines = exported.read_bytes().splitlines(keepends=True)
    commits = [line for line in lines if line.startswith(b'{"at"')]
    lines.remove(commits[3])
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"".join(lines))

    code, told = verify("--export", str(path), "--key", key)

    assert code == 1
    assert told["intact"] is False
    assert told["ordinal"] == json.loads(commits[3])["first"]


def test_an_older_export_is_found_by_a_checkpoint_that_was_kept(cloud, key, tmp_path):
    older = tmp_path / "older.jsonl"
    cloud.json("log", "export", str(older))
    cloud.run("network", "create", "newer")
    cloud.json("audit", "checkpoint")
    kept = cloud.state_dir / "checkpoints" / "checkpoints.jsonl"

    assert verify("--export", str(older), "--key", key)[0] == 0
    code, told = verify("--export", str(older), "--key", key, "--checkpoints", str(kept))

    assert code == 1
    assert "cut off" in told["why"]


def test_an_export_online_and_offline_hold_the_same(cloud, key, tmp_path):
    online, offline = tmp_path / "on.jsonl.gz", tmp_path / "off.jsonl"
    cloud.json("log", "export", str(online))
    done = run("log", "export", str(offline), "--offline", "--state-dir", str(cloud.state_dir))
    assert done.code == 0, done.errors

    def commits(content):
        return [line for line in content.splitlines() if line.startswith(b'{"at"')]

    here, there = commits(gzip.decompress(online.read_bytes())), commits(offline.read_bytes())
    assert there[: len(here)] == here
    assert verify("--export", str(offline), "--key", key)[0] == 0


def test_a_record_is_proven_without_a_cloud(cloud, key, tmp_path):
    request = cloud.json("audit", "log")[0]["request_id"]
    path = tmp_path / "proof.json"
    path.write_text(cloud.run("audit", "proof", request).output)

    code, told = verify("--proof", str(path), "--key", key)
    assert (code, told["proven"], told["request_id"]) == (0, True, request)

    path.write_text(path.read_text().replace('"user"', '"usar"', 1))
    code, told = verify("--proof", str(path), "--key", key)
    assert (code, told["proven"]) == (1, False)


def test_keys_rotate_on_the_machine(cloud, tmp_path):
    before = cloud.json("audit", "key")
    state = ("--state-dir", str(cloud.state_dir))
    rotated = json.loads(run("audit", "key", "--rotate", *state, "-o", "json").output)

    signed = cloud.json("audit", "checkpoint")

    assert signed["key"] == rotated["key"] != before["key"]
    assert rotated["keys"].startswith(before["keys"])
    assert cloud.json("audit", "verify")["intact"] is True


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["audit", "verify", "--export", "/nonexistent"], "no file"),
        (["audit", "verify", "--proof", "/nonexistent"], "cannot read"),
        (["audit", "verify", "--export", "/etc/hostname", "--key", "/etc/hostname"], "public key"),
        (["audit", "verify", "--key", "/etc/hostname"], "go with"),
        (["log", "export", "/nonexistent/log.jsonl"], "no folder"),
        (["log", "restore", "--state-dir", "/nonexistent"], "no cloud"),
    ],
    ids=lambda value: " ".join(value[:3]) if isinstance(value, list) else value,
)
def test_wrong_usage_is_said_in_a_line(arguments, says):
    done = run(*arguments)

    assert done.code == 2
    assert says in done.errors


@pytest.mark.parametrize(
    "arguments",
    [
        ["log", "export", "x.jsonl"],
        ["audit", "checkpoint"],
        ["audit", "key"],
        ["audit", "proof", "3"],
    ],
    ids=" ".join,
)
def test_only_administrators_take_the_whole_log(cloud, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    done = cloud.run(*arguments, cloud="cumulog-demo")

    assert done.code == 1
    assert list(tmp_path.iterdir()) == []
