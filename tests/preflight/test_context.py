"""Rows that are longer than the positions that a model was made for."""

from __future__ import annotations

import json

import pytest

from hpcsft.preflight.context import context_findings, read_config
from tests.preflight.made import planned


@pytest.mark.parametrize(
    ("config", "warned"),
    [
        ({"max_position_embeddings": 4096}, True),
        ({"max_position_embeddings": 8192}, False),
        ({"text_config": {"max_position_embeddings": 4096}}, True),
        ({}, False),
        ({"max_position_embeddings": None}, False),
    ],
)
def test_rows_against_positions(config, warned):
    spec, _ = planned(data={"max_length": 8192})
    lines = [line for finding in context_findings(spec, config) for line in finding.lines()]
    assert bool(lines) is warned
    if warned:
        assert lines[0].startswith("warning: data.max_length: rows of up to 8,192 tokens") and "4096" in lines[1]


def test_config_is_read_where_there_is_one(tmp_path):
    assert read_config(str(tmp_path)) == {}
    (tmp_path / "config.json").write_text(json.dumps({"a": 1}))
    assert read_config(str(tmp_path)) == {"a": 1}
