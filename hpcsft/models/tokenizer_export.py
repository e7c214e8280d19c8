"""The tokenizer of a trained model as files that load anywhere, in transformers 4 and 5 without hpcsft."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from hpcsft.models.tokenizer_settings import CONFIG, NAMES, NEEDED, read_settings

COPIED = ("tokenizer.model", "added_tokens.json")
"""What llama.cpp's converter and the original code of some models read."""
LATER_NAMES = ("extra_special_tokens", "added_tokens_decoder", "use_fast", "tokenizer_file")
"""What one release of transformers writes and another stumbles over, and what tokenizer.json says anyway."""


def save_tokenizer(tokenizer: Any, source: str, folder: Path, chat_template: str | None, layout: str) -> None:
    """Write `tokenizer`, loaded from the folder `source`, into the existing `folder`, with `chat_template` as its own.

    tokenizer.json is complete and no class of a model is named, so that the tokens do not depend on what reads it. In
    the layout "native", a tokenizer that was published with code of its own keeps the settings which that code reads
    and the code itself, which is copied and never run: AutoTokenizer takes it with trust_remote_code=True, and
    tokenizer.json without. Any other layout leaves code and its settings away.
    """
    settings = read_settings(Path(source)).values
    keeps_code = layout == "native" and "auto_map" in settings
    own = {name: value for name, value in settings.items() if name not in LATER_NAMES} if keeps_code else {}
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    values = {**own, **_values(tokenizer, chat_template)}
    if chat_template is None:
        values.pop("chat_template", None)
    (folder / CONFIG).write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    files = [Path(source) / name for name in COPIED]
    files += sorted(Path(source).glob("*.py")) if keeps_code else []
    for file in files:
        if file.is_file():
            shutil.copyfile(file, folder / file.name)


def _values(tokenizer: Any, chat_template: str | None) -> dict[str, Any]:
    """What tokenizer.json does not hold."""
    named = {name: getattr(tokenizer, name) for name in NAMES}
    # null where some class would take a token of its own, which the vocabulary may lack
    named = {name: token for name, token in named.items() if token is not None or name in NEEDED}
    around = tokenizer("")["input_ids"]
    add_bos = around[:1] == [tokenizer.bos_token_id]
    others = [token for token in tokenizer.all_special_tokens if token not in named.values()]
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",  # the name that both releases know
        **named,
        **({"additional_special_tokens": others} if others else {}),
        "add_bos_token": add_bos,
        "add_eos_token": around[add_bos:][-1:] == [tokenizer.eos_token_id],
        "clean_up_tokenization_spaces": bool(tokenizer.clean_up_tokenization_spaces),
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": tokenizer.model_max_length,
        **({"chat_template": chat_template} if chat_template is not None else {}),
    }
