"""Guards that a pickle is looked into without being obeyed: what plain weights need passes, anything else is named."""

from __future__ import annotations

import os
import pickle
import time
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._weights_only_unpickler import _get_allowed_globals

from hpcsft.errors import InputError
from hpcsft.model_folder.torch_file import HARMLESS, read_torch
from tests.model_folder.made import refused

FORMATS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


def save(value: Any, file: Path, zipped: bool = True, **options: Any) -> Path:
    torch.save(value, file, _use_new_zipfile_serialization=zipped, **options)
    return file


def write_archive(file: Path, pickled: bytes) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/data.pkl", pickled)


class Call:
    """Pickled, it asks for `function(*arguments)`."""

    def __init__(self, function: Any, *arguments: Any):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


@FORMATS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int8])
def test_names_and_shapes_are_torchs(zipped, dtype, tmp_path):
    shared = torch.zeros(6, 4, dtype=dtype)
    state = OrderedDict(a=shared, b=shared, c=shared[2:], d=torch.nn.Parameter(torch.zeros(2, 3)), e=torch.ones(()))
    state["f"] = shared.T
    file = save(state, tmp_path / "a.bin", zipped)
    found = read_torch(file)
    assert {name: tensor.shape for name, tensor in found.items()} == {name: tuple(t.shape) for name, t in state.items()}
    assert found["a"].place == found["b"].place
    assert len({tensor.place for tensor in found.values()}) == 4


@FORMATS
def test_other_values_beside_the_weights_are_left_out(zipped, tmp_path):
    state = {"a": torch.zeros(2), "step": 3, "names": ["x"], "size": torch.Size([2]), "type": torch.float16, "s": {1}}
    assert list(read_torch(save(state, tmp_path / "a.bin", zipped))) == ["a"]


@FORMATS
def test_what_a_pickle_asks_for_is_named_and_not_called(zipped, tmp_path):
    trace = tmp_path / "called"
    file = save({"a": torch.zeros(2), "b": Call(os.mkdir, str(trace))}, tmp_path / "a.bin", zipped)
    with pytest.raises(InputError, match=r"a\.bin: refused: it asks for posix\.mkdir, which plain weights do not need"):
        read_torch(file)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("function", "name"),
    [(eval, "builtins.eval"), (getattr, "builtins.getattr"), (torch.load, "torch.serialization.load")],
)
def test_no_way_around(function, name, tmp_path):
    with pytest.raises(InputError, match=rf"refused: it asks for {name}"):
        read_torch(save({"a": Call(function, "1", "2")}, tmp_path / "a.bin"))


@pytest.mark.parametrize("name", ["collections.OrderedDict.pop", "builtins.set.pop", "os.system", "__builtin__.eval"])
def test_a_name_counts_as_a_whole(name, tmp_path):
    """Also one that no torch would write."""
    module, _, rest = name.partition(".")
    write_archive(tmp_path / "a.bin", f"c{module}\n{rest}\n.".encode())
    with pytest.raises(InputError, match=f"refused: it asks for {name.replace('__builtin__', 'builtins')}, "):
        read_torch(tmp_path / "a.bin")


def test_what_a_pickle_does_to_a_stand_in_has_no_effect(tmp_path):
    """It may set attributes of what it was given."""
    rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n"
    evil = pickle.PROTO + b"\x02" + rebuild + b"(N}X\x0c\x00\x00\x00__defaults__(I1\ntsttb."
    write_archive(tmp_path / "a.bin", evil)
    with pytest.raises(InputError, match="not a whole PyTorch file"):
        read_torch(tmp_path / "a.bin")
    whole = read_torch(save({"a": torch.zeros(2, 3)}, tmp_path / "b.bin"))
    assert whole["a"].shape == (2, 3)


def test_what_torch_allows_is_allowed_here():
    assert [name for name in _get_allowed_globals() if not HARMLESS.fullmatch(name)] == []


@pytest.mark.parametrize(
    "name",
    ["torch.load", "torch.hub.load", "torch._utils.set", "os.system", "builtins.eval", "builtins.set.x", "torch.Sizes"],
)
def test_what_torch_does_not_allow_is_not_allowed_here(name):
    assert name not in _get_allowed_globals()
    assert not HARMLESS.fullmatch(name)


@FORMATS
def test_a_pickle_that_torch_would_not_read(zipped, tmp_path):
    file = save({"a": torch.zeros(2)}, tmp_path / "a.bin", zipped, pickle_protocol=4)
    with pytest.raises(InputError, match="refused: it asks for pickle protocol 4"):
        read_torch(file)


@FORMATS
@pytest.mark.parametrize("cut", [1, 100, 1900, 2100])
def test_a_file_that_is_cut_off(zipped, cut, tmp_path):
    file = save({"a": torch.zeros(500), "b": torch.zeros(5)}, tmp_path / "a.bin", zipped)
    os.truncate(file, file.stat().st_size - cut)
    with pytest.raises(InputError, match=r"a\.bin: not a whole PyTorch file") as caught:
        read_torch(file)
    assert caught.value.hint == "download it again"


def test_a_storage_that_is_too_small(tmp_path):
    """The archive is whole, what is in it is not."""
    file = save({"a": torch.zeros(500)}, tmp_path / "a.bin")
    with zipfile.ZipFile(file) as archive, zipfile.ZipFile(tmp_path / "b.bin", "w") as copy:
        for name in archive.namelist():
            copy.writestr(name, archive.read(name)[: 40 if name.endswith("/data/0") else None])
    with pytest.raises(InputError, match=r"b\.bin: not a whole PyTorch file"):
        read_torch(tmp_path / "b.bin")


@pytest.mark.parametrize(
    "content",
    [b"", b"version https://git-lfs.github.com/spec/v1\n", b"PK\x03\x04", b"<html>", b"\x80\x02}q\x00.", b"\x80"],
)
def test_a_file_of_another_kind(content, tmp_path):
    (tmp_path / "a.bin").write_bytes(content)
    with pytest.raises(InputError, match="not a whole PyTorch file"):
        read_torch(tmp_path / "a.bin")


def test_a_pickle_of_absurd_length(tmp_path, monkeypatch):
    monkeypatch.setattr("hpcsft.model_folder.torch_file.LONGEST_PICKLE", 50)
    with pytest.raises(InputError, match="not a whole PyTorch file"):
        read_torch(save({"a": torch.zeros(2)}, tmp_path / "a.bin"))


@FORMATS
def test_damage_anywhere_ends_in_one_error(zipped, tmp_path):
    """Whatever a flipped byte makes of the pickle: an answer or an InputError, and nothing is called."""
    file = save({"a": torch.zeros(2), "b": Call(os.mkdir, str(tmp_path / "called"))}, tmp_path / "a.bin", zipped)
    content = file.read_bytes()
    for place in range(0, len(content), 3):
        file.write_bytes(content[:place] + bytes([content[place] ^ 0x15]) + content[place + 1 :])
        try:
            read_torch(file)
        except InputError as error:
            assert str(file) in error.message
    assert not (tmp_path / "called").exists()


def test_only_the_pickle_of_a_large_file_is_read(tmp_path):
    """A sparse file of 40 GB, which would take minutes to read."""
    file = tmp_path / "a.bin"
    torch.save({"a": torch.zeros(10), "b": torch.zeros(7)}, file, _use_new_zipfile_serialization=False)
    with open(file, "r+b") as stream:
        stream.truncate(40 * 10**9)
    start = time.monotonic()
    assert list(read_torch(file)) == ["a", "b"]
    assert time.monotonic() - start < 5


def test_submit_names_the_file_of_the_model(model):
    (model / "model.safetensors").unlink()
    save({"model.embed_tokens.weight": torch.zeros(3, 2)}, model / "pytorch_model.bin", zipped=False)
    save({"a": Call(print, "x")}, model / "pytorch_model.bin")
    hint = refused(model, r"pytorch_model\.bin: refused: it asks for builtins\.print, which plain weights do not need")
    assert "safetensors" in hint
