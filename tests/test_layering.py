"""Imports and includes go one way only, and each kind of knowledge has one home."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "bitinfer"
CSRC = ROOT / "csrc"

# Each unit may import the units of the rows above it; those of one row do not import each other.
PYTHON_LAYERS = [
    {"errors", "cgroup", "energy", "chat_template_worker", "progress", "reference", "thinking"},
    {"cpu_count", "history", "json_file", "settings"},
    {"hardware", "json_values", "runtime", "text_file", "yarn"},
    {"config", "losses", "machine", "pooling"},
    {"formats"},
    {"families"},
    {"tuning"},
    {"i2s_layout"},
    {"canonical"},
    {"convert"},
    {"hub", "resident"},
    {"loading", "model_folder", "stand_ins", "token_pieces", "tokenizer_file"},
    {"engine", "sampling", "tokenizer", "chat_template"},
    {"detokenizer", "embed", "grammar", "session"},
    {"prefix_cache"},
    {"speculation"},
    {"generate"},
    {"bench", "model_text"},
    {"open_model"},
    {"export", "model"},
    {"doctor", "evaluate", "serve", "train"},
    {"batch"},
    {"cli", "ray"},
    {"__main__"},
]
RANK = {unit: rank for rank, units in enumerate(PYTHON_LAYERS) for unit in units}
CORE_USERS = {
    *(
        "runtime",
        "formats.packed",
        "canonical",
        "convert",
        "resident",
        "loading",
        "engine",
        "__init__",
    ),
    *("i2s_layout", "losses", "sampling.candidates", "export.weights", "formats.scaled"),
}

CPP_LAYERS = ["util", "threads", "pack", "kernels", "dispatch", "ops", "model", "bindings, c_api"]
CPP_RANK = {folder: i for i, row in enumerate(CPP_LAYERS) for folder in row.split(", ")}
KERNEL_HEADERS = {
    *(
        "pack/format.h",
        "pack/head_planes.h",
        "kernels/kernel_table.h",
        "kernels/float_kernels.h",
        "util/float_type.h",
    )
}
KERNEL_SYSTEM_HEADERS = {
    *("cassert", "cstddef", "cstdint", "immintrin.h", "arm_neon.h"),
    *("cmath", "cstring"),  # sqrt, rint and memcpy become instructions
}

PYTHON_FILES = sorted(PACKAGE.rglob("*.py"))
CPP_FILES = sorted(p for p in CSRC.rglob("*") if p.suffix in (".h", ".cpp"))


def module_name(path: Path) -> str:
    name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    return name.removesuffix(".__init__")


def imports(path: Path) -> set[str]:
    """Dotted names that a file imports, ``from a import b`` as ``a.b``; typing-only ones too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def own_units(path: Path) -> set[str]:
    """First component below ``bitinfer`` of each import; public names of the package are ''."""
    names = [name.split(".") for name in imports(path) if name.split(".")[0] == "bitinfer"]
    units = {parts[1] if len(parts) > 1 else "" for parts in names}
    return {unit if unit in RANK or unit == "_core" else "" for unit in units}


@pytest.mark.parametrize("path", PYTHON_FILES, ids=module_name)
def test_python_imports_go_one_way(path):
    name = module_name(path)
    unit = name.partition(".")[0]
    if unit == "__init__":
        return
    assert unit in RANK, f"{name}: give this module its place in PYTHON_LAYERS"
    for other in own_units(path) - {"_core", unit}:
        if other == "":
            assert unit in ("cli", "__main__"), f"{name} imports the package's own public names"
        else:
            assert RANK[other] < RANK[unit], f"{name} imports {other}"


@pytest.mark.parametrize("path", PYTHON_FILES, ids=module_name)
def test_few_modules_touch_the_native_core(path):
    if "_core" in own_units(path):
        assert module_name(path) in CORE_USERS


def test_the_reference_shares_no_code():
    files = [*(PACKAGE / "reference").glob("*.py")]
    assert files
    for path in files:
        assert own_units(path) <= {"reference"}, path


@pytest.mark.parametrize("path", PYTHON_FILES, ids=module_name)
def test_only_the_cli_prints(path):
    calls = [n for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, ast.Call)]
    prints = [c for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"]
    assert not prints or module_name(path).startswith("cli")


@pytest.mark.parametrize("path", PYTHON_FILES, ids=module_name)
def test_only_formats_maps_files_and_only_train_imports_torch(path):
    tops = {name.split(".")[0] for name in imports(path)}
    if tops & {"accelerate", "torch", "transformers"}:
        assert module_name(path).split(".")[0] == "train"
    if "mmap" in tops:
        assert module_name(path).startswith("formats")


@pytest.mark.parametrize("path", PYTHON_FILES, ids=module_name)
def test_only_families_know_names_of_tensors(path):
    texts = [
        node.value
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    named = [t for t in texts if re.fullmatch(r"[\w.{}]*(_proj|layernorm|embed_tokens)[\w.]*", t)]
    assert not named or module_name(path).split(".")[0] in ("families", "reference")


def includes(path: Path) -> tuple[set[str], set[str]]:
    """(own headers, system headers) that a C++ file includes."""
    text = path.read_text("utf-8")
    own = set(re.findall(r'^\s*#\s*include\s+"([^"]+)"', text, re.MULTILINE))
    return own, set(re.findall(r"^\s*#\s*include\s+<([^>]+)>", text, re.MULTILINE))


def cpp_name(path: Path) -> str:
    return str(path.relative_to(CSRC))


@pytest.mark.parametrize("path", CPP_FILES, ids=cpp_name)
def test_cpp_includes_go_one_way(path):
    folder = cpp_name(path).split("/")[0]
    for header in includes(path)[0]:
        other = header.split("/")[0]
        assert other in CPP_RANK, f"{header}: include by the path from csrc"
        assert other == folder or CPP_RANK[other] < CPP_RANK[folder], header
        assert (CSRC / header).is_file(), header


@pytest.mark.parametrize("path", [p for p in CPP_FILES if "kernels" in p.parts], ids=cpp_name)
def test_kernels_see_pointers_and_sizes_only(path):
    own, system = includes(path)
    for header in own:
        assert header in KERNEL_HEADERS or header.startswith("kernels/"), header
    assert system <= KERNEL_SYSTEM_HEADERS
    text = re.sub(r"//.*", "", path.read_text("utf-8"))
    assert not re.search(r"\bthrow\b|\bnew\b|\bmalloc\b|std::(vector|string|thread)", text)


@pytest.mark.parametrize("path", [p for p in CPP_FILES if "kernels" in p.parts], ids=cpp_name)
def test_an_isa_folder_includes_only_its_own_and_lower_rows(path):
    lower = {
        "scalar": [],
        "sse41": ["scalar"],
        "avx2": ["sse41", "scalar"],
        "avxvnni": ["avx2", "sse41", "scalar"],
        "avx512vnni": ["avx2", "sse41", "scalar"],
        "avx512vbmi": ["avx512vnni", "avx2", "sse41", "scalar"],
        "amx": ["avx512vbmi", "avx512vnni", "avx2", "sse41", "scalar"],
        "neon": ["scalar"],
        "neondot": ["neon", "scalar"],
        "neoni8mm": ["neondot", "neon", "scalar"],
        "generic": ["scalar"],  # so that editors and tidy can read a generic file alone
    }
    parts = cpp_name(path).split("/")
    if len(parts) < 3:
        return
    for header in includes(path)[0]:
        if header.count("/") == 2:
            assert header.split("/")[1] in (parts[1], "generic", *lower[parts[1]]), header


def test_bindings_and_c_api_do_not_know_each_other():
    for path in CPP_FILES:
        folder = cpp_name(path).split("/")[0]
        others = {"bindings": "c_api/", "c_api": "bindings/"}
        if folder in others:
            assert not any(h.startswith(others[folder]) for h in includes(path)[0])
