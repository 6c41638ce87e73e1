"""A backend that says what a test told it to, in place of one that runs the model."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import replace

from bitinfer.errors import QueueFullError
from bitinfer.generate import Completion
from bitinfer.generate.reply import Usage
from bitinfer.serve.backend import Counts, Delta, Job, Stream

ENDLESS = "endless"


class ScriptedBackend:
    """Replies are taken from ``script``: a text, which comes in pieces, or `ENDLESS`.

    Attributes:
        script: Replies that are still to be given.
        jobs: What was asked.
        full: Whether the queue is full.
        dead: Whether nothing runs jobs any more.
        cancelled: Set when a client gave a reply up.
    """

    def __init__(self) -> None:
        self.script: deque[str] = deque()
        self.jobs: list[Job] = []
        self.full = False
        self.dead = False
        self.cancelled = threading.Event()

    def submit(self, job: Job) -> Stream:
        if self.full:
            raise QueueFullError("queue: 4 replies are waiting: come again in 2 s", 2)
        self.jobs.append(job)
        stream = Stream()
        reply = self.script.popleft()
        thread = threading.Thread(target=self._run, args=(job, stream, reply), daemon=True)
        thread.start()
        return stream

    def _run(self, job: Job, stream: Stream, reply: str) -> None:
        usage = Usage(len(job.prompt_ids), 0, 0, 0.0, 0.0, 0, 0)
        if reply == ENDLESS:
            said = "The first words"
            stream.put(Delta(said, (300,)))
            while not stream.cancelled:
                self.cancelled.wait(0.01)
            self.cancelled.set()
        else:
            said = reply
            for at in range(0, len(reply), 7):
                stream.put(Delta(reply[at : at + 7], (300,)))
        usage = replace(usage, completion_tokens=-(-len(said) // 7))
        stream.finish(Completion(said, (300,), "stop", usage))

    def counts(self) -> Counts:
        return Counts(0, 0, 4)

    def takes_jobs(self) -> bool:
        return not self.dead

    def close(self) -> None:
        self.cancelled.set()
