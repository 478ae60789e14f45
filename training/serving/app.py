"""The model package as a web application: `SM_MODEL_DIR=FOLDER uvicorn --factory serving.app:create_app`."""

import logging
import os
from http import HTTPStatus
from pathlib import Path

from anyio import CapacityLimiter, to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from .classifier import Answer, Classifier, load_classifier
from .engine import processors
from .errors import ImageError, ModelError, RequestError, TooManyPixelsError
from .payloads import read_question

_log = logging.getLogger(__name__)


def create_app() -> Starlette:
    """Load the model and return the application around it.

    Raises:
        SystemExit: The model cannot be loaded; its message ends a server with one sentence, and not with code 0.
    """
    try:
        return app_for(load_classifier(model_folder()))
    except ModelError as error:
        raise SystemExit(str(error)) from error


def model_folder() -> Path:
    """Return where the model package is: told by SM_MODEL_DIR, around this code, or where SageMaker puts it."""
    told = os.environ.get("SM_MODEL_DIR")
    if told:
        return Path(told)
    around = Path(__file__).resolve().parents[1]
    if (around / "model.json").exists():
        return around
    return Path(os.environ.get("SAGEMAKER_BASE_DIR", "/opt/ml"), "model")


def app_for(classifier: Classifier) -> Starlette:
    """Return the application that answers with a classifier.

    `POST /` is the same as `POST /invocations`: the Ray Serve image passes invocations on to it.
    """
    limiter = CapacityLimiter(processors())

    async def ping(_: Request) -> JSONResponse:
        return JSONResponse({"status": "ok", "model_version": classifier.model_version})

    async def invoke(request: Request) -> JSONResponse:
        question = await read_question(request, len(classifier.classes))
        answer = await to_thread.run_sync(_classify, classifier, question.image, question.top_k, limiter=limiter)
        return JSONResponse(answer)

    return Starlette(
        routes=[
            Route("/ping", ping),
            Route("/invocations", invoke, methods=["POST"]),
            Route("/", invoke, methods=["POST"]),
        ],
        exception_handlers={RequestError: _refused, HTTPException: _no_such_thing, Exception: _failed},
    )


def _classify(classifier: Classifier, image: bytes, top_k: int) -> Answer:
    try:
        return classifier.classify(image, top_k)
    except TooManyPixelsError as error:
        raise RequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, str(error)) from error
    except ImageError as error:
        raise RequestError(HTTPStatus.BAD_REQUEST, str(error)) from error


def _refused(_: Request, error: Exception) -> JSONResponse:
    status, message = (error.status, error.message) if isinstance(error, RequestError) else (500, str(error))
    return JSONResponse({"error": message}, status)


def _no_such_thing(request: Request, error: Exception) -> JSONResponse:
    status = error.status_code if isinstance(error, HTTPException) else HTTPStatus.NOT_FOUND
    message = f"{request.method} {request.url.path} is not served here: POST /invocations or GET /ping"
    return JSONResponse({"error": message}, status)


def _failed(request: Request, error: Exception) -> JSONResponse:
    _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return JSONResponse({"error": "the model failed at this picture; its log says why"}, 500)
