"""Joules come from a counter or not at all: fake powercap trees, a fake powermetrics."""

import os
import sys

import pytest

from bitinfer.energy import open_energy_counter


def zone(root, folder, name, uj, range_uj=1_000_000):
    path = root / folder
    path.mkdir(parents=True)
    for file, value in (("name", name), ("energy_uj", uj), ("max_energy_range_uj", range_uj)):
        (path / file).write_text(f"{value}\n")
    return path


def linux(root):
    return open_energy_counter(powercap=root, system="linux")


def test_packages_and_memory_are_summed_and_nothing_twice(tmp_path):
    first = zone(tmp_path, "intel-rapl:0", "package-0", 0)
    second = zone(tmp_path, "intel-rapl:1", "package-1", 500)
    memory = zone(tmp_path, "intel-rapl:0:1", "dram", 7)
    others = [
        zone(tmp_path, "intel-rapl:0:0", "core", 0),
        zone(tmp_path, "intel-rapl:2", "psys", 0),
        zone(tmp_path, "intel-rapl-mmio:0", "package-0", 0),
        zone(tmp_path, "dtpm:0", "package-0", 0),
    ]
    counter = linux(tmp_path)
    assert counter.joules() == 0
    (first / "energy_uj").write_text("200000\n")
    (second / "energy_uj").write_text("100500\n")
    (memory / "energy_uj").write_text("50007\n")
    for other in others:
        (other / "energy_uj").write_text("999\n")
    assert counter.joules() == pytest.approx(0.35)
    assert counter.source == "RAPL package-0 + dram + package-1"


def test_a_counter_that_starts_again_goes_on(tmp_path):
    energy = zone(tmp_path, "intel-rapl:0", "package-0", 900_000) / "energy_uj"
    counter = linux(tmp_path)
    total = 0
    for step in (50_000, 100_000, 800_000, 300_000):  # twice past the range of 1,000,000
        total += step
        energy.write_text(str((900_000 + total) % 1_000_000))
        assert counter.joules() == pytest.approx(total / 1e6)


def test_no_counter_says_why(tmp_path):
    counter = linux(tmp_path)
    assert counter.joules() is None
    assert counter.source.startswith("not available: ")
    assert f"{tmp_path}/intel-rapl:0 is missing" in counter.source
    counter = open_energy_counter(system="freebsd14")
    assert counter.source == "not available: no energy counter is known on freebsd14"
    counter.close()


def test_a_counter_that_only_root_may_read_says_how_to_allow_it(tmp_path, monkeypatch):
    path = zone(tmp_path, "intel-rapl:0", "package-0", 0) / "energy_uj"
    read_text = type(path).read_text

    def refuse(self, *rest, **options):  # the tests may run as root, whom no mode stops
        if self.name == "energy_uj":
            raise PermissionError(13, "Permission denied", str(self))
        return read_text(self, *rest, **options)

    monkeypatch.setattr(type(path), "read_text", refuse)
    counter = linux(tmp_path)
    assert counter.joules() is None
    assert f"sudo chmod a+r {tmp_path}/intel-rapl:*/energy_uj" in counter.source


@pytest.mark.parametrize("text", ["", "many", "1.5"])
def test_a_counter_that_holds_no_number_is_not_available(tmp_path, text):
    (zone(tmp_path, "intel-rapl:0", "package-0", 0) / "energy_uj").write_text(text)
    assert linux(tmp_path).source.startswith("not available: ")


def test_a_counter_that_vanishes_gives_nothing_more(tmp_path):
    path = zone(tmp_path, "intel-rapl:0", "package-0", 0)
    counter = linux(tmp_path)
    assert counter.joules() == 0
    (path / "energy_uj").unlink()
    assert counter.joules() is None


POWERMETRICS = """#!/bin/sh
exec '{python}' - "$@" <<'END'
import sys
assert sys.argv[1:3] == ["--samplers", "cpu_power"], sys.argv
samples = ""
for elapsed, power in ((100.0, 2000), (102.5, 4000)):
    samples += f"*** Sampled system activity (Sun Nov 22 01:02:03 2026) ({{elapsed}}ms elapsed)\\n"
    samples += "**** Processor usage ****\\n\\nE-Cluster Power: 7 mW\\n"
    samples += f"CPU Power: {{power}} mW\\nGPU Power: 9 mW\\n"
sys.stdout.write(samples)  # at once: the test ends the program after the first
END
"""


def test_powermetrics_samples_are_added_up(tmp_path, monkeypatch):
    program = tmp_path / "powermetrics"
    program.write_text(POWERMETRICS.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    counter = open_energy_counter(powermetrics=program, system="darwin")
    counter.close()  # reads to the end
    assert counter.joules() == pytest.approx(2.0 * 0.1 + 4.0 * 0.1025)
    assert "as macOS models it" in counter.source


def test_powermetrics_needs_root(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 501)
    counter = open_energy_counter(powermetrics=tmp_path / "none", system="darwin")
    assert counter.joules() is None
    assert "sudo" in counter.source
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    counter = open_energy_counter(powermetrics=tmp_path / "none", system="darwin")
    assert "does not start" in counter.source
