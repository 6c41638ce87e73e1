"""Where Linux keeps the limits of this process's control group and of the groups above it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def cgroup_folders(controller: str, root: Path = Path("/")) -> Iterator[Path]:
    """Folders that may hold limits of ``controller``, of cgroup v2 and v1; they need not exist.

    Args:
        controller: ``cpu``, ``memory``.
        root: Where ``proc`` and ``sys`` are found; for tests.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return
    for line in lines:
        _, controllers, group = [*line.split(":", 2), "", ""][:3]
        if controllers and controller not in controllers.split(","):
            continue
        # A container often sees its own group mounted as the root: the bare mount is read as well.
        mounts = [controllers, controller] if controllers else [""]
        for mount in dict.fromkeys(mounts):
            path = Path(group.lstrip("/"))
            for folder in (path, *path.parents):
                if ".." not in folder.parts:
                    yield root / "sys/fs/cgroup" / mount / folder
