"""tokenizer.json as GGUF metadata: read back it gives the same ids, or it is refused."""

import json

import pytest
from tokenizer_cases import texts
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
)

import bitinfer
from bitinfer.errors import ExportError
from bitinfer.formats.byte_level import FALCON_E, GPT2, LLAMA3, QWEN2, byte_level_tokenizer
from bitinfer.formats.gguf_tokenizer import tokenizer_from_gguf
from bitinfer.formats.gguf_vocabulary import vocabulary_metadata

TEXTS = texts()
EMBEDDED = Tokenizer.from_file(str(bitinfer.default_model() / "tokenizer.json"))
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)


def fields_of(tokenizer, vocab_size=None):
    size = vocab_size or max(tokenizer.get_vocab().values()) + 1
    fields = vocabulary_metadata(json.loads(tokenizer.to_str()), size, "a-model")
    return {name.removeprefix("tokenizer.ggml."): value for name, value in fields.items()}


def read_back(fields):
    metadata = {f"tokenizer.ggml.{name}": value for name, value in fields.items()}
    return tokenizer_from_gguf({**metadata, "tokenizer.ggml.add_bos_token": False}, "a").backend


def same_ids(ours, original):
    for plain in (True, False):
        ours.encode_special_tokens = original.encode_special_tokens = plain
        for text in TEXTS:
            ids = original.encode(text, add_special_tokens=False).ids
            assert ours.encode(text, add_special_tokens=False).ids == ids, text
            assert ours.decode(ids) == original.decode(ids), text


def byte_level(split):
    """The embedded vocabulary under another split of words."""
    model = json.loads(EMBEDDED.to_str())["model"]
    return byte_level_tokenizer(model["vocab"], [tuple(m) for m in model["merges"]], split)


def sentence_piece():
    """As Llama 2: merges in the order of scores, bytes, ▁ for spaces and before the text."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    words = [
        "▁▁",
        "▁t",
        "he",
        "in",
        "▁a",
        "er",
        "▁the",
        "on",
        "re",
        "▁s",
        "aa",
        "aaa",
        "▁▁▁▁",
        "en",
        "nd",
        "at",
        "ll",
        "or",
        "▁wor",
        "lo",
        "ld",
    ]
    letters = sorted({*"▁.,!'\n日本éβH", *map(chr, range(97, 123))})
    vocab = {piece: i for i, piece in enumerate([*pieces, *words, *letters])}
    merges = [
        (word[:i], word[i:])
        for word in words
        for i in range(1, len(word))
        if word[:i] in vocab and word[i:] in vocab
    ]
    merges.sort(key=lambda pair: vocab["".join(pair)])
    options = {"unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True}
    tokenizer = Tokenizer(models.BPE(vocab, merges, **options))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    specials = [AddedToken(text, normalized=False) for text in ("<unk>", "<s>", "</s>")]
    tokenizer.add_special_tokens(specials)
    tokenizer.add_tokens([AddedToken("<think>", normalized=False)])
    return tokenizer


def test_the_embedded_tokenizer_gives_the_same_ids():
    fields = fields_of(EMBEDDED)
    assert (fields["model"], fields["pre"]) == ("gpt2", "smollm")
    same_ids(read_back(fields), EMBEDDED)


@pytest.mark.parametrize(
    ("split", "name"),
    [(GPT2, "gpt-2"), (LLAMA3, "llama-bpe"), (QWEN2, "qwen2"), (FALCON_E, "falcon_e")],
)
def test_splits_are_known_by_what_they_do(split, name):
    tokenizer = byte_level(split)
    fields = fields_of(tokenizer)
    assert fields["pre"] == name
    same_ids(read_back(fields), tokenizer)


def test_a_split_in_other_words_is_the_same_one():
    tokenizer = byte_level(GPT2)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Punctuation("contiguous"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
            pre_tokenizers.Split(Regex("[0-9]"), "isolated"),
        ]
    )
    fields = fields_of(tokenizer)
    assert fields["pre"] == "falcon_e"
    same_ids(read_back(fields), tokenizer)


def test_sentence_piece_gives_the_same_ids():
    tokenizer = sentence_piece()
    fields = fields_of(tokenizer)
    assert (fields["model"], fields["unknown_token_id"]) == ("llama", 0)
    assert fields["add_space_prefix"] is True
    types = fields["token_type"].tolist()
    assert types[:4] == [UNKNOWN, CONTROL, CONTROL, BYTE]
    assert types[-1] == USER_DEFINED
    same_ids(read_back(fields), tokenizer)


def test_rows_without_a_token_are_filled_up():
    fields = fields_of(EMBEDDED, 4099)
    assert fields["tokens"][4096:] == ["[PAD4096]", "[PAD4097]", "[PAD4098]"]
    assert fields["token_type"].tolist()[4095:] == [NORMAL, UNUSED, UNUSED, UNUSED]
    same_ids(read_back(fields), EMBEDDED)


def changed(change):
    tokenizer = byte_level(GPT2)
    change(tokenizer)
    return tokenizer


def with_merge(tokenizer):
    """Merges that no order of scores gives."""
    content = json.loads(tokenizer.to_str())
    content["model"]["merges"].reverse()
    content["model"]["merges"].pop()
    return Tokenizer.from_str(json.dumps(content))


@pytest.mark.parametrize(
    ("tokenizer", "message"),
    [
        (Tokenizer(models.WordLevel({"a": 0}, "a")), "model: expected BPE, .*, got WordLevel"),
        (
            changed(lambda t: setattr(t, "normalizer", normalizers.Lowercase())),
            "normalizer: expected none or NFC, .* got .*Lowercase",
        ),
        (
            changed(lambda t: setattr(t, "pre_tokenizer", pre_tokenizers.ByteLevel())),
            "pre_tokenizer: expected splits into words and bytes",
        ),
        (
            changed(lambda t: setattr(t, "pre_tokenizer", None)),
            "pre_tokenizer: expected ByteLevel, .* got none",
        ),
        (byte_level(LLAMA3.__class__(("[a-z]",))), "split into words: expected that of llama-bpe"),
        (
            changed(lambda t: t.add_tokens([AddedToken("<x>", rstrip=True)])),
            "added token '<x>': rstrip: expected false",
        ),
        (with_merge(sentence_piece()), "merges: expected those that scores give"),
    ],
)
def test_what_gguf_cannot_express_is_refused_in_one_line(tokenizer, message):
    with pytest.raises(ExportError, match=f"^a-model: tokenizer: {message}") as error:
        fields_of(tokenizer)
    assert "\n" not in str(error.value)
