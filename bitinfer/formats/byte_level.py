"""Byte-level BPE: its alphabet of bytes, the ways to cut text into words, merges from ranks.

GGUF vocabularies and tiktoken files are both made into tokenizers with what stands here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

# Bytes that stand for themselves, as GPT-2 has it; the others become U+0100 and on, in order.
_PRINTABLE = (*range(33, 127), *range(161, 173), *range(174, 256))

PUNCTUATION = r"[\p{P}$+<=>^~|`]+"  # as pre_tokenizers.Punctuation has it
GPT2_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class WordSplit:
    """What happens to text before it is merged, which a vocabulary names but does not hold.

    Attributes:
        patterns: Each cuts the pieces that the one before left: every match is a piece, and so is
            what lies between two matches.
        ignore_merges: A piece that is a token is taken as it is.
        adds_bos: Texts begin with BOS unless the file denies it.
        nfc: Text is brought to Unicode's NFC first.
    """

    patterns: tuple[str, ...]
    ignore_merges: bool = False
    adds_bos: bool = False
    nfc: bool = False


GPT2 = WordSplit((GPT2_WORDS,))
SMOLLM = WordSplit((r"\p{N}", GPT2_WORDS))
QWEN2 = WordSplit((_LLAMA3_WORDS % "",), nfc=True)
LLAMA3 = WordSplit((_LLAMA3_WORDS % "{1,3}",), ignore_merges=True, adds_bos=True)
FALCON_E = WordSplit((PUNCTUATION, GPT2_WORDS, "[0-9]"))


def byte_alphabet() -> dict[int, str]:
    """The character that stands for each byte in a byte-level vocabulary."""
    others = count(0x100)
    return {b: chr(b) if b in _PRINTABLE else chr(next(others)) for b in range(256)}


def byte_level_tokenizer(
    vocab: Mapping[str, int], merges: Sequence[tuple[str, str]], split: WordSplit
) -> Tokenizer:
    """A tokenizer without added tokens.

    Args:
        vocab: Tokens in the byte alphabet -> ids.
        merges: The earlier is applied first; both halves and their union are in ``vocab``.
        split: What happens before the merges.
    """
    model = models.BPE(dict(vocab), list(merges), ignore_merges=split.ignore_merges)
    backend = Tokenizer(model)
    if split.nfc:
        backend.normalizer = normalizers.NFC()
    cuts = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in split.patterns]
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([*cuts, to_bytes])
    backend.decoder = decoders.ByteLevel()
    return backend


def merges_by_rank(ranks: Mapping[str, float]) -> list[tuple[str, str]]:
    """Every way to make a token of two others, in the order in which BPE tries them.

    For vocabularies that list no merges, since the lowest rank of the union decides.

    Args:
        ranks: Tokens that take part -> their rank. Of equal ranks the earlier token goes first,
            of the ways to one token that of the earlier halves.
    """
    merges = []
    places = {token: place for place, token in enumerate(ranks)}
    for token in sorted(ranks, key=ranks.__getitem__):
        halves = [(token[:i], token[i:]) for i in range(1, len(token)) if token[:i] in ranks]
        found = [pair for pair in halves if pair[1] in ranks]
        merges += sorted(found, key=lambda pair: (places[pair[0]], places[pair[1]]))
    return merges


def put_bos_first(backend: Tokenizer, token_id: int, text: str) -> None:
    """Let ``backend`` begin each text with this token where special tokens are asked for."""
    bos = {"id": "BOS", "ids": [token_id], "tokens": [text]}  # the text itself may hold a colon
    backend.post_processor = processors.TemplateProcessing(
        single=["BOS", "$A"], pair=["BOS", "$A", "BOS", "$B"], special_tokens=[bos]
    )
