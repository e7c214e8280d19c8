"""A key comes from a file that only its owner can read, and from no other."""

from __future__ import annotations

import os

import pytest

from hpcsft import secrets
from hpcsft.key_file import KeyFileError, read_key
from hpcsft.secrets import HIDDEN, scrubbed

KEY = "my-own-key-0123"


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setattr(secrets, "_remembered", set())
    path = tmp_path / "judge.key"
    path.write_text(f"  {KEY}\n")
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_the_key_is_read_without_white_space_and_hidden_from_then_on(file, mode):
    file.chmod(mode)
    assert scrubbed(KEY) == KEY
    assert read_key(str(file)) == KEY
    assert scrubbed(f"Bearer {KEY}") == f"Bearer {HIDDEN}"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644])
def test_a_file_that_others_have_access_to_is_refused_with_its_mode(file, mode):
    file.chmod(mode)
    with pytest.raises(KeyFileError, match=f"has mode {mode:04o}: others have access to it") as caught:
        read_key(str(file))
    assert caught.value.hint == f"chmod 600 {file}"


def test_a_file_of_somebody_else_is_refused(file):
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    os.chown(file, 12345, -1)
    with pytest.raises(KeyFileError, match=r"belongs to another user \(uid 12345\)"):
        read_key(str(file))


@pytest.mark.parametrize("text", ["", " \n", "one\ntwo\n", "schlüssel", "a\0b", "x" * 70_000])
def test_a_file_without_a_key_is_refused_and_not_shown(file, text):
    file.write_text(text)
    with pytest.raises(KeyFileError, match="holds no key, which is one line of text") as caught:
        read_key(str(file))
    assert not text.strip() or text.strip() not in str(caught.value)


def test_what_is_no_file_is_refused(file, tmp_path):
    with pytest.raises(KeyFileError, match="No such file or directory"):
        read_key(str(tmp_path / "none"))
    with pytest.raises(KeyFileError, match="is no file"):
        read_key(str(tmp_path))
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(KeyFileError, match="is no file"):
        read_key(str(tmp_path / "pipe"))
