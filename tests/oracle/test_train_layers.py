"""The layers that learn: codes by the formulas, exact sums, and gradients derived by hand.

The gradients are those of the straight-through estimator: of ``x_q @ w_q.T`` with the quantized
``x_q`` and ``w_q`` in the place of ``x`` and ``w``, written here in NumPy.
"""

import numpy as np
import pytest
import torch
from transformers.integrations import bitnet

from bitinfer import _core
from bitinfer.families.binary import binarize
from bitinfer.reference import steps
from bitinfer.train import BinaryLinear, BitLinear
from bitinfer.train.quantizers import StraightThrough, absmax_codes, absmean_codes, binary_codes

N, K = 24, 40
TIES = [[1.0, 0.5, -0.5, -1.0, 1.5, -1.5, 0.0, 2.0]]  # mean 1: halves are ties, and 1.5 is clipped


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


WEIGHTS = {
    "normal": normal(96, 160),
    "shifted": normal(96, 160) + 0.4,
    "large": normal(8, 64) * 1e4,
    "ties": torch.tensor(TIES * 5),
    "zeros": torch.zeros(4, 8),
    "tiny": normal(4, 8) * 1e-7,
}
ROWS = {
    "normal": normal(200, 300),
    "formats": torch.tensor([[254.0, 1, 3, 5, -1, -3], [0, 0, 0, 0, 0, 0]]),
    "fractions": torch.tensor([[0, 0.5, -0.25, 1, -1, 0.003937, 0.5905512]]),
    "tiny": normal(3, 8) * 1e-6,
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_ternary_codes_are_those_of_the_formula_of_transformers_and_of_the_engine(name):
    w = WEIGHTS[name]
    codes, scale = absmean_codes(w)

    r = np.float32(1) / np.maximum(np.abs(w.numpy(), dtype=np.float64).mean(), 1e-5).astype("f4")
    assert np.array_equal(codes, np.clip(np.rint(w.numpy() * r), -1, 1))
    assert scale.item() == np.float32(1) / r

    theirs = bitnet.WeightQuant.apply(w)
    assert torch.equal(codes, theirs.sign())
    assert torch.allclose(codes * scale, theirs, rtol=1e-6, atol=0)

    packed, engine_scale = _core.pack_absmean(
        w.numpy().view(np.uint8).ravel(), "f32", *w.shape, "i2"
    )
    assert np.array_equal(codes, _core.unpack(packed, "i2", *w.shape))
    assert scale.item() == engine_scale


def test_ties_between_0_and_1_are_0():
    assert absmean_codes(torch.tensor(TIES))[0].tolist() == [[1, 0, 0, -1, 1, -1, 0, 1]]


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.7, 1.2])
def test_another_threshold_decides_what_is_0_and_nothing_else(threshold):
    w = WEIGHTS["normal"]
    codes, scale = absmean_codes(w, threshold)
    kept = w.abs() > threshold * w.double().abs().mean()
    assert torch.equal(codes, torch.where(kept, w.sign(), torch.zeros_like(w)))
    assert scale == absmean_codes(w)[1]


@pytest.mark.parametrize("levels", [127, 128])
@pytest.mark.parametrize("name", ROWS)
def test_activation_codes_are_those_of_the_reference_and_of_transformers(name, levels):
    x = ROWS[name]
    codes, scale = absmax_codes(x, levels)
    expected, expected_scale = steps.quantize(x.numpy(), levels, -128)
    assert np.array_equal(codes, expected)
    assert np.array_equal(scale[:, 0], expected_scale)
    if levels == 127:
        theirs, _ = bitnet.BitLinear(8, 8, False).activation_quant(x)
        assert torch.equal(codes, theirs.float())
        assert torch.allclose(codes * scale, bitnet.ActQuant.apply(x), rtol=1e-6, atol=0)


def test_activation_codes_of_formats():
    assert absmax_codes(ROWS["formats"])[0].tolist() == [[127, 0, 2, 2, 0, -2], [0] * 6]
    assert absmax_codes(ROWS["fractions"])[0].tolist() == [[0, 64, -32, 127, -127, 0, 75]]


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("name", ["normal", "shifted", "large", "ties"])
def test_binary_codes_are_those_of_the_engine(name, groups):
    codes, scale = binary_codes(WEIGHTS[name], groups)
    expected, expected_scale = binarize(WEIGHTS[name].numpy(), groups)
    assert np.array_equal(codes, expected)
    assert np.array_equal(scale, expected_scale)


def test_codes_of_bfloat16_are_those_of_its_values_in_float32():
    for quantize in (absmean_codes, absmax_codes, binary_codes):
        x = normal(64, 96).bfloat16()
        codes, scale = quantize(x)
        wide, wide_scale = quantize(x.float())
        assert codes.dtype == torch.bfloat16
        assert torch.equal(codes.float(), wide)
        assert torch.equal(scale, wide_scale)


def test_the_straight_through_estimator_is_the_identity():
    x = torch.tensor([[3.0, -0.2, 0.0, 1e-9, -7.0]], requires_grad=True)
    codes, scale = absmean_codes(x.detach())
    (StraightThrough.apply(x, codes, scale) * scale).sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))  # also where codes are rounded or clipped


def rms_norm_gradient(x, gain, eps, upstream):
    """Gradients of ``x`` and ``gain`` of ``x / sqrt(mean(x^2) + eps) * gain``."""
    inverse = 1 / np.sqrt((x * x).mean(-1, keepdims=True) + eps)
    normed = x * inverse
    d = upstream * gain
    return inverse * (d - normed * (d * normed).mean(-1, keepdims=True)), (upstream * normed).sum(0)


def quantized(x, levels):
    """Rows of ``x`` after rounding to codes and back."""
    step = np.maximum(np.abs(x).max(-1, keepdims=True), 1e-5) / levels
    return np.clip(np.rint(x / step), -128, 127) * step


def results(layer, x, upstream):
    """Output and gradients of a layer in float64, as arrays."""
    x = x.clone().requires_grad_()
    y = layer(x)
    y.backward(upstream)
    gradients = {name: p.grad.numpy() for name, p in layer.named_parameters()}
    return y.detach().numpy(), x.grad.numpy(), gradients


def close(a, b):
    return np.allclose(a, b, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_gradients_of_bit_linear(norm, bias):
    own = torch.nn.RMSNorm(K, eps=1e-6) if norm else None
    layer = BitLinear(K, N, bias, norm=own)
    if norm:
        own.weight.data += 0.3 * normal(K)
    layer.double()
    x, g = normal(7, K, dtype=torch.float64), normal(7, N, seed=1, dtype=torch.float64)
    y, dx, gradients = results(layer, x, g)

    w, x, g = layer.weight.detach().numpy(), x.numpy(), g.numpy()
    mean = np.abs(w).mean()
    wq = np.clip(np.rint(w / mean), -1, 1) * mean
    gain = own.weight.detach().numpy() if norm else 1.0
    inner = x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6) * gain if norm else x
    xq = quantized(inner, 127)
    assert close(y, xq @ wq.T + (layer.bias.detach().numpy() if bias else 0))
    assert close(gradients["weight"], g.T @ xq)
    expected = g @ wq
    if norm:
        expected, gain_gradient = rms_norm_gradient(x, gain, 1e-6, expected)
        assert close(gradients["norm.weight"], gain_gradient)
    assert close(dx, expected)
    if bias:
        assert close(gradients["bias"], g.sum(0))


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_gradients_of_binary_linear(groups):
    layer = BinaryLinear(K, N, bias=True, num_groups=groups).double()
    x, g = normal(7, K, dtype=torch.float64), normal(7, N, seed=1, dtype=torch.float64)
    y, dx, gradients = results(layer, x, g)

    w, x, g = layer.weight.detach().numpy(), x.numpy(), g.numpy()
    expected = np.tile(layer.bias.detach().numpy(), (7, 1))
    for columns in np.split(np.arange(K), groups):
        part, d = w[:, columns], x[:, columns] - x[:, columns].mean(-1, keepdims=True)
        wq = np.where(part > part.mean(), 1, -1) * np.abs(part).mean()
        inverse = 1 / np.sqrt((d * d).mean(-1, keepdims=True) + 1e-5)
        xq = quantized(d * inverse, 128)
        expected += xq @ wq.T
        assert close(gradients["weight"][:, columns], g.T @ xq)
        dn, normed = g @ wq, d * inverse
        moved = dn - dn.mean(-1, keepdims=True)
        along = normed * (dn * normed).mean(-1, keepdims=True)
        assert close(dx[:, columns], inverse * (moved - along))
    assert close(y, expected)
    assert close(gradients["bias"], g.sum(0))


def exact_sums(layer, x):
    """Integer sums of the codes, and both scales."""
    codes, scale = absmax_codes(x)
    weights, weight_scale = layer.codes()
    return codes.long() @ weights.long().T, scale, weight_scale


def test_sums_are_exact_integers_in_float32_and_scaled_in_the_order_of_the_engine():
    layer, x = BitLinear(6912, 64, bias=False), normal(16, 6912)
    sums, scale, weight_scale = exact_sums(layer, x)
    with torch.no_grad():
        assert torch.equal(layer(x), sums.float() * scale * weight_scale)


def test_sums_are_exact_integers_under_autocast_and_rounded_once():
    layer, x = BitLinear(6912, 64, bias=False), normal(16, 6912)
    sums, scale, weight_scale = exact_sums(layer, x)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, (sums.bfloat16() * scale * weight_scale).bfloat16())


@pytest.mark.parametrize("kind", [BitLinear, BinaryLinear])
def test_they_are_made_called_and_stored_like_linear(kind):
    linear, ours = torch.nn.Linear(K, N), kind(K, N)
    assert ours.state_dict().keys() == linear.state_dict().keys()
    ours.load_state_dict(linear.state_dict())
    assert ours(normal(2, 3, K)).shape == (2, 3, N)
    assert kind(K, N, False, dtype=torch.float64).bias is None
    masters, x = kind(K, N, dtype=torch.bfloat16), normal(3, K).bfloat16()
    assert masters(x).dtype == torch.bfloat16


def test_groups_must_divide_the_columns():
    with pytest.raises(ValueError, match=r"^num_groups: expected a divisor of 40, got 3$"):
        BinaryLinear(K, N, num_groups=3)
