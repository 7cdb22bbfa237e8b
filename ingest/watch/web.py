"""What every answer of the page has in common: who may have it, its headers, its errors."""

import re
from collections.abc import Callable
from importlib.resources import files
from pathlib import PurePosixPath
from typing import Any, Final, TypeVar, cast

import orjson
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import (
    BAD_REQUEST,
    FORBIDDEN,
    INTERNAL_SERVER_ERROR,
    NOT_ALLOWED,
    NOT_FOUND,
    UNAUTHORIZED,
)
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET, Request
from twisted.web.util import DeferredResource

from ingest.watch.auth import Role

_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".md": "text/plain; charset=utf-8",
}
MAX_TEXT: Final = 1000
"""Characters of a text in a request, such as one that is sought."""
FAR: Final = 4e9
"""Seconds since 1970: the year 2096, beyond which no time of a request may lie."""
_PORT: Final = re.compile(r":[0-9]*\Z")
_MAX_BODY: Final = 1 << 18  # bytes
_SAFE_METHODS: Final = (b"GET", b"HEAD")
_NOTHING: Final = "there is nothing at this address; see API.md"

_T = TypeVar("_T")
_KINDS: Final[dict[type, str]] = {str: "text", list: "an array", dict: "an object"}

_log = Logger(namespace="ingest.watch")


class PageRequest(Request):
    """A request.

    Attributes:
        role: what whoever sent it may do; `Door` says so.
        is_gone: whether whoever sent it has gone away.
    """

    role: Role = "view"
    is_gone = False

    def gotLength(self, length: int | None) -> None:
        """See `Request.gotLength`. No request of ours has a body worth keeping on a disk."""
        super().gotLength(0)
        if length is None or length > _MAX_BODY:
            self.channel.loseConnection()

    def connectionLost(self, reason: Failure) -> None:
        """See `Request.connectionLost`."""
        self.is_gone = True
        super().connectionLost(reason)


class RequestError(Exception):
    """A request that gets an error; the text is for whoever sent it.

    Attributes:
        code: of HTTP.
        details: what else the answer has besides `error`.
    """

    def __init__(self, text: str, code: int = BAD_REQUEST, **details: object) -> None:
        super().__init__(text)
        self.code = code
        self.details = details


def header(request: PageRequest, name: str) -> str | None:
    """Return a header, whatever bytes it has (RFC 9110, section 5.5)."""
    value: bytes | None = request.getHeader(name.encode())
    return None if value is None else value.decode("latin-1")


def argument(request: PageRequest, name: str, default: str = "") -> str:
    """Return an argument of the query.

    Raises:
        RequestError: it is no UTF-8.
    """
    values: list[bytes] | None = (request.args or {}).get(name.encode())
    if not values:
        return default
    try:
        return values[-1].decode()
    except UnicodeDecodeError:
        raise RequestError(f"{name} is not UTF-8") from None


def number(request: PageRequest, name: str, default: float, least: float, most: float) -> float:
    """Return an argument of the query that is a number.

    Raises:
        RequestError: it is none, or not within its limits.
    """
    text = argument(request, name)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        raise RequestError(f"{name} is not a number") from None
    if not least <= value <= most:
        raise RequestError(f"{name} is from {least:g} to {most:g}")
    return value


def body(request: PageRequest) -> dict[str, Any]:
    """Return the body, which is an object of JSON.

    Raises:
        RequestError: it is none.
    """
    assert request.content is not None
    try:
        value = orjson.loads(request.content.read())
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        raise RequestError("the body must be an object of JSON")
    return value


def member(value: dict[str, Any], name: str, kind: type[_T], default: _T | None = None) -> _T:
    """Return a member of a body; null is as good as none.

    Raises:
        RequestError: it is missing and has no default, or of another kind.
    """
    found = value.get(name)
    if found is None:
        found = default
    if not isinstance(found, kind):
        raise RequestError(f"{name} must be {_KINDS[kind]}")
    return found


def send(request: PageRequest, body: bytes, kind: str, code: int | None = None) -> None:
    """Answer, and end; nothing if whoever asked has gone away."""
    if request.is_gone:
        return
    if code is not None:
        request.setResponseCode(code)
    request.setHeader("Content-Type", kind)
    request.setHeader("Content-Length", str(len(body)))
    if request.method != b"HEAD":
        request.write(body)
    request.finish()


def send_json(request: PageRequest, value: object, code: int | None = None) -> None:
    """Answer with JSON, and end."""
    send(request, orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY), "application/json", code)


Answer = Callable[[PageRequest], object]
"""Makes the value of an answer, or a Deferred of it; None if it has answered itself."""


def refuse_method(request: PageRequest, *allowed: bytes) -> int:
    """Answer a method that is not understood at an address, for `render`."""
    request.setHeader("Allow", b", ".join(allowed))
    send_json(request, {"error": "there is no such method here"}, NOT_ALLOWED)
    return NOT_DONE_YET


class Folder(Resource):
    """Has addresses below it, and is none itself."""

    def getChild(self, path: bytes, request: Any) -> Resource:  # noqa: ARG002
        """See `Resource.getChild`."""
        return Refused(NOT_FOUND, _NOTHING)

    def render(self, request: PageRequest) -> int:
        """See `Resource.render`."""
        return Refused(NOT_FOUND, _NOTHING).render(request)


class Api(Folder):
    """One address of the API.

    An error gets an object `{"error": "..."}`; one of ours says no more than that it is one.
    """

    isLeaf = True

    def __init__(
        self, get: Answer | None = None, post: Answer | None = None, *, changes: bool = True
    ) -> None:
        """Answer at one address.

        Args:
            get: answers GET.
            post: answers POST.
            changes: whether `post` changes something, which needs the role `operate`.
        """
        super().__init__()
        self._changes = changes
        self._answers = {b"GET": get, b"HEAD": get, b"POST": post}
        self.allowedMethods = [name for name, answer in self._answers.items() if answer]

    def render(self, request: PageRequest) -> int:
        """Answer; see `Resource.render`."""
        request.setHeader("Cache-Control", "no-store")
        if any(request.postpath or ()):
            return super().render(request)
        answer = self._answers.get(request.method)
        if answer is None:
            return refuse_method(request, *self.allowedMethods)
        if request.method not in _SAFE_METHODS and self._changes and request.role != "operate":
            send_json(request, {"error": "you may look, but not change anything"}, FORBIDDEN)
            return NOT_DONE_YET
        done = maybeDeferred(answer, request)
        done.addCallback(lambda value: self._send(request, value))
        done.addErrback(lambda failure: self._fail(request, failure))
        return NOT_DONE_YET

    def _send(self, request: PageRequest, value: object) -> None:
        if value is not None:
            send_json(request, value)

    def _fail(self, request: PageRequest, failure: Failure) -> None:
        error = failure.value
        if not isinstance(error, RequestError):
            _log.failure("a request failed: {uri}", failure, uri=request.uri)
            error = RequestError(
                "this failed; the program's own log says why", INTERNAL_SERVER_ERROR
            )
        if not request.startedWriting:
            send_json(request, {"error": str(error), **error.details}, error.code)


class Door(Resource):
    """Lets in who may come in, and sets the headers that all answers have.

    A page of somebody else in the same browser may send requests here, but neither read what it
    gets (no CORS) nor change anything: what changes something must come from our own origin. Nor
    may its name resolve to this machine: without a password, the name in the request must be one
    of this machine's (DNS rebinding).
    """

    def __init__(
        self,
        inside: Resource,
        check: Callable[[bytes], Role | Deferred[Role | None] | None] | None,
        names: frozenset[str] | None,
    ) -> None:
        """Stand before `inside`.

        Args:
            inside: everything.
            check: returns the role that a header `Authorization` proves; None where there are no
                passwords, and everybody may do everything.
            names: the host names by which we may be called; None for any.
        """
        super().__init__()
        self._inside = inside
        self._check = check
        self._names = names

    def getChildWithDefault(self, path: bytes, request: Any) -> IResource:
        """See `Resource.getChildWithDefault`."""
        for name, value in _HEADERS.items():
            request.setHeader(name, value)
        refusal = self._refusal(request)
        if refusal is not None:
            return Refused(FORBIDDEN, refusal)
        if self._check is None:
            return self._enter("operate", path, request)
        role = self._check(request.getHeader(b"authorization") or b"")
        if isinstance(role, Deferred):
            return DeferredResource(
                role.addCallback(lambda found: self._enter(found, path, request))
            )
        return self._enter(role, path, request)

    def _enter(self, role: Role | None, path: bytes, request: Any) -> IResource:
        if role is None:
            request.setHeader("WWW-Authenticate", 'Basic realm="ingest", charset="UTF-8"')
            return Refused(UNAUTHORIZED, "name and password, please")
        request.role = role
        return cast(IResource, self._inside.getChildWithDefault(path, request))

    def _refusal(self, request: PageRequest) -> str | None:
        host = (header(request, "host") or "").lower()
        if self._names is not None and _PORT.sub("", host).strip("[]") not in self._names:
            return (
                "this address is not called by that name here: use 127.0.0.1 or localhost, or name"
                " it with --host"
            )
        if request.method in _SAFE_METHODS:
            return None
        origin = header(request, "origin")
        site = header(request, "sec-fetch-site")
        is_ours = site == "same-origin" or (
            site is None and (origin is None or origin.lower().partition("://")[2] == host)
        )
        # A form of another page can't set a header of its own, whatever its browser lacks.
        if not is_ours or header(request, "x-ingest") is None:
            return (
                "a request other than GET must come from this page, or from a program that sends"
                " the header X-Ingest, with any value"
            )
        return None


class Refused(Resource):
    """An address, or a request, that gets an error."""

    isLeaf = True

    def __init__(self, code: int, text: str) -> None:
        """Refuse with a status of HTTP, and say why."""
        super().__init__()
        self._code = code
        self._text = text

    def render(self, request: PageRequest) -> int:
        """Answer."""
        send_json(request, {"error": self._text}, self._code)
        return NOT_DONE_YET


class _Static(Resource):
    """A file of the page, held in memory."""

    isLeaf = True

    def __init__(self, name: str, content: bytes) -> None:
        super().__init__()
        self._kind = _TYPES[PurePosixPath(name).suffix]
        self._content = content

    def render(self, request: PageRequest) -> int:
        if request.method not in _SAFE_METHODS:
            return refuse_method(request, *_SAFE_METHODS)
        # The next version of the program has other files under the same names.
        request.setHeader("Cache-Control", "no-cache")
        send(request, self._content, self._kind)
        return NOT_DONE_YET


def static_files() -> Resource:
    """Read the files of the page.

    Raises:
        OSError: one is missing: the package was not built as it should be.
    """
    folder = files("ingest.watch") / "page"
    root = Folder()
    for source in (folder, folder / "vendor"):
        for file in source.iterdir():
            if file.is_file() and PurePosixPath(file.name).suffix in _TYPES:
                root.putChild(file.name.encode(), _Static(file.name, file.read_bytes()))
    for needed in (b"index.html", b"uPlot.iife.js", b"uPlot.min.css"):
        if needed not in root.children:
            raise FileNotFoundError(
                0, "is missing in the package; install it again", f"{folder}/{needed.decode()}"
            )
    root.putChild(b"", root.children[b"index.html"])
    return root
