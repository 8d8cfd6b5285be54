"""`cumulog up` in front of clients: TLS, and a configuration that is read anew while they ask."""

import datetime as dt
import http.client
import ipaddress
import json
import os
import signal
import ssl
import subprocess
import threading
from pathlib import Path
from typing import Self

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cli.up import url
from tests.cli.running import CUMULOG, Up, alive, clean_environment, eventually, run


def certify(directory: Path, name: str) -> tuple[Path, Path]:
    """Write a certificate for the loopback that vouches for itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    loopback = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([loopback]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    files = directory / "certificate.pem", directory / "key.pem"
    files[0].write_bytes(certificate.public_bytes(encoding))
    files[1].write_bytes(
        key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


def named(address: tuple[str, int]) -> str:
    """Return whom the API says it is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    connection = http.client.HTTPSConnection(*address, context=context, timeout=60)
    try:
        connection.connect()
        told = connection.sock.getpeercert(binary_form=True)
    finally:
        connection.close()
    certificate = x509.load_der_x509_certificate(told)
    (common,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(common.value)


def address_of(up: Up) -> tuple[str, int]:
    host, _, port = json.loads((up.state_dir / "cell.json").read_text())["listen"].rpartition(":")
    return host, int(port)


class Asking:
    """A client that asks without a pause, each time on a new connection, and what it missed."""

    def __init__(self, address: tuple[str, int], context: ssl.SSLContext) -> None:
        self.address, self.context = address, context
        self.answered = 0
        self.missed: list[str] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(60)

    def _ask(self) -> None:
        while not self._ended.is_set():
            connection = http.client.HTTPSConnection(
                *self.address, context=self.context, timeout=60
            )
            try:
                connection.request("GET", "/compute")
                assert connection.getresponse().read()
                self.answered += 1
            except (OSError, http.client.HTTPException) as error:
                self.missed.append(repr(error))
            finally:
                connection.close()


def test_a_cloud_speaks_tls_and_takes_a_new_certificate_without_a_pause(up: Up, tmp_path: Path):
    certificate, key = certify(tmp_path, "first")
    authority = tmp_path / "authority.pem"
    authority.write_bytes(certificate.read_bytes())
    up.start(
        "--no-demo", "--tls-certificate", str(certificate), "--tls-key", str(key),
        "--tls-authority", str(authority),
    )  # fmt: skip
    address = address_of(up)
    assert up.ready()["urls"]["api"] == f"https://127.0.0.1:{address[1]}"
    assert run("status", "--state-dir", str(up.state_dir)).code == 0
    assert up.json("flavor", "list")
    old = up.pids()["api"]

    second = tmp_path / "second"
    second.mkdir()
    for new, path in zip(certify(second, "second"), (certificate, key), strict=True):
        authority.write_bytes(authority.read_bytes() + new.read_bytes())
        path.write_bytes(new.read_bytes())
    with Asking(address, ssl.create_default_context(cafile=str(authority))) as asking:
        eventually(lambda: asking.answered > 10, "the API answers")
        assert named(address) == "first"
        os.kill(up.pids()["up"], signal.SIGHUP)
        eventually(lambda: up.pids()["api"] != old, "another process serves")
        eventually(lambda: not alive(old), "the one before has ended")
        before = asking.answered
        eventually(lambda: asking.answered > before + 10, "the API answers still")
    assert asking.missed == []
    assert named(address) == "second"
    assert up.stop() == 0


def test_a_configuration_that_is_wrong_leaves_the_api_as_it_is(up: Up):
    up.start("--no-demo")
    pids = up.pids()
    cell_file = up.state_dir / "cell.json"
    cell = json.loads(cell_file.read_text())

    cell_file.write_text(json.dumps(cell | {"settings": {"trusted_proxies": ["nobody"]}}))
    os.kill(pids["up"], signal.SIGHUP)
    up.read_until("the old one stays")
    assert up.json("flavor", "list")
    assert up.pids() == pids

    cell_file.write_text(json.dumps(cell | {"settings": {"cors_origins": ["https://a.example"]}}))
    os.kill(pids["up"], signal.SIGHUP)
    up.read_until("the API was replaced")
    eventually(lambda: not alive(pids["api"]), "the one before takes no more connections")
    connection = http.client.HTTPConnection(*address_of(up), timeout=60)
    connection.request("GET", "/compute", headers={"Origin": "https://a.example"})
    answer = connection.getresponse()
    assert answer.getheader("access-control-allow-origin") == "https://a.example"
    connection.close()
    assert {k: v for k, v in up.pids().items() if k != "api"} == {
        k: v for k, v in pids.items() if k != "api"
    }
    assert up.stop() == 0


def test_a_terminal_that_is_closed_stops_the_cloud(up: Up):
    """SIGHUP means that only if the terminal is gone."""
    ours, theirs = os.openpty()
    try:
        process = subprocess.Popen(
            ["setsid", "--ctty", CUMULOG, "up", "--state-dir", str(up.state_dir), "--no-demo",
             "--listen", "[::1]:0", "--driver", "simulated", "--ready-file", str(up.ready_file)],
            stdin=theirs, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=clean_environment(),
        )  # fmt: skip
    finally:
        os.close(theirs)
    try:
        eventually(up.ready_file.exists, "the cloud is up", 120)
        told = up.ready()
        assert told["urls"]["api"].startswith("http://[::1]:")
        assert run("status", "--state-dir", str(up.state_dir)).code == 0
        old = told["pids"]["api"]
        os.kill(told["pids"]["up"], signal.SIGHUP)
        eventually(lambda: up.pids()["api"] != old, "the API is replaced")
    finally:
        os.close(ours)
    assert process.wait(60) == 0


def test_clients_wait_while_the_api_is_started_again(up: Up):
    """The socket outlives the process: nobody is refused when it is killed."""
    up.start("--no-demo")
    address = address_of(up)
    old = up.pids()["api"]
    os.kill(old, signal.SIGKILL)
    eventually(lambda: not alive(old), "it is gone")

    connection = http.client.HTTPConnection(*address, timeout=60)
    connection.request("GET", "/healthz")

    assert connection.getresponse().status == 200
    connection.close()
    assert up.stop() == 0


@pytest.mark.parametrize(
    ("settings", "address"),
    [
        ({}, "http://127.0.0.1:80"),
        ({"public_url": "https://cloud.example"}, "http://127.0.0.1:80"),
        ({"tls_certificate": "/c"}, "https://127.0.0.1:80"),
        ({"tls_certificate": "/c", "public_url": "https://c.example/x/"}, "https://c.example/x"),
    ],
)
def test_which_address_clients_of_this_machine_are_told(settings, address):
    assert url("0.0.0.0:80", settings) == address


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--tls-certificate", "/c"], "go together"),
        (["--tls-key", "/k"], "go together"),
        (["--public-url", "cloud.example"], "http(s)://"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path: Path, options, why):
    done = run("up", "--state-dir", str(tmp_path / "state"), *options)
    assert done.code == 2
    assert why in done.errors
    assert not (tmp_path / "state").exists()
