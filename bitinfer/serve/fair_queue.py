"""``FairQueue``: who is next, so that no client waits for another's flood; pure state.

Each client has a queue and a count of the tokens that it got. The one that got least is next; one
that comes, or comes back, begins no lower than the least of those that are there, so that nobody
saves up rights while away. (Virtual token counters: Sheng et al., Fairness in Serving Large
Language Models, OSDI 2024.)
"""

from __future__ import annotations

from collections import Counter, deque
from typing import Generic, Protocol, TypeVar


class Queued(Protocol):
    """What waits."""

    client: str
    number: int  # of its arrival


T = TypeVar("T", bound=Queued)


class FairQueue(Generic[T]):
    """Waiting tasks of several clients. A client is there from `enter` to `leave` of its tasks."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[T]] = {}
        self._present: Counter[str] = Counter()  # tasks of each client, waiting or not
        self._served: dict[str, int] = {}

    def __len__(self) -> int:
        """Tasks that wait."""
        return sum(map(len, self._waiting.values()))

    def enter(self, task: T) -> None:
        """A new task waits, behind the others of its client."""
        if task.client not in self._present:
            least = min((self._served[client] for client in self._present), default=0)
            here = {client: n for client, n in self._served.items() if client in self._present}
            debts = {client: n for client, n in self._served.items() if here and n > least}
            self._served = {task.client: least, **debts, **here}
        self._present[task.client] += 1
        self._waiting.setdefault(task.client, deque()).append(task)

    def put_back(self, task: T) -> None:
        """A task waits again, before the others of its client."""
        self._waiting.setdefault(task.client, deque()).appendleft(task)

    def take(self, task: T) -> None:
        """A task waits no more."""
        waiting = self._waiting[task.client]
        waiting.remove(task)
        if not waiting:
            del self._waiting[task.client]

    def leave(self, task: T) -> None:
        """A task that does not wait is over."""
        self._present[task.client] -= 1
        if not self._present[task.client]:
            del self._present[task.client]

    def charge(self, task: T, tokens: int) -> None:
        """The task's client got so many tokens."""
        self._served[task.client] += tokens

    def rank(self, task: T) -> tuple[int, int]:
        """The lower, the more it is the task's turn."""
        return self._served[task.client], task.number

    def heads(self) -> list[T]:
        """The first waiting task of each client."""
        return [waiting[0] for waiting in self._waiting.values()]
