"""A judge behind an API: one question in, one reply out, whatever the vendor; the pool does the rest."""

from __future__ import annotations

import importlib
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

from hpcsft.errors import Waiting
from hpcsft.evaluate.judges.cost import KEPT, Budget
from hpcsft.evaluate.judges.failures import Refused, failure_of
from hpcsft.evaluate.judges.parsers import Completion
from hpcsft.evaluate.judges.pool import RequestPool
from hpcsft.evaluate.judges.protocol import Keep
from hpcsft.evaluate.judges.settings import JudgeSettings, how_to_give_the_key, judge_key, key_problem
from hpcsft.evaluate.judges.standing import Standing
from hpcsft.evaluate.verdicts import Comparison, Usage, Verdict
from hpcsft.secrets import scrubbed
from hpcsft.spec.evaluate import JudgeSpec

CONNECT_S = 8.0
"""Patience until a connection stands: firewalls of compute nodes just swallow packets."""

Complete = Callable[[Comparison, Mapping[str, Any]], tuple[Completion, Usage | None]]
"""Asks about a pair, with further fields of the request; raises what the vendor's client raises."""


class EndpointJudge:
    """Asks an endpoint by means of `complete`, whose errors are those of `library`; `close` ends its connections."""

    def __init__(
        self,
        spec: JudgeSpec,
        name: str,
        settings: JudgeSettings,
        complete: Complete,
        library: ModuleType,
        close: Callable[[], None],
    ):
        self.name = name
        self.spec = spec
        self.close = close
        self._settings = settings
        self._complete = complete
        self._library = library
        self._parameters = dict(settings.parameters)
        self._lock = threading.Lock()

    def verdicts(
        self, pairs: Sequence[Comparison], keep: Keep, budget: Budget, standing: Standing | None = None
    ) -> Iterator[None]:
        """See Judge."""
        yield from RequestPool(self.ask, self._settings, self.spec, pairs, keep, budget, standing or Standing())

    def ask(self, pair: Comparison) -> Verdict:
        """One try at one question. Raises TryLater, Refused, Barred or Closed."""
        parameters = self._parameters
        try:
            completion, usage = self._complete(pair, parameters)
        except Exception as error:  # other people's code; what is no failure of a request goes on as it is
            failure = failure_of(error, self._library)
            if isinstance(failure, Refused) and self._adapt(str(failure), parameters):
                return self.ask(pair)
            raise failure from error
        raw = scrubbed(completion.text.encode("utf-8", "replace").decode())
        return Verdict(self._settings.parser.first_better(completion), raw, usage=usage)

    def _adapt(self, refusal: str, used: Mapping[str, Any]) -> bool:
        """Some models take no temperature, or call max_tokens otherwise, and say so. True: ask again, their way."""
        with self._lock:
            if used is not self._parameters:
                return True  # another thread was told the same
            if "max_completion_tokens" in refusal and "max_tokens" in used:
                renamed = {**used, "max_completion_tokens": used["max_tokens"]}
                del renamed["max_tokens"]
                self._parameters = renamed
                return True
            for name in ("temperature", "top_p"):
                if name in used and re.search(rf"\b{name}\b.*(support|deprecat|permit|allow)", refusal):
                    self._parameters = {key: value for key, value in used.items() if key != name}
                    return True
        return False


def client_of(name: str, spec: JudgeSpec, settings: JudgeSettings) -> tuple[ModuleType, Any]:
    """The vendor's package and its client `name`, which leaves retries to us. Waiting without the package or a key."""
    try:
        library = importlib.import_module(spec.kind)
    except ImportError:
        raise Waiting(
            f"the judge needs the package {spec.kind}, which is not installed",
            f"pip install 'hpcsft[{spec.kind}]'; {KEPT}",
        ) from None
    if problem := key_problem(spec):
        raise Waiting(f"the judge needs a key, but {problem}", f"{how_to_give_the_key(spec)}; {KEPT}")
    client = getattr(library, name)(
        api_key=judge_key(spec) or "none",
        base_url=settings.base_url,
        max_retries=0,
        timeout=library.Timeout(spec.timeout_s, connect=min(CONNECT_S, spec.timeout_s)),
    )
    return library, client
