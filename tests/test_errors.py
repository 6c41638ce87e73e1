import re

import pytest

from bitinfer import errors

NAMES = [name for name, value in vars(errors).items() if isinstance(value, type)]


@pytest.mark.parametrize("name", NAMES)
def test_every_error_derives_from_the_base(name):
    assert issubclass(getattr(errors, name), errors.BitinferError)


def test_the_docstring_draws_the_whole_tree():
    depths = [
        ((len(line) - len(line.lstrip("│├└─ "))) // 4, re.search(r"\w+Error", line)[0])
        for line in errors.__doc__.splitlines()
        if re.match(r"\s*[│├└─ ]*\w+Error\b", line)
    ]
    first = depths[0][0]
    parents: list[str] = []
    for depth, name in depths:
        del parents[depth - first :]
        if parents:
            assert getattr(errors, name).__bases__[0].__name__ == parents[-1]
        parents.append(name)
    assert {name for _, name in depths} == set(NAMES)


def test_prompt_errors_are_value_errors_too():
    assert issubclass(errors.ContextLengthError, ValueError)
