"""What can go wrong with a request, in the ways that matter to whoever sends the next one.

The clients of OpenAI and Anthropic are made by the same generator and raise the same errors; which of the two it was
does not show from here on.
"""

from __future__ import annotations

import email.utils
import math
import time
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from hpcsft.secrets import scrubbed

NEVER_CONNECTED = ("ConnectError", "ConnectTimeout", "ProxyError", "UnsupportedProtocol")
"""Causes of connection errors, as httpx calls them, that mean that no server was there to begin with."""

LATER = (408, 409, 425, 429)
REFUSALS = (400, 413, 422)


class TryLater(Exception):
    """It may be answered at another try."""

    def __init__(self, message: str, pause_s: float | None = None, connected: bool = True):
        super().__init__(message)
        self.pause_s = pause_s
        """How long the endpoint asks everybody to wait."""
        self.connected = connected
        """Was there a server at all?"""


class Refused(Exception):
    """This question will never be answered; others may."""


class Closed(Exception):
    """Nobody's question will be answered: no right to ask, nothing left to pay with."""

    def __init__(self, message: str, unauthorized: bool = False):
        super().__init__(message)
        self.unauthorized = unauthorized
        """Is it about the key?"""


class Barred(Closed):
    """The same if it is what everybody is told; some endpoints say so of a single question that a filter stops."""


def failure_of(error: Exception, library: ModuleType) -> Exception:
    """One of the above for an error from a call of `library`; anything unforeseen stays what it is."""
    if isinstance(error, library.APIStatusError):
        text = _short(error)
        if error.status_code in REFUSALS:
            return Refused(text)
        if getattr(error, "code", None) == "insufficient_quota":
            return Closed(text)
        if error.status_code in LATER or error.status_code >= 500:
            return TryLater(text, retry_after_s(error.response.headers))
        if error.status_code == 402:
            return Closed(text)
        kind = Closed if error.status_code == 401 else Barred
        return kind(text, unauthorized=error.status_code in (401, 403))
    if isinstance(error, library.APIConnectionError):
        cause = error.__cause__
        text = scrubbed(str(error).rstrip(".") + (f": {cause}" if cause and str(cause) else ""))
        return TryLater(text, connected=type(cause).__name__ not in NEVER_CONNECTED)
    if isinstance(error, (library.APIError, ValueError, TypeError, LookupError, AttributeError)):
        return TryLater(f"the reply has no form of this API ({_short(error)}): is evaluate.judge.base_url right?")
    return error


def retry_after_s(headers: Mapping[str, Any]) -> float | None:
    """Seconds that a reply asks to wait: `retry-after-ms`, or `Retry-After` in seconds or as an HTTP date."""
    for name, unit_s in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            wait_s = float(headers.get(name) or "") * unit_s
        except ValueError:
            continue
        if math.isfinite(wait_s):
            return max(0.0, wait_s)
    try:
        date = email.utils.parsedate_to_datetime(headers.get("retry-after") or "")
    except (TypeError, ValueError):
        return None
    return max(0.0, date.timestamp() - time.time())


def _short(error: Exception) -> str:
    text = scrubbed(" ".join(str(error).split())) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."
