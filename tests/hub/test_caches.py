"""Guards that models and data are looked for where the libraries of Hugging Face have put them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hpcsft.hub.caches import datasets_cache, hub_cache, is_node_local


@pytest.mark.parametrize(
    ("variables", "models", "data"),
    [
        ({"HF_DATASETS_CACHE": "/c", "HF_HUB_CACHE": "/m", "HF_HOME": "/h"}, "/m", "/c"),
        ({"HF_HOME": "/h", "XDG_CACHE_HOME": "/x"}, "/h/hub", "/h/datasets"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/huggingface/hub", "/x/huggingface/datasets"),
        ({}, "/home/someone/.cache/huggingface/hub", "/home/someone/.cache/huggingface/datasets"),
    ],
)
def test_the_caches_are_those_of_the_libraries(variables, models, data, monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    assert (hub_cache(variables), datasets_cache(variables)) == (Path(models), Path(data))


def test_the_libraries_say_the_same(tmp_path):
    code = "from huggingface_hub import constants; from datasets import config\n"
    code += "print(constants.HF_HUB_CACHE, config.HF_DATASETS_CACHE)"
    variables = {"HF_HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1"}
    found = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True)
    assert found.stdout.split() == [str(hub_cache(variables)), str(datasets_cache(variables))]


def test_folders_that_each_node_has_for_itself(tmp_path):
    assert is_node_local("/tmp/hf", {}) and is_node_local("/dev/shm/x", {})
    assert not is_node_local("/home/someone/.cache", {}) and not is_node_local("/tmpfoo", {})
    (tmp_path / "link").symlink_to("/tmp")
    assert is_node_local(tmp_path / "link" / "hf", {})
    assert is_node_local("/local/job7/hf", {"TMPDIR": "/local/job7"})
