"""What keeps a notification from being sent is told when submitting, while it can still be mended."""

from __future__ import annotations

from hpcsft.notify.lacks import what_notify_lacks
from hpcsft.spec.notify import NotifySpec


def warnings(**notify: object) -> list[str]:
    return list(what_notify_lacks(NotifySpec.model_validate(notify)))


def test_a_variable_that_is_not_set_or_holds_no_address(monkeypatch):
    monkeypatch.delenv("HOOK", raising=False)
    then = ": export HOOK=... first, or no job can tell how it ended"
    assert warnings(webhook="$HOOK") == [f"notify.webhook: HOOK is not set{then}"]
    monkeypatch.setenv("HOOK", "x7x7")
    assert warnings(webhook="$HOOK") == [f"notify.webhook: HOOK holds no http(s) address{then}"]
    monkeypatch.setenv("HOOK", "https://hooks.example.org/x7x7")
    assert warnings(webhook="$HOOK") == warnings(webhook="https://hooks.example.org/x7x7") == []


def test_a_program_that_is_not_there():
    assert warnings(command=["no-such-program", "x"]) == ["notify.command: there is no program no-such-program here"]
    assert warnings(command=["sh"]) == []
