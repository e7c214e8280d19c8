"""Completion in the shell: verbs, options, specs, runs by name, stages that have logs. Made by argcomplete.

    eval "$(hpcsft completion bash)"

The shell calls `hpcsft` again at every TAB, so no more is loaded than the script of the verb that was typed.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
from collections.abc import Callable, Sequence
from typing import Any

import argcomplete
from argcomplete.completers import FilesCompleter

from hpcsft.errors import EXIT_OK, HpcsftError

SHELLS = ("bash", "zsh", "fish")
PLAIN_VERBS = {"schema": ["--table"], "completion": list(SHELLS)}
"""Verbs without a script, and what may follow them."""


def completion(arguments: Sequence[str]) -> int:
    """Print the script that the shell evaluates. HpcsftError if it is none of SHELLS."""
    if len(arguments) != 1 or arguments[0] not in SHELLS:
        given = " ".join(arguments) or "nothing"
        raise HpcsftError(f"hpcsft completion bash|zsh|fish; given {given}", 'eval "$(hpcsft completion bash)"')
    print(argcomplete.shellcode(["hpcsft"], shell=arguments[0]))
    return EXIT_OK


def complete(usage: str, parser_of: Callable[[str], argparse.ArgumentParser | None]) -> None:
    """Tell the shell, which has set argcomplete's variables, what could come next; does not return."""
    verbs = dict(re.findall(r"^  (\w+)(?: \S+)*? {2,}(\S.*)$", usage, re.MULTILINE))
    parser = argparse.ArgumentParser(prog="hpcsft")
    choices = parser.add_subparsers(dest="verb")
    typed = typed_verb(os.environ.get("COMP_LINE", ""))
    for verb, meaning in verbs.items():
        own = parser_of(verb) if verb == typed else None
        if own:
            for action in own._actions:
                add_completer(action)
        sub = choices.add_parser(verb, help=meaning, parents=[own] if own else [], add_help=not own)
        if verb in PLAIN_VERBS:
            sub.add_argument("word", nargs="?", choices=PLAIN_VERBS[verb])
    argcomplete.autocomplete(parser, always_complete_options=False)


def typed_verb(line: str) -> str | None:
    """The verb of a command line that may not be whole yet."""
    try:
        words = shlex.split(line)
    except ValueError:  # within quotes
        words = line.split()
    return words[1] if len(words) > 1 else None


def add_completer(action: argparse.Action) -> None:
    """Say what an argument may be, by what it is called in the usage."""
    what = {"RUN": run_names, "STAGE": stages, "SPEC.json": FilesCompleter(("json",))}.get(str(action.metavar))
    if what is not None:
        action.completer = what  # type: ignore[attr-defined]  # argcomplete's way


def run_names(prefix: str, **_: Any) -> list[str]:
    """Names of the known runs; none for a path, which the shell itself completes."""
    from hpcsft.runs_dirs import known_run_names

    return [] if "/" in prefix else known_run_names()


def stages(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    """The stages of the named run that have logs."""
    from hpcsft.find_run import find

    try:
        logs = find(parsed_args.run, ask_slurm=False).run.logs
        return [folder.name for folder in logs.iterdir() if folder.is_dir()]
    except (HpcsftError, OSError):
        return []
