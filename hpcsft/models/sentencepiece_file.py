"""A sentencepiece model as a Rust tokenizer that gives sentencepiece's own tokens, by the settings in its file.

What decides is the file alone, never the name of a tokenizer class: the scores of its pieces, their types (control,
user-defined, byte), whether a space is put before a text, what becomes of spaces, byte fallback. Rules of the
algorithm: sentencepiece's source, bpe_model.cc, unigram_model.cc and normalizer.cc.

One difference remains. Of two ways to write the same piece that overlap, sentencepiece takes the left one and the Rust
tokenizer the one with the shorter left half; runs of one character come out alike.
"""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from hpcsft.model_folder.sentencepiece import (
    BPE,
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    Piece,
    SentencePieceModel,
)

SPACE = "▁"
"""How a space is written in pieces."""


def build(model: SentencePieceModel, special: Sequence[AddedToken] = (), begin_anew: bool = False) -> Tokenizer:
    """The Rust tokenizer. Control pieces and those in `special` are special tokens, user-defined ones plain added ones.

    With `begin_anew`, text after a special token gets the space that a text begins with, as sentencepiece gives it to
    each of the texts between special tokens; else only the very start gets it.
    """
    tokenizer = Tokenizer(_bpe(model) if model.kind == BPE else _unigram(model))
    spaces: list[normalizers.Normalizer] = [normalizers.Precompiled(model.charsmap)] if model.charsmap else []
    if model.remove_extra_whitespaces:
        ends = [normalizers.Replace(Regex(place), "") for place in (r"\A +", r" +\z")]
        spaces += [*ends, normalizers.Replace(Regex(" {2,}"), " ")]
    named = {token.content for token in special}
    user_defined = [text for text in model.of_type(USER_DEFINED) if text not in named]
    # What is user-defined cuts a text too, and sentencepiece puts no space after it. Where spaces are taken away,
    # the Rust tokenizer does not know the start of a text any more.
    everywhere = (begin_anew and not user_defined) or model.remove_extra_whitespaces
    if model.add_dummy_prefix and everywhere:
        spaces.append(normalizers.Prepend(SPACE))
    tokenizer.normalizer = normalizers.Sequence([*spaces, normalizers.Replace(" ", SPACE)])
    if model.add_dummy_prefix and not everywhere:
        tokenizer.pre_tokenizer = _space_at_the_start()
    tokenizer.decoder = _decoder(model)
    control = [text for text in [*model.of_type(UNKNOWN), *model.of_type(CONTROL)] if text not in named]
    tokenizer.add_special_tokens([*special, *(AddedToken(text, normalized=False, special=True) for text in control)])
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in user_defined])
    return tokenizer


def merges_of(pieces: Sequence[Piece]) -> list[tuple[str, str]]:
    """Every way to make a piece of two others, by the scores of what is made, the highest first.

    Only pieces of text take part: a control, byte or user-defined piece is never made of others.
    """
    ids = {piece.text: number for number, piece in enumerate(pieces) if piece.type in (NORMAL, UNUSED)}
    found: list[tuple[float, int, int, str, str]] = []
    for text, number in ids.items():
        for cut in range(1, len(text)):
            left, right = text[:cut], text[cut:]
            if left in ids and right in ids:
                found.append((-pieces[number].score, number, cut, left, right))
    found.sort()
    return [(left, right) for *_, left, right in found]


def _bpe(model: SentencePieceModel) -> models.BPE:
    merges, byte_fallback = merges_of(model.pieces), bool(model.of_type(BYTE))
    return models.BPE(model.texts, merges, unk_token=model.unk, fuse_unk=True, byte_fallback=byte_fallback)


def _unigram(model: SentencePieceModel) -> models.Unigram:
    """Pieces that no text is cut into are in the vocabulary too, less likely than any other way to write them."""
    least = min(piece.score for piece in model.pieces if piece.type == NORMAL)
    vocabulary = [
        (piece.text, least * (len(piece.text) + 1) if piece.type in (BYTE, UNUSED) else piece.score)
        for piece in model.pieces
    ]
    unknown = next((number for number, piece in enumerate(model.pieces) if piece.type == UNKNOWN), None)
    return models.Unigram(vocabulary, unknown, bool(model.of_type(BYTE)))


def _space_at_the_start() -> pre_tokenizers.PreTokenizer:
    """One space before the very start, also before a text that begins with spaces.

    Metaspace leaves such a text alone if it begins with what Metaspace writes. By then spaces are written otherwise, so
    the first one, which writes a plain space, always does; the second writes it as the others are.
    """
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(" ", prepend_scheme="first", split=False),
            pre_tokenizers.Metaspace(SPACE, prepend_scheme="never", split=False),
        ]
    )


def _decoder(model: SentencePieceModel) -> decoders.Decoder:
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if model.add_dummy_prefix or model.remove_extra_whitespaces:
        steps.append(decoders.Strip(" ", 1, 0))
    return decoders.Sequence(steps)
