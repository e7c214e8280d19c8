"""A model that is looked at before it is fetched: its small files, and weights of which only the headers are here.

Where bytes are left out the files have holes, so that each is as long as it will be and takes no room.
"""

from __future__ import annotations

import atexit
import os
import shutil
import struct
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hpcsft.hub.client import ETAG_TIMEOUT_S, Listing
from hpcsft.hub.names import PREFIX
from hpcsft.hub.trouble import Silence, in_words

FIRST_BYTES = 1 << 20
"""Of a safetensors file: it begins with its header, which is rarely longer."""
OTHER_FIRST_BYTES = 16 << 20
OTHER_LAST_BYTES = 4 << 20
"""Of a pickle, a zip whose directory stands at its end, and of a GGUF file, whose header holds the vocabulary."""
MOST_HEADER_BYTES = 100_000_000
"""Of a header, by the format's own definition."""
READERS = 8
"""Files that are read at once."""

Read = Callable[[int, int], bytes]
"""Bytes of a file from the first up to the second."""


def outline(text: str, where: str, listing: Listing) -> Path:
    """A folder like the model's, its small files links into the cache; it is removed when this process ends.

    InputError if the hub does not give the headers.
    """
    parent = Path(tempfile.mkdtemp(prefix="hpcsft-"))
    atexit.register(shutil.rmtree, parent, ignore_errors=True)
    folder = parent / f"{PREFIX}{listing.name}"  # errors name it
    folder.mkdir(parents=True)
    for name in listing.sizes:
        if name not in listing.weights:
            (folder / name).symlink_to(listing.folder / name)
    try:
        with ThreadPoolExecutor(READERS) as pool:
            list(pool.map(lambda name: _lay_out(folder / name, listing, name), listing.weights))
    except Exception as error:  # of whichever client for HTTP there is
        trouble = in_words(error, text, where, f"https://huggingface.co/{listing.name}")
        raise (trouble.broken_off() if isinstance(trouble, Silence) else trouble) from None
    return folder


def _lay_out(file: Path, listing: Listing, name: str) -> None:
    size = listing.sizes[name]
    if (listing.folder / name).is_file():
        file.symlink_to(listing.folder / name)
        return
    read = _reader(listing, name)
    parts = _safetensors(read, size) if name.endswith(".safetensors") else _first_and_last(read, size)
    with open(file, "wb") as out:
        for start, data in parts:
            out.seek(start)
            out.write(data)
        out.truncate(size)
    assert os.path.getsize(file) == size


def _safetensors(read: Read, size: int) -> list[tuple[int, bytes]]:
    begin = read(0, min(FIRST_BYTES, size))
    header_bytes = struct.unpack("<Q", begin[:8])[0] if len(begin) >= 8 else 0
    end = min(8 + header_bytes, size)
    if end <= len(begin) or header_bytes > MOST_HEADER_BYTES:
        return [(0, begin)]
    return [(0, begin), (len(begin), read(len(begin), end))]


def _first_and_last(read: Read, size: int) -> list[tuple[int, bytes]]:
    first = min(OTHER_FIRST_BYTES, size)
    last = max(first, size - OTHER_LAST_BYTES)
    return [(0, read(0, first)), *([(last, read(last, size))] if last < size else [])]


def _reader(listing: Listing, name: str) -> Read:
    from huggingface_hub import get_session, hf_hub_url
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

    url = hf_hub_url(listing.name, name, revision=listing.commit)

    def read(start: int, end: int) -> bytes:
        if start == end:
            return b""
        headers = {**build_hf_headers(), "Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity"}
        answer = get_session().get(url, headers=headers, follow_redirects=True, timeout=ETAG_TIMEOUT_S)
        hf_raise_for_status(answer)
        return answer.content[: end - start] if answer.status_code == 206 else answer.content[start:end]

    return read
