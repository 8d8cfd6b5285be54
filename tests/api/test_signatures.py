"""Signatures of Amazon's APIs: those of its own examples, and those of Keystone's client."""

import base64
import hashlib
import hmac
from datetime import UTC, datetime, timedelta

import pytest
from keystoneclient.contrib.ec2.utils import Ec2Signer
from msgspec.structs import replace

from api.signatures import SignedRequest, is_signed, is_signed_for_s3, string_to_sign
from tests.api.conftest import Api, Cloud

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"  # of Amazon's documentation
NOW = datetime(2026, 11, 28, 12, 0, 0, tzinfo=UTC)
V4_TEXT = (
    b"AWS4-HMAC-SHA256\n20130524T000000Z\n20130524/us-east-1/s3/aws4_request\n"
    b"7344ae5b7ee6c3e7e6b0fe0640412a37625d1fbfff95c48bbb2dc43964946972"
)
V4_SIGNATURE = "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
V2_TEXT = b"GET\n\n\nTue, 27 Mar 2007 19:36:42 +0000\n/awsexamplebucket1/photos/puppy.jpg"
V2_SIGNATURE = "qgk2+6Sv9/oM7G3qLEjTH1a1l1g="


def version_2(secret: str, at: datetime = NOW, **other: str) -> SignedRequest:
    params = {
        "AWSAccessKeyId": "access",
        "Action": "DescribeInstances",
        "SignatureVersion": "2",
        "SignatureMethod": "HmacSHA256",
        "Timestamp": at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "Filter.1": "a b/ü~*",
    } | other
    told = {"params": dict(params), "verb": "GET", "host": "h:8773", "path": "/services/Cloud"}
    signature = Ec2Signer(secret).generate(told)
    return SignedRequest("access", signature, "h:8773", "GET", "/services/Cloud", params)


def version_4(secret: str, at: datetime = NOW, verb: str = "GET") -> SignedRequest:
    day, date = at.strftime("%Y%m%d"), at.strftime("%Y%m%dT%H%M%SZ")
    signed = "host;x-amz-date"
    headers = {
        "Host": "h:8773",
        "X-Amz-Date": date,
        "Authorization": f"AWS4-HMAC-SHA256 Credential=access/{day}/r/ec2/aws4_request,"
        f" SignedHeaders={signed}, Signature=x",
    }
    params = {"Action": "DescribeInstances", "Name": "a b/ü~"}
    body_hash = hashlib.sha256(b"body").hexdigest()
    told = {"params": params, "verb": verb, "host": "h:8773", "path": "/", "headers": headers}
    signature = Ec2Signer(secret).generate(told | {"body_hash": body_hash})
    return SignedRequest("access", signature, "h:8773", verb, "/", params, headers, body_hash)


REQUESTS = {
    "version 2": version_2(SECRET),
    "version 4": version_4(SECRET),
    "version 4 of a form": version_4(SECRET, verb="POST"),
}


@pytest.mark.parametrize("kind", REQUESTS)
def test_what_was_signed_is_known(kind):
    request = REQUESTS[kind]

    assert is_signed(request, SECRET, NOW)
    assert not is_signed(request, SECRET + "x", NOW)
    for other in (
        replace(request, path="/other"),
        replace(request, verb="DELETE"),
        # What a form says is in its body.
        replace(request, params={}, body_hash="0" * 64),
        replace(request, signature=""),
    ):
        assert not is_signed(other, SECRET, NOW), other


@pytest.mark.parametrize("kind", REQUESTS)
def test_a_signature_is_good_for_a_quarter_of_an_hour(kind):
    for minutes in (-16, 16):
        assert not is_signed(REQUESTS[kind], SECRET, NOW + timedelta(minutes=minutes))
    for minutes in (-14, 14):
        assert is_signed(REQUESTS[kind], SECRET, NOW + timedelta(minutes=minutes))


def test_a_body_is_signed_with_its_request():
    assert not is_signed(replace(version_4(SECRET), body_hash="0" * 64), SECRET, NOW)


@pytest.mark.parametrize(
    "request_",
    [
        SignedRequest("a", "s"),
        SignedRequest("a", "s", params={"SignatureVersion": "2"}),
        SignedRequest("a", "s", params={"SignatureVersion": "2", "Timestamp": "never"}),
        SignedRequest("a", "s", params={"X-Amz-Algorithm": "AWS4-HMAC-SHA256"}),
        SignedRequest("a", "s", headers={"Authorization": "AWS4-HMAC-SHA256 Credential=a/b"}),
    ],
)
def test_what_is_no_signed_request_is_none(request_):
    assert not is_signed(request_, SECRET, NOW)


@pytest.mark.parametrize(("text", "signature"), [(V4_TEXT, V4_SIGNATURE), (V2_TEXT, V2_SIGNATURE)])
def test_what_s3_has_signed_is_known(text, signature):
    assert is_signed_for_s3(text, signature, SECRET)
    assert not is_signed_for_s3(text, signature, SECRET + "x")
    assert not is_signed_for_s3(text + b"x", signature, SECRET)
    assert string_to_sign(base64.b64encode(text).decode()) == text


def test_what_is_no_string_to_sign_is_none():
    for text in (b"AWS4", b"AWS4\n\n", b"AWS4\n\na/b", b""):
        assert not is_signed_for_s3(text, V4_SIGNATURE, SECRET)
    with pytest.raises(ValueError, match="base64"):
        string_to_sign("a")


def asked(request: SignedRequest, access: str) -> dict:
    told = {name: getattr(request, name) for name in request.__struct_fields__}
    return {"credentials": told | {"access": access}}


def test_services_get_a_token_for_what_a_user_has_signed(cloud: Cloud):
    demo, admin = cloud.demo, cloud.admin
    tokens = "/identity/v3/auth/tokens"
    me = demo("GET", tokens, headers={"X-Subject-Token": demo.token}).body["token"]
    path = f"/identity/v3/users/{me['user']['id']}/credentials/OS-EC2"
    key = demo.made(path, {"tenant_id": me["project"]["id"]})
    at = datetime.now(UTC)

    for request in (version_2(key["secret"], at), version_4(key["secret"], at)):
        given = admin("POST", "/identity/v3/ec2tokens", asked(request, key["access"]))
        assert given.status == 200, given
        token = given.body["token"]
        assert (token["user"]["id"], token["project"]["id"]) == (
            me["user"]["id"],
            me["project"]["id"],
        )
        assert token["methods"] == ["ec2credential"]
        api = Api(cloud.url, given.headers["x-subject-token"])
        assert api("GET", "/compute/v2.1/servers").status == 200
        wrong = replace(request, signature=request.signature[:-2] + "00")
        for body in (asked(wrong, key["access"]), asked(request, "nobody")):
            refused = admin("POST", "/identity/v3/ec2tokens", body)
            assert refused.status == 401
            assert "x-subject-token" not in refused.headers
        assert (
            demo("POST", "/identity/v3/ec2tokens", asked(request, key["access"])).status == 403
        ), "who has no part in it is not told"
        assert cloud.anyone("POST", "/identity/v3/ec2tokens", {}).status == 401

    text = b"GET\n\n\nTue, 27 Mar 2007 19:36:42 +0000\n/bucket/key"

    signature = base64.b64encode(
        hmac.new(key["secret"].encode(), text, hashlib.sha1).digest()
    ).decode()
    wish = {
        "access": key["access"],
        "signature": signature,
        "token": base64.b64encode(text).decode(),
    }
    shown = admin("POST", "/identity/v3/s3tokens", {"credentials": wish})
    assert shown.status == 200, shown
    assert shown.body["token"]["user"]["id"] == me["user"]["id"]
    assert "x-subject-token" not in shown.headers
    wish["signature"] = base64.b64encode(b"x" * 20).decode()
    assert admin("POST", "/identity/v3/s3tokens", {"credentials": wish}).status == 401

    assert demo("DELETE", f"{path}/{key['access']}").status == 204
    later = version_4(key["secret"], datetime.now(UTC))
    gone = admin("POST", "/identity/v3/ec2tokens", asked(later, key["access"]))
    assert gone.status == 401
