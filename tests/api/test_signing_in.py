"""Signing in over HTTP: what passwords must be, who is kept out, several factors, receipts."""

import base64
import json
import secrets
import time
from collections.abc import Callable, Iterator

import pytest
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP

from tests.api.conftest import Api, Cloud, Reply, credentials, fresh
from tests.cli.running import run

TOKENS = "/identity/v3/auth/tokens"
KEYSTONES = r"^(?=.*\d)(?=.*[a-zA-Z]).{7,}$"

type SetPolicy = Callable[..., None]


@pytest.fixture
def policy(cloud: Cloud) -> Iterator[SetPolicy]:
    """Set the password policy for one test."""

    def put(**rules: object) -> None:
        action = {"type": "SetPasswordPolicy", "policy": rules}
        reply = cloud.admin("POST", "/v1/actions", action)
        assert reply.status == 200, reply

    yield put
    put()


def user(cloud: Cloud, password: str = "first-1") -> dict:
    wish = {"name": fresh("user"), "password": password}
    return cloud.admin.made("/identity/v3/users", {"user": wish})


def options(cloud: Cloud, who: dict, **chosen: object) -> None:
    action = {"type": "UpdateUser", "user_id": who["id"], "options": chosen}
    reply = cloud.admin("POST", "/v1/actions", action)
    assert reply.status == 200, reply


def sign_in(cloud: Cloud, who: dict, password: str) -> Reply:
    return cloud.anyone("POST", TOKENS, credentials(who["name"], password))


def change(cloud: Cloud, who: dict, old: str, new: str) -> Reply:
    body = {"user": {"original_password": old, "password": new}}
    return cloud.anyone("POST", f"/identity/v3/users/{who['id']}/password", body)


def message(reply: Reply) -> str:
    return reply.body["error"]["message"].partition(" (request id")[0]


def test_a_password_is_as_the_operator_wants_it(cloud: Cloud, policy: SetPolicy):
    policy(pattern=KEYSTONES, pattern_hint="a letter, a digit, seven characters", length_min=5)
    wish = {"name": fresh("user"), "password": "letters-only"}

    refused = cloud.admin("POST", "/identity/v3/users", {"user": wish})
    ann = user(cloud, "letters-and-1")
    short = change(cloud, ann, "letters-and-1", "a1")
    patched = cloud.admin(
        "PATCH", f"/identity/v3/users/{ann['id']}", {"user": {"password": "1234567"}}
    )

    assert refused.status == 400
    assert "a letter, a digit, seven characters" in message(refused)
    assert b"letters-only" not in refused.raw
    assert (short.status, patched.status) == (400, 400)
    assert "at least 5" in message(short)
    compliance = cloud.demo("GET", "/identity/v3/domains/default/config/security_compliance")
    assert compliance.body["config"]["security_compliance"] == {
        "password_regex": KEYSTONES,
        "password_regex_description": "a letter, a digit, seven characters; at least 5 characters",
    }
    one = "/identity/v3/domains/default/config/security_compliance"
    assert cloud.demo("GET", f"{one}/password_regex").body["config"] == {
        "password_regex": KEYSTONES
    }
    assert cloud.demo("GET", f"{one}/lockout_duration").status == 400
    told = cloud.demo("GET", "/v1/password-policy").body["password_policy"]
    assert (told["length_min"], told["pattern"]) == (5, KEYSTONES)


def test_a_pattern_that_cannot_be_used_is_refused(cloud: Cloud):
    for pattern in ("(", "((((a{1,100}){1,100}){1,100}){1,100}){1,100}"):
        action = {"type": "SetPasswordPolicy", "policy": {"pattern": pattern}}
        assert cloud.admin("POST", "/v1/actions", action).status == 400


def test_an_earlier_password_is_not_taken_again(cloud: Cloud, policy: SetPolicy):
    policy(history=3)
    ann = user(cloud, "first-1")
    assert change(cloud, ann, "first-1", "second-2").status == 204

    same = change(cloud, ann, "second-2", "second-2")
    earlier = change(cloud, ann, "second-2", "first-1")

    assert (same.status, earlier.status) == (400, 400)
    assert "last 3" in message(earlier)
    assert change(cloud, ann, "second-2", "third-3").status == 204
    assert change(cloud, ann, "third-3", "fourth-4").status == 204
    assert change(cloud, ann, "fourth-4", "first-1").status == 204, "it is the fourth before"


def test_an_expired_password_is_changed_without_a_token(cloud: Cloud, policy: SetPolicy):
    policy(change_upon_first_use=True, expires_days=30)
    ann = user(cloud, "first-1")
    assert ann["password_expires_at"] is not None

    expired = sign_in(cloud, ann, "first-1")
    wrong = sign_in(cloud, ann, "not it")

    assert (expired.status, wrong.status) == (401, 401)
    assert f"/identity/v3/users/{ann['id']}/password" in message(expired)
    assert message(wrong) == "The user, password or scope is not right. Get a new token."
    assert change(cloud, ann, "not it", "second-2").status == 401
    assert change(cloud, ann, "first-1", "second-2").status == 204
    token = sign_in(cloud, ann, "second-2")
    assert token.status == 201
    assert token.body["token"]["user"]["password_expires_at"] is not None


def test_a_user_can_be_excepted_from_expiry(cloud: Cloud, policy: SetPolicy):
    policy(change_upon_first_use=True)
    ann = user(cloud, "first-1")
    options(cloud, ann, ignore_password_expiry=True)

    token = sign_in(cloud, ann, "first-1")

    assert token.status == 201
    assert token.body["token"]["user"]["password_expires_at"] is None


def test_a_locked_password_is_not_changed_by_its_user(cloud: Cloud):
    ann = user(cloud, "first-1")
    options(cloud, ann, lock_password=True)

    assert change(cloud, ann, "first-1", "second-2").status == 403
    assert sign_in(cloud, ann, "first-1").status == 201


def test_who_guesses_is_locked_out_and_not_told(cloud: Cloud, policy: SetPolicy):
    policy(lockout_attempts=3, lockout_s=3600)
    ann, bob, service = user(cloud), user(cloud), user(cloud)
    options(cloud, service, ignore_lockout_failure_attempts=True)

    wrong = [sign_in(cloud, ann, "guess") for _ in range(3)]
    right = sign_in(cloud, ann, "first-1")
    for _ in range(4):
        sign_in(cloud, service, "guess")

    assert [reply.status for reply in (*wrong, right)] == [401] * 4
    assert message(right) == message(wrong[0])
    assert change(cloud, ann, "first-1", "second-2").status == 401
    assert sign_in(cloud, bob, "first-1").status == 201
    assert sign_in(cloud, service, "first-1").status == 201
    metrics = cloud.anyone("GET", "/metrics").raw.decode()
    assert "cumulog_sign_in_lockouts_total 1.0" in metrics
    assert "cumulog_sign_ins_locked_out_total 2.0" in metrics
    told = (cloud.up.state_dir / "log" / "api.log").read_text()
    assert any("user_locked_out" in line and ann["id"] in line for line in told.splitlines())


def test_an_operator_sets_the_policy_from_the_command_line(cloud: Cloud, policy: SetPolicy):
    policy(history=2)
    place = ["--state-dir", str(cloud.up.state_dir), "-o", "json"]
    admin = ["admin", "password-policy"]

    done = run(*admin, "set", "--length-min", "9", "--change-upon-first-use", *place)
    bad = run(*admin, "set", "--pattern", "(", *place)
    shown = run(*admin, "show", *place)

    assert done.code == 0, done
    assert bad.code != 0
    assert "pattern cannot be used" in bad.errors
    assert json.loads(shown.output) == json.loads(done.output)
    told = json.loads(shown.output)
    assert (told["length_min"], told["history"], told["change_upon_first_use"]) == (9, 2, True)


class Codes:
    """What a person holds: a secret that gives a code for now."""

    def __init__(self, cloud: Cloud, who: dict) -> None:
        secret = secrets.token_bytes(20)
        self.who = who
        self.totp = TOTP(secret, 6, SHA1(), 30)
        self.blob = base64.b32encode(secret).decode()
        wish = {"type": "totp", "blob": self.blob, "user_id": who["id"]}
        cloud.admin.made("/identity/v3/credentials", {"credential": wish})

    def now(self, steps: int = 0) -> str:
        return self.totp.generate(int(time.time()) + 30 * steps).decode()

    def identity(self, code: str) -> dict:
        return {"totp": {"user": {"id": self.who["id"], "passcode": code}}}


def by(cloud: Cloud, *methods: str, receipt: str = "", **identity: object) -> Reply:
    body = {"auth": {"identity": {"methods": methods, **identity}}}
    headers = {"Openstack-Auth-Receipt": receipt} if receipt else {}
    return cloud.anyone("POST", TOKENS, body, headers=headers)


def password(who: dict, text: str = "first-1") -> dict:
    return {"password": {"user": {"id": who["id"], "password": text}}}


def test_a_code_signs_in_once(cloud: Cloud):
    ann, bob = user(cloud), user(cloud)
    codes = Codes(cloud, ann)
    code = codes.now()

    first, again = (by(cloud, "totp", **codes.identity(code)) for _ in range(2))
    other = by(cloud, "totp", totp={"user": {"id": bob["id"], "passcode": codes.now(1)}})

    assert first.status == 201, first
    assert first.body["token"]["methods"] == ["totp"]
    assert (again.status, other.status) == (401, 401)
    for wrong in ("", "12345", "abcdef", "١٢٣٤٥٦", "1" * 100):
        assert by(cloud, "totp", **codes.identity(wrong)).status == 401
    events = cloud.admin("GET", f"/v1/events?user_id={ann['id']}").raw
    assert codes.blob.encode() not in events


def test_guessing_codes_is_bounded_without_a_rule(cloud: Cloud):
    ann = user(cloud)
    codes = Codes(cloud, ann)
    for _ in range(10):
        assert by(cloud, "totp", **codes.identity("000000")).status == 401

    assert by(cloud, "totp", **codes.identity(codes.now())).status == 401
    assert sign_in(cloud, ann, "first-1").status == 201, "a password may still be shown"


def test_a_password_gives_no_more_guesses_at_codes(cloud: Cloud):
    ann = user(cloud)
    codes = Codes(cloud, ann)
    for _ in range(10):
        guess = by(cloud, "password", "totp", **password(ann), **codes.identity("000000"))
        assert guess.status == 401

    both = by(cloud, "password", "totp", **password(ann), **codes.identity(codes.now()))

    assert both.status == 401


def test_several_factors_are_proven_at_once_or_with_a_receipt(cloud: Cloud):
    ann = user(cloud)
    codes = Codes(cloud, ann)
    options(
        cloud,
        ann,
        multi_factor_auth_enabled=True,
        multi_factor_auth_rules=[["password", "totp"]],
    )

    half = by(cloud, "password", **password(ann))
    wrong = by(cloud, "password", **password(ann, "not it"))
    assert (half.status, wrong.status) == (401, 401)
    receipt = half.headers["openstack-auth-receipt"]
    assert half.body["required_auth_methods"] == [["password", "totp"]]
    assert half.body["receipt"]["methods"] == ["password"]
    assert "openstack-auth-receipt" not in wrong.headers
    assert Api(cloud.url, receipt)("GET", "/v1/status").status == 401, "a receipt is no token"

    bad = by(cloud, "totp", receipt=receipt, **codes.identity("000000"))
    other = user(cloud)
    stolen = by(cloud, "password", receipt=receipt, **password(other))
    no_receipt = by(cloud, "totp", receipt="x" * 100, **codes.identity(codes.now(-1)))
    token = sign_in(cloud, other, "first-1").headers["x-subject-token"]
    a_token = by(cloud, "password", receipt=token, **password(other))
    done = by(cloud, "totp", receipt=receipt, **codes.identity(codes.now()))

    assert (bad.status, stolen.status, no_receipt.status) == (401, 401, 401)
    assert a_token.status == 401, "nor is a token a receipt"
    assert done.status == 201, done
    assert set(done.body["token"]["methods"]) == {"password", "totp"}
    both = by(cloud, "password", "totp", **password(ann), **codes.identity(codes.now(1)))
    assert both.status == 201, both
    token = both.headers["x-subject-token"]
    rescoped = by(cloud, "token", token={"id": token})
    assert rescoped.status == 201, "a token has what it was got with"
