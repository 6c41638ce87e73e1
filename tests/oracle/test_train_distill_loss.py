"""The parts of BitDistill's loss against NumPy, and against what transformers' modules put out."""

import copy

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from bitinfer.errors import ConfigError
from bitinfer.train.data import IGNORED
from bitinfer.train.distill_config import LossWeights
from bitinfer.train.distill_loss import DistillLoss, logits_loss
from bitinfer.train.relations import AttentionTap, relation_loss
from bitinfer.train.run import split_rows

SHAPE = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
}
KINDS = {"llama": (LlamaForCausalLM, LlamaConfig), "qwen3": (Qwen3ForCausalLM, Qwen3Config)}


def make_model(kind="llama", seed=0, **shape):
    torch.manual_seed(seed)
    model, config = KINDS[kind]
    return model(config(**SHAPE | shape))


def random_rows(batch=3, length=10, seed=1):
    return torch.randint(0, 97, (batch, length + 1), generator=torch.Generator().manual_seed(seed))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def kl(p, q):
    return (p * (np.log(p) - np.log(q))).sum(-1)


def relation(states, heads):
    """Of one text, by loops: ``(heads, T, T)``."""
    width = states.shape[1] // heads
    parts = [states[:, i * width : (i + 1) * width] for i in range(heads)]
    return np.stack([softmax(part @ part.T / np.sqrt(width)) for part in parts])


def random_states(widths, batch=2, length=7, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(batch, length, width)) for width in widths]


def to_torch(arrays):
    return [torch.from_numpy(array).float() for array in arrays]


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_relation_loss_equals_numpy_with_other_widths_and_fewer_key_value_heads(heads):
    student, teacher = random_states((24, 8, 8)), random_states((48, 16, 16), seed=1)
    expected = np.mean(
        [
            [
                kl(relation(t, heads), relation(s, heads)).mean()
                for s, t in zip(ours, theirs, strict=True)
            ]
            for ours, theirs in zip(student, teacher, strict=True)
        ]
    )
    got = relation_loss(to_torch(student), to_torch(teacher), heads)
    assert float(got) == pytest.approx(expected, rel=1e-5)


def test_padding_has_no_part_in_relations():
    student, teacher = random_states((24, 8, 8)), random_states((48, 16, 16), seed=1)
    mask = torch.tensor([[True] * 7, [True] * 4 + [False] * 3])
    rows = [(0, slice(7)), (1, slice(4))]
    values = [
        [kl(relation(t[b, at], 2), relation(s[b, at], 2)).mean(0) for b, at in rows]
        for s, t in zip(student, teacher, strict=True)
    ]
    expected = np.mean([np.concatenate(tokens).mean() for tokens in values])
    got = relation_loss(to_torch(student), to_torch(teacher), 2, mask)
    assert float(got) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 5.0])
def test_logits_loss_equals_numpy(temperature):
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(size=(2, 11, 31)) * 3
    expected = kl(softmax(teacher / temperature), softmax(student / temperature)).mean()
    got = logits_loss(torch.from_numpy(student), torch.from_numpy(teacher), temperature)
    assert float(got) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layer", [0, -1])
def test_queries_keys_and_values_are_those_of_the_layers_own_projections(kind, layer):
    model = make_model(kind)
    inputs = []
    attention = model.model.layers[layer].self_attn
    attention.register_forward_pre_hook(
        lambda _, args, kwargs: inputs.append(kwargs["hidden_states"]), with_kwargs=True
    )
    tap = AttentionTap(model, layer)
    model(random_rows())
    expected = [getattr(attention, f"{part}_proj")(inputs[0]) for part in "qkv"]
    for got, wanted in zip(tap.take(), expected, strict=True):
        assert torch.equal(got, wanted)
    assert [wanted.shape[-1] for wanted in expected] == [48, 16, 16]


@pytest.mark.parametrize("kind", KINDS)
def test_a_student_that_equals_its_teacher_has_only_cross_entropy_to_lose(kind):
    teacher = make_model(kind)
    student = copy.deepcopy(teacher)
    rows = random_rows()
    loss = DistillLoss(student, teacher, LossWeights(cross_entropy=0.0))(student, rows)
    assert abs(float(loss.detach())) < 1e-6


def test_the_loss_is_the_weighted_sum_of_its_parts():
    teacher, student = make_model(), make_model(seed=1)
    rows = random_rows()

    def loss(**weights):
        given = {"cross_entropy": 0.0, "logits": 0.0, "relation": 0.0} | weights
        return float(DistillLoss(student, teacher, LossWeights(**given))(student, rows).detach())

    parts = {name: loss(**{name: 1.0}) for name in ("cross_entropy", "logits", "relation")}
    assert min(parts.values()) > 1e-4
    weights = {"cross_entropy": 0.5, "logits": 10.0, "relation": 3.0}
    assert loss(**weights) == pytest.approx(sum(parts[k] * w for k, w in weights.items()), rel=1e-5)
    ours = student(rows[:, :-1], labels=rows[:, :-1], shift_labels=rows[:, 1:].contiguous()).loss
    assert parts["cross_entropy"] == pytest.approx(float(ours.detach()), rel=1e-5)


def test_a_part_that_is_switched_off_is_not_computed():
    teacher, student = make_model(), make_model(seed=1)
    ran = []
    teacher.register_forward_hook(lambda *_: ran.append("head"))
    teacher.model.register_forward_hook(lambda *_: ran.append("layers"))
    for expected, weights in (
        ([], {"logits": 0.0, "relation": 0.0}),
        (["layers"], {"logits": 0.0}),
        (["layers", "head"], {"relation": 0.0}),
    ):
        DistillLoss(student, teacher, LossWeights(**weights))(student, random_rows())
        assert ran == expected
        ran.clear()


def test_only_the_student_gets_gradients():
    teacher, student = make_model().requires_grad_(False), make_model(seed=1)
    weights = LossWeights(cross_entropy=0.0, logits=0.0, layer=1)
    DistillLoss(student, teacher, weights)(student, random_rows()).backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    below, above = (student.model.layers[i].self_attn.q_proj.weight.grad for i in (1, 2))
    assert below.abs().max() > 0
    assert above is None  # the relations of layer 1 know nothing of layer 2


def test_rows_of_tasks_learn_the_answer_alone():
    teacher, student = make_model(), make_model(seed=1)
    tokens = random_rows(batch=1, length=9)[0]
    rows = torch.full((2, 2, 9), IGNORED)
    rows[:, 0] = tokens[:-1]
    rows[0, 1, 5:] = tokens[6:]
    rows[1, 0, 7:] = IGNORED  # a shorter example
    rows[1, 1, 5:7] = tokens[6:8]
    ids, labels, present = split_rows(rows)
    with torch.no_grad():
        logits, wanted = student(ids).logits, labels != IGNORED
        assert wanted.sum() == 6
        assert present.sum() == 16
        expected = torch.nn.functional.cross_entropy(logits[wanted], labels[wanted])
        expected += 10 * logits_loss(logits[wanted], teacher(ids).logits[wanted], 5.0)
        loss = DistillLoss(student, teacher, LossWeights(relation=0.0))(student, rows)
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"layer": 3}, r"layer: expected -3 to 2 \(the model has 3 layers\), got 3"),
        ({"relation_heads": 3}, "relation_heads: expected a divisor .* got 3: take 16 or one of"),
    ],
)
def test_layers_and_heads_that_are_not_there_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        DistillLoss(make_model(), make_model(), LossWeights(**weights))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"cross_entropy": 0.0, "logits": 0.0, "relation": 0.0}, "weights: expected one above 0"),
        ({"logits": -1.0}, "logits: expected a number 0 or more, got -1.0"),
        ({"temperature": 0.0}, "temperature: expected a number 0.001 or more, got 0.0"),
        ({"layer": 1.5}, "layer: expected a number from -65536 to 65536, got 1.5"),
        ({"relation": float("nan")}, "relation: expected a number 0 or more, got nan"),
    ],
)
def test_weights_that_cannot_be_are_refused(weights, message):
    with pytest.raises(ConfigError, match=message):
        LossWeights(**weights)
