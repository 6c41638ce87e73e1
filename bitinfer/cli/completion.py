"""``bitinfer completion``: the script that lets a shell complete commands, options and folders."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from bitinfer.cli import main


@click.command(
    epilog="""\b
Examples, each for a new shell:
  echo 'eval "$(bitinfer completion bash)"' >> ~/.bashrc
  echo 'eval "$(bitinfer completion zsh)"' >> ~/.zshrc
  bitinfer completion fish > ~/.config/fish/completions/bitinfer.fish"""
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script for SHELL."""
    completer = get_completion_class(shell)
    assert completer is not None
    click.echo(completer(main, {}, "bitinfer", "_BITINFER_COMPLETE").source())
