"""What the documentation says is so: the CLI page, README's figures, every snippet."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from marked import with_parts

from bitinfer import runtime

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")
MAKE_TARGET = re.compile(r"`make ([a-z]+)[^`]*`")


def load_script(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def snippets(language: str) -> list:
    """Code blocks of one language, each with the page and line that it comes from."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for block in FENCE.finditer(text):
            if block[1] == language:
                line = text.count("\n", 0, block.start()) + 1
                found.append(pytest.param(block[2], id=f"{page.name}:{line}"))
    return found


def run(command: list[str], folder: Path) -> str:
    """Run as a user would, who has the installed programs first in PATH; stdout."""
    paths = [str(Path(sys.executable).parent), os.environ["PATH"]]
    environment = {**os.environ, "PATH": os.pathsep.join(paths)}
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_cli_page_is_what_help_says():
    script = load_script(ROOT / "docs" / "generate_cli.py")
    assert script.PAGE.read_text(encoding="utf-8") == script.cli_page(), "run `make docs`"


def test_samples_are_what_the_model_says():
    script = load_script(ROOT / "docs" / "generate_samples.py")
    assert script.PAGE.read_text(encoding="utf-8") == script.samples_page(), "run `make docs`"


@pytest.mark.parametrize(
    ("page", "script"),
    [
        ("README.md", "readme_table"),
        ("docs/speed.md", "speed_page"),
        ("docs/scaling.md", "scaling_page"),
        ("docs/kernels-by-tier.md", "tiers_page"),
        ("docs/export.md", "export_agreement"),
    ],
)
def test_figures_are_those_of_the_newest_records(page, script):
    text = (ROOT / page).read_text(encoding="utf-8")
    parts = load_script(ROOT / "benchmarks" / f"{script}.py").parts()
    assert text == with_parts(text, parts), "run `make docs`"
    assert all(part in text for part in parts.values())


@pytest.mark.parametrize("code", snippets("python"))
def test_python_snippet_runs(code, tmp_path):
    (tmp_path / "snippet.py").write_text(code, encoding="utf-8")
    run([sys.executable, "snippet.py"], tmp_path)


@pytest.mark.parametrize("code", snippets("bash"))
def test_bash_snippet_runs(code, tmp_path):
    run(["bash", "-euo", "pipefail", "-c", code], tmp_path)


@pytest.mark.parametrize("code", [c for c in snippets("c") if "int main" in c.values[0]])
def test_c_snippet_compiles_without_warnings_and_runs(code, tmp_path):
    (tmp_path / "snippet.c").write_text(code, encoding="utf-8")
    library = runtime.library_dir()
    command = ["cc", "-std=c11", "-Wall", "-Wextra", "-Werror", "snippet.c", "-o", "snippet"]
    command += [f"-I{runtime.include_dir()}", f"-L{library}", "-lbitinfer", f"-Wl,-rpath,{library}"]
    run(command, tmp_path)
    run(["./snippet"], tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page):
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_make_targets_that_the_docs_name_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        assert set(MAKE_TARGET.findall(page.read_text(encoding="utf-8"))) <= targets, page.name


def test_environment_variables_in_the_code_are_in_the_architecture_page():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for source in [*ROOT.glob("bitinfer/**/*.py"), *ROOT.glob("csrc/**/*.cpp")]:
        text = source.read_text(encoding="utf-8")
        for name in re.findall(r"(?:environ\S*|getenv)\(?\[?\(?\"(BITINFER_\w+)\"", text):
            assert f"`{name}`" in page, f"{name} of {source.name}"


def test_records_hold_every_field_and_stay_below_the_roofline():
    for path in (ROOT / "benchmarks" / "records").glob("*.json"):
        for record in json.loads(path.read_text()):
            assert record["phase"] in ("prefill", "decode"), path.name
            assert record["commit"], path.name
            if record["phase"] == "decode":
                assert record["gb_per_s"] <= record["roofline_gb_per_s"], path.name
