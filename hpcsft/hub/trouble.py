"""What goes wrong with the hub, in words: what it is, and what to do."""

from __future__ import annotations

import errno
from pathlib import Path

from hpcsft.errors import InputError

ELSEWHERE = (
    "fetch it where there is a network and give the folder, `hf download NAME --local-dir FOLDER`; "
    "or put it into the cache there and copy the cache"
)


class Silence(InputError):
    """The hub does not answer, or was not to be asked."""

    def __init__(self, text: str, where: str, reason: str):
        super().__init__(f"{where}: {text}: {reason}", ELSEWHERE)
        self.text = text
        self.where = where
        self.reason = reason

    def not_cached(self, cache: Path | str) -> InputError:
        """The cache has nothing of it."""
        return InputError(f"{self.where}: {self.text}: {self.reason}, and it is not in {cache}", ELSEWHERE)

    def half_cached(self, folder: Path, missing: list[str]) -> InputError:
        """The cache has a part of it."""
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        message = f"{self.where}: {self.text}: {self.reason}, and {folder} is not whole: {missing[0]}{more} missing"
        return InputError(message, f"the same command fetches the rest when the hub answers; or {ELSEWHERE}")

    def broken_off(self) -> InputError:
        """It was being fetched."""
        message = f"{self.where}: {self.text}: fetching broke off: {self.reason}"
        return InputError(message, "what has come is kept: the same command goes on where it stopped")


def in_words(error: Exception, text: str, where: str, page: str) -> InputError:
    """An error of `huggingface_hub` or of the disk; Silence if there was no answer. `page` is the repository's."""
    from huggingface_hub import errors

    begin = f"{where}: {text}: "
    if isinstance(error, errors.GatedRepoError):
        hint = f"accept its licence at {page}, then `hf auth login`, or export HF_TOKEN=... of that account"
        return InputError(f"{begin}gated: the hub gives it only to those who have accepted its licence", hint)
    if isinstance(error, errors.RepositoryNotFoundError):
        hint = f"is {page} right? for a private one: `hf auth login`, or export HF_TOKEN=... of an account that sees it"
        return InputError(f"{begin}the hub has no such repository, or does not show it to you", hint)
    if isinstance(error, errors.RevisionNotFoundError):
        hint = f"{page}/tree/main lists its branches and tags; without @REVISION it is main"
        return InputError(f"{begin}the repository has no such revision", hint)
    if isinstance(error, errors.HFValidationError):
        return InputError(f"{begin}{first_line(error)}", f"a name on the hub is as in its address: {page}")
    if isinstance(error, errors.OfflineModeIsEnabled):
        return Silence(text, where, "the hub is not asked, because HF_HUB_OFFLINE is set")
    if isinstance(error, errors.HfHubHTTPError) and error.response is not None:
        status = error.response.status_code
        if status in (401, 403):
            hint = f"`hf auth login`, or export HF_TOKEN=... of an account that sees {page}"
            return InputError(f"{begin}the hub refuses it to you ({status})", hint)
        return Silence(text, where, f"the hub answers with an error ({status})")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
        return no_room(text, where, Path(error.filename or "the cache"), str(error.strerror))
    return Silence(text, where, f"the hub does not answer ({first_line(error)})")


def no_room(text: str, where: str, place: Path, reason: str) -> InputError:
    """The cache cannot take it."""
    hint = "export HF_HOME=... names another place, on a filesystem that compute nodes share; what has come is kept"
    return InputError(f"{where}: {text}: cannot be kept in {place}: {reason}", hint)


def first_line(error: Exception) -> str:
    """An error in one line."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
