"""Strings on which tokenizers disagree where they can; a tokenizer.json as GGUF metadata."""

from __future__ import annotations

import json
import random
import unicodedata
from pathlib import Path
from typing import Any

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # token_type

_SENTENCES = (
    "The quick brown fox doesn't jump; it's 12,345.67 metres, they'LL say, WE'VE I'm 'S 're",
    "Größe, Straße und Übermut: „Wörter“ – naïve façade, œuvre, İstanbul ıspanak",
    "Ζεύς και Ήρα, Ὀδυσσεύς; Привет, мир! Ёжик съел 1000 яблок. Їжак",
    "שלום עולם, מה שלומך? السَّلَامُ عَلَيْكُمْ ١٢٣٤ ٪ فارسی می‌خواهم",
    "नमस्ते दुनिया, क्षत्रिय १२३; বাংলা ভাষা, தமிழ் மொழி, తెలుగు, ಕನ್ನಡ, ภาษาไทยไม่มีช่องว่าง",
    "中文字符，没有空格。日本語のテキストとカタカナ、한국어 문장입니다. 繁體字 １２３",
    "አማርኛ ქართული Հայերեն ខ្មែរ မြန်မာ བོད་ཡིག ᚠᚢᚦ 𐍈 𒀀 𝒜𝓑𝔠 𝟘𝟙𝟚",
    "👩‍👩‍👧 🇩🇪🏳️‍🌈 👍🏽 ☕️ ❤️‍🔥 #️⃣ ok👌 🧑🏿‍🚀...",
    "0 12 123 1234 12345678901 3.14e-10 0xDEADBEEF ½ Ⅻ ² ³ ٣ 1st 2nd v1.2.3 $9.99 50% ¥1000 №7",
    "def f(x: int) -> dict[str, int]:\n    return {'a': x**2, \"b\": [i for i in range(x)]}\n",
    '#include <stdio.h>\nint main(void) {\n\tprintf("%d\\n", a[i] != b && !c || ~d ^ e);\n}\r\n',
    'SELECT * FROM t WHERE a >= 1; -- comment\n<div class="x">&nbsp;</div> {{ x|y }} ^~`+=|\\',
    "https://example.org/a?b=c&d=%20#e user.name+tag@example.com /usr/lib/x.so C:\\Windows\\",
    "snake_case camelCase SCREAMING_CASE kebab-case don’t ‘quoted’ …—–‐ «guillemets»",
    "<s> </s> <unk> <|endoftext|> <|im_start|>user <0x0A> [PAD151646] <|eot_id|> <|begin_of_text|>",
    "▁ ▁▁a Ġ Ċ č _ ĠĠ a▁b",
)
_SPACES = (
    *(" " * n for n in (1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 40)),
    *(
        "\n",
        "\n\n",
        "\n\n\n\n",
        "\r\n",
        "\r\n\r\n",
        "\t",
        "\t\t\t",
        " \n",
        "\n ",
        " \t\n  x",
        "\v\f",
    ),
    *(
        "a\n",
        "a \n",
        "a  \n  b",
        "a   b    c",
        " a",
        "  a",
        "   a  ",
        "\ta",
        "a\t b",
        ".\n\n",
        ".  \n!",
    ),
    *(
        "\u00a0",
        "a\u00a0b",
        "\u2003em",
        "\u3000全角",
        "\u200bzero",
        "\u2028line",
        "\u0085",
        "\ufeffbom",
    ),
    *("", "\0", "a\0b", "\x01\x02\x1b[31mred\x1b[0m\x7f", "\x80\x9f", "\ufffd\ufffd", "\U0010ffff"),
)
_COMPOSED = (
    "é ñ ü Å ǘ ệ Ǖ",
    "ガギグ が",
    "각갂힣",
    "Ω Å K",
    "ﬁ ﬃ ⅷ ㎏",
    "q\u0307\u0323 q\u0323\u0307 a\u0308\u0323",
)
_ALPHABETS = (
    "abcdefghij ETAOIN 'sdtm",
    "0123456789 .,:-+ ",
    "  \n\t\r a1",
    "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ aZ",
    "абвгд ежз АБ éèêàçß",
    "日本語中文한국 のはが 、。",
    "👍🏽❤️😀 🇫🇷a\u200d\u0301\u0323",
    "abc\u0300\u0301\u0327 한ᄒ\u1161\u11ab é",
)


def texts() -> list[str]:
    """The same strings each time: sentences, words, forms, white space, random mixtures."""
    rng = random.Random(5)
    forms = [unicodedata.normalize("NFD", s) for s in (*_SENTENCES, *_COMPOSED)]
    words = [word for s in _SENTENCES for word in s.split(" ")[:12]]
    mixed = [
        "".join(rng.choices(alphabet, k=rng.randint(1, 40)))
        for alphabet in _ALPHABETS
        for _ in range(20)
    ]
    wild = ["".join(map(_any_character, [rng] * rng.randint(1, 12))) for _ in range(60)]
    return [*_SENTENCES, *_COMPOSED, *forms, *_SPACES, *words, *mixed, *wild]


def _any_character(rng: random.Random) -> str:
    code = rng.choice((rng.randrange(0x300), rng.randrange(0x3000), rng.randrange(0x110000)))
    return " " if 0xD800 <= code < 0xE000 else chr(code)


def metadata(**fields: Any) -> dict[str, Any]:
    """GGUF metadata with these fields of the tokenizer."""
    return {f"tokenizer.ggml.{name}": value for name, value in fields.items()}


def as_metadata(file: Path, pads: int = 0, **fields: Any) -> dict[str, Any]:
    """What a GGUF file would hold of a byte-level tokenizer.json, and of ``pads`` unused ids."""
    content = json.loads(file.read_text(encoding="utf-8"))
    added = {token["content"]: token for token in content["added_tokens"]}
    vocab = {**content["model"]["vocab"], **{text: token["id"] for text, token in added.items()}}
    tokens = sorted(vocab, key=vocab.__getitem__)
    types = [_type(added[token]) if token in added else NORMAL for token in tokens]
    merges = [m if isinstance(m, str) else " ".join(m) for m in content["model"]["merges"]]
    tokens += [f"[PAD{len(tokens) + n}]" for n in range(pads)]
    types += [UNUSED] * pads
    return metadata(model="gpt2", tokens=tokens, token_type=types, merges=merges, **fields)


def _type(added_token: dict[str, Any]) -> int:
    return CONTROL if added_token["special"] else USER_DEFINED


def as_sentence_piece(file: Path, **fields: Any) -> dict[str, Any]:
    """What a GGUF file would hold of Llama 2's tokenizer.json.

    A piece scores minus its rank. Runs of spaces are joined last of all, so they score least.
    """
    vocab = json.loads(file.read_text(encoding="utf-8"))["model"]["vocab"]
    tokens = sorted(vocab, key=vocab.__getitem__)
    types = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256]
    scores = [0.0] * len(types)
    scores += [-1e9 if set(t) == {"▁"} else -float(n) for n, t in enumerate(tokens[len(types) :])]
    types += [NORMAL] * (len(tokens) - len(types))
    return metadata(model="llama", tokens=tokens, token_type=types, scores=scores, **fields)
