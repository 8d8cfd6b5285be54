"""An HTTP client of the public API, on the standard library alone, so that commands start fast.

One token per command, one connection kept open. Every failure becomes a Problem that carries the
API's own words and its request id.
"""

import json
import secrets
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from cli.credentials import Cloud
from cli.problem import REFUSED, UNREACHABLE, USAGE, Problem

if TYPE_CHECKING:
    import http.client  # takes a third of the start of a command that does not need it
    import ssl

TIMEOUT_S = 60.0
PATIENCE_S = 10.0  # with a node that says that it cannot answer just now
UNAVAILABLE = 503
READ_BYTES_MAX = 256 * 2**20
CHUNK_BYTES = 256 * 1024
AGENT = {"User-Agent": "cumulog"}


@dataclass(frozen=True)
class Reply:
    """An answer of the API. ``body`` is decoded JSON, or None when there is none."""

    status: int
    headers: dict[str, str]
    body: Any


class Client:
    """Speaks to one cloud as one account. Not for use by several threads."""

    def __init__(
        self, cloud: Cloud, *, timeout_s: float = TIMEOUT_S, as_of: str | None = None
    ) -> None:
        """``as_of`` is the moment that everything is read at; None: now."""
        self.cloud = cloud
        self._then = {} if as_of is None else {"X-Cumulog-As-Of": as_of}
        self.timeout_s = timeout_s
        self._connection: http.client.HTTPConnection | None = None
        self._token = cloud.token
        self._issued: dict[str, Any] = {}

    def get(self, path: str, **query: Any) -> Any:
        """Return the body of a GET; parameters that are None are left out."""
        return self.request("GET", with_query(path, query)).body

    def content(self, path: str, **query: Any) -> bytes:
        """Return the body of a GET as it comes, whatever its type."""
        headers = {**AGENT, "X-Auth-Token": self.token(), **self._then}
        answer = self._exchange("GET", with_query(path, query), None, headers, again=True)
        if answer[0] >= 400:
            _checked(*answer)
        return answer[2]

    def post(self, path: str, body: Any) -> Any:
        """Return the body of the answer to a POST of JSON."""
        return self.request("POST", path, body).body

    def delete(self, path: str) -> None:
        """Delete what is at the path."""
        self.request("DELETE", path)

    def submit(
        self,
        action: dict[str, Any],
        key: str | None = None,
        *,
        dry_run: bool = False,
        cause: str | None = None,
    ) -> Any:
        """Submit an action as an event; sending it twice under one key does it once.

        ``dry_run`` asks what would follow, and changes nothing. ``cause`` is the request that led
        to this.
        """
        headers = {"Idempotency-Key": key or secrets.token_hex(16)}
        path = with_query("/v1/actions", {"dry_run": 1 if dry_run else None, "cause": cause})
        return self.request("POST", path, action, headers=headers).body

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        """Send a request with a token and return the answer, its body decoded.

        Raises:
            Problem: the API refused, or cannot be reached.
        """
        sent = {**AGENT, "Accept": "application/json", "X-Auth-Token": self.token()}
        sent |= headers or {}
        again = method == "GET" or "Idempotency-Key" in sent
        if method == "GET":
            sent |= self._then
        else:
            # What a node puts off is asked again under it, and so done once.
            sent.setdefault("Idempotency-Key", secrets.token_hex(16))
        payload = None
        if body is not None:
            payload = json.dumps(body).encode()
            sent["Content-Type"] = "application/json"
        return _checked(*self._exchange(method, path, payload, sent, again=again))

    def upload(self, path: str, content: IO[bytes], size: int) -> None:
        """Send a file's bytes by PUT."""
        headers = {
            **AGENT,
            "X-Auth-Token": self.token(),
            "Content-Type": "application/octet-stream",
            "Content-Length": str(size),
        }
        _checked(*self._exchange("PUT", path, content, headers, again=False))

    def events(self, path: str, headers: dict[str, str] | None = None) -> Iterator[str]:
        """Yield the data of each server-sent event until the server closes.

        Raises:
            Problem: the API refused, or the stream broke.
        """
        sent = {**AGENT, "Accept": "text/event-stream", "X-Auth-Token": self.token()}
        sent |= self._then | (headers or {})
        connection = self._connect()
        if connection.sock is None:
            self._guarded(connection.connect)
        connection.sock.settimeout(None)  # a quiet log is not a broken one; the server pings
        self._guarded(lambda: connection.request("GET", path, headers=sent))
        answer = self._guarded(connection.getresponse)
        if answer.status >= 400:
            _checked(answer.status, dict(answer.getheaders()), answer.read(READ_BYTES_MAX))
        data: list[str] = []
        while raw := self._guarded(answer.readline):
            line = raw.decode().rstrip("\r\n")
            if line.startswith("data:"):
                data.append(line[5:].removeprefix(" "))
            elif not line and data:
                yield "\n".join(data)
                data = []

    def lines(self, path: str) -> Iterator[bytes]:
        """Yield the lines of a long answer, without their ends, as they come.

        Raises:
            Problem: the API refused, or the stream broke.
        """
        sent = {**AGENT, "X-Auth-Token": self.token(), **self._then}
        connection = self._connect()
        self._guarded(lambda: connection.request("GET", self._prefix + path, headers=sent))
        answer = self._guarded(connection.getresponse)
        if answer.status >= 400:
            _checked(answer.status, dict(answer.getheaders()), answer.read(READ_BYTES_MAX))
        while line := self._guarded(answer.readline):
            yield line.removesuffix(b"\n")

    def save(self, path: str, body: Any, file: IO[bytes]) -> None:
        """Write what answers a POST of JSON into a file, piece by piece.

        Raises:
            Problem: the API refused, or the answer broke off.
        """
        sent = {"Content-Type": "application/json"}
        self._save("POST", path, json.dumps(body).encode(), sent, file)

    def download(self, path: str, file: IO[bytes], **query: Any) -> dict[str, str]:
        """Write what answers a GET into a file, piece by piece, and return the answer's headers.

        Raises:
            Problem: the API refused, or the answer broke off.
        """
        return self._save("GET", with_query(path, query), None, self._then, file)

    def _save(
        self,
        method: str,
        path: str,
        payload: bytes | None,
        headers: dict[str, str],
        file: IO[bytes],
    ) -> dict[str, str]:
        sent = {**AGENT, "X-Auth-Token": self.token(), **headers}
        connection = self._connect()
        self._guarded(lambda: connection.request(method, self._prefix + path, payload, sent))
        answer = self._guarded(connection.getresponse)
        if answer.status >= 400:
            _checked(answer.status, dict(answer.getheaders()), answer.read(READ_BYTES_MAX))
        while chunk := self._guarded(lambda: answer.read(CHUNK_BYTES)):
            file.write(chunk)
        return {name.lower(): value for name, value in answer.getheaders()}

    def token(self) -> str:
        """Return a token, asking for one the first time."""
        if not self._token:
            self._token = self._issue()
        return self._token

    def forget_token(self) -> None:
        """Ask for another token next time; the one there is no longer counts."""
        self._token = ""

    def issued(self) -> dict[str, Any]:
        """Return what the API says of the token: user, project, roles, expiry."""
        self.token()
        return self._issued

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _issue(self) -> str:
        cloud = self.cloud
        domain = {"name": cloud.domain}
        user = {"name": cloud.username, "domain": domain, "password": cloud.password}
        auth: dict[str, Any] = {"identity": {"methods": ["password"], "password": {"user": user}}}
        if cloud.project:
            auth["scope"] = {"project": {"name": cloud.project, "domain": domain}}
        payload = json.dumps({"auth": auth}).encode()
        headers = {**AGENT, "Content-Type": "application/json", "Accept": "application/json"}
        path = "/identity/v3/auth/tokens"
        reply = _checked(*self._exchange("POST", path, payload, headers, again=True))
        self._issued = reply.body.get("token", {})
        return reply.headers["x-subject-token"]

    def _exchange(
        self,
        method: str,
        path: str,
        payload: bytes | IO[bytes] | None,
        headers: dict[str, str],
        *,
        again: bool,
    ) -> tuple[int, dict[str, str], bytes]:
        """Exchange a request for its answer; ``again`` says to repeat it if the connection breaks.

        An answer to what is repeated lacks what is told once, a secret say.
        """
        import http.client

        waits = again or "Idempotency-Key" in headers
        patient_until = time.monotonic() + PATIENCE_S
        broken = False
        while True:
            connection = self._connect()
            try:
                connection.request(method, self._prefix + path, payload, headers)
                answer = connection.getresponse()
                content = answer.read(READ_BYTES_MAX)
            except (OSError, http.client.HTTPException) as error:
                self.close()
                if broken or not again:
                    raise self._unreachable(error) from error
                broken = True
                continue
            found = {k.lower(): v for k, v in answer.getheaders()}
            pause = found.get("retry-after", "")
            if waits and answer.status == UNAVAILABLE and pause.isdecimal():
                left = patient_until - time.monotonic()
                if int(pause) < left:
                    time.sleep(int(pause))
                    continue
            return answer.status, found, content

    def _connect(self) -> "http.client.HTTPConnection":
        import http.client

        if self._connection is None:
            parts = urllib.parse.urlsplit(self.cloud.url)
            try:
                port = parts.port
            except ValueError:
                port = -1
            if parts.scheme not in {"http", "https"} or not parts.hostname or port == -1:
                raise Problem(
                    f"{self.cloud.url!r} is not an http(s) address", exit_code=UNREACHABLE
                )
            if parts.scheme == "https":
                self._connection = http.client.HTTPSConnection(
                    parts.hostname, port, timeout=self.timeout_s, context=self._trust()
                )
            else:
                self._connection = http.client.HTTPConnection(
                    parts.hostname, port, timeout=self.timeout_s
                )
        return self._connection

    def _trust(self) -> "ssl.SSLContext":
        """Return whom to believe that they are the API."""
        import ssl

        try:
            return ssl.create_default_context(cafile=self.cloud.authority or None)
        except OSError as error:
            raise Problem(
                f"cannot read {self.cloud.authority}: {error.strerror or error}", exit_code=USAGE
            ) from error

    @property
    def _prefix(self) -> str:
        return urllib.parse.urlsplit(self.cloud.url).path

    def _guarded[T](self, act: Callable[[], T]) -> T:
        import http.client

        try:
            return act()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> Problem:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return Problem(
            f"cannot reach {self.cloud.url}: {reason or type(error).__name__}",
            hint="Is the cloud up? `cumulog status` tells; `script/up` starts it.",
            exit_code=UNREACHABLE,
        )


def with_query(path: str, query: dict[str, Any]) -> str:
    """Return the path with its parameters, None left out."""
    given = {key: value for key, value in query.items() if value is not None}
    return f"{path}?{urllib.parse.urlencode(given)}" if given else path


def quoted(text: str) -> str:
    """Return text as one part of a path."""
    return urllib.parse.quote(text, safe="")


def _checked(status: int, headers: dict[str, str], content: bytes) -> Reply:
    headers = {key.lower(): value for key, value in headers.items()}
    body: Any = None
    if content:
        try:
            body = json.loads(content)
        except ValueError:
            body = content.decode(errors="replace")
    if status < 400:
        return Reply(status, headers, body)
    import http

    message, hint = refusal(body)
    phrase = next((s.phrase for s in http.HTTPStatus if s == status), "")
    raise Problem(
        message or f"the API answered {status} {phrase}".rstrip(),
        hint=hint,
        request_id=headers.get("x-openstack-request-id", headers.get("x-compute-request-id", "")),
        status=status,
        exit_code=UNREACHABLE if status in {502, 503, 504} else REFUSED,
    )


def refusal(body: Any) -> tuple[str, str]:
    """Return what an error body says, and its hint, in whichever service's shape it comes.

    Keystone: {"error": {"message"}}; Nova: {"badRequest": {"message"}}; Neutron:
    {"NeutronError": {"message", "detail"}}; native: RFC 9457 with "detail" and "hint".
    """
    if isinstance(body, str):
        return " ".join(body.split())[:500], ""
    if not isinstance(body, dict):
        return "", ""
    if isinstance(detail := body.get("detail") or body.get("title"), str):
        return detail, str(body.get("hint", ""))
    for inner in body.values():
        if isinstance(inner, dict) and isinstance(message := inner.get("message"), str):
            return message, str(inner.get("hint", ""))
    if isinstance(message := body.get("message"), str):
        return message, str(body.get("hint", ""))
    return json.dumps(body)[:500], ""
