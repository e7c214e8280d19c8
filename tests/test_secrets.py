"""What is secret never reaches a file or a screen: by its name, by what a process was told, and by its shape."""

from __future__ import annotations

import io
import json
import sys

import pytest

from hpcsft import secrets
from hpcsft.secrets import (
    HIDDEN,
    ScrubbedStream,
    guard_output,
    holds_credentials,
    looks_secret,
    remember_secret,
    remember_variables,
    scrubbed,
    scrubbed_values,
    scrubbed_words,
)

CANARY = "canary-5e3c0f17"


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch):
    monkeypatch.setattr(secrets, "_remembered", set())


@pytest.mark.parametrize(
    "name",
    [
        *("OPENAI_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "DB_PASSWD", "my_pass", "PASS"),
        *("GITHUBTOKEN", "GOOGLE_APPLICATION_CREDENTIALS", "APPTAINERENV_OPENAI_API_KEY", "GPG_PASSPHRASE"),
        "SLURM_JWT",
    ],
)
def test_names_that_tell_of_a_secret(name):
    assert looks_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        *("TOKENIZERS_PARALLELISM", "PATH", "BYPASS_CACHE", "KEYBOARD", "XKB_KEYMAP", "COMPASS", "NCCL_DEBUG", "PWD"),
        *("NCCL_IB_PKEY", "UCX_IB_PKEY", "MAX_TOKENS", "VLLM_MAX_NUM_BATCHED_TOKENS"),
    ],
)
def test_names_that_do_not(name):
    assert not looks_secret(name)


def test_variables_with_secret_names_are_hidden_and_others_are_shown(monkeypatch):
    monkeypatch.setenv("SITE_API_TOKEN", CANARY)
    monkeypatch.setenv("SITE_NAME", "canary-wharf")
    assert scrubbed(f"refused: {CANARY} at canary-wharf") == f"refused: {HIDDEN} at canary-wharf"


@pytest.mark.parametrize("value", ["EMPTY", "none", "1"])
def test_what_is_too_short_for_a_secret_is_shown(value, monkeypatch):
    """Servers without keys are given such words, and every other line has them."""
    monkeypatch.setenv("OPENAI_API_KEY", value)
    assert scrubbed(f"the file is {value}") == f"the file is {value}"


def test_the_path_of_a_key_is_no_secret(monkeypatch, tmp_path):
    file = tmp_path / "credentials.json"
    file.touch()
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    monkeypatch.setenv("B_KEY", "/9j/4AAQSkZJRgABAQ")  # base64 may begin so
    assert scrubbed(f"{file} /9j/4AAQSkZJRgABAQ") == f"{file} {HIDDEN}"


def test_a_variable_that_a_spec_names_is_hidden_whatever_its_name(monkeypatch):
    monkeypatch.setenv("HOOK", "https://hooks.example.org/T0/B0/x7x7")
    remember_variables(["HOOK", "NOT_THERE"])
    assert scrubbed("POST https://hooks.example.org/T0/B0/x7x7: 404") == f"POST {HIDDEN}: 404"


@pytest.mark.parametrize("value", ['with "quotes" and \\', "lf\tand tab 1", "a/b+c=d&e f", "schlüssel-0123"])
def test_a_secret_is_found_in_the_forms_in_which_it_is_written(value):
    from urllib.parse import quote

    remember_secret(value)
    for text in (value, json.dumps({"key": value}), repr([value]), f"http://x/?q={quote(value)}", quote(value, "")):
        assert value not in scrubbed(text) and HIDDEN in scrubbed(text), text


def test_every_line_of_a_secret_of_several_lines_is_hidden():
    remember_secret("-----BEGIN KEY-----\nMIIEvQIBADANBg\n-----END KEY-----\n")
    assert scrubbed("read MIIEvQIBADANBg here") == f"read {HIDDEN} here"


def test_of_two_secrets_the_longer_is_hidden_whole():
    remember_secret("sesame-open")
    remember_secret("sesame-open-wide")
    assert scrubbed("sesame-open-wide") == HIDDEN


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        (f"https://me:{CANARY}@host/v1", f"https://{HIDDEN}@host/v1"),
        (f"https://{CANARY}@host", f"https://{HIDDEN}@host"),
        (f"http://me:p@{CANARY}@host", f"http://{HIDDEN}@host"),
        (f"https://host/v1?version=2&api_key={CANARY}", f"https://host/v1?version=2&api_key={HIDDEN}"),
        (f"http://host/?token={CANARY}&x=1", f"http://host/?token={HIDDEN}&x=1"),
        (f"http://host/?X-Amz-Signature={CANARY}", f"http://host/?X-Amz-Signature={HIDDEN}"),
    ],
)
def test_addresses_are_shown_without_their_secrets(address, shown):
    assert holds_credentials(address)
    assert scrubbed(f'"{address}"') == f'"{shown}"'


@pytest.mark.parametrize("address", ["http://localhost:8000/v1", "https://host/v1?api-version=2024-02-01", "me@host"])
def test_addresses_without_secrets_stay(address):
    assert not holds_credentials(address)
    assert scrubbed(address) == address


def test_a_proxy_may_be_written_without_a_scheme():
    assert holds_credentials(f"me:{CANARY}@proxy.example.org:3128")
    assert not holds_credentials("proxy.example.org:3128")


def test_a_document_without_secrets_is_still_json(monkeypatch):
    """A diff has quotes behind its addresses, and a number may be what somebody has for a key."""
    monkeypatch.setenv("PIN_KEY", "16777216")
    document = {"diff": f'+a = "http://h/?token={CANARY}"\n+b = 1', "bytes": 16777216, "n": [None, "16777216"]}
    shown = {"diff": f'+a = "http://h/?token={HIDDEN}"\n+b = 1', "bytes": 16777216, "n": [None, HIDDEN]}
    assert json.loads(json.dumps(scrubbed_values(document))) == shown


def test_keys_are_known_by_their_shape():
    key = "sk-proj-" + "a1B2" * 8
    assert scrubbed(f"+OPENAI = '{key}'") == f"+OPENAI = '{HIDDEN}'"
    assert scrubbed("task-force sk-short") == "task-force sk-short"


def test_a_command_line_is_written_down_without_values_of_secret_names():
    given = ["submit", "--set", f"cluster.env.HF_TOKEN={CANARY}", "--set", "evaluate.judge.api_key_env=MY_OWN_KEY"]
    assert scrubbed_words(given) == ["submit", "--set", f"cluster.env.HF_TOKEN={HIDDEN}", "--set", given[-1]]


def test_streams_hide_secrets_and_are_else_what_they_were():
    inner = io.StringIO()
    stream = ScrubbedStream(inner)
    remember_secret(CANARY)
    print("key", CANARY, file=stream)
    stream.writelines(["a\n", f"{CANARY}\n"])
    assert inner.getvalue() == f"key {HIDDEN}\na\n{HIDDEN}\n"
    assert stream.write(CANARY) == len(CANARY)
    assert stream.getvalue is not None and not stream.isatty()


def test_a_traceback_shows_no_secret_once_output_is_guarded(monkeypatch):
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.StringIO())
    guard_output()
    guard_output()
    assert isinstance(sys.stderr, ScrubbedStream) and not isinstance(sys.stderr._stream, ScrubbedStream)
    remember_secret(CANARY)
    try:
        raise RuntimeError(f"401 for Bearer {CANARY}")
    except RuntimeError:
        sys.excepthook(*sys.exc_info())
    shown = sys.stderr.getvalue()
    assert "Traceback" in shown and f"Bearer {HIDDEN}" in shown and CANARY not in shown
