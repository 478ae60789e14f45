"""Who may see the console: whoever was told the address that is printed at the start."""

import hmac
import secrets
from dataclasses import dataclass, field

from werkzeug.wrappers import Request


@dataclass(frozen=True)
class ConsoleKey:
    """The secret of one run of the local AWS, and what follows from it.

    The cookie and the word that forms carry are derived and not the token itself: who reads one has not the others.
    """

    token: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)

    def opens(self, token: str) -> bool:
        """Return whether that is the token."""
        return _equal(token, self.token)

    def admits(self, request: Request) -> bool:
        """Return whether the request carries the cookie."""
        return _equal(request.cookies.get(_cookie_name(request), ""), self._derived("cookie"))

    def is_own_form(self, word: str) -> bool:
        """Return whether the word that a form carries is ours: pages of other origins cannot read it."""
        return _equal(word, self.form_word)

    @property
    def form_word(self) -> str:
        """What every form of ours carries."""
        return self._derived("form")

    def set_cookie(self, request: Request) -> str:
        """Return the header that makes a browser keep the cookie until it is closed.

        Cookies do not tell ports apart: the name has the port, so that two local AWSs do not overwrite each other's.
        """
        return f"{_cookie_name(request)}={self._derived('cookie')}; Path=/; HttpOnly; SameSite=Strict"

    def _derived(self, purpose: str) -> str:
        return hmac.new(self.token.encode(), purpose.encode(), "sha256").hexdigest()


def _cookie_name(request: Request) -> str:
    return f"local-aws-{request.environ['SERVER_PORT']}"


def _equal(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), expected.encode())
