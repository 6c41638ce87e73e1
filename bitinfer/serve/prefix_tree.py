"""``PrefixTree``: which blocks of the KV cache hold which beginnings of texts; pure state.

A node is a block: up to ``KV_BLOCK`` token ids that follow those of its parent. A text finds the
blocks of its longest known beginning, the last of them perhaps in part: whoever appends to a block
that the tree holds too works on a copy. What was not used for longest goes first.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from bitinfer.engine import KV_BLOCK
from bitinfer.prefix_cache import common_prefix


class Block(Protocol):
    """A handle that keeps a block."""

    @property
    def shared(self) -> bool:
        """Whether something else keeps it too."""


B = TypeVar("B", bound=Block)


class _Node(Generic[B]):
    """A block behind its parent's; only one with ``KV_BLOCK`` ids has children."""

    __slots__ = ("block", "children", "parent", "token_ids")

    def __init__(self, token_ids: tuple[int, ...], block: B, parent: _Node[B] | None) -> None:
        self.token_ids = token_ids
        self.block = block
        self.parent = parent
        self.children: list[_Node[B]] = []  # in order of their ids


class PrefixTree(Generic[B]):
    """Keeps blocks by the token ids whose keys and values they hold."""

    def __init__(self) -> None:
        self._top: list[_Node[B]] = []
        # Least recently used first. A node is used with all its children, and comes after them.
        self._order: OrderedDict[_Node[B], None] = OrderedDict()

    def __len__(self) -> int:
        """Blocks that it keeps."""
        return len(self._order)

    def match(self, token_ids: Sequence[int]) -> tuple[list[B], int]:
        """Blocks of the longest known beginning of ``token_ids``, and its length."""
        path: list[_Node[B]] = []
        length, children = 0, self._top
        while length < len(token_ids):
            ids = tuple(token_ids[length : length + KV_BLOCK])
            node, same = _closest(children, ids)
            if node is None:
                break
            path.append(node)
            length += same
            if same < KV_BLOCK:
                break
            children = node.children
        self._use(path)
        return [node.block for node in path], length

    def blocks(self) -> list[tuple[int, tuple[int, ...], B]]:
        """All blocks, the last used first, none before its parent: (parent, token ids, block).

        A parent is the number of its block in the list, or -1 at the beginning of a text.
        """
        order = list(reversed(self._order))
        numbers = {node: number for number, node in enumerate(order)}
        parents = [-1 if n.parent is None else numbers[n.parent] for n in order]
        return [(p, n.token_ids, n.block) for p, n in zip(parents, order, strict=True)]

    def restore(self, blocks: Sequence[tuple[int, tuple[int, ...], B]]) -> None:
        """Keep what `blocks` of another tree said."""
        texts: list[tuple[int, ...]] = []
        for parent, token_ids, block in blocks:
            texts.append((*(texts[parent] if parent >= 0 else ()), *token_ids))
            self.insert(texts[-1], lambda _, block=block: block)  # type: ignore[misc]
        for text in reversed(texts):  # the last used last
            self.match(text)

    def insert(self, token_ids: Sequence[int], block: Callable[[int], B]) -> None:
        """Keep the blocks of ``token_ids`` that are not known yet; ``block(i)`` gives the i-th."""
        path: list[_Node[B]] = []
        children = self._top
        for start in range(0, len(token_ids), KV_BLOCK):
            ids = tuple(token_ids[start : start + KV_BLOCK])
            node, same = _closest(children, ids)
            if node is None or same < len(ids):
                if node is not None and same == len(node.token_ids):
                    self._remove(node)  # its ids are the beginning of the new ones
                node = _Node(ids, block(start // KV_BLOCK), path[-1] if path else None)
                children.insert(_place(children, ids), node)
            path.append(node)
            children = node.children
        self._use(path)

    def evict(self, count: int) -> int:
        """Let go of up to ``count`` blocks that nothing else keeps; returns how many it were.

        What is behind one of them, in use by a text with a copy of it, is forgotten as well.
        """
        for done in range(count):
            node = next((n for n in self._order if not n.block.shared), None)
            if node is None:
                return done
            self._remove(node)
        return count

    def evictable(self) -> int:
        """Blocks that nothing else keeps."""
        return sum(not node.block.shared for node in self._order)

    def _remove(self, node: _Node[B]) -> None:
        """Forget ``node`` and all behind it."""
        siblings = self._top if node.parent is None else node.parent.children
        del siblings[_place(siblings, node.token_ids)]
        gone = [node]
        for one in gone:
            gone += one.children
            del self._order[one]

    def _use(self, path: Sequence[_Node[B]]) -> None:
        for node in reversed(path):
            self._order[node] = None
            self._order.move_to_end(node)


def _place(nodes: Sequence[_Node[B]], token_ids: tuple[int, ...]) -> int:
    return bisect_left(nodes, token_ids, key=lambda node: node.token_ids)


def _closest(nodes: Sequence[_Node[B]], token_ids: tuple[int, ...]) -> tuple[_Node[B] | None, int]:
    """The node that has most leading ids in common, at least one, and how many.

    In order of their ids, it is a neighbour of where ``token_ids`` would stand.
    """
    at = _place(nodes, token_ids)
    near = nodes[max(at - 1, 0) : at + 1]
    counts = [common_prefix(node.token_ids, token_ids) for node in near]
    most = max(counts, default=0)
    return (near[counts.index(most)], most) if most else (None, 0)
