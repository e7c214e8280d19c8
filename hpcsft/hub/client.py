"""Models of the hub through `huggingface_hub`, which is loaded only when a spec names one.

The user's own token (HF_TOKEN, or what `hf auth login` has stored) is used here, on the login node, and nowhere else.
"""

from __future__ import annotations

import contextlib
import functools
import glob
import os
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

from hpcsft.errors import InputError
from hpcsft.hub.files import missing_parts, small_files, total_bytes, weight_files
from hpcsft.hub.names import DataName, ModelName, is_commit
from hpcsft.hub.trouble import Silence, in_words, no_room

ETAG_TIMEOUT_S = 10.0
"""Patience with a hub that does not answer; `huggingface_hub` has the same for other requests."""


class Listing(NamedTuple):
    """A repository at one commit."""

    name: str
    commit: str
    sizes: dict[str, int]
    """Bytes of every file that is wanted."""
    weights: list[str]
    """Those of them that hold the weights."""
    folder: Path
    """Where its files are, or will be."""
    silence: str | None = None
    """Why the hub was not asked, if only the cache was."""
    branch: str | None = None
    """The branch or tag that is there now."""

    def missing(self, names: list[str]) -> list[str]:
        """Those of the files `names` that are not in the folder."""
        return [name for name in names if not (self.folder / name).is_file()]

    @property
    def size_bytes(self) -> int:
        """Bytes of all files that are wanted."""
        return sum(self.sizes.values())


@functools.cache
def list_model(text: str, where: str, cache: Path, commit: str | None = None) -> Listing:
    """The model `text`, which the spec's field `where` names, at `commit` or else where its revision is now.

    Asks the hub, and the cache if the hub is silent. In one process it does so once: what was looked at is what is
    fetched. InputError if neither has it.
    """
    wanted = ModelName.parse(text)
    revision = commit or wanted.revision
    try:
        sizes, found = _ask(wanted.name, revision)
    except Exception as error:  # httpx, requests or xet: which of them is a matter of the version
        trouble = in_words(error, text, where, f"https://huggingface.co/{wanted.name}")
        if isinstance(trouble, Silence):
            return _cached(wanted.name, revision, trouble, cache)
        raise trouble from None
    names = [*small_files(sizes), *weight_files(sizes)]
    if not weight_files(sizes):
        hint = "name a repository with model.safetensors, pytorch_model.bin or one GGUF file, or give a folder"
        raise InputError(f"{where}: {text}: no weights in it that can be read here", hint)
    folder = _repository(cache, wanted.name) / "snapshots" / found
    branch = None if is_commit(revision) else revision or "main"
    chosen = {name: sizes[name] for name in names}
    return Listing(wanted.name, found, chosen, weight_files(sizes), folder, branch=branch)


def download(text: str, where: str, listing: Listing, names: list[str], cache: Path) -> None:
    """Bring the files `names` into the cache; what is there already, or in part, is not fetched again.

    InputError if that fails, also for want of room, which is looked at first.
    """
    if listing.silence:
        return
    _remember(cache, listing)
    missing = listing.missing(names)
    if not missing:
        return
    if problem := _no_room(cache, total_bytes(listing.sizes, missing)):
        raise no_room(text, where, cache, problem)
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        snapshot_download(
            listing.name,
            revision=listing.commit,
            cache_dir=cache,
            allow_patterns=[glob.escape(name) for name in names],
            etag_timeout=ETAG_TIMEOUT_S,
        )
    except Exception as error:  # as above
        trouble = in_words(error, text, where, f"https://huggingface.co/{listing.name}")
        raise (trouble.broken_off() if isinstance(trouble, Silence) else trouble) from None


@functools.cache
def look_at_data(text: str, where: str) -> tuple[str, int] | None:
    """The commit of a data set of the hub and the bytes of its files; None if the hub is silent.

    InputError if the hub does not have it, or not that revision.
    """
    from huggingface_hub import HfApi

    wanted = DataName.parse(text)
    try:
        info = HfApi().dataset_info(wanted.name, revision=wanted.revision, files_metadata=True, timeout=ETAG_TIMEOUT_S)
    except Exception as error:  # as above
        trouble = in_words(error, text, where, f"https://huggingface.co/datasets/{wanted.name}")
        if isinstance(trouble, Silence):
            return None
        raise trouble from None
    return str(info.sha), sum(file.size or 0 for file in info.siblings or [])


def _ask(name: str, revision: str | None) -> tuple[dict[str, int], str]:
    """Sizes of all files by their names, and the commit that `revision` is now."""
    from huggingface_hub import HfApi

    info = HfApi().model_info(name, revision=revision, files_metadata=True, timeout=ETAG_TIMEOUT_S)
    return {file.rfilename: file.size or 0 for file in info.siblings or []}, str(info.sha)


def _cached(name: str, revision: str | None, silence: Silence, cache: Path) -> Listing:
    """What the cache holds of the model. InputError if it is not there, or not whole."""
    repository = _repository(cache, name)
    commit = revision if is_commit(revision) else _remembered(repository, revision or "main")
    folder = repository / "snapshots" / commit if commit else None
    if folder is None or not folder.is_dir():
        raise silence.not_cached(cache)
    try:
        missing = missing_parts(folder)
    except (OSError, ValueError):
        missing = ["an index of the weights that can be read"]
    if missing:
        raise silence.half_cached(folder, missing)
    present = {entry.name: entry.stat().st_size for entry in folder.iterdir() if entry.is_file()}
    weights = weight_files(present)
    sizes = {name: present[name] for name in [*small_files(present), *weights]}
    return Listing(name, str(commit), sizes, weights, folder, silence.reason)


def _repository(cache: Path, name: str) -> Path:
    """The folder of a model in the cache, as huggingface_hub's guide to its cache tells it."""
    return cache / f"models--{name.replace('/', '--')}"


def _remembered(repository: Path, revision: str) -> str | None:
    """The commit that a branch or tag was when it was last fetched."""
    try:
        return (repository / "refs" / revision).read_text(encoding="utf-8").strip() or None
    except (OSError, ValueError):
        return None


def _remember(cache: Path, listing: Listing) -> None:
    """Let the cache know which commit the branch or tag is now, as huggingface_hub does: it may be silent tomorrow."""
    if listing.branch is None:
        return
    file = _repository(cache, listing.name) / "refs" / listing.branch
    with contextlib.suppress(OSError):  # it is good to know, and no more
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f".{file.name}.{os.getpid()}")
        temporary.write_text(listing.commit, encoding="utf-8")
        os.replace(temporary, file)


def _no_room(cache: Path, wanted_bytes: int) -> str | None:
    """What is too little, if it is."""
    existing = next(folder for folder in (cache, *cache.parents) if folder.is_dir())
    free_bytes = shutil.disk_usage(existing).free
    if free_bytes >= wanted_bytes:
        return None
    return f"{wanted_bytes / 1e9:,.2f} GB are to be fetched, {free_bytes / 1e9:,.2f} GB are free"
