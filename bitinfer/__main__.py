"""``python -m bitinfer`` is the command ``bitinfer``."""

from bitinfer.cli import main

if __name__ == "__main__":
    main(prog_name="bitinfer")
