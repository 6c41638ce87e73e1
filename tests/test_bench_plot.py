"""Plots: the right panels, all that they must name, colours that can be told apart."""

import xml.etree.ElementTree as ET

import pytest
from bench_records import MACHINE, make_prefill, make_record
from click.testing import CliRunner
from matplotlib.colors import to_rgb

from bitinfer.bench import plot, plot_style
from bitinfer.cli import main

DEEP = [make_record(10, depth=1024), make_prefill(50, depth=1024)]
ONE_THREAD = [make_record(12, threads=1), make_prefill(50, threads=1)]
ALL = [make_record(), make_prefill(), *DEEP, *ONE_THREAD]


def texts(records, tmp_path, **options):
    """Every text of the picture."""
    path = tmp_path / "plot.svg"
    plot.draw(records, path, **options)
    return [e.text for e in ET.parse(path).iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize(
    ("records", "titles"),
    [
        ([make_record(bytes_by_part={})], []),
        ([make_record()], ["bytes per token, 2 threads"]),
        ([make_record(), *DEEP], ["bytes per token, 2 threads", "by context, 2 threads"]),
        ([make_record(), *ONE_THREAD], ["bytes per token, 2 threads", "by threads"]),
        (ALL, ["bytes per token, 2 threads", "by context, 2 threads", "by threads"]),
    ],
)
def test_a_panel_for_each_thing_that_is_known_and_varies(records, titles, tmp_path):
    shown = texts(records, tmp_path)
    found = [t for t in shown if t.startswith(("roofline,", "bytes per token,", "by "))]
    assert found == ["roofline, 2 threads", *titles]


def test_bars_split_the_bytes_and_say_how_fast_they_were_read(tmp_path):
    shown = texts([make_record(), make_prefill()], tmp_path)
    assert {"weights", "head", "KV", "15.0 GB/s, 50%", "0.7 GB/s, 2%"} <= set(shown)


def test_axes_have_units_and_the_caption_names_machine_and_runs(tmp_path):
    shown = texts(ALL, tmp_path)
    assert shown.count("tokens/s") == 3
    for text in ("bytes read per token (MB)", "context before the test (tokens)", "threads"):
        assert text in shown
    assert shown.count("pp512") == shown.count("tg128") == 2  # the legend, no depth; a bar
    whole = " ".join(shown)
    for text in ("n = 3 runs", "some-2b", MACHINE["cpu"], "avx2", "16 GiB", MACHINE["commit"]):
        assert text in whole


def test_equal_records_give_an_equal_svg_but_for_its_date(tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    plot.draw(ALL, tmp_path / "a.svg")
    plot.draw(ALL, tmp_path / "b.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def luminance(colour):
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def contrast(a, b):
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_stand_out_from_the_paper(theme):
    paper, ink, _ = plot_style.INK[theme]
    assert contrast(paper, ink) > 12
    assert all(contrast(paper, colour) > 2 for colour in plot_style.COLOURS[theme])


def test_many_tests_have_styles_of_their_own():
    tests = [make_record(generated_tokens=n) for n in range(1, 31)]
    styles = plot._Styles(tests, "light")
    looks = {(styles.of(name)["color"], styles.of(name)["marker"]) for name in styles.names}
    assert len(looks) == 30


QUICK = ["bench", "-p", "4", "-n", "2", "-r", "1", "-t", "1"]


def test_bench_draws_png_and_svg(tmp_path):
    files = [str(tmp_path / "a.png"), str(tmp_path / "b.SVG")]
    done = CliRunner().invoke(
        main, [*QUICK, "--plot", files[0], "--plot", files[1], "--theme", "dark"]
    )
    assert done.exit_code == 0, done.output
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert plot_style.INK["dark"][0] in (tmp_path / "b.SVG").read_text()


def test_another_kind_of_picture_is_refused_before_the_measurement(tmp_path):
    done = CliRunner().invoke(main, [*QUICK, "--plot", "a.pdf"])
    assert done.exit_code == 2
    assert "expected a name that ends with .png or .svg, got 'a.pdf'" in done.stderr
    assert done.stdout == ""


def test_without_matplotlib_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    done = CliRunner().invoke(main, [*QUICK, "--plot", "a.png"])
    assert done.exit_code == 1
    assert done.stderr.count("\n") == 1
    assert "pip install 'bitinfer[plot]'" in done.stderr
