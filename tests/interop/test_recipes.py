"""The recipes of docs/interop.md run as they stand there, but for the address of the server."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "interop.md"
RECIPES = re.findall(r"^```py\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.split()[1].split(".")[0])
def test_a_recipe_runs_and_says_something(server, recipe, capsys):
    assert "http://127.0.0.1:8080" in recipe
    exec(recipe.replace("http://127.0.0.1:8080", server.url), {"__name__": "recipe"})
    assert len(capsys.readouterr().out) > 20
