"""The console of the local AWS: a page at its root address, for who would rather look than read.

It reads through the account's own clients, as the administrator, and knows nothing of what stands behind them. GET
changes nothing; the one thing that can be posted is a picture for an endpoint.
"""

from collections.abc import Callable, Mapping
from threading import Semaphore
from typing import Any
from urllib.parse import parse_qs

from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge
from werkzeug.routing import Map, Rule
from werkzeug.wrappers import Request

from deployments.local_aws.console import endpoints, functions, instances, jobs, objects
from deployments.local_aws.console.access import ConsoleKey
from deployments.local_aws.console.overview import overview
from deployments.local_aws.console.pages import FOLDER, HEADERS, Clients, Page, Pages, html
from deployments.local_aws.security import page_refusal
from deployments.local_aws.wire import Response

PREFIX = "/_console"  # no bucket can be called so: its name has no underscore
MAX_BODY_BYTES = 26 * 1024 * 1024  # InvokeEndpoint takes 25 MB; the rest is the form around it
# Each page asks the same server in turn: were all its threads showing pages, none would be left to answer them.
_MOST_AT_ONCE = 8

_VIEWS: dict[str, tuple[str, Callable[..., Page | Response]]] = {
    "overview": ("/", overview),
    "training_jobs": ("/training-jobs", jobs.training_jobs),
    "training_job": ("/training-jobs/<name>", jobs.training_job),
    "training_log": ("/training-jobs/<name>/log", jobs.training_log),
    "tuning_jobs": ("/tuning-jobs", jobs.tuning_jobs),
    "tuning_job": ("/tuning-jobs/<name>", jobs.tuning_job),
    "endpoints": ("/endpoints", endpoints.endpoints),
    "endpoint": ("/endpoints/<name>", endpoints.endpoint),
    "endpoint_log": ("/endpoints/<name>/log", endpoints.endpoint_log),
    "instances": ("/instances", instances.instances),
    "instance": ("/instances/<name>", instances.instance),
    "functions": ("/functions", functions.functions),
    "function": ("/functions/<name>", functions.function),
    "function_log": ("/functions/<name>/log", functions.function_log),
    "buckets": ("/buckets", objects.buckets),
    "bucket": ("/buckets/<name>", objects.bucket),
    # The key is in the query: in a path, what browsers make of `..` and `//` would be another key.
    "object": ("/buckets/<name>/object", objects.object_page),
    "download": ("/buckets/<name>/download", objects.download),
    "picture": ("/buckets/<name>/picture", objects.picture),
}
_FORMS: dict[str, tuple[str, Callable[..., Page]]] = {"ask": ("/endpoints/<name>/ask", endpoints.ask)}
_STATIC = {
    "style.css": "text/css; charset=utf-8",
    "live.js": "text/javascript; charset=utf-8",
    "picture.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_STATIC_PREFIX = f"{PREFIX}/static/"
_ROUTES = Map(
    [
        *(
            Rule(path if path == "/" else PREFIX + path, endpoint=name, methods=["GET"])
            for name, (path, _) in _VIEWS.items()
        ),
        *(Rule(PREFIX + path, endpoint=name, methods=["POST"]) for name, (path, _) in _FORMS.items()),
        Rule(f"{PREFIX}/static/<name>", endpoint="static", build_only=True),
    ],
    redirect_defaults=False,
    strict_slashes=False,
    merge_slashes=False,
).bind("console")


class Console:
    """The console of an account.

    Args:
        client: Returns the account's client of a service.
        key: Opens it.
    """

    def __init__(self, client: Clients, key: ConsoleKey) -> None:
        self._client, self._key = client, key
        self._pages = Pages(lambda view, **taken: _ROUTES.build(view, taken), key.form_word)
        self._turns = Semaphore(_MOST_AT_ONCE)

    def takes(self, environ: dict[str, Any]) -> bool:
        """Return whether a request is for the console: one that is signed never is, a browser's GET / is."""
        query = parse_qs(environ.get("QUERY_STRING", ""))
        if "HTTP_AUTHORIZATION" in environ or {"X-Amz-Signature", "Signature"} & set(query):
            return False
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        if path == "/":
            return method in ("GET", "HEAD") and "text/html" in environ.get("HTTP_ACCEPT", "")
        return bool(path == PREFIX or path.startswith(f"{PREFIX}/"))

    def respond(self, environ: dict[str, Any]) -> Response:
        """Answer a request that is for the console."""
        request = Request(environ)
        request.max_content_length = MAX_BODY_BYTES
        reason = page_refusal(environ)
        if reason is not None:
            return self._told(403, "Refused", f"{reason}.")
        try:
            return self._answer(request)
        except ParamValidationError:
            return self._told(404, "Not found", "There is nothing of that name.")
        except HTTPException as error:
            return self._told(error.code or 500, error.name, error.description or "")
        except ClientError as error:
            told = error.response["Error"]
            is_missing = error.response["ResponseMetadata"]["HTTPStatusCode"] in (400, 404)
            title = "Not found" if is_missing else "AWS says no"
            return self._told(404 if is_missing else 502, title, f"{told['Code']}: {told['Message']}")
        except BotoCoreError as error:
            return self._told(502, "No answer", str(error))

    def _answer(self, request: Request) -> Response:
        if request.content_length is not None and request.content_length > MAX_BODY_BYTES:
            raise RequestEntityTooLarge
        if request.path.startswith(_STATIC_PREFIX):  # the page that says that it is closed wants to look like one too
            return _static(request.path.removeprefix(_STATIC_PREFIX))
        if request.path == "/" and self._key.opens(request.args.get("token", "")):
            return Response(303, [("Location", "/"), ("Set-Cookie", self._key.set_cookie(request)), *HEADERS])
        if not self._key.admits(request):
            return html(self._pages.render(Page("closed.html", {})), 403)
        view, taken = _ROUTES.match(request.path, request.method)
        if not self._turns.acquire(blocking=False):
            return self._told(503, "One moment", "Too many pages are being shown at once: ask again.")
        try:
            return self._shown(request, self._found(request, view, taken))
        finally:
            self._turns.release()

    def _found(self, request: Request, view: str, taken: Mapping[str, Any]) -> Page | Response:
        if request.method in ("GET", "HEAD"):
            return _VIEWS[view][1](self._client, request.args, **taken)
        if not self._key.is_own_form(request.form.get("word", "")):
            return Page("message.html", {"title": "Refused", "sentence": "The form is not one of this console's."}, 403)
        picture = request.files.get("picture")
        return _FORMS[view][1](self._client, picture.read() if picture else b"", **taken)

    def _shown(self, request: Request, found: Page | Response) -> Response:
        if isinstance(found, Response):
            return found
        answer = html(self._pages.render(found, request.args.get("part")), found.status)
        is_known = dict(answer.headers)["ETag"] == request.headers.get("If-None-Match")
        return Response(304, answer.headers) if is_known and found.status == 200 else answer  # noqa: PLR2004 - OK

    def _told(self, status: int, title: str, sentence: str) -> Response:
        return html(self._pages.render(Page("message.html", {"title": title, "sentence": sentence})), status)


def _static(name: str) -> Response:
    if name not in _STATIC:
        return html("", 404)
    return Response(200, [("Content-Type", _STATIC[name]), *HEADERS], [(FOLDER / name).read_bytes()])
