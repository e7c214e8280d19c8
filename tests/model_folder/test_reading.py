"""Guards that a file that cannot be read gets its true reason: no permission, a dead link, a pointer of git-lfs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hpcsft.model_folder.check import check_model
from tests.model_folder.made import refused, write

UNPRIVILEGED = """
import ctypes, sys
from hpcsft.errors import InputError
from hpcsft.model_folder.check import check_model
header, nothing = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
assert ctypes.CDLL(None).capset(header, nothing) == 0  # root may read everything otherwise
try:
    check_model(sys.argv[1], "model.path")
except InputError as error:
    print(*error.lines(), sep="\\n")
"""
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        *((name, 0) for name in ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", ".")),
        (".", 0o400),
        (".", 0o100),
        ("..", 0),
    ],
)
def test_without_permission(name, mode, model):
    """Downloading it again, which would take an hour, would not help."""
    write(model, "generation_config.json", {})
    place = model / name
    before = place.stat().st_mode
    place.chmod(mode)
    try:
        command = [sys.executable, "-c", UNPRIVILEGED, str(model)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=Path.cwd())
    finally:
        place.chmod(before)
    error, hint = done.stdout.splitlines()
    assert error.startswith(f"error: model.path: {model}") and error.endswith(": cannot be read: Permission denied")
    assert "permission" in hint and "download" not in hint


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "generation_config.json"]
)
def test_a_link_to_a_file_that_is_gone(name, model):
    """A cache of the hub whose blobs were cleared: "missing" would send one to look for a file that is listed."""
    (model / name).unlink(missing_ok=True)
    os.symlink("../blobs/0a1b", model / name)
    assert refused(model, rf"{name}: link to a file that is gone: \.\./blobs/0a1b") == "download it again"


def test_a_shard_that_is_gone(model):
    write(model, "model.safetensors.index.json", {"weight_map": {"a": "model-1.safetensors"}})
    (model / "model.safetensors").unlink()
    os.symlink("../blobs/0a1b", model / "model-1.safetensors")
    refused(model, r"model-1\.safetensors: link to a file that is gone: \.\./blobs/0a1b")


def test_a_folder_in_the_place_of_a_file(model):
    (model / "tokenizer.json").unlink()
    (model / "tokenizer.json").mkdir()
    assert "a file" in refused(model, r"tokenizer\.json: cannot be read: Is a directory")


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "pytorch_model.bin", "a.gguf", "tokenizer.json", "tokenizer.model"]
)
def test_pointers_of_git_lfs(name, model):
    if name in ("pytorch_model.bin", "a.gguf"):
        (model / "model.safetensors").unlink()
    if name == "tokenizer.model":
        (model / "tokenizer.json").unlink()
    (model / name).write_text(POINTER)
    assert refused(model, f"{name}: (not a whole|cannot be read)").endswith("git lfs pull")


def test_a_cache_of_the_hub_is_links(model, tmp_path):
    blobs = shutil.copytree(model, tmp_path / "blobs")
    for file in list(model.iterdir()):
        file.unlink()
        file.symlink_to(blobs / file.name)
    check_model(str(model), "model.path")
