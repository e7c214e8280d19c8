"""What the README says is so: its table of fields, its example, its commands."""

from __future__ import annotations

import json
import re
from pathlib import Path

from hpcsft.plan import make_plan
from hpcsft.spec import parse_spec
from hpcsft.spec.describe import fields_table

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_table_of_fields_is_that_of_the_spec():
    shown = re.search(r"<!-- fields: .*? -->\n\n(.*?)\n\n<!-- end of fields -->", README, re.DOTALL)
    assert shown and shown[1] == fields_table()


def test_every_field_of_the_table_is_told_once():
    paths = re.findall(r"^\| `([a-z_.]+)` \|", fields_table(), re.MULTILINE)
    assert len(paths) == len(set(paths))
    assert {"evaluate.judge.base_url", "cluster.train.nodes", "train.checkpoint.every_minutes"} <= set(paths)
    assert "cluster.train.partition" not in paths


def test_the_example_is_a_valid_spec():
    for text in re.findall(r"```json\n(.*?)```", README, re.DOTALL):
        assert make_plan(parse_spec(json.loads(text))).batch.world_size == 32


def test_every_file_and_target_that_the_readme_names_exists():
    for name in set(re.findall(r"(?:launch|jobs)/\w+\.py", README)):
        assert (ROOT / name).is_file(), name
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"`make ([a-z-]+)`", README + (ROOT / "CONTRIBUTING.md").read_text())):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
