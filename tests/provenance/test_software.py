"""Guards the versions that a run is remembered by: those of importlib.metadata, though nothing is opened for them."""

from __future__ import annotations

import importlib.metadata
import re

from hpcsft.provenance.software import PACKAGES, installed, machine, packages, torch_build


def test_the_versions_are_those_that_pip_tells():
    found = installed()
    for name in ("torch", "pydantic", "hpcsft", "typing_extensions"):
        assert found[name] == importlib.metadata.version(name)
    everything = {re.sub(r"[-_.]+", "_", each.name).lower() for each in importlib.metadata.distributions()}
    assert everything == set(found)


def test_the_first_on_the_path_is_what_is_imported(tmp_path, monkeypatch):
    for place, version in (("a", "2.0.0+cu128"), ("b", "1.0")):
        (tmp_path / place / f"Some.Pack-age-{version}.dist-info").mkdir(parents=True)
    monkeypatch.setattr("sys.path", [str(tmp_path / "gone"), str(tmp_path / "a"), str(tmp_path / "b")])
    assert installed() == {"some_pack_age": "2.0.0+cu128"}


def test_what_decides_results_is_chosen():
    everything = {"torch": "2.6", "peft": "0.17", "left_pad": "1", "nvidia_nccl_cu12": "2.26.2"}
    chosen = packages(everything)
    assert set(PACKAGES) <= set(chosen) and chosen["deepspeed"] is None
    assert (chosen["torch"], chosen["peft"], chosen["nvidia_nccl_cu12"]) == ("2.6", "0.17", "2.26.2")
    assert "left_pad" not in chosen and "flash_attn" not in chosen


def test_what_pytorch_was_built_with_is_read_and_not_imported(tmp_path, monkeypatch):
    import torch

    assert torch_build() == {"cuda": None, "hip": None, "git_version": torch.version.git_version}
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise ImportError('must not be imported')")
    (tmp_path / "torch" / "version.py").write_text("__version__ = '2.6'\ncuda: Optional[str] = '12.8'\n")
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    monkeypatch.delitem(__import__("sys").modules, "torch")
    assert torch_build() == {"cuda": "12.8"}
    (tmp_path / "torch" / "version.py").unlink()
    assert torch_build() == {}


def test_the_gpus_of_a_node_as_the_kernel_tells_them(tmp_path):
    """The texts are those of NVIDIA's driver."""
    cards = tmp_path / "proc/driver/nvidia/gpus"
    for number in (7, 8):
        (cards / f"0000:0{number}:00.0").mkdir(parents=True)
        text = "Model: \t\t NVIDIA A100-SXM4-80GB\nIRQ:   \t\t 186\nGPU UUID: \t GPU-0\n"
        (cards / f"0000:0{number}:00.0" / "information").write_text(text)
    version = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\n"
    (tmp_path / "proc/driver/nvidia/version").write_text(version)
    (tmp_path / "proc/cpuinfo").write_text("processor\t: 0\nmodel name\t: AMD EPYC 7763\n")
    found = machine(tmp_path)
    assert (found["driver"], found["gpus"]) == ("550.54.15", ["NVIDIA A100-SXM4-80GB"] * 2)
    assert found["cpu"] == "AMD EPYC 7763" and found["kernel"]


def test_the_open_kernel_module_names_its_version_elsewhere(tmp_path):
    (tmp_path / "proc/driver/nvidia").mkdir(parents=True)
    version = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  560.35.03  Release Build\n"
    (tmp_path / "proc/driver/nvidia/version").write_text(version)
    assert machine(tmp_path)["driver"] == "560.35.03"


def test_a_machine_without_any_of_it(tmp_path):
    found = machine(tmp_path)
    assert (found["driver"], found["gpus"]) == (None, []) and found["cpu"]
