"""An OpenID Connect issuer as a process of its own, which signs whatever a test wants.

Its keys, metadata and token endpoint are real; what a real one would never sign is asked for at
``/sign``. Run as ``python -m tests.api.issuer PORT``.
"""

import base64
import hashlib
import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

from tests.cli.running import clean_environment, eventually


class Issuer(ThreadingHTTPServer):
    """Keys that can be rotated, and codes that are good once."""

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.key = RSAKey.generate_key(2048, {"use": "sig", "kid": "k1"})
        self.hidden = RSAKey.generate_key(2048, {"use": "sig", "kid": "k1"})
        self.codes: dict[str, dict[str, Any]] = {}
        self.asked = 0

    def sign(self, wish: dict[str, Any]) -> str:
        """Return a token: by the published key, or by another that calls itself the same."""
        key = self.hidden if wish.get("hidden") else self.key
        head = {"alg": "RS256", "kid": key.kid} | wish.get("head", {})
        return jwt.encode(head, wish["claims"], key, algorithms=["RS256"])


class Handler(BaseHTTPRequestHandler):
    """Answers as an issuer does."""

    server: Issuer

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:  # http.server's name
        issuer, path = self.server, urlsplit(self.path).path
        match path:
            case "/.well-known/openid-configuration":
                told = {"issuer": issuer.url, "jwks_uri": f"{issuer.url}/jwks"}
                told["authorization_endpoint"] = f"{issuer.url}/authorize"
                told["token_endpoint"] = f"{issuer.url}/token"
                self._tell(told)
            case "/jwks":
                issuer.asked += 1
                self._tell(KeySet([issuer.key]).as_dict(private=False))
            case "/asked":
                self._tell({"asked": issuer.asked})
            case _:
                self._tell({}, 404)

    def do_POST(self) -> None:  # http.server's name
        issuer = self.server
        body = self.rfile.read(int(self.headers["Content-Length"]))
        match self.path:
            case "/sign":
                self._tell({"token": issuer.sign(json.loads(body))})
            case "/rotate":
                kid = json.loads(body)["kid"]
                issuer.key = RSAKey.generate_key(2048, {"use": "sig", "kid": kid})
                self._tell({})
            case "/code":
                wish = json.loads(body)
                issuer.codes[wish["code"]] = wish
                self._tell({})
            case "/token":
                self._redeem(dict(parse_qsl(body.decode())))
            case _:
                self._tell({}, 404)

    def _redeem(self, form: dict[str, str]) -> None:
        """Give a token for a code, once, to who knows what was hashed (RFC 7636)."""
        wish = self.server.codes.pop(form["code"], None)
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if (
            wish is None
            or wish["challenge"] != challenge
            or wish["redirect_uri"] != form["redirect_uri"]
            or wish["secret"] != form.get("client_secret")
        ):
            self._tell({"error": "invalid_grant"}, 400)
            return
        self._tell({"token_type": "Bearer", "id_token": self.server.sign(wish)})

    def _tell(self, value: object, status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Remote:
    """The issuer's process, as a test drives it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def _call(self, method: str, path: str, body: object = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()
            return json.loads(answer.read())
        finally:
            connection.close()

    def token(self, claims: dict[str, Any], **wish: Any) -> str:
        return self._call("POST", "/sign", {"claims": claims, **wish})["token"]

    def code(self, **wish: Any) -> None:
        self._call("POST", "/code", wish)

    def rotate(self, kid: str) -> None:
        self._call("POST", "/rotate", {"kid": kid})

    @property
    def asked(self) -> int:
        """How often it was asked for its keys."""
        return self._call("GET", "/asked")["asked"]

    def answers(self) -> bool:
        try:
            return self.asked >= 0
        except OSError:
            return False


@contextmanager
def running(port: int) -> Iterator[Remote]:
    """Run an issuer."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.api.issuer", str(port)], env=clean_environment()
    )
    remote = Remote(port)
    try:
        eventually(remote.answers, "the issuer answers")
        yield remote
    finally:
        process.terminate()
        process.wait(30)


if __name__ == "__main__":
    Issuer(int(sys.argv[1])).serve_forever()
