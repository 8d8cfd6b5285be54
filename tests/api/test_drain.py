"""An edge that stops, or is replaced, answers whom it has accepted."""

import http.client
import json
import signal
import subprocess
import sys
import threading
from collections import Counter
from functools import partial
from typing import Self

import pytest

from tests.api.conftest import Api, Cloud
from tests.api.edges import EdgeProcess, statuses
from tests.api.test_http2 import curl
from tests.cli.running import clean_environment, eventually

READY = b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n"
CLIENTS = 6


def test_a_stop_is_told_before_it_happens(cloud: Cloud, tmp_path):
    """SIGTERM: not ready at once, still listening, clients are sent elsewhere, streams end."""
    with EdgeProcess(cloud, tmp_path, drain_s=3600.0) as edge, edge.connect() as kept:
        assert b"200 OK" in kept.send(READY).until(b"}")
        with edge.connect() as feed:
            feed.send(
                b"GET /v1/events?follow=1&after=99999999 HTTP/1.1\r\nHost: x\r\nX-Auth-Token: "
                + cloud.demo.token.encode() + b"\r\n\r\n"
            )  # fmt: skip
            feed.until(b": connected")
            edge.process.send_signal(signal.SIGTERM)

            feed.until(b"0\r\n\r\n")
        answer = kept.send(READY).everything()
        assert statuses(answer) == [503]
        assert b"connection: close" in answer
        assert b"the process is stopping" in answer
        demo = edge.as_demo()
        reply = demo("GET", "/compute/v2.1/servers")
        assert reply.status == 200
        assert reply.headers["connection"] == "close"
        refused = demo("GET", "/v1/events?follow=1")
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        edge.process.send_signal(signal.SIGTERM)  # once more: now
        assert edge.process.wait(30) == 0


def test_requests_under_way_end_before_the_process_does(cloud: Cloud, tmp_path):
    with EdgeProcess(cloud, tmp_path) as edge, edge.connect() as connection:
        connection.send(
            b"POST /identity/v3/auth/tokens HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
            b"Expect: 100-continue\r\n\r\n"
        ).until(b"100 Continue\r\n\r\n")
        edge.process.send_signal(signal.SIGTERM)
        eventually(lambda: edge.events("draining"), "the edge stops")

        answer = connection.send(b"{}").everything()

        assert statuses(answer) == [400]
        assert edge.process.wait(30) == 0


class Load:
    """Clients that ask without a pause, some on kept connections, some on a new one each time."""

    def __init__(self, edge: EdgeProcess, token: str) -> None:
        self.edge = edge
        self.token = token
        self.answers: Counter[int] = Counter()
        self.lost: list[str] = []
        self.ended = threading.Event()
        self.threads = [
            threading.Thread(target=self.ask, args=(n % 2 == 0,)) for n in range(CLIENTS)
        ]

    def __enter__(self) -> Self:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        for thread in self.threads:
            thread.join(60)

    def has_answered(self, count: int) -> bool:
        return self.answers[400] > count

    def ask(self, keep: bool) -> None:
        connection = http.client.HTTPConnection(*self.edge.address, timeout=60)
        body = json.dumps({"type": "NoSuchAction"})
        while not self.ended.is_set():
            try:
                # A POST: nothing in between may send it twice, and no client library does.
                headers = {"X-Auth-Token": self.token, "Content-Type": "application/json"}
                connection.request("POST", "/v1/actions", body, headers)
                answer = connection.getresponse()
                answer.read()
                self.answers[answer.status] += 1
            except (OSError, http.client.HTTPException) as error:
                self.lost.append(repr(error))
                connection.close()
            if not keep:
                connection.close()
        connection.close()


def test_a_reload_under_load_loses_no_request(cloud: Cloud, tmp_path):
    """Three processes after each other on one socket, while clients write without a pause."""
    with EdgeProcess(cloud, tmp_path, requests_per_project_s=0) as edge:
        with Load(edge, cloud.demo.token) as load:
            for turn in range(1, 3):
                answered_once = partial(load.has_answered, 100 * turn)
                eventually(answered_once, "requests are answered")
                old, edge.process = edge.process, edge.start()
                eventually(partial(edge.has_served, turn + 1), "the next one serves")
                old.send_signal(signal.SIGHUP)
                assert old.wait(60) == 0
            before = load.answers[400]
            eventually(lambda: load.has_answered(before + 100), "the last one answers")
        assert load.lost == []
        assert set(load.answers) == {400}


def test_a_socket_handed_over_by_systemd_is_served(cloud: Cloud, tmp_path):
    """LISTEN_PID names the process, LISTEN_FDS counts from descriptor 3 (sd_listen_fds)."""
    with EdgeProcess(cloud, tmp_path) as edge:
        edge.stop()
        fd = edge.listening.fileno()
        manager = (
            f"import os, sys; os.dup2({fd}, 3); os.environ.update(LISTEN_FDS='1',"
            " LISTEN_PID=str(os.getpid())); os.execv(sys.executable, [sys.executable, '-P', '-m',"
            f" 'cli.serve', 'api', {str(edge.root)!r}])"
        )
        with edge.log_file.open("ab") as log:
            edge.process = subprocess.Popen(
                [sys.executable, "-c", manager],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(fd,),
                env=clean_environment(),
            )  # fmt: skip
        assert Api(edge.url)("GET", "/healthz").status == 200
        edge.process.send_signal(signal.SIGHUP)  # as `systemctl reload` would; it is started anew
        assert edge.process.wait(60) == 0


def test_who_speaks_http_2_is_sent_away_too(cloud: Cloud, tmp_path):
    """Without the header, which HTTP/2 does not have: the connection says that it goes away."""
    with EdgeProcess(cloud, tmp_path, drain_s=3600.0) as edge:
        edge.process.send_signal(signal.SIGTERM)
        eventually(lambda: edge.events("draining"), "the edge stops")
        line, headers, _ = curl("--http2-prior-knowledge", f"{edge.url}/compute")
        assert line == "2 200"
        assert "connection" not in headers


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_without_a_drain_a_stop_is_quick_and_clean(cloud: Cloud, tmp_path, number):
    with EdgeProcess(cloud, tmp_path) as edge:
        assert Api(edge.url)("GET", "/healthz").status == 200
        edge.process.send_signal(number)
        assert edge.process.wait(30) == 0
        assert "Traceback" not in edge.log()
