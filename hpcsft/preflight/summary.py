"""All findings in one line. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from hpcsft.preflight.finding import Finding


def summary(findings: Sequence[Finding]) -> str:
    """Such as `2 errors, 1 warning: submit.py would refuse this`."""
    counts = Counter(found.level for found in findings)
    told = [
        f"{counts[level]} {level}{'s' if counts[level] > 1 else ''}" for level in ("error", "warning") if counts[level]
    ]
    errors = [found for found in findings if found.level == "error"]
    if not errors:
        return f"{', '.join(told)}; " * bool(told) + "nothing stands against a submission"
    verdict = "submit.py refuses this" + ("; --force submits all the same" if all(e.forcible for e in errors) else "")
    return f"{', '.join(told)}: {verdict}"
