"""What is in a file of torch.save, without torch and without running anything that the file asks for.

Such a file is a pickle of names, sizes and places, and beside it the numbers, which are not read. A pickle may ask for
any function by its name and call it; here only those that plain weights need can be asked for, and what is handed out
are stand-ins that do nothing. The list is that of `torch.load(weights_only=True)`.

Both formats: a zip archive with a data.pkl (since torch 1.6), and pickles one after the other (before).
"""

from __future__ import annotations

import io
import pickle
import re
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO

from hpcsft.errors import InputError
from hpcsft.model_folder.reading import Tensor, not_whole

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""What the first pickle of the old format is."""
PROTOCOL = 2
"""torch.save's, unless told otherwise, and the only one that weights_only reads."""
LONGEST_PICKLE = 256_000_000
"""Bytes; that of a model of a thousand tensors is 0.2 MB."""

HARMLESS = re.compile(
    r"""collections\.(OrderedDict|Counter) | _codecs\.encode | builtins\.(bytearray|complex|set)
    | torch\.(cuda\.)?(sparse\.)?[A-Z]\w*(Storage|Tensor) | torch\.storage\.(Typed|Untyped)Storage
    | torch\.(Size|Tensor|device|bool|bfloat16|(q|qu|u)?int\w+|float\w+|complex\d+|bits\w+|per_(channel|tensor)_\w+)
    | torch\._utils\._rebuild_\w+ | torch\._tensor\._rebuild_from_type_v2
    | torch\.nn\.parameter\.Parameter | torch\.serialization\._get_layout""",
    re.VERBOSE,
)
ELEMENT_BYTES = {"Double": 8, "Long": 8, "Float": 4, "Int": 4, "Half": 2, "BFloat16": 2, "Short": 2}
"""By the name of the storage; at least one for any other."""


class UnsafeError(Exception):
    """A pickle asks for something that weights do not need; the message is its name."""


def read_torch(file: Path) -> dict[str, Tensor]:
    """Every tensor of a state dict by its name; InputError if the file is not whole, or asks for more than tensors."""
    try:
        with open(file, "rb") as stream:
            zipped = stream.read(2) == b"PK"
            stream.seek(0)
            state = _read_zip(stream) if zipped else _read_legacy(stream)
        return {
            str(name): Tensor(value.shape, (file, *value.place))
            for name, value in state.items()
            if isinstance(value, _Weight)
        }
    except UnsafeError as error:
        hint = "opening it could run any code; use the model's safetensors files"
        raise InputError(f"{file}: refused: it asks for {error}, which plain weights do not need", hint) from None
    except Exception:  # whatever damaged bytes lead to
        raise not_whole(file, "PyTorch") from None


def _read_zip(stream: BinaryIO) -> Any:
    with zipfile.ZipFile(stream) as archive:
        sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
        (name,) = (name for name in sizes if name.partition("/")[2] == "data.pkl")
        if sizes[name] > LONGEST_PICKLE:
            raise ValueError("no pickle of weights")
        pickled = archive.read(name)
    _check_protocol(pickled)
    reader = _Reader(io.BytesIO(pickled))
    state = reader.load()
    folder = name.removesuffix("data.pkl")
    for key, size in reader.storages.items():
        if sizes[f"{folder}data/{key}"] < size:
            raise ValueError("cut off")
    return state


def _read_legacy(stream: BinaryIO) -> Any:
    _check_protocol(stream.read(2))
    stream.seek(0)
    if _Reader(stream).load() != LEGACY_MAGIC:
        raise ValueError("no file of torch.save")
    for _ in ("version of the format", "about the system"):
        _Reader(stream).load()
    reader = _Reader(stream)
    state = reader.load()
    keys = _Reader(stream).load()
    counts = 8 * len(keys)  # every storage begins with its number of elements
    end = stream.tell() + counts + sum(reader.storages[str(key)] for key in keys)
    if stream.seek(0, io.SEEK_END) < end:
        raise ValueError("cut off")
    return state


def _check_protocol(start: bytes) -> None:
    if start[0] == pickle.PROTO[0] and start[1] != PROTOCOL:
        raise UnsafeError(f"pickle protocol {start[1]}")


class _Weight:
    """A tensor, as far as its place, a storage and an offset in it, and its sizes."""

    def __init__(self, storage: str, offset: int, shape: tuple[int, ...], *_: Any):
        self.place, self.shape = (str(storage), int(offset)), tuple(int(size) for size in shape)


class _Thing:
    """Whatever else a pickle makes. It takes anything, and does nothing."""

    def __init__(self, *_: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _Reader(pickle.Unpickler):
    """Unpickles to stand-ins, made anew each time: what a pickle does to one stays without effect."""

    def __init__(self, stream: BinaryIO):
        super().__init__(stream, encoding="latin-1")
        self.storages: dict[str, int] = {}
        """Bytes by key."""

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for what the pickle asks for; UnsafeError unless it belongs to plain weights."""
        full = f"{module.replace('__builtin__', 'builtins')}.{name}"
        if not HARMLESS.fullmatch(full):
            raise UnsafeError(full)
        if full == "collections.OrderedDict":
            return OrderedDict
        if full.endswith("Storage"):
            return full
        if full.startswith("torch._utils._rebuild_tensor"):
            return lambda *arguments: _Weight(*arguments)
        if full in ("torch._utils._rebuild_parameter", "torch.nn.parameter.Parameter"):
            return lambda data, *_: data
        return lambda *_: _Thing()

    def persistent_load(self, pid: Any) -> str:
        """The key of a storage: ("storage", its type, its key, its device, its number of elements)."""
        _, kind, key, _, count, *_ = pid
        kind = str(kind).rpartition(".")[2].removesuffix("Storage")
        self.storages[str(key)] = int(count) * ELEMENT_BYTES.get(kind, 1)
        return str(key)
