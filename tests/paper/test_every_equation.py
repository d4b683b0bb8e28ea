"""A system whose docstring names an equation must have a test marked with it."""

import ast
import re
import sys
from pathlib import Path

import pytest

from kinema.systems import SYSTEMS

MODULES = sorted({system.__module__ for system in SYSTEMS.values()})


def equations_with_a_test() -> set[tuple[str, str]]:
    """Arguments of every ``pytest.mark.equation(system, number)`` in this folder."""
    found = set()
    for path in Path(__file__).parent.glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.equation":
                found.add(tuple(ast.literal_eval(argument) for argument in node.args))
    return found


@pytest.mark.parametrize("module", MODULES)
def test_every_equation_of_the_docstring_has_a_test(module):
    text = Path(sys.modules[module].__file__).read_text()
    named = {(module.rsplit(".", 1)[1], number) for number in re.findall(r"Equation (\d+)", text)}
    assert named or "has no numbered equation" in text, f"{module} names no equation, and does not say that there is none"
    assert named <= equations_with_a_test(), f"no test for {sorted(named - equations_with_a_test())}"
