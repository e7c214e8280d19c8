"""Whom a spec tells: no part of the experiment, and what is wrong with it is found before a run has ended."""

from __future__ import annotations

from typing import Any

import pytest

from hpcsft.errors import SpecError
from hpcsft.spec import ExperimentSpec, parse_spec
from hpcsft.spec.notify import NotifySpec, host_of
from tests.spec.values import minimal

SECRET = "https://hooks.example.org:8443/services/T0/B0/x7x7x7"


def refused(notify: Any) -> str:
    with pytest.raises(SpecError) as caught:
        parse_spec(minimal(notify=notify))
    (line,) = [line for line in caught.value.lines() if line.startswith("error: ")]
    return line


def test_who_is_told_is_no_part_of_the_experiment():
    """Another address must find the run that exists."""
    spec = parse_spec(minimal())
    assert parse_spec(minimal(notify={"webhook": "$HOOK", "on": ["failed"]})).digest() == spec.digest()


def test_what_is_written_is_read_back_the_same():
    spec = parse_spec(minimal(notify={"command": ["mail", "{name}"], "webhook": "$HOOK", "on": ["waiting"]}))
    assert ExperimentSpec.model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize("words", [["mail"], ["{x}", "a"], ["a", "{name}:{state} {stage} {message} {run_dir}", "{{}}"]])
def test_words_of_a_command(words):
    assert parse_spec(minimal(notify={"command": words})).notify.command == words


@pytest.mark.parametrize(
    "word", ["{nme}", "{}", "{0}", "{name!r}", "{name:9}", "{name.x}", "{name[0]}", '{"a": 1}', "{"]
)
def test_only_what_is_known_can_be_filled_in(word):
    line = refused({"command": ["mail", "-s", word]})
    allowed = "{name}, {state}, {stage}, {message}, {run_dir}"
    assert line.startswith(f"error: notify.command: '{word}': only {allowed} are filled in; a brace that stays one is ")


@pytest.mark.parametrize(
    "webhook",
    ["hooks.example.org/x", "ftp://a/b", "file:///etc/passwd", "https://", "https://me:pass@a/b", "https://a:x/b",
     "https://a/b c", "$", "$1", "${HOOK}", ""],
)  # fmt: skip
def test_a_webhook_is_an_address_or_a_variable(webhook):
    assert "an address that begins with https:// or http://, or $NAME of an" in refused({"webhook": webhook})


@pytest.mark.parametrize("notify", [SECRET, {"webhook": f"{SECRET} "}, {"webhook": [SECRET]}])
def test_no_error_of_the_spec_holds_the_address(notify):
    assert "services" not in refused(notify)


@pytest.mark.parametrize(
    ("notify", "text"),
    [
        ({}, "give a command, a webhook, or both; null for neither"),
        ({"on": ["done"]}, "give a command, a webhook, or both; null for neither"),
        ({"command": []}, "must not be empty"),
        ({"command": [" "]}, "the first word is a program"),
        ({"webhook": "$A", "on": []}, "must not be empty"),
        ({"webhook": "$A", "on": ["cancelled"]}, "must be 'done', 'failed' or 'waiting'"),
    ],
)
def test_settings_that_would_tell_nobody(notify, text):
    assert text in refused(notify)


def test_a_program_that_is_a_path_is_that_of_the_folder_in_which_submit_was_called(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert parse_spec(minimal(notify={"command": ["./tell.sh", "./x"]})).notify.command == [
        f"{tmp_path}/tell.sh",
        "./x",
    ]
    assert parse_spec(minimal(notify={"command": ["mail"]})).notify.command == ["mail"]


def test_of_an_address_only_the_host_is_told():
    assert host_of(SECRET) == "hooks.example.org:8443"
    assert NotifySpec(webhook=SECRET).without_secret(f"a {SECRET} b") == "a https://hooks.example.org:8443/... b"
    assert NotifySpec(webhook="$HOOK").without_secret("a $HOOK b") == "a $HOOK b"
