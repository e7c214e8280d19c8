"""What is missing here for a notification: the variable with the webhook's address, the program."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping

from hpcsft.spec.notify import NotifySpec, is_address


def webhook_address(notify: NotifySpec) -> str:
    """The webhook's address, "" if there is none here. `webhook_problem` tells whether it can be used."""
    variable = notify.webhook_variable
    return os.environ.get(variable, "") if variable else notify.webhook or ""


def webhook_problem(notify: NotifySpec) -> str | None:
    """Why there is no address of the webhook here, or None."""
    if notify.webhook is None or is_address(address := webhook_address(notify)):
        return None
    return f"{notify.webhook_variable} holds no http(s) address" if address else f"{notify.webhook_variable} is not set"


def command_problem(notify: NotifySpec) -> str | None:
    """Why the command cannot be run here, or None."""
    if notify.command is None or shutil.which(notify.command[0]):
        return None
    return f"there is no program {notify.command[0]} here"


def ways_that_lack(notify: NotifySpec) -> Mapping[str, str]:
    """Way -> why it cannot be gone from here."""
    problems = {"command": command_problem(notify), "webhook": webhook_problem(notify)}
    return {way: problem for way, problem in problems.items() if problem}


def what_notify_lacks(notify: NotifySpec) -> Iterator[str]:
    """Warnings before anything is submitted: jobs get the environment in which submit is called."""
    if problem := webhook_problem(notify):
        yield f"notify.webhook: {problem}: export {notify.webhook_variable}=... first, or no job can tell how it ended"
    if problem := command_problem(notify):
        yield f"notify.command: {problem}"
