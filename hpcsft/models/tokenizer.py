"""The one way in to tokenizers. It needs no torch, which takes several times longer to load than the rest.

What a folder holds decides, not the name of a class in its settings: those change from one release of transformers to
the next, and some of the classes put rules of their own in the place of what tokenizer.json says.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from hpcsft.errors import InputError
from hpcsft.model_folder.sentencepiece import SentencePieceModel, read_sentencepiece
from hpcsft.models.sentencepiece_file import build
from hpcsft.models.tokenizer_settings import NEEDED, TokenizerSettings, read_settings, special_tokens, wrap


def without_torch() -> None:
    """Let this process do without torch, as transformers supports it for tokenizers: it starts in a third of the time.

    For commands that only tokenize; to be called before anything loads torch.
    """
    sys.modules.setdefault("torch", None)  # type: ignore[arg-type]  # what importlib takes as "not installed"
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # it would remark on that


def load_tokenizer(path: str) -> Any:
    """The fast tokenizer in the folder `path`, never from the network, never with code of the folder.

    It is in tokenizer.json; else in a sentencepiece tokenizer.model, else in a GGUF file, else in whatever files
    transformers makes one of. InputError if there is none, or if it has no end-of-sequence token.
    """
    check_folder(path)
    folder = Path(path)
    try:
        tokenizer = _load(folder, read_settings(folder))
    except InputError:
        raise
    except Exception as error:  # the Rust tokenizers raise nothing more special
        raise InputError(f"{path}: the tokenizer does not load: {first_line(error)}") from None
    if not getattr(tokenizer, "is_fast", False):
        raise InputError(f"{path}: no fast tokenizer", "a tokenizer.json is needed; AutoTokenizer can write one")
    if tokenizer.eos_token_id is None:
        message = f"{path}: the tokenizer has no eos token, which ends an answer"
        raise InputError(message, 'name one in tokenizer_config.json, as in "eos_token": "</s>"')
    return tokenizer


def check_folder(path: str) -> None:
    """InputError if there is no folder `path`: transformers would take it for a name on the hub."""
    if not os.path.isdir(path):
        raise InputError(f"{path}: no such folder", "compute nodes must see it under this very path")


def first_line(error: Exception) -> str:
    """An error of transformers, which tend to be essays, in one line."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _load(folder: Path, settings: TokenizerSettings) -> Any:
    pieces = folder / "tokenizer.model"
    if (folder / "tokenizer.json").exists():
        backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
        if "eos_token" not in settings.named:
            texts = _of_pieces(read_sentencepiece(pieces)) if pieces.exists() else _of_class(folder, backend)
            _name(settings, *texts)
        return wrap(backend, settings, folder)
    if pieces.exists():
        model = read_sentencepiece(pieces)
        _name(settings, *_of_pieces(model))
        special = special_tokens(settings, model.texts)
        # `legacy` is what transformers called it when it did as sentencepiece does; settings that are older do not tell
        backend = build(model, special, begin_anew=settings.values.get("legacy") is not False)
        return wrap(backend, settings, folder, add_bos=True)
    if ggufs := sorted(folder.glob("*.gguf")):
        from hpcsft.models.gguf_tokenizer import read_gguf_tokenizer

        backend, add_bos = read_gguf_tokenizer(ggufs[0], settings)
        return wrap(backend, settings, ggufs[0], add_bos)
    return _auto(folder)


def _auto(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)


def _name(settings: TokenizerSettings, *texts: str | None) -> None:
    """Let bos, eos and unk that the settings do not name be `texts`."""
    for name, text in zip(NEEDED, texts, strict=True):
        if text is not None:
            settings.named.setdefault(name, AddedToken(text, special=True))


def _of_pieces(model: SentencePieceModel) -> tuple[str | None, ...]:
    return model.bos, model.eos, model.unk


def _of_class(folder: Path, backend: Tokenizer) -> list[str | None]:
    """What the class of the model's tokenizer takes for bos, eos and unk, as far as they are in the vocabulary."""
    with contextlib.suppress(Exception):  # of classes that transformers does not know: they have nothing to say
        texts = [getattr(_auto(folder), name) for name in NEEDED]
        return [text if text is not None and backend.token_to_id(text) is not None else None for text in texts]
    return [None, None, None]
