"""A webhook that is told of an event: one POST of JSON. Its address is a secret, and no error ever holds it."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Mapping
from http.client import HTTPMessage
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

TIMEOUT_S = 10.0


def post(address: str, document: Mapping[str, Any], timeout_s: float = TIMEOUT_S) -> str | None:
    """POST `document` to `address`; None if it was taken, else why not.

    A thread of its own asks: neither a resolver that hangs nor a server that drips keeps the caller longer than
    `timeout_s`. Proxies are those of the environment.
    """
    found: list[str | None] = []
    thread = threading.Thread(target=lambda: found.append(_ask(address, document, timeout_s)), daemon=True)
    thread.start()
    thread.join(timeout_s)
    return found[0] if found else _silence(timeout_s)


def _ask(address: str, document: Mapping[str, Any], timeout_s: float) -> str | None:
    headers = {"Content-Type": "application/json", "User-Agent": "hpcsft"}  # Discord bars urllib's own name
    request = urllib.request.Request(address, json.dumps(document).encode(), headers, method="POST")
    try:
        with _opener().open(request, timeout=timeout_s):
            return None
    except HTTPError as error:
        error.close()
        more = ", a redirect that is not followed" if 300 <= error.code < 400 else ""
        return f"it answered with {error.code}{more}"
    except Exception as error:  # whatever it says may hold the address
        cause = error.reason if isinstance(error, URLError) else error
        if isinstance(cause, TimeoutError):
            return _silence(timeout_s)
        return (cause.strerror if isinstance(cause, OSError) else None) or type(cause).__name__


def _silence(timeout_s: float) -> str:
    return f"no answer within {timeout_s:g} s"


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Followed over http(s) only, and never from https to http, with the same POST. urllib would turn it into a GET for
    301, 302 and 303: those answer 200, and nothing is delivered. 303 asks for just that, and is not followed."""

    http_error_308 = urllib.request.HTTPRedirectHandler.http_error_302  # Python 3.10 has none

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        allowed = ("https",) if urlsplit(req.full_url).scheme == "https" else ("https", "http")
        if code == 303 or urlsplit(newurl).scheme not in allowed:
            raise HTTPError(req.full_url, code, msg, headers, fp)
        return urllib.request.Request(newurl, req.data, req.headers, method=req.get_method())  # with a Host of its own


def _opener() -> urllib.request.OpenerDirector:
    """One that knows http and https only."""
    opener = urllib.request.OpenerDirector()
    for kind in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.UnknownHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        _Redirects,
    ):
        opener.add_handler(kind())
    return opener
