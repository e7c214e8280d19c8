"""What a person is told when a filesystem refuses."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from hpcsft.errors import HpcsftError
from hpcsft.storage import storage_error, storage_errors


@pytest.mark.parametrize(
    ("number", "words", "hint"),
    [
        (errno.ENOSPC, "No space left on device", "make room there"),
        (errno.EDQUOT, "Disk quota exceeded", "your quota there is used up"),
        (errno.EROFS, "Read-only file system", "try again when it can be written"),
        (errno.EACCES, "Permission denied", "whose is it?"),
        (errno.ENOENT, "No such file or directory", "is its filesystem mounted here?"),
        (errno.ESTALE, "Stale file handle", "does not answer as it should"),
        (errno.EIO, "Input/output error", "does not answer as it should"),
    ],
)
def test_path_reason_and_what_to_do(number, words, hint):
    with (
        pytest.raises(HpcsftError, match="RUN cannot be submitted: /scratch/x: ") as error,
        storage_errors("RUN cannot be submitted"),
    ):
        raise OSError(number, os.strerror(number), "/scratch/x")
    assert words in error.value.message and hint in error.value.hint and error.value.exit_code == 1


def test_an_error_that_names_no_file_and_one_that_has_no_number():
    assert storage_error(OSError(errno.EIO, "x"), "A").message == "A: Input/output error"
    assert storage_error(OSError("went wrong"), "A").message == "A: went wrong"


def test_of_many_files_that_could_not_be_copied_the_first_is_named(tmp_path: Path, monkeypatch):
    (tmp_path / "from").mkdir()
    for name in "ab":
        (tmp_path / "from" / name).touch()

    def full(source: str, destination: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(destination))

    with pytest.raises(HpcsftError) as error, storage_errors("A"):
        shutil.copytree(tmp_path / "from", tmp_path / "to", copy_function=full)
    assert error.value.message.startswith(f"A: {tmp_path}/to/") and "No space left" in error.value.message
    assert "make room" in error.value.hint
