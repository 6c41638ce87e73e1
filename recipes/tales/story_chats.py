"""Write story_chats.txt: chats that end with a story, so that one may be asked for at any time.

    python recipes/tales/story_chats.py TEXTS

Each is one or two chats of chat_own.txt or about_itself.txt, then a story of tinystories.txt that a
request stands before. The same bytes each time.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

from bitinfer.text_file import BEGIN, END, read_documents

COUNT = 2500  # documents
LONGEST_STORY = 1200  # characters, so that a row of 512 tokens holds a chat


def story_chats(texts: Path) -> list[str]:
    """The documents, with their marks."""
    rng = random.Random(0)
    told = [*read_documents(texts / "chat_own.txt"), *read_documents(texts / "about_itself.txt")]
    stories = [
        story
        for story in read_documents(texts / "tinystories.txt")
        if story.startswith("<|user|>") and len(story) <= LONGEST_STORY
    ]
    found = []
    for _ in range(COUNT):
        parts = [*rng.sample(told, rng.choice((1, 1, 2))), rng.choice(stories)]
        found.append(BEGIN + "".join(part.removesuffix(END) + END for part in parts))
    return found


def main() -> None:
    """Write the file into the folder of the texts."""
    folder = Path(sys.argv[1])
    (folder / "story_chats.txt").write_text("\n".join(story_chats(folder)) + "\n", "utf-8")


if __name__ == "__main__":
    main()
