"""Muon: which parameters it changes and how far, and that a resumed run goes on with its state."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_train_loop import SHAPE, TEXT

from bitinfer.train import TrainConfig, train

RATE = 1e-2


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    (tmp_path / "text.txt").write_text(TEXT)
    return TrainConfig(
        data=(str(tmp_path / "text.txt"),),
        vocab_size=290,
        shape=SHAPE,
        context_length=24,
        steps=1,
        batch_size=8,
        optimizer="muon",
        learning_rate=RATE,
        stage_2_from=1.0,
        warmup_steps=0,
        weight_decay=0.0,
        precision="fp32",
    )


def test_its_steps_are_orthogonal_and_the_embedding_has_those_of_adam(config, tmp_path):
    first = {}

    def keep(model, rows):
        first.update({name: p.detach().clone() for name, p in model.named_parameters()})
        return model(input_ids=rows[:, :-1], labels=rows[:, :-1]).loss

    run = train(config, tmp_path / "run", loss_fn=keep)
    changed = {name: p.detach() - first[name] for name, p in run.model.named_parameters()}
    matrices = [name for name, delta in changed.items() if delta.ndim == 2]
    assert len(matrices) == 2 * 7 + 1
    for name in matrices:
        delta = changed[name]
        if "embed_tokens" in name:
            # The first step of Adam is the rate in the sign's direction, but for its epsilon.
            assert delta.abs().max() == pytest.approx(RATE, rel=0.01)
            continue
        # Newton-Schulz brings singular values to 0.68 to 1.13 (Jordan et al., Muon), but for very
        # small ones; the step is 0.2 sqrt(max(N, K)) of that (arXiv 2502.16982, section 2.2).
        # One of Adam, with all of its entries at the rate, would have one of 10 and more.
        values = torch.linalg.svdvals(delta) / (RATE * 0.2 * max(delta.shape) ** 0.5)
        assert 0.65 < values.max() < 1.25, name
        assert (values > 0.65).float().mean() > 0.25, name


def test_a_resumed_run_has_the_losses_of_an_unbroken_one(config, tmp_path):
    config = replace(config, steps=8, save_every=3, weight_decay=0.1)
    whole = train(config, tmp_path / "whole")

    def stop(record):
        if record.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", report=stop)
    resumed = train(config, tmp_path / "run", resume=True)
    assert resumed.losses == whole.losses
    assert whole.losses != train(replace(config, optimizer="adamw"), tmp_path / "adamw").losses
