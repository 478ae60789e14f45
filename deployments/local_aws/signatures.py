"""Check the signature of a request, as AWS does: Signature Version 4, and S3's presigned URLs of both versions.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

import hashlib
import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import botocore.credentials
from botocore.auth import HmacV1QueryAuth
from botocore.compat import HTTPHeaders
from botocore.utils import normalize_url_path
from moto.core.request import PRESERVED_HEADER_NAMES_ENVIRON_KEY

from deployments.local_aws.account import Credentials
from deployments.local_aws.protocol import AwsError

MAX_SKEW = timedelta(minutes=15)
MAX_PRESIGNED_SECONDS = 7 * 24 * 3600
# botocore signs these services for us-east-1 wherever the client is.
_GLOBAL_SERVICES = ("iam", "sts")
# What S3 takes for the body's hash when the body is not hashed at once. The chunks' own signatures are not checked:
# the first one, which covers the headers, is.
_S3_BODY_MARKS = (
    "UNSIGNED-PAYLOAD",
    "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
    "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
    "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
)
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 +Credential=(?P<credential>[^, ]+), *SignedHeaders=(?P<headers>[^, ]+), *"
    r"Signature=(?P<signature>[0-9a-f]+)$"
)
_SCOPE = re.compile(r"(?P<key>[^/]+)/(?P<date>\d{8})/(?P<region>[^/]+)/(?P<service>[^/]+)/aws4_request$")

FindCredentials = Callable[[str], Credentials | None]
Clock = Callable[[], datetime]

_Answer = tuple[str, int]  # an error's code and its HTTP status


@dataclass(frozen=True)
class _Refusal:
    """A reason to refuse; it has another name in each protocol: S3's, the query services', the JSON services'."""

    s3: _Answer
    query: _Answer
    json: _Answer
    message: str


_UNSIGNED = _Refusal(
    s3=("AccessDenied", 403),
    query=("MissingAuthenticationToken", 403),
    json=("MissingAuthenticationTokenException", 400),
    message="Request is missing Authentication Token",
)
_MALFORMED = _Refusal(
    s3=("AuthorizationHeaderMalformed", 400),
    query=("IncompleteSignature", 400),
    json=("IncompleteSignatureException", 400),
    message="The authorization that you provided is malformed",
)
_UNKNOWN_KEY = _Refusal(
    s3=("InvalidAccessKeyId", 403),
    query=("InvalidClientTokenId", 403),
    json=("UnrecognizedClientException", 400),
    message="The security token included in the request is invalid: the local AWS issued no such access key",
)
_WRONG_TOKEN = _Refusal(
    s3=("InvalidToken", 400),
    query=("InvalidClientTokenId", 403),
    json=("UnrecognizedClientException", 400),
    message="The security token included in the request is invalid",
)
_EXPIRED_KEY = _Refusal(
    s3=("ExpiredToken", 400),
    query=("ExpiredToken", 403),
    json=("ExpiredTokenException", 400),
    message="The security token included in the request is expired",
)
_SKEWED = _Refusal(
    s3=("RequestTimeTooSkewed", 403),
    query=("SignatureDoesNotMatch", 403),
    json=("InvalidSignatureException", 400),
    message="The difference between the request time and the current time is too large",
)
_EXPIRED_URL = _Refusal(
    s3=("AccessDenied", 403),
    query=("SignatureDoesNotMatch", 403),
    json=("InvalidSignatureException", 400),
    message="Request has expired",
)
_UNEQUAL = _Refusal(
    s3=("SignatureDoesNotMatch", 403),
    query=("SignatureDoesNotMatch", 403),
    json=("InvalidSignatureException", 400),
    message="The request signature we calculated does not match the signature you provided. "
    "Check your key and signing method",
)
_WRONG_BODY = _Refusal(
    s3=("XAmzContentSHA256Mismatch", 400),
    query=("SignatureDoesNotMatch", 403),
    json=("InvalidSignatureException", 400),
    message="The provided 'x-amz-content-sha256' header does not match what was computed",
)


@dataclass(frozen=True)
class _Claim:
    """What a request says of its signature."""

    access_key_id: str
    scope_date: str
    region: str
    service: str
    signed_headers: tuple[str, ...]
    signature: str
    amz_date: str
    token: str | None
    expires_seconds: int | None  # of a presigned URL


@dataclass(frozen=True)
class Signer:
    """Who signed a request, and the service it was signed for, in its signing name."""

    access_key_id: str
    service: str


class SignatureCheck:
    """Finds out who signed a request and for which service.

    Args:
        find_credentials: Returns the credentials of an access key, or None.
        region: The only region there is.
        clock: Returns the time now, with its zone.
    """

    def __init__(
        self, find_credentials: FindCredentials, region: str, clock: Clock = lambda: datetime.now(UTC)
    ) -> None:
        self._find_credentials = find_credentials
        self._region = region
        self._clock = clock

    def verify(self, environ: dict[str, Any]) -> str:
        """Return the service that the signature was made for, in its signing name.

        Raises:
            AwsError: The request is not signed, or not rightly, or too long ago, or by nobody known.
        """
        return self.identify(environ).service

    def identify(self, environ: dict[str, Any]) -> Signer:
        """Return who signed the request, and for which service.

        Raises:
            AwsError: As verify does.
        """
        query = dict(parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True))
        if "AWSAccessKeyId" in query and "Signature" in query:
            return self._verify_version_2(environ, query)
        claim = _claim_of(environ, query)
        credentials = self._credentials_of(claim.access_key_id, claim.token, claim.service)
        self._check_time(claim)
        self._check_region(claim)
        _check_signed_headers(environ, claim)
        expected = _signature(environ, claim, credentials, _body_hash(environ, claim))
        if not hmac.compare_digest(expected, claim.signature):
            raise _refuse(_UNEQUAL, claim.service)
        return Signer(claim.access_key_id, claim.service)

    def _credentials_of(self, access_key_id: str, token: str | None, service: str) -> Credentials:
        credentials = self._find_credentials(access_key_id)
        if credentials is None:
            raise _refuse(_UNKNOWN_KEY, service)
        if not hmac.compare_digest((token or "").encode(), (credentials.session_token or "").encode()):
            raise _refuse(_WRONG_TOKEN, service)
        if credentials.expired:
            raise _refuse(_EXPIRED_KEY, service)
        return credentials

    def _check_time(self, claim: _Claim) -> None:
        try:
            signed_at = datetime.strptime(claim.amz_date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        except ValueError:
            detail = "X-Amz-Date must be a time as 20260131T235959Z"
            raise _refuse(_MALFORMED, claim.service, detail) from None
        if not claim.amz_date.startswith(claim.scope_date):
            detail = "the date in the credential scope is not that of X-Amz-Date"
            raise _refuse(_MALFORMED, claim.service, detail)
        now = self._clock()
        if claim.expires_seconds is None:
            if abs(now - signed_at) > MAX_SKEW:
                raise _refuse(_SKEWED, claim.service)
        elif not 0 < claim.expires_seconds <= MAX_PRESIGNED_SECONDS:
            detail = "X-Amz-Expires must be between 1 and 604800 seconds"
            raise _refuse(_MALFORMED, claim.service, detail)
        elif signed_at - MAX_SKEW > now or now > signed_at + timedelta(seconds=claim.expires_seconds):
            raise _refuse(_EXPIRED_URL, claim.service)

    def _check_region(self, claim: _Claim) -> None:
        expected = "us-east-1" if claim.service in _GLOBAL_SERVICES else self._region
        if claim.region not in (expected, self._region):
            detail = f"the region '{claim.region}' is wrong; expecting '{self._region}'"
            raise _refuse(_MALFORMED if claim.service == "s3" else _UNEQUAL, claim.service, detail)

    def _verify_version_2(self, environ: dict[str, Any], query: dict[str, str]) -> Signer:
        # What boto3's generate_presigned_url makes unless told signature_version="s3v4".
        token = query.get("x-amz-security-token") or environ.get("HTTP_X_AMZ_SECURITY_TOKEN")
        credentials = self._credentials_of(query["AWSAccessKeyId"], token, "s3")
        expires = query.get("Expires", "")
        if not expires.isdigit() or self._clock().timestamp() > int(expires):
            raise _refuse(_EXPIRED_URL, "s3")
        if not hmac.compare_digest(_version_2_signature(environ, credentials, query), query["Signature"]):
            raise _refuse(_UNEQUAL, "s3")
        return Signer(query["AWSAccessKeyId"], "s3")


def _refuse(refusal: _Refusal, service: str, detail: str = "") -> AwsError:
    code, status = getattr(refusal, _family(service))
    return AwsError(code, f"{refusal.message}{detail and ': '}{detail}.", status)


def _family(service: str) -> str:
    if service in ("s3", ""):
        return "s3"
    return "query" if service in ("iam", "sts", "cloudformation", "monitoring", "ec2") else "json"


def raw_path(environ: dict[str, Any]) -> str:
    """Return the path as the client sent it, percent signs and all: signatures and S3 keys need it so."""
    uri: str = environ["REQUEST_URI"]
    path = uri.partition("?")[0]
    return path if path.startswith("/") else urlsplit(path).path or "/"


def _claim_of(environ: dict[str, Any], query: dict[str, str]) -> _Claim:
    presigned = "X-Amz-Signature" in query
    if presigned:
        credential, headers = query.get("X-Amz-Credential", ""), query.get("X-Amz-SignedHeaders", "")
        signature, amz_date = query["X-Amz-Signature"], query.get("X-Amz-Date", "")
        token = query.get("X-Amz-Security-Token")
    else:
        if "HTTP_AUTHORIZATION" not in environ:
            raise _refuse(_UNSIGNED, _guessed_service(environ))
        match = _AUTHORIZATION.match(environ["HTTP_AUTHORIZATION"])
        if match is None:
            detail = "the Authorization header is not of Signature Version 4 (AWS4-HMAC-SHA256)"
            raise _refuse(_MALFORMED, _guessed_service(environ), detail)
        credential, headers, signature = match["credential"], match["headers"], match["signature"]
        amz_date, token = environ.get("HTTP_X_AMZ_DATE", ""), environ.get("HTTP_X_AMZ_SECURITY_TOKEN")
    scope = _SCOPE.match(credential)
    if scope is None:
        detail = "the credential must be KEY/DATE/REGION/SERVICE/aws4_request"
        raise _refuse(_MALFORMED, _guessed_service(environ), detail)
    expires = query.get("X-Amz-Expires", "0") if presigned else None
    return _Claim(
        access_key_id=scope["key"],
        scope_date=scope["date"],
        region=scope["region"],
        service=scope["service"].lower(),
        signed_headers=tuple(headers.split(";")),
        signature=signature,
        amz_date=amz_date,
        token=token,
        expires_seconds=expires if expires is None else int(expires) if expires.isdigit() else 0,
    )


def _guessed_service(environ: dict[str, Any]) -> str:
    """Return a service of the protocol that an unsigned request seems to speak."""
    if "HTTP_X_AMZ_TARGET" in environ:
        return "sagemaker"
    form = environ.get("CONTENT_TYPE", "").startswith("application/x-www-form-urlencoded")
    return "sts" if form else "s3"


def _check_signed_headers(environ: dict[str, Any], claim: _Claim) -> None:
    required = {"host"}
    if claim.expires_seconds is None:
        names = environ.get(PRESERVED_HEADER_NAMES_ENVIRON_KEY, {})  # metadata may have underscores in its name
        required |= {
            names.get(key, key[5:].replace("_", "-")).lower() for key in environ if key.startswith("HTTP_X_AMZ_")
        }
    missing = required - set(claim.signed_headers)
    if missing:
        detail = f"there were headers in the request which were not signed: {', '.join(sorted(missing))}"
        raise _refuse(_UNSIGNED if claim.service == "s3" else _UNEQUAL, claim.service, detail)


def _body_hash(environ: dict[str, Any], claim: _Claim) -> str:
    """Return what stands for the body in the canonical request, after holding it against the body."""
    declared: str | None = environ.get("HTTP_X_AMZ_CONTENT_SHA256")
    if claim.service == "s3":
        if declared is None and claim.expires_seconds is not None:
            return "UNSIGNED-PAYLOAD"
        if declared in _S3_BODY_MARKS:
            return declared
        if declared is None:
            detail = "missing the required header x-amz-content-sha256"
            raise _refuse(_MALFORMED, "s3", detail)
    actual = _sha256(environ)
    if declared is not None and not hmac.compare_digest(declared.encode("latin-1"), actual.encode()):
        raise _refuse(_WRONG_BODY, claim.service)
    return actual


def _sha256(environ: dict[str, Any]) -> str:
    # waitress has the whole body by now, in memory or in a temporary file: it can be read twice.
    body = environ["wsgi.input"]
    digest = hashlib.file_digest(body, "sha256").hexdigest()
    body.seek(0)
    return digest


def _signature(environ: dict[str, Any], claim: _Claim, credentials: Credentials, body_hash: str) -> str:
    canonical = "\n".join(
        (
            environ["REQUEST_METHOD"],
            _canonical_path(environ, claim.service),
            _canonical_query(environ.get("QUERY_STRING", "")),
            "".join(f"{name}:{_header(environ, name)}\n" for name in claim.signed_headers),
            ";".join(claim.signed_headers),
            body_hash,
        )
    )
    scope = f"{claim.scope_date}/{claim.region}/{claim.service}/aws4_request"
    # WSGI strings are bytes in disguise (latin-1); what the client signed are those bytes.
    digest = hashlib.sha256(canonical.encode("latin-1")).hexdigest()
    key = _signing_key(credentials.secret_access_key, claim.scope_date, claim.region, claim.service)
    return hmac.new(key, f"AWS4-HMAC-SHA256\n{claim.amz_date}\n{scope}\n{digest}".encode(), "sha256").hexdigest()


@lru_cache(maxsize=256)
def _signing_key(secret: str, date: str, region: str, service: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in (date, region, service, "aws4_request"):
        key = hmac.new(key, part.encode(), "sha256").digest()
    return key


def _canonical_path(environ: dict[str, Any], service: str) -> str:
    path = raw_path(environ)
    # S3 signs the path as sent; every other service normalises it and encodes it once more.
    return path if service == "s3" else quote(normalize_url_path(path), safe="/~")


def _canonical_query(query: str) -> str:
    pairs = (part.partition("=")[::2] for part in query.split("&") if part)
    encoded = ((_encoded(name), _encoded(value)) for name, value in pairs)
    return "&".join(f"{name}={value}" for name, value in sorted(encoded) if name != "X-Amz-Signature")


def _encoded(text: str) -> str:
    return quote(unquote(text, "latin-1"), safe="-_.~", encoding="latin-1")


def _header(environ: dict[str, Any], name: str) -> str:
    key = name.upper().replace("-", "_")
    value: str = environ.get(key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}", "")
    return " ".join(value.split())


class _PresignedVersion2(HmacV1QueryAuth):
    """botocore's signer of presigned URLs, with the URL's end instead of its own clock."""

    def __init__(self, credentials: Credentials, expires: str) -> None:
        super().__init__(
            botocore.credentials.Credentials(
                credentials.access_key_id, credentials.secret_access_key, credentials.session_token
            )
        )
        self._end = expires

    def _get_date(self) -> str:
        return self._end


def _version_2_signature(environ: dict[str, Any], credentials: Credentials, query: dict[str, str]) -> str:
    headers = HTTPHeaders()
    for name in ("CONTENT_TYPE", "HTTP_CONTENT_MD5"):
        if environ.get(name):
            headers[name.removeprefix("HTTP_").replace("_", "-")] = environ[name]
    for name, value in environ.items():
        if name.startswith("HTTP_X_AMZ_"):
            headers[name.removeprefix("HTTP_").replace("_", "-").lower()] = value
    for name, value in query.items():  # presigned headers travel in the query
        if name.lower().startswith("x-amz-") or name.lower() in ("content-type", "content-md5"):
            headers[name.lower()] = value
    signer = _PresignedVersion2(credentials, query["Expires"])
    split = urlsplit(f"http://local{raw_path(environ)}?{environ.get('QUERY_STRING', '')}")
    # The stubs take a mapping where botocore itself needs these very headers.
    return str(signer.get_signature(environ["REQUEST_METHOD"], split, headers))  # type: ignore[arg-type]
