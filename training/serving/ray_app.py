"""The same ASGI application inside Ray Serve: what `config.yaml` of a model package names.

Nothing here knows the application: `args.asgi_app` says which factory makes it, as `module:function`.
"""

from importlib import import_module
from typing import Any

from ray import serve


def build(args: dict[str, str]) -> Any:
    """Return the Ray Serve application around the factory that `args` names."""
    asgi_app = args["asgi_app"]

    def make() -> Any:
        return load_app(asgi_app)

    # A function is called in the replica, so that the model is loaded there and never pickled.
    return serve.deployment(name="endpoint")(serve.ingress(make)()).bind()


def load_app(asgi_app: str) -> Any:
    """Return what the factory `module:function` makes.

    Raises:
        RuntimeError: The factory gave up; the message is what it said.
    """
    module, _, factory = asgi_app.partition(":")
    try:
        return getattr(import_module(module), factory)()
    except SystemExit as stop:
        # It would end the replica's process without a word in Ray's log.
        raise RuntimeError(stop.code) from stop
