"""In a real Jupyter kernel: bars, text as it comes, and a model of use after an interrupt."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.manager import KernelManager

LIMIT_S = 120
LOAD = """\
import bitinfer
from bitinfer import progress
progress._SHOWN_AFTER_S = progress._REDRAWN_AFTER_S = 0  # the embedded model is fast
model = bitinfer.Model.load(bitinfer.default_model(), num_threads=1)
"""
STREAM = """\
for piece in model.stream("Once upon a time", max_tokens=8, temperature=0):
    print(piece, end="", flush=True)
"""
# Replies without end; each tells, by its bar or a text, that it is being made.
LONG = 'max_tokens=400, regex="[a-z ]{900}"'
WAYS = {
    "generate": f'while True: model.generate("Once upon a time", {LONG})',
    "generate_n": f'while True: model.generate_n("Once upon a time", 4, {LONG})',
    "chat": f'while True: model.chat([{{"role": "user", "content": "Hi"}}], {LONG})',
    "stream": f'while True:\n  for piece in model.stream("Once", {LONG}): print("generate:")',
}

Hear = Callable[[str, str], None]


class Notebook:
    """A kernel, and what a cell of it says."""

    def __init__(self, manager: KernelManager, client: BlockingKernelClient) -> None:
        self._manager, self._client = manager, client
        self.loaded = self.run(LOAD)

    def run(self, code: str, hear: Hear = lambda name, text: None) -> tuple[str, str, str | None]:
        """Run a cell: its stdout, its stderr and the name of its error."""
        said = {"stdout": "", "stderr": ""}
        error = None

        def output(message) -> None:
            nonlocal error
            content = message["content"]
            if message["msg_type"] == "stream":
                said[content["name"]] += content["text"]
                hear(content["name"], content["text"])
            elif message["msg_type"] == "error":
                error = content["ename"]

        self._client.execute_interactive(code, output_hook=output, timeout=LIMIT_S)
        return said["stdout"], said["stderr"], error

    def interrupt(self) -> None:
        """Press the stop button."""
        self._manager.interrupt_kernel()


@pytest.fixture(scope="module")
def notebook() -> Iterator[Notebook]:
    manager = KernelManager()
    manager.start_kernel()
    client = manager.blocking_client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=LIMIT_S)
        yield Notebook(manager, client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_a_bar_is_shown_while_a_reply_is_made(notebook):
    assert notebook.loaded[2] is None
    out, bar, error = notebook.run(
        'print(len(model.generate("Once", max_tokens=50).token_ids) > 1)'
    )
    assert (out, error) == ("True\n", None)
    assert re.search(r"generate: +\d+%.*/50", bar)


def test_text_comes_piece_by_piece(notebook, model):
    heard: list[str] = []
    out, _, error = notebook.run(STREAM, lambda name, text: heard.append(text))
    assert len(heard) > 1
    assert (out, error) == (
        model.generate("Once upon a time", max_tokens=8, temperature=0).text,
        None,
    )


@pytest.mark.parametrize("way", WAYS)
def test_after_an_interrupt_the_model_is_as_before(notebook, model, way, tmp_path):
    pressed = False

    def hear(name: str, text: str) -> None:
        nonlocal pressed
        if "generate:" in text and not pressed:
            pressed = True
            notebook.interrupt()

    _, _, error = notebook.run(WAYS[way], hear)
    assert error == "KeyboardInterrupt"
    if way != "stream":  # whose last traceback may still hold it
        kept = f"model.save_session({str(tmp_path / 'kept')!r})"  # not while one is running
        assert notebook.run(kept)[2] is None
    out, _, error = notebook.run(STREAM)
    assert error is None
    assert out == model.generate("Once upon a time", max_tokens=8, temperature=0).text
