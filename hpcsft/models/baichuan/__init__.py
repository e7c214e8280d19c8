"""Baichuan and Baichuan2, 7B, as published, without code from their folders.

Importing this makes transformers' Auto classes know them: the config, and where torch is at hand the model.
"""

from __future__ import annotations

from transformers.utils import is_torch_available

from hpcsft.models.baichuan import configuration  # noqa: F401

if is_torch_available():
    from hpcsft.models.baichuan import modeling  # noqa: F401
