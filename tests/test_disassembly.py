"""The GEMV kernels called addsub hold no multiply instruction: their machine code is searched.

Each ``csrc/kernels/<isa>/kernels.cpp`` is compiled as CMakeLists.txt says, linked by itself (what
it lacks of other files stays open) and disassembled with its symbols. Nothing is run, so x86 code
is checked on any x86 machine and Arm code by the cross compiler.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Packings with an addsub GEMV of its own, by row.
X86_ROWS = {
    "scalar": ("i2", "t3", "t5", "b1"),
    "sse41": ("t3", "b1"),
    "avx2": ("i2", "t3", "b1"),
    "avx512vnni": ("b1",),
    "avx512vbmi": ("t5",),
}
ARM_ROWS = {"scalar": ("i2", "t3", "t5", "b1"), "neon": ("i2", "t3", "t5", "b1")}

# x86: mul, pmadd, vpdp, dpps, tdpb, fma. Arm: mul, madd, msub, mneg, mla, mls, dot, fmla.
MULTIPLY = re.compile(r"mul|mad|msub|mneg|mla|mls|dot|pdp|dpp|dpb|fnm")
# Whatever may leave a function: calls, jumps (to its .cold part too), and those by register.
BRANCH = re.compile(r"^(call|j[a-z]+|b|b\.\w+|bl|br|blr|cbn?z|tbn?z)$")
# They move bytes and compute nothing.
ALLOWED_CALLS = {"memset", "memcpy"}


@dataclass(frozen=True)
class Target:
    """A processor family: its rows, and what compiles and disassembles for it."""

    machines: tuple[str, ...]
    gnu_name: str
    rows: dict[str, tuple[str, ...]]


TARGETS = {
    "x86_64": Target(("x86_64", "amd64"), "x86_64-linux-gnu", X86_ROWS),
    "aarch64": Target(("aarch64", "arm64"), "aarch64-linux-gnu", ARM_ROWS),
}
KERNELS = [(name, row) for name, target in TARGETS.items() for row in target.rows]


def tools(target: Target) -> tuple[str, str]:
    """The compiler and objdump for a target.

    Without them the test is skipped, naming the package, but fails where the variable CI is set.
    """
    native = platform.machine().lower() in target.machines
    names = (
        (os.environ.get("CXX", "c++"), "objdump")
        if native
        else (f"{target.gnu_name}-g++", f"{target.gnu_name}-objdump")
    )
    missing = [name for name in names if not shutil.which(name)]
    if missing:
        packages = "g++ binutils" if native else f"g++-{target.gnu_name} binutils-{target.gnu_name}"
        text = f"{' and '.join(missing)} not found: apt install {packages}".replace(
            "x86_64", "x86-64"
        )
        pytest.fail(text) if os.environ.get("CI") else pytest.skip(text)
    return names


def project_flags(row: str) -> list[str]:
    """The flags that CMakeLists.txt gives to a row of kernels in a release build."""
    text = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    variables = dict(re.findall(r"set\((\w+) (-m[^)]*)\)", text))
    common = re.findall(r"^add_compile_options\(([^)]*)\)", text, re.MULTILINE)
    (own,) = re.findall(rf"bitinfer_add_isa\({row}\b([^)]*)\)", text)
    flags = re.sub(r"\$\{(\w+)\}", lambda match: variables[match[1]], f"{common[0]} {own}")
    return ["-O3", "-DNDEBUG", "-std=c++17", "-fPIC", f"-I{ROOT / 'csrc'}", *flags.split()]


def disassemble(target: Target, row: str, folder: Path) -> str:
    compiler, objdump = tools(target)
    launcher = os.environ.get("CMAKE_CXX_COMPILER_LAUNCHER", "").split()
    compiled, library = folder / f"{row}.o", folder / f"{row}.so"
    leave_open = (
        ["-undefined", "dynamic_lookup"]
        if sys.platform == "darwin"
        else ["-Wl,--unresolved-symbols=ignore-all"]
    )
    source = ROOT / "csrc" / "kernels" / row / "kernels.cpp"
    for command in (
        [*launcher, compiler, *project_flags(row), "-c", "-o", compiled, source],
        [compiler, "-shared", *leave_open, "-o", library, compiled],
    ):
        built = subprocess.run(command, capture_output=True, text=True, check=False)
        assert built.returncode == 0, built.stderr[-2000:]
    listing = subprocess.run(
        [objdump, "-d", "--no-show-raw-insn", library], capture_output=True, text=True, check=True
    )
    return listing.stdout


def read_functions(listing: str) -> dict[str, list[list[str]]]:
    """Instructions (mnemonic, operands) by mangled symbol."""
    functions: dict[str, list[list[str]]] = {}
    body: list[list[str]] = []
    for line in listing.splitlines():
        if match := re.match(r"^[0-9a-f]+ <(.+)>:$", line):
            body = functions.setdefault(match[1], [])
        elif match := re.match(
            r"^\s*[0-9a-f]+:\s+(?:(?:lock|rep|repz|bnd|notrack|cs) )*(\S+)(.*)", line
        ):
            body.append([match[1], match[2]])
    return functions


def called(function: str, mnemonic: str, operands: str) -> str | None:
    """The symbol that an instruction leaves the function for; None if it stays."""
    if not BRANCH.match(mnemonic):
        return None
    match = re.search(r"<([^>+]+)(?:\+0x[0-9a-f]+)?>", operands)
    name = match[1] if match else f"an address in {operands.strip()}"
    return None if name == function else name


def offences(functions: dict[str, list[list[str]]], start: str) -> list[str]:
    """Multiply instructions in a function and what it calls, and calls that leave the library."""
    found: list[str] = []
    pending, seen = [start], {start}
    while pending:
        name = pending.pop()
        for mnemonic, operands in functions[name]:
            if MULTIPLY.search(mnemonic):
                found.append(f"{name}: {mnemonic}{operands}")
            target = called(name, mnemonic, operands)
            if target is None or target in seen:
                continue
            seen.add(target)
            if target in functions and not target.endswith("@plt"):
                pending.append(target)
            elif target.removesuffix("@plt").lstrip("_") not in ALLOWED_CALLS:
                found.append(f"{name}: leaves for {target}")
    return found


def symbols_of(functions: dict[str, list[list[str]]], row: str, part: str) -> list[str]:
    """Symbols of namespace bitinfer::<row> whose name holds a part."""
    prefix = f"_ZN8bitinfer{len(row)}{row}"
    return [name for name in functions if name.lstrip("_").startswith(prefix[1:]) and part in name]


@pytest.mark.parametrize(("target", "row"), KERNELS)
def test_addsub_kernels_hold_no_multiply(target: str, row: str, tmp_path: Path) -> None:
    functions = read_functions(disassemble(TARGETS[target], row, tmp_path))
    for packing in TARGETS[target].rows[row]:
        symbols = symbols_of(functions, row, f"ternary_gemv_addsub_i8_{packing}_i32")
        assert symbols, f"{row}: no symbol for the addsub GEMV of {packing}"
        assert len(functions[symbols[0]]) > 20, f"{symbols[0]} is too short to be the kernel"
    tables = symbols_of(functions, row, "build_tables")
    for symbol in [*symbols_of(functions, row, "ternary_gemv_addsub"), *tables]:
        assert offences(functions, symbol) == []
    # The same search finds the multiplications where they are meant to be.
    for symbol in symbols_of(functions, row, "ternary_gemv_dot"):
        assert offences(functions, symbol), f"{symbol} multiplies, but the search saw nothing"


def test_every_kind_of_multiply_is_recognised() -> None:
    multiplies = """
        imul mul mulx pmulld vpmullw vpmaddubsw vpmaddwd pmaddwd vpdpbusd vpdpwssd vpmuldq
        vpmadd52luq mulss vmulps vfmadd231ps vfnmadd213sd vdpps tdpbssd
        madd msub mneg smull umulh smaddl mla mls smlal smlal2 umlsl sdot usdot smmla pmull
        fmul fmla fmadd fnmul
    """
    assert [name for name in multiplies.split() if not MULTIPLY.search(name)] == []
    others = """
        add lea shl movdqu vpaddb vpsubw vpsignb vpsadbw pshufb vpermi2b vpermt2b vpmovb2m
        vpternlogd kmovq prefetcht0 vmovdqa64 call tbl sadalp saddlp addp sub eor movi ushr
        sshll cmgt ld1 ldp stp
    """
    assert [name for name in others.split() if MULTIPLY.search(name)] == []
