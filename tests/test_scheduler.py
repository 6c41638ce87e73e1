"""The scheduler on random walks, with a fake model whose next id depends on all ids before."""

from __future__ import annotations

import random
import zlib

import pytest
from fake_pool import FakePool

from bitinfer.serve.scheduler import Scheduler, Task, fewest_blocks

CONTEXT = 300


class Text(Task):
    def __init__(self, prompt: list[int], length: int, client: str = "") -> None:
        super().__init__(prompt, client)
        self.end = min(len(prompt) + length, CONTEXT)


def next_id(token_ids: list[int]) -> int:
    return zlib.crc32(bytes(token_ids)) % 50


def alone(prompt: list[int], end: int) -> list[int]:
    ids = list(prompt)
    while len(ids) < end:
        ids.append(next_id(ids))
    return ids


class Machine:
    """Runs the plans of a scheduler and checks each of them."""

    def __init__(self, blocks: int, slots: int, step_tokens: int, queue_limit: int = 1000) -> None:
        self.pool = FakePool(blocks)
        self.slots, self.step_tokens = slots, step_tokens
        self.scheduler = Scheduler(
            self.pool, CONTEXT, slots=slots, step_tokens=step_tokens, queue_limit=queue_limit
        )
        self.live: list[Text] = []
        self.served: dict[str, int] = {}

    def submit(self, *texts: Text) -> None:
        for text in texts:
            self.scheduler.submit(text)
            self.live.append(text)

    def cancel(self, text: Text) -> None:
        self.scheduler.end(text)
        self.live.remove(text)
        assert text.cache is None

    def step(self) -> dict[Text, int]:
        plan = dict(self.scheduler.plan())
        assert bool(plan) == bool(self.live), "tasks wait and nothing runs"
        running = [text for text in self.live if text.cache is not None]
        assert len(running) == self.scheduler.running <= self.slots
        assert self.scheduler.waiting == len(self.live) - len(running)
        assert sum(plan.values()) <= self.step_tokens
        assert all(plan.get(text) == 1 for text in running if text.missing == 1)
        for text, count in plan.items():
            assert 1 <= count <= text.missing
            start = text.cache.length
            text.cache.append(text.token_ids[start : start + count])
            assert text.cache.ids == text.token_ids[: start + count]  # nobody wrote in its blocks
            self.served[text.client] = self.served.get(text.client, 0) + count
            if text.missing == 0:
                text.token_ids.append(next_id(text.cache.ids))
                if len(text.token_ids) >= text.end:
                    self.cancel(text)
        return plan

    def drain(self, most_steps: int = 20_000) -> None:
        for _ in range(most_steps):
            if not self.live:
                return
            self.step()
        raise AssertionError("it does not come to an end")


def random_prompt(rng: random.Random, beginnings: list[list[int]]) -> list[int]:
    """Often the beginning of another one, of every length."""
    ids = list(rng.choice(beginnings)) if beginnings and rng.random() < 0.7 else []
    ids = ids[: rng.randrange(len(ids) + 1)] + rng.choices(range(50), k=rng.randrange(1, 120))
    ids = ids[: CONTEXT - 1]
    beginnings.append(ids)
    return ids


@pytest.mark.parametrize("seed", range(25))
def test_no_schedule_changes_a_text_or_comes_to_a_halt(seed) -> None:
    rng = random.Random(seed)
    slots = rng.randrange(1, 7)
    blocks = fewest_blocks(CONTEXT) + rng.choice([0, 1, 5, 40])
    machine = Machine(blocks, slots, slots + rng.choice([1, 7, 64, 200]))
    beginnings: list[list[int]] = []
    texts: list[tuple[Text, list[int]]] = []
    for _ in range(120):
        action = rng.random()
        if action < 0.3:
            prompt = random_prompt(rng, beginnings)
            text = Text(prompt, rng.randrange(1, 80), rng.choice("abc"))
            machine.submit(text)
            texts.append((text, prompt))
        elif action < 0.35 and machine.live:
            machine.cancel(rng.choice(machine.live))
        else:
            machine.step()
    machine.drain()
    for text, prompt in texts:
        assert text.token_ids == alone(prompt, len(text.token_ids))
    assert (machine.scheduler.running, machine.scheduler.waiting) == (0, 0)
    machine.scheduler.prefixes.evict(blocks)
    assert machine.pool.used_blocks == 0  # no block is lost


def test_a_shared_beginning_is_run_once() -> None:
    machine = Machine(200, slots=8, step_tokens=600)
    prefix = list(range(50)) * 5
    texts = [Text([*prefix, i], 5) for i in range(8)]
    machine.submit(*texts)
    assert list(machine.step()) == texts[:1]  # there was room for two of them
    machine.drain()
    assert machine.scheduler.totals.run_tokens == len(prefix) + 8 * (1 + 4)
    late = Text([*prefix, 99], 1)
    before = machine.scheduler.totals.run_tokens
    machine.submit(late)
    machine.drain()
    assert late.cached_tokens == len(prefix)
    assert machine.scheduler.totals.run_tokens == before + 1


def test_a_conversation_goes_on_from_its_last_token() -> None:
    machine = Machine(50, slots=2, step_tokens=64)
    first = Text(list(range(30)), 40)
    machine.submit(first)
    machine.drain()
    second = Text([*first.token_ids, 7, 8, 9], 3)
    machine.submit(second)
    machine.drain()
    assert second.cached_tokens == len(first.token_ids) - 1  # the last one was not run
    assert len(machine.scheduler.prefixes) == 2  # 73 tokens: what was longer took the place


def test_the_oldest_never_gives_way_and_all_end() -> None:
    machine = Machine(fewest_blocks(CONTEXT) + 2, slots=4, step_tokens=64)
    texts = [Text([i] * 60, 230) for i in range(4)]
    machine.submit(*texts)
    while machine.live:
        oldest = machine.live[0]
        machine.step()
        assert oldest.cache is not None or oldest not in machine.live
    assert machine.scheduler.totals.preempted > 0
    assert [t.token_ids for t in texts] == [alone([i] * 60, 290) for i in range(4)]


def test_a_flood_does_not_delay_another_client() -> None:
    machine = Machine(60, slots=2, step_tokens=32)
    machine.submit(*(Text([i, *range(60)], 20, "flood") for i in range(50)))
    for _ in range(10):
        machine.step()
    guest = Text(list(range(60, 100)), 20, "guest")
    machine.submit(guest)
    steps = 0
    while guest in machine.live:
        machine.step()
        steps += 1
    assert steps < 60  # a running text ends, then its own prompt and tokens
    assert len(machine.live) > 40


def test_clients_with_much_to_do_get_equal_shares() -> None:
    machine = Machine(60, slots=3, step_tokens=32)
    machine.submit(*(Text([i] * 100, 60, "many long") for i in range(60)))
    machine.submit(*(Text([i] * 10, 15, "short") for i in range(250)))
    for _ in range(800):
        machine.step()
    long, short = machine.served["many long"], machine.served["short"]
    assert abs(long - short) < 3 * 160  # what may be running at a time


@pytest.mark.parametrize("clients", [("much", "little"), ("little", "much")])
def test_the_prompt_of_who_got_least_is_run_first(clients) -> None:
    machine = Machine(60, slots=4, step_tokens=16)
    machine.submit(Text([1] * 100, 150, "much"), Text([2], 150, "little"))
    for _ in range(10):
        machine.step()
    first, second = (Text([i + 3] * 90, 5, client) for i, client in enumerate(clients))
    machine.submit(first)
    machine.step()
    machine.submit(second)
    assert machine.step()[first if clients[0] == "little" else second] == 16 - 2


def test_who_comes_late_is_owed_nothing() -> None:
    machine = Machine(60, slots=2, step_tokens=32)
    machine.submit(*(Text([i] * 40, 40, "old") for i in range(100)))
    for _ in range(400):
        machine.step()
    before = machine.served["old"]
    machine.submit(*(Text([i] * 50, 40, "new") for i in range(100)))
    for _ in range(200):
        machine.step()
    old, new = machine.served["old"] - before, machine.served["new"]
    assert abs(old - new) < 3 * 90  # what may be running at a time


@pytest.mark.parametrize("steps", [0, 1, 8])
def test_cancelling_frees_queue_slot_and_memory_at_once(steps) -> None:
    machine = Machine(60, slots=1, step_tokens=16)
    text, behind = Text([1] * 100, 50), Text([2] * 5, 1)
    machine.submit(text, behind)
    for _ in range(steps):
        machine.step()
    machine.cancel(text)
    assert behind in machine.step()
    machine.drain()
    machine.scheduler.prefixes.evict(60)
    assert machine.pool.used_blocks == 0


def test_prompts_do_not_hold_up_those_that_decode() -> None:
    machine = Machine(60, slots=4, step_tokens=16)
    talker = Text([1], 100)
    machine.submit(talker)
    machine.step()
    machine.submit(*(Text([i] * 200, 5) for i in range(2, 5)))
    for _ in range(20):
        before = len(talker.token_ids)
        assert sum(machine.step().values()) == 16
        assert len(talker.token_ids) == before + 1


def test_the_queue_is_bounded() -> None:
    machine = Machine(60, slots=1, step_tokens=16, queue_limit=2)
    machine.submit(Text([1], 5), Text([2], 5))
    assert machine.scheduler.full
    machine.step()
    assert not machine.scheduler.full


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blocks": 5}, "cache blocks: expected at least 6 for a context of 300, got 5"),
        ({"step_tokens": 4}, "step_tokens: expected more than 4 slots, got 4"),
        ({"slots": 0}, "expected 1 or more, got 0"),
    ],
)
def test_what_could_not_work_is_refused(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        Machine(**{"blocks": 60, "slots": 4, "step_tokens": 16, **options})
