"""Packed trits against the ternary encoders of the gguf package, which share nothing with ours."""

import numpy as np
import pytest
from gguf import GGMLQuantizationType, quants

from bitinfer import _core


@pytest.mark.parametrize("packing", ["i2", "t3", "t5"])
@pytest.mark.parametrize("theirs", [GGMLQuantizationType.TQ1_0, GGMLQuantizationType.TQ2_0])
def test_packed_matrix_holds_the_trits_that_gguf_holds(packing, theirs):
    weights = np.random.default_rng(5).integers(-1, 2, (96, 512)).astype(np.int8)
    encoded = quants.quantize(weights.astype(np.float32), theirs)
    ours = _core.unpack(_core.pack(weights, packing), packing, *weights.shape)
    assert (ours == quants.dequantize(encoded, theirs)).all()
