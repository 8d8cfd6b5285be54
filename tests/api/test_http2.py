"""HTTP/2, in clear and over TLS: the same answers, and bounds of its own."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.api.conftest import Cloud
from tests.api.edges import EdgeProcess
from tests.cli.test_edge import certify

CURL = shutil.which("curl")
SERVERS = "/compute/v2.1/servers"

pytestmark = pytest.mark.skipif(CURL is None, reason="needs curl")


def curl(*arguments: str) -> tuple[str, dict[str, list[str]], str]:
    """Return the status line's version and status, the headers and the body."""
    told = "\n%{http_version} %{http_code}\n%{header_json}"
    done = subprocess.run(
        [CURL, "-sS", "--max-time", "60", "-w", told, *arguments],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    body, _, rest = done.stdout.rpartition("\n{")
    body, _, line = body.rpartition("\n")
    return line, json.loads("{" + rest), body


@pytest.fixture(scope="module")
def plain(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory):
    with EdgeProcess(cloud, tmp_path_factory.mktemp("http2")) as edge:
        yield edge


@pytest.fixture(scope="module")
def secure(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory):
    directory = tmp_path_factory.mktemp("https")
    certificate, key = certify(directory, "edge")
    settings = {"tls_certificate": str(certificate), "tls_key": str(key)}
    with EdgeProcess(cloud, directory, **settings) as edge:
        edge.certificate = certificate
        yield edge


def test_http_2_in_clear_is_spoken_to_who_knows(plain: EdgeProcess, cloud: Cloud):
    token = f"X-Auth-Token: {cloud.demo.token}"
    line, headers, body = curl("--http2-prior-knowledge", "-H", token, plain.url + SERVERS)

    assert line == "2 200"
    assert "servers" in json.loads(body)
    assert headers["x-openstack-request-id"][0].startswith("req-")


@pytest.mark.parametrize(("option", "version"), [("--http1.1", "1.1"), ("--http2", "2")])
@pytest.mark.parametrize("tls", ["--tlsv1.2", "--tlsv1.3"])
def test_over_tls_both_versions_are_spoken(secure: EdgeProcess, cloud: Cloud, option, version, tls):
    trust = ("--cacert", str(secure.certificate), tls, "--tls-max", tls[-3:])
    line, _, body = curl(*trust, option, f"{secure.url}/image")

    assert line == f"{version} 300"
    href = json.loads(body)["versions"][0]["links"][0]["href"]
    assert href == f"{secure.url}/image/v2/"


def test_nothing_older_than_tls_1_2_is_spoken_and_nothing_in_clear(secure: EdgeProcess):
    old = subprocess.run(
        [CURL, "-sSk", "--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0", secure.url],
        capture_output=True, check=False,
    )  # fmt: skip
    assert old.returncode == 35, old
    with secure.connect() as connection:
        assert b"HTTP" not in connection.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").everything()


def test_tls_1_3_can_be_asked_for(cloud: Cloud, tmp_path: Path):
    certificate, key = certify(tmp_path, "edge")
    settings = {"tls_certificate": str(certificate), "tls_key": str(key), "tls_minimum": "1.3"}
    with EdgeProcess(cloud, tmp_path, **settings) as edge:
        trust = ("--cacert", str(certificate))
        assert curl(*trust, f"{edge.url}/healthz")[0].endswith(" 200")
        old = subprocess.run(
            [CURL, "-sS", *trust, "--tls-max", "1.2", edge.url], capture_output=True, check=False
        )
        assert old.returncode == 35, old


def test_a_silent_client_does_not_hold_up_handshakes(secure: EdgeProcess):
    """Connections that never begin TLS keep nobody out."""
    silent = [secure.connect() for _ in range(50)]
    try:
        line, _, _ = curl("--cacert", str(secure.certificate), f"{secure.url}/healthz")
        assert line.endswith(" 200")
    finally:
        for connection in silent:
            connection.socket.close()


def test_an_uploaded_body_and_an_error_come_over_http_2(plain: EdgeProcess, cloud: Cloud):
    line, _, body = curl(
        "--http2-prior-knowledge", "-H", f"X-Auth-Token: {cloud.demo.token}",
        "-H", "Content-Type: application/json", "-d", "{", f"{plain.url}/v1/actions",
    )  # fmt: skip
    assert line == "2 400"
    assert json.loads(body)["code"] == "InvalidInput"


def test_many_requests_share_a_connection(secure: EdgeProcess, cloud: Cloud):
    urls = [f"{secure.url}{SERVERS}?name=n{n}" for n in range(150)]
    done = subprocess.run(
        [CURL, "-sS", "--http2", "--cacert", str(secure.certificate), "-Z", "--parallel-max", "50",
         "-H", f"X-Auth-Token: {cloud.demo.token}", "-w", "%{http_code} %{num_connects}\n",
         *(word for url in urls for word in (url, "-o", "/dev/null"))],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = [line.split() for line in done.stdout.splitlines()]
    assert [code for code, _ in told] == ["200"] * 150
    assert sum(int(new) for _, new in told) < 10


def test_a_head_of_http_2_is_bounded(plain: EdgeProcess):
    done = subprocess.run(
        [CURL, "-sS", "--http2-prior-knowledge", "-o", "/dev/null", "-w", "%{http_code}",
         *(word for n in range(40) for word in ("-H", f"X-{n}: {'a' * 4000}")), plain.url],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout in {"431", "000"}, done  # refused, or the connection ended
    assert curl("--http2-prior-knowledge", f"{plain.url}/healthz")[0] == "2 200"
