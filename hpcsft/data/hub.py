"""Names of data sets on the Hugging Face hub: hub:OWNER/NAME[/CONFIG][@REVISION][:SPLIT]."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, NamedTuple

from hpcsft.errors import InputError

if TYPE_CHECKING:
    import datasets

PREFIX = "hub:"

_NAME = re.compile(
    r"hub:(?P<name>[\w.-]+/[\w.-]+)(?:/(?P<config>[\w.+-]+))?(?:@(?P<revision>[\w./-]+))?(?::(?P<split>\w+(?:\.\w+)*))?",
    re.ASCII,
)


class HubName(NamedTuple):
    """What a name says."""

    name: str
    config: str | None
    revision: str | None
    split: str

    @classmethod
    def parse(cls, text: str) -> HubName:
        """The parts of `text`; InputError if it is no such name."""
        match = _NAME.fullmatch(text)
        if not match:
            hint = "hub:OWNER/NAME[/CONFIG][@REVISION][:SPLIT], such as hub:HuggingFaceH4/ultrachat_200k:train_sft"
            raise InputError(f"{text}: not the name of a data set on the hub", hint)
        return cls(match["name"], match["config"], match["revision"], match["split"] or "train")

    @property
    def command(self) -> str:
        """What fetches the data set, to be run where there is a network."""
        arguments = [repr(self.name)] + ([repr(self.config)] if self.config else []) + [f"split={self.split!r}"]
        arguments += [f"revision={self.revision!r}"] if self.revision else []
        return f'python -c "import datasets; datasets.load_dataset({", ".join(arguments)})"'


@functools.lru_cache(maxsize=4)
def open_hub(text: str) -> datasets.Dataset:
    """The data set of that name, from the local cache or the network; InputError if neither has it."""
    import datasets

    wanted = HubName.parse(text)
    hint = f"fetch it on the login node, with the same HF_HOME as in the job: {wanted.command}"
    try:
        builder = datasets.load_dataset_builder(wanted.name, wanted.config, revision=wanted.revision)
        builder.download_and_prepare()
        found = builder.as_dataset(split=wanted.split)
    except Exception as error:  # every kind of data set fails in its own way
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(f"{text}: cannot be opened: {reason}", hint) from None
    if builder.__module__.endswith(".cache") and wanted.revision not in (None, builder.hash):
        message = f"{text}: the hub does not answer, and the cache holds revision {builder.hash}"
        raise InputError(message, f"name that one, or {hint}")
    return found
