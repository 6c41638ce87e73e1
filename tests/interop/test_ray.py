"""On a real Ray cluster of this machine, a model says what it says in one process."""

from __future__ import annotations

import ray

from bitinfer import default_model
from bitinfer.model import Model

PROMPTS = [f"Once upon a time there were {count} little" for count in range(2, 12)]


def reply(model: Model, prompt: str) -> str:
    return model.generate(prompt, max_tokens=8, temperature=0).text


@ray.remote
class Teller:
    def __init__(self) -> None:
        self.model = Model.load(default_model(), num_threads=1)

    def tell(self, prompt: str) -> str:
        return reply(self.model, prompt)


def test_an_actor_says_what_one_process_says(cluster, model):
    tellers = [Teller.remote(), Teller.remote()]
    told = ray.get([tellers[i % 2].tell.remote(p) for i, p in enumerate(PROMPTS)])
    assert told == [reply(model, prompt) for prompt in PROMPTS]
