"""The safety of the local AWS, point by point."""

import hashlib
import http.client
import json
import socket
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore.credentials
import httpx
import pytest
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.exceptions import ClientError

from deployments.local_aws.account import Credentials
from deployments.local_aws.protocol import AwsError
from deployments.local_aws.server import LocalAws, running
from deployments.local_aws.signatures import SignatureCheck

BUCKET = "security-tests"


@pytest.fixture(scope="module")
def bucket(local_aws: LocalAws) -> str:
    client = local_aws.account.client("s3")
    client.create_bucket(Bucket=BUCKET)
    client.put_object(Bucket=BUCKET, Key="a/ä +b", Body=b"secret")
    return BUCKET


def signed_headers(aws: LocalAws, path: str, *, method: str = "GET", body: bytes = b"") -> dict[str, str]:
    """Return the headers of a rightly signed S3 request."""
    credentials = aws.account.credentials
    request = AWSRequest(method, f"{aws.endpoint_url}{path}", data=body)
    signer = S3SigV4Auth(
        botocore.credentials.Credentials(credentials.access_key_id, credentials.secret_access_key), "s3", "us-east-1"
    )
    signer.add_auth(request)
    return {**dict(request.headers.items()), "Host": urlsplit(aws.endpoint_url).netloc}


def get(aws: LocalAws, path: str, headers: dict[str, str], method: str = "GET") -> tuple[int, str]:
    """Send exactly these headers; returns status and body."""
    connection = http.client.HTTPConnection(urlsplit(aws.endpoint_url).netloc, timeout=10)
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    response = connection.getresponse()
    return response.status, response.read().decode()


def test_a_rightly_signed_request_is_answered(local_aws: LocalAws, bucket: str) -> None:
    path = f"/{bucket}?list-type=2"
    assert get(local_aws, path, signed_headers(local_aws, path))[0] == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost:1", "evil.example:80", ""])
def test_another_host_name_is_refused(local_aws: LocalAws, bucket: str, host: str) -> None:
    """DNS rebinding: a page's own name made to resolve to 127.0.0.1."""
    headers = signed_headers(local_aws, f"/{bucket}") | {"Host": host}
    assert get(local_aws, f"/{bucket}", headers)[0] == 403


def test_localhost_is_its_name_too(local_aws: LocalAws) -> None:
    url = local_aws.endpoint_url.replace("127.0.0.1", "localhost")
    assert boto3.client("sts", endpoint_url=url).get_caller_identity()["Account"] == "123456789012"


@pytest.mark.parametrize(
    "header",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Referer": "https://evil.example/page"},
        {"Referer": "http://127.0.0.1:1/page"},
    ],
)
def test_requests_of_web_pages_are_refused(local_aws: LocalAws, bucket: str, header: dict[str, str]) -> None:
    path = f"/{bucket}"
    status, body = get(local_aws, path, signed_headers(local_aws, path) | header)
    assert status == 403
    assert "local AWS takes no requests" in body


def test_a_preflight_learns_nothing(local_aws: LocalAws, bucket: str) -> None:
    host = urlsplit(local_aws.endpoint_url).netloc
    headers = {"Host": host, "Origin": "https://evil.example", "Access-Control-Request-Method": "PUT"}
    assert get(local_aws, f"/{bucket}", headers, "OPTIONS")[0] == 403


def test_no_answer_allows_another_origin(local_aws: LocalAws, bucket: str) -> None:
    """Flask-CORS, which moto turns on, would reflect any."""
    headers = signed_headers(local_aws, f"/{bucket}")
    answer = httpx.get(f"{local_aws.endpoint_url}/{bucket}", headers=headers)
    assert answer.status_code == 200
    assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize("path", ["/moto-api/", "/moto-api/data.json", "/moto-api/reset", "/latest/meta-data/", "/"])
def test_nothing_is_open_to_unsigned_requests(local_aws: LocalAws, path: str) -> None:
    host = {"Host": urlsplit(local_aws.endpoint_url).netloc}
    status, body = get(local_aws, path, host)
    assert status == 403
    assert "AccessDenied" in body


@pytest.mark.parametrize("path", ["/moto-api/data.json", "/latest/meta-data/iam"])
def test_the_emulators_own_pages_are_not_there_even_signed(local_aws: LocalAws, path: str) -> None:
    status, body = get(local_aws, path, signed_headers(local_aws, path))
    assert status == 404
    assert "NoSuchBucket" in body


def test_unsigned_refusals_speak_the_protocol_of_the_request(local_aws: LocalAws) -> None:

    answer = httpx.post(local_aws.endpoint_url, headers={"X-Amz-Target": "SageMaker.ListModels"}, content=b"{}")
    assert answer.json()["__type"] == "MissingAuthenticationTokenException"
    answer = httpx.post(local_aws.endpoint_url, data={"Action": "GetCallerIdentity"})
    assert "<Code>MissingAuthenticationToken</Code>" in answer.text


@pytest.mark.parametrize(
    ("service", "call", "code"),
    [
        ("s3", "list_buckets", "SignatureDoesNotMatch"),
        ("sts", "get_caller_identity", "SignatureDoesNotMatch"),
        ("sagemaker", "list_models", "InvalidSignatureException"),
    ],
)
def test_a_wrong_secret_is_refused_in_the_services_words(
    local_aws: LocalAws, service: str, call: str, code: str
) -> None:
    key = local_aws.account.credentials.access_key_id
    client: Any = boto3.client(service, aws_access_key_id=key, aws_secret_access_key="guess")  # type: ignore[call-overload]
    with pytest.raises(ClientError) as failure:
        getattr(client, call)()
    assert failure.value.response["Error"]["Code"] == code


@pytest.mark.parametrize(
    ("service", "call", "code"),
    [
        ("s3", "list_buckets", "InvalidAccessKeyId"),
        ("sts", "get_caller_identity", "InvalidClientTokenId"),
        ("sagemaker", "list_models", "UnrecognizedClientException"),
    ],
)
@pytest.mark.usefixtures("local_aws")
def test_keys_from_elsewhere_are_refused_in_the_services_words(service: str, call: str, code: str) -> None:
    client: Any = boto3.client(  # type: ignore[call-overload]
        service, aws_access_key_id="AKIAIOSFODNN7EXAMPLE", aws_secret_access_key="any"
    )
    with pytest.raises(ClientError) as failure:
        getattr(client, call)()
    assert failure.value.response["Error"]["Code"] == code


def test_a_changed_body_is_found(local_aws: LocalAws, bucket: str) -> None:
    headers = signed_headers(local_aws, f"/{bucket}/x", method="PUT", body=b"signed")
    answer = httpx.put(f"{local_aws.endpoint_url}/{bucket}/x", headers=headers, content=b"sneaky")
    assert (answer.status_code, "XAmzContentSHA256Mismatch" in answer.text) == (400, True)


def test_a_changed_body_of_a_query_request_is_found(local_aws: LocalAws) -> None:
    """It declares no hash of its body, so the hash is computed."""
    credentials = local_aws.account.credentials
    request = AWSRequest("POST", f"{local_aws.endpoint_url}/", data=b"Action=GetCallerIdentity&Version=2011-06-15")
    SigV4Auth(
        botocore.credentials.Credentials(credentials.access_key_id, credentials.secret_access_key), "sts", "us-east-1"
    ).add_auth(request)
    headers = {**dict(request.headers.items()), "Content-Type": "application/x-www-form-urlencoded"}
    answer = httpx.post(f"{local_aws.endpoint_url}/", headers=headers, content=b"Action=GetSessionToken")
    assert (answer.status_code, "SignatureDoesNotMatch" in answer.text) == (403, True)


@pytest.mark.parametrize("part", ["path", "query", "method", "header"])
def test_whatever_is_changed_after_signing_is_found(local_aws: LocalAws, bucket: str, part: str) -> None:
    headers = signed_headers(local_aws, f"/{bucket}/a")
    changed = {
        "path": ("GET", f"/{bucket}/b", headers),
        "query": ("GET", f"/{bucket}/a?versionId=1", headers),
        "method": ("DELETE", f"/{bucket}/a", headers),
        "header": ("GET", f"/{bucket}/a", headers | {"X-Amz-Acl": "public-read"}),
    }[part]
    method, path, sent = changed
    assert get(local_aws, path, sent, method)[0] == 403


def verify_after(aws: LocalAws, minutes: int) -> str:
    """Verify a request of now with a clock that is minutes ahead."""
    headers = signed_headers(aws, "/b")
    environ: dict[str, Any] = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items()}
    environ |= {"REQUEST_METHOD": "GET", "REQUEST_URI": "/b", "QUERY_STRING": "", "wsgi.input": BytesIO()}
    later = datetime.now(UTC) + timedelta(minutes=minutes)
    return SignatureCheck(aws.account.find_credentials, "us-east-1", lambda: later).verify(environ)


def test_a_clock_may_be_a_little_off(local_aws: LocalAws) -> None:
    assert verify_after(local_aws, 14) == "s3"


@pytest.mark.parametrize("minutes", [16, -16])
def test_old_requests_cannot_be_sent_again(local_aws: LocalAws, minutes: int) -> None:
    with pytest.raises(AwsError, match="RequestTimeTooSkewed"):
        verify_after(local_aws, minutes)


@pytest.mark.parametrize("version", ["s3", "s3v4"])
def test_a_presigned_url_opens_one_object_until_it_expires(local_aws: LocalAws, bucket: str, version: str) -> None:
    """Both kinds: boto3 makes version 2 unless told otherwise."""
    client = boto3.client("s3", config=Config(signature_version=version, s3={"addressing_style": "path"}))
    url = client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "a/ä +b"}, ExpiresIn=60)
    assert httpx.get(url).content == b"secret"
    assert httpx.get(url.replace(bucket, "other-bucket")).status_code == 403
    assert httpx.put(url, content=b"overwritten").status_code == 403
    expired = client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "a/ä +b"}, ExpiresIn=-1)
    assert httpx.get(expired).status_code in (400, 403)
    assert local_aws.account.client("s3").get_object(Bucket=bucket, Key="a/ä +b")["Body"].read() == b"secret"


@pytest.mark.usefixtures("local_aws")
def test_a_presigned_url_can_take_an_upload(bucket: str) -> None:
    client = boto3.client("s3", config=Config(signature_version="s3v4"))
    url = client.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "uploaded"})
    assert httpx.put(url, content=b"new").status_code == 200
    assert client.get_object(Bucket=bucket, Key="uploaded")["Body"].read() == b"new"


def assume(aws: LocalAws) -> dict[str, str]:
    role = boto3.client("iam").create_role(
        RoleName=f"role-{hashlib.sha256(datetime.now(UTC).isoformat().encode()).hexdigest()[:8]}",
        AssumeRolePolicyDocument=json.dumps(
            {
                "Version": "2012-10-17",
                "Statement": {
                    "Effect": "Allow",
                    "Principal": {"AWS": f"arn:aws:iam::{aws.account.account_id}:root"},
                    "Action": "sts:AssumeRole",
                },
            }
        ),
    )["Role"]
    credentials = boto3.client("sts").assume_role(RoleArn=role["Arn"], RoleSessionName="tests")["Credentials"]
    return {
        "aws_access_key_id": credentials["AccessKeyId"],
        "aws_secret_access_key": credentials["SecretAccessKey"],
        "aws_session_token": credentials["SessionToken"],
    }


def test_an_assumed_role_can_call(local_aws: LocalAws) -> None:
    identity = boto3.client("sts", **assume(local_aws)).get_caller_identity()  # type: ignore[call-overload]
    assert identity["Arn"].endswith("/tests")


@pytest.mark.parametrize("token", [None, "another"])
def test_temporary_keys_need_their_token(local_aws: LocalAws, token: str | None) -> None:
    client: Any = boto3.client("s3", **(assume(local_aws) | {"aws_session_token": token}))  # type: ignore[call-overload]
    with pytest.raises(ClientError, match="InvalidToken"):
        client.list_buckets()


def test_temporary_keys_expire(local_aws: LocalAws) -> None:
    key, secret, token = assume(local_aws).values()
    past = Credentials(key, secret, token, datetime.now(UTC) - timedelta(seconds=1))
    headers = signed_headers(local_aws, "/b") | {"X-Amz-Security-Token": token}
    headers["Authorization"] = headers["Authorization"].replace(local_aws.account.credentials.access_key_id, key)
    environ = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items()}
    with pytest.raises(AwsError, match="ExpiredToken"):
        SignatureCheck(lambda _key: past, "us-east-1").verify(environ)


@pytest.mark.usefixtures("local_aws")
def test_a_users_key_works_until_it_is_made_inactive() -> None:
    iam = boto3.client("iam")
    iam.create_user(UserName="worker")
    key = iam.create_access_key(UserName="worker")["AccessKey"]
    client = boto3.client("sts", aws_access_key_id=key["AccessKeyId"], aws_secret_access_key=key["SecretAccessKey"])
    assert client.get_caller_identity()["Arn"].endswith(":user/worker")
    iam.update_access_key(UserName="worker", AccessKeyId=key["AccessKeyId"], Status="Inactive")
    with pytest.raises(ClientError, match="InvalidClientTokenId"):
        client.get_caller_identity()


@pytest.mark.usefixtures("local_aws")
def test_another_region_is_refused() -> None:
    with pytest.raises(ClientError, match="expecting 'us-east-1'"):
        boto3.client("sagemaker", region_name="eu-west-1").list_models()


@pytest.mark.usefixtures("local_aws")
def test_moto_cannot_be_asked_for_another_account() -> None:
    client = boto3.client("sts")
    client.meta.events.register(
        "before-sign.sts", lambda request, **_: request.headers.add_header("x-moto-account-id", "999999999999")
    )
    assert client.get_caller_identity()["Account"] == "123456789012"


def test_it_listens_on_loopback_only(local_aws: LocalAws) -> None:
    port = urlsplit(local_aws.endpoint_url).port
    assert port
    with socket.socket() as other:
        # Another loopback address stands for every other interface: 0.0.0.0 would take it.
        assert other.connect_ex(("127.0.0.2", port)) != 0


def test_one_process_holds_one(local_aws: LocalAws) -> None:
    """moto's state is global: a second one would share the first one's buckets and keys."""
    with pytest.raises(RuntimeError, match="already"), running(local_aws.account.root):
        pass


def test_a_jobs_environment_has_its_roles_keys_only(local_aws: LocalAws) -> None:
    outputs = boto3.client("cloudformation").describe_stacks(StackName="sagemaker-flows")["Stacks"][0]["Outputs"]
    role = {output["OutputKey"]: output["OutputValue"] for output in outputs}["TrainingRoleArn"]
    environment = local_aws.account.role_environment(role)
    assert set(environment) == {
        "AWS_ENDPOINT_URL",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
    }
    assert local_aws.account.credentials.secret_access_key not in environment.values()
    arn = local_aws.account.client("sts", role).get_caller_identity()["Arn"]
    assert arn.endswith(f"assumed-role/{role.rpartition('/')[2]}/SageMaker")


@pytest.mark.parametrize("role", ["arn:aws:iam::123456789012:role/nobody", "trusts-lambda"])
def test_a_role_that_sagemaker_cannot_assume_is_refused(local_aws: LocalAws, role: str) -> None:
    if role == "trusts-lambda":
        statement = {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
        document = {"Version": "2012-10-17", "Statement": [statement]}
        created = boto3.client("iam").create_role(RoleName=role, AssumeRolePolicyDocument=json.dumps(document))
        role = created["Role"]["Arn"]
    with pytest.raises(AwsError, match="Could not assume role"):
        local_aws.account.client("s3", role)
