"""``OneAtATime``: the plain backend, which runs one job after the other in a thread."""

from __future__ import annotations

import threading
from collections import deque

from bitinfer.errors import QueueFullError
from bitinfer.generate import generate_step
from bitinfer.model import Model
from bitinfer.prefix_cache import PrefixCache
from bitinfer.serve.backend import Counts, Delta, Job, Stream

_RETRY_AFTER_S = 2


class OneAtATime:
    """Runs jobs in the order in which they come."""

    def __init__(self, model: Model, queue_size: int) -> None:
        """Start the thread.

        Args:
            model: Stays the caller's, to be closed after this.
            queue_size: Most jobs that wait.
        """
        self._model = model
        self._prefixes = PrefixCache(model.engine)
        self._queue_size = queue_size
        self._waiting: deque[tuple[Job, Stream]] = deque()
        self._running: Stream | None = None
        self._closed = False
        self._changed = threading.Condition()  # guards the three above
        self._thread = threading.Thread(target=self._run, name="bitinfer-serve", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> Stream:
        """Queue a job."""
        with self._changed:
            while self._waiting and self._waiting[0][1].cancelled:
                self._waiting.popleft()
            if len(self._waiting) >= self._queue_size:
                raise QueueFullError(
                    f"queue: {len(self._waiting)} requests are waiting: try again later",
                    _RETRY_AFTER_S,
                )
            stream = Stream()
            self._waiting.append((job, stream))
            self._changed.notify()
        return stream

    def counts(self) -> Counts:
        """How busy it is."""
        with self._changed:
            waiting = sum(not stream.cancelled for _, stream in self._waiting)
            return Counts(waiting, int(self._running is not None), slots=1)

    def close(self) -> None:
        """Give up all jobs and end the thread."""
        with self._changed:
            self._closed = True
            streams = [stream for _, stream in self._waiting]
            for stream in [*streams, self._running]:
                if stream is not None:
                    stream.cancel()
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._running = None
                self._changed.wait_for(lambda: self._closed or self._waiting)
                if self._closed:
                    return
                job, stream = self._waiting.popleft()
                self._running = stream
            try:
                self._generate(job, stream)
            except Exception as error:
                stream.fail(error)

    def _generate(self, job: Job, stream: Stream) -> None:
        setup, engine = self._model.setup, self._prefixes.engine
        lease = self._prefixes.lend(job.prompt_ids)
        reply = setup.reply(job.request, job.prompt_ids, job.sampler, lease.cached)
        steps = generate_step(
            engine,
            job.prompt_ids[lease.cached :],
            lease.cache,
            job.sampler,
            setup.vocab_size,
            lambda: stream.cancelled,
        )
        try:
            for token_id in steps:
                text = reply.add(token_id)
                stream.put(Delta(text, (token_id,), tuple(job.sampler.logprobs[-1:])))
                if reply.finish_reason is not None:
                    break
            else:
                stream.put(Delta(reply.end("length"), ()))
        finally:
            steps.close()  # type: ignore[attr-defined]
            lease.release(reply.token_ids)
        stream.finish(reply.completion)
