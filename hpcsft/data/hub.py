"""Data sets of the Hugging Face hub, opened. Their names are read in `hpcsft.hub.names`."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

from hpcsft.errors import InputError
from hpcsft.hub.names import DataName, is_commit

if TYPE_CHECKING:
    import datasets


def fetching_command(wanted: DataName) -> str:
    """What fetches the data set, to be run where there is a network."""
    arguments = [repr(wanted.name)] + ([repr(wanted.config)] if wanted.config else []) + [f"split={wanted.split!r}"]
    arguments += [f"revision={wanted.revision!r}"] if wanted.revision else []
    return f'python -c "import datasets; datasets.load_dataset({", ".join(arguments)})"'


def cached_folders(wanted: DataName) -> list[Path]:
    """Where the cache of `datasets` holds that data set, at any commit; the newest last."""
    import datasets

    owner, _, name = wanted.name.partition("/")
    snake = datasets.naming.camelcase_to_snakecase(name)
    found = Path(datasets.config.HF_DATASETS_CACHE).expanduser().glob(f"{owner}___{snake}/*/*/*/dataset_info.json")
    folders = [file.parent for file in found if wanted.config in (None, file.parents[2].name)]
    return sorted(folders, key=lambda folder: folder.stat().st_mtime)


@functools.lru_cache(maxsize=4)
def open_hub(text: str) -> datasets.Dataset:
    """The data set of that name, from the local cache or the network; InputError if neither has it.

    One that is named with its commit, and is in the cache, takes no network.
    """
    import datasets

    wanted = DataName.parse(text)
    hint = f"fetch it on the login node, with the same HF_HOME as in the job: {fetching_command(wanted)}"
    try:
        builder = _at_commit(wanted) or datasets.load_dataset_builder(
            wanted.name, wanted.config, revision=wanted.revision
        )
        builder.download_and_prepare()
        found = builder.as_dataset(split=wanted.split)
    except Exception as error:  # every kind of data set fails in its own way
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(f"{text}: cannot be opened: {reason}", hint) from None
    if builder.__module__.endswith(".cache") and wanted.revision not in (None, builder.hash):
        message = f"{text}: the hub does not answer, and the cache holds revision {builder.hash}"
        raise InputError(message, f"name that one, or {hint}")
    return found


def _at_commit(wanted: DataName) -> datasets.DatasetBuilder | None:
    """What reads the cache, if it holds that very commit, and one configuration alone if none is named."""
    if not is_commit(wanted.revision):
        return None
    folders = [folder for folder in cached_folders(wanted) if folder.name == wanted.revision]
    if len(folders) != 1:
        return None
    from datasets.packaged_modules.cache.cache import Cache

    config, version, commit = folders[0].parts[-3:]
    name = wanted.name.rpartition("/")[2]
    return Cache(repo_id=wanted.name, dataset_name=name, config_name=config, version=version, hash=commit)
