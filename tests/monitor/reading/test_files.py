"""Guards that a file is parsed again when it has changed, and only then."""

from __future__ import annotations

import os
from pathlib import Path

from hpcsft.monitor.reading.files import Files


def test_a_file_is_parsed_once_until_it_changes(tmp_path):
    path, calls = tmp_path / "a.json", []

    def parse(file: Path) -> str:
        calls.append(file)
        return file.read_text()

    files = Files()
    assert files.read(path, parse) is None
    path.write_text("one")
    assert [files.read(path, parse) for _ in range(3)] == ["one"] * 3 and len(calls) == 1
    path.write_text("three")
    assert files.read(path, parse) == "three"
    other = tmp_path / "b.json"
    other.write_text("other")
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    os.replace(other, path)  # the same size and time, another file
    assert files.read(path, parse) == "other" and len(calls) == 3
    path.unlink()
    assert files.read(path, parse) is None


def test_two_ways_to_parse_one_file_do_not_mix(tmp_path):
    path, files = tmp_path / "a", Files()
    path.write_text("12")
    assert files.read(path, lambda file: int(file.read_text())) == 12
    assert files.read(path, Path.read_text) == "12"
