"""The choice of the ISA row and the GEMV family, and the self-test behind it."""

import os
import subprocess
import sys

import pytest

from bitinfer import _core

PACKINGS = ["i2", "t3", "t5", "b1"]


@pytest.fixture(autouse=True)
def restore_choice():
    isa = _core.active_isa()
    yield
    _core.set_isa(isa)
    _core.set_gemv("auto")


def in_fresh_process(code: str, **environment: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BITINFER_")}
    done = subprocess.run(
        [sys.executable, "-c", f"from bitinfer import _core\n{code}"],
        env={**kept, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


TRY = """
for use in (_core.active_isa, _core.auto_packing, lambda: _core.gemv_family("t5")):
    try:
        print(use())
    except ValueError as error:
        print(error)
"""


def test_best_usable_row_is_active():
    assert in_fresh_process("print(_core.active_isa())") == _core.available_isas()[0]


def test_report_lists_every_row_and_why_one_is_missing():
    report = _core.isa_report()
    assert [row["name"] for row in report if row["usable"]] == _core.available_isas()
    assert report[-1] == {"name": "scalar", "usable": True, "reason": ""}
    for row in report:
        assert row["usable"] == (row["reason"] == "")


@pytest.mark.parametrize("isa", _core.available_isas())
def test_every_row_passes_its_self_test(isa):
    assert _core.self_test(isa) == ""
    assert _core.dispatch_notes() == []


@pytest.mark.parametrize("isa", _core.available_isas())
def test_environment_and_call_force_a_row(isa):
    assert in_fresh_process("print(_core.active_isa())", BITINFER_ISA=isa) == isa
    _core.set_isa(isa)
    assert _core.active_isa() == isa


def test_unknown_row_in_the_environment_is_an_error_of_every_use():
    lines = in_fresh_process(TRY, BITINFER_ISA="mmx").splitlines()
    choices = ", ".join(_core.available_isas())
    assert lines == [f"BITINFER_ISA: unknown row mmx; choose one of {choices}"] * 3


def test_set_isa_mends_a_wrong_environment():
    code = "_core.set_isa('scalar'); print(_core.active_isa())"
    assert in_fresh_process(code, BITINFER_ISA="mmx") == "scalar"


def test_empty_environment_variables_count_as_unset():
    lines = in_fresh_process(TRY, BITINFER_ISA="", BITINFER_GEMV="").splitlines()
    assert lines[0] == _core.available_isas()[0]


def test_unknown_row_is_refused_and_leaves_the_choice():
    before = _core.active_isa()
    with pytest.raises(ValueError, match=r"isa: unknown row mmx; choose one of .*scalar"):
        _core.set_isa("mmx")
    assert _core.active_isa() == before


def test_rows_that_this_machine_lacks_are_refused_with_what_is_missing():
    for row in _core.isa_report():
        if not row["usable"]:
            with pytest.raises(ValueError, match=f"cannot run {row['name']}, it {row['reason']}"):
                _core.set_isa(row["name"])


@pytest.mark.parametrize("family", ["addsub", "dot"])
def test_gemv_family_can_be_forced(family):
    code = "print(*(_core.gemv_family(p) for p in _core.layouts()))"
    assert in_fresh_process(code, BITINFER_GEMV=family).split() == [family] * 4
    _core.set_gemv(family)
    assert [_core.gemv_family(packing) for packing in PACKINGS] == [family] * 4


def test_unknown_gemv_family_is_an_error():
    lines = in_fresh_process(TRY, BITINFER_GEMV="both").splitlines()
    assert lines[0] == _core.available_isas()[0]
    assert lines[2] == "BITINFER_GEMV: unknown GEMV family both; choose one of auto, addsub, dot"
    with pytest.raises(ValueError, match="gemv: unknown GEMV family both"):
        _core.set_gemv("both")


def test_auto_choices_exist_on_every_row():
    for isa in _core.available_isas():
        _core.set_isa(isa)
        assert _core.auto_packing() in ("i2", "t3", "t5")  # b1 cannot hold ternary weights
        assert {_core.gemv_family(packing) for packing in PACKINGS} <= {"addsub", "dot"}
