"""Data sets of the hub into the cache of `datasets`: a program of its own, because that takes seconds to load.

It reads {"wanted": [{"name", "where", "commit"}], "format"} from the standard input, and answers with a last line of
{name: the fields of FetchedData and "silence", or {"error", "hint"}}. Bars go to the standard error.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from hpcsft.data.first_rows import check_first_rows
from hpcsft.data.hub import cached_folders
from hpcsft.errors import InputError
from hpcsft.hub.fetched import FetchedData
from hpcsft.hub.names import DataName, is_commit
from hpcsft.hub.trouble import Silence, first_line, in_words

TIMEOUT_S = 100.0
"""Patience with the hub, as `datasets` has."""


def fetch(text: str, where: str, format: str, commit: str | None) -> tuple[FetchedData, str | None]:
    """The data set `text`, at `commit` or where its revision is now, and why the hub was not asked if it was not.

    InputError if neither the hub nor the cache has it, or if its rows are no conversations in `format`.
    """
    from huggingface_hub import HfApi

    wanted = DataName.parse(text)
    revision, silence = commit or wanted.revision, None
    try:
        now = HfApi().dataset_info(wanted.name, revision=revision, timeout=TIMEOUT_S).sha
    except Exception as error:  # httpx or requests: which of them is a matter of the version
        trouble = in_words(error, text, where, _page(wanted))
        if not isinstance(trouble, Silence):
            raise trouble from None
        folder, silence = _cached(wanted, revision, trouble), trouble.reason
    else:
        folder = _prepare(wanted, now, text, where)
    found = FetchedData(
        revision=folder.name,
        config=folder.parts[-3],
        cache=str(folder.parents[3]),
        folder=str(folder),
        size_bytes=sum(file.stat().st_size for file in folder.iterdir()),
    )
    try:
        check_first_rows(wanted.pinned(found.revision, found.config), format)
    except InputError as error:
        raise InputError(f"{where}: {error.message}", error.hint) from None
    return found, silence


def _prepare(wanted: DataName, commit: str | None, text: str, where: str) -> Path:
    """Where it is in the cache, when it has been downloaded and prepared; InputError if that fails."""
    import datasets

    try:
        builder = datasets.load_dataset_builder(wanted.name, wanted.config, revision=commit)
        builder.download_and_prepare()
        return Path(builder.cache_dir)
    except Exception as error:  # every kind of data set fails in its own way
        hint = f"see {_page(wanted)}; what has come is kept"
        raise InputError(f"{where}: {text}: cannot be fetched: {first_line(error)}", hint) from None


def _cached(wanted: DataName, revision: str | None, silence: Silence) -> Path:
    """Where it is in the cache, at that commit or the newest; InputError if it is not there."""
    import datasets

    held = [folder for folder in cached_folders(wanted) if is_commit(folder.name)]
    fitting = [folder for folder in held if revision in (None, "main", folder.name)]
    if not fitting:
        others = f", which holds {', '.join(f'@{folder.name}' for folder in held)}" if held else ""
        raise silence.not_cached(f"{datasets.config.HF_DATASETS_CACHE}{others}")
    return fitting[-1]


def _page(wanted: DataName) -> str:
    return f"https://huggingface.co/datasets/{wanted.name}"


def main() -> None:
    """Answer the request on the standard input."""
    import datasets
    from huggingface_hub.utils import disable_progress_bars, logging

    logging.set_verbosity_error()
    datasets.logging.set_verbosity_error()
    if not sys.stderr.isatty():
        disable_progress_bars()
        datasets.disable_progress_bars()
    request = json.load(sys.stdin)
    answers: dict[str, dict[str, Any]] = {}
    for item in request["wanted"]:
        try:
            found, silence = fetch(item["name"], item["where"], request["format"], item["commit"])
            answers[item["name"]] = {**found.model_dump(), "silence": silence}
        except InputError as error:
            answers[item["name"]] = {"error": error.message, "hint": error.hint}
            break
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
