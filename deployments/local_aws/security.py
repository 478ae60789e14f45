"""What a browser may not do, and what a request may not mean: two things at once.

No page, whatever site it came from, may reach the local AWS. A server on loopback is open to every page the user
visits: by a cross-site request, or by a name that was made to resolve to 127.0.0.1. The signature alone would stop
both; these checks stop them before any of our code reads on.
"""

from typing import Any
from urllib.parse import urlsplit

from deployments.local_aws.protocol import AwsError

_OWN_NAMES = ("127.0.0.1", "localhost")
_ALLOWED_FETCH_SITES = ("none", "same-origin")  # a presigned URL opened by hand, or a link on such a page


def refusal(environ: dict[str, Any]) -> str | None:
    """Return why this request is refused whoever signed it, or None."""
    if "HTTP_ORIGIN" in environ:
        return "The local AWS takes no requests from web pages: the Origin header is not allowed"
    return _elsewhere(environ)


def page_refusal(environ: dict[str, Any]) -> str | None:
    """Return why a request for a page of the console is refused whoever sends it, or None.

    Its own pages may ask and post. One of another port may not, though to the browser that is the same site: it has
    another origin. A person may follow a link from wherever it is: the page that has it sees nothing of what is shown.
    """
    origin, site = environ.get("HTTP_ORIGIN"), environ.get("HTTP_SEC_FETCH_SITE")
    if origin is not None and origin != f"http://{environ.get('HTTP_HOST')}":
        return "The local AWS takes no requests from other web pages: the Origin is not its own"
    if environ["REQUEST_METHOD"] not in ("GET", "HEAD") and origin is None and site != "same-origin":
        return "The local AWS takes no forms but its own: nothing says where this one is from"
    return _other_host(environ) if origin is None and _is_followed_link(environ) else _elsewhere(environ)


def _is_followed_link(environ: dict[str, Any]) -> bool:
    """Tell whether a person has clicked on a link to a whole page: a browser says so of nothing else."""
    fetched = [environ.get(f"HTTP_SEC_FETCH_{name}") for name in ("MODE", "DEST", "USER")]
    return environ["REQUEST_METHOD"] in ("GET", "HEAD") and fetched == ["navigate", "document", "?1"]


def _other_host(environ: dict[str, Any]) -> str | None:
    if _is_own(environ.get("HTTP_HOST", ""), environ["SERVER_PORT"]):
        return None
    return "The Host header does not name the local AWS: use the address it printed"


def _elsewhere(environ: dict[str, Any]) -> str | None:
    reason = _other_host(environ)
    if reason is not None:
        return reason
    if environ.get("HTTP_SEC_FETCH_SITE", "none") not in _ALLOWED_FETCH_SITES:
        return "The local AWS takes no requests from other sites"
    referer = environ.get("HTTP_REFERER")
    if referer is not None and not _is_own(urlsplit(referer).netloc, environ["SERVER_PORT"]):
        return "The local AWS takes no requests from other sites: the Referer is not its own"
    return None


def fix_operation(environ: dict[str, Any], operation: str, protocol: str) -> None:
    """Let the request mean to moto the operation that was allowed, and no other.

    moto looks for operation and members in the query first, then in the form, then in what the body would be as a
    form though it is JSON, then in the headers. A caller could name one operation to be allowed and another to be done.

    Raises:
        AwsError: MalformedQueryString: the request is written in two places.
    """
    if environ["REQUEST_METHOD"] == "POST" and environ.get("QUERY_STRING") and not protocol.startswith("rest"):
        code, message = "MalformedQueryString", "A request with a body has no query string"
        raise AwsError(code, message)
    if protocol == "json":
        environ["QUERY_STRING"] = f"Action={operation}"
        environ["REQUEST_URI"] = f"{environ['REQUEST_URI'].partition('?')[0]}?{environ['QUERY_STRING']}"


def _is_own(host: str, port: str) -> bool:
    name, _, given_port = host.partition(":")
    return name.lower() in _OWN_NAMES and given_port in ("", port)
