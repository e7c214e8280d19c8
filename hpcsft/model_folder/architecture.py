"""Is it a causal language model of a kind that loads here, as far as config.json tells?"""

from __future__ import annotations

import ast
import functools
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpcsft.errors import InputError
from hpcsft.model_shape import unsupported

OWN = {"baichuan": "BaichuanForCausalLM"}
"""Models of hpcsft, by their model_type."""
ENDINGS = ("ForCausalLM", "LMHeadModel")
"""How the names of causal language models end. Others that transformers lists as such see or hear as well."""
EXPECTED = "a causal language model is expected, such as LlamaForCausalLM or Qwen2ForCausalLM"


def check_architecture(config: Mapping[str, Any], folder: Path) -> str:
    """The name of the model's class, from `config`; InputError if it is no causal language model that loads here."""
    known = causal_language_models()
    model_type, given = config.get("model_type"), config.get("architectures")
    name = str(given[0]) if isinstance(given, list) and given else None
    if not isinstance(model_type, str) or not model_type:
        raise InputError(f"{folder}/config.json: no model_type inside", "is this a Hugging Face model folder?")
    if config.get("is_encoder_decoder"):
        what = f"{name or model_type} is an encoder with a decoder, which is trained in another way"
        raise InputError(f"{folder}: {what}", EXPECTED)
    if known is not None and model_type not in known:
        _refuse_unknown(config, name or model_type, folder)
    loaded = name or (known or {}).get(model_type)
    if loaded and not loaded.endswith(ENDINGS):
        raise InputError(f"{folder}: {loaded} is not a causal language model", EXPECTED)
    if model_type in _listed("MODEL_FOR_MASKED_LM_MAPPING_NAMES") and not config.get("is_decoder"):
        what = f"{name or model_type} is an encoder, whose tokens see those that follow"
        raise InputError(f"{folder}: {what}", f"{EXPECTED}; is_decoder in config.json makes a decoder of it")
    if problem := unsupported(config):
        message, hint = problem
        raise InputError(f"{folder}: {message}", hint)
    return name or model_type


def _refuse_unknown(config: Mapping[str, Any], name: str, folder: Path) -> None:
    if config.get("auto_map"):
        why = "there is no switch for it, as nothing in such code would keep the rows of a packed batch apart"
        hint = (
            f"hpcsft never runs the code of a model's folder, and {why}; {EXPECTED}; a newer transformers may know it"
        )
        raise InputError(f"{folder}: {name} needs code of its own (trust_remote_code)", hint)
    message = f"{folder}: {name} is not among the causal language models that transformers has here"
    raise InputError(f"{message} (model_type {config['model_type']})", f"{EXPECTED}; a newer transformers may know it")


def causal_language_models() -> dict[str, str] | None:
    """Classes by model_type, those of the installed transformers among them; None if that cannot be told."""
    listed = _listed("MODEL_FOR_CAUSAL_LM_MAPPING_NAMES")
    return {**listed, **OWN} if listed else None


@functools.cache
def _listed(mapping: str) -> dict[str, str]:
    """Classes by model_type; {} if that cannot be told.

    From the source of transformers, which takes seconds to import.
    """
    found = importlib.util.find_spec("transformers")
    if found is None or not found.origin:
        return {}
    try:
        source = Path(found.origin).with_name("models") / "auto" / "modeling_auto.py"
        tree = ast.parse(source.read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == mapping:
                return dict(ast.literal_eval(node.value.args[0]))  # type: ignore[attr-defined]
    except (OSError, ValueError, TypeError, AttributeError, IndexError, SyntaxError):
        pass  # it is written in another way: training will tell
    return {}
