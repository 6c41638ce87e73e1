"""bitinfer tune: the fastest wins, doubt keeps the default; measured times are made up here."""

import itertools
import json

import pytest
from checkpoints import LLAMA, TINY, tiny_checkpoint, write_checkpoint
from click.testing import CliRunner
from random_model import write_random_model
from test_grouped_file import groups_of, make_model, write_folder
from test_random_model import small
from test_scaled_checkpoints import BONSAI, scaled_tensors

from bitinfer import default_model, hardware, runtime, tuning
from bitinfer.bench import race as race_module, tune as tune_module
from bitinfer.bench.race import Candidate, Trial
from bitinfer.bench.tune import fastest, fewest_threads, quiet_threads, thread_counts, tune
from bitinfer.cli import main
from bitinfer.convert import convert
from bitinfer.engine import Engine


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("tune")
    return convert(tiny_checkpoint(root / "hf", TINY), root / "packed", packing="i2")


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    path = tmp_path / "tuning.json"
    monkeypatch.setenv("BITINFER_TUNING", str(path))
    monkeypatch.delenv("BITINFER_NUM_THREADS", raising=False)
    monkeypatch.setattr(hardware, "load", lambda: 0.0)
    return path


@pytest.fixture
def machine(monkeypatch):
    """Sets what a token costs: ``cost(packing, gemv, weights, threads, run)``; and the cores."""

    def set_up(cost, cores=4):
        runs = {}

        def run(engine, cache, case, counter, taken):
            way = (engine.packing, engine.gemv_family, engine.weights, engine.num_threads)
            runs[way] = runs.get(way, -1) + 1
            taken.seconds.append(case.tokens * cost(*way, runs[way]))

        monkeypatch.setattr(race_module, "run", run)
        for name in ("physical_cores", "performance_cores"):
            monkeypatch.setattr(tune_module, name, lambda: cores)
        monkeypatch.setattr(tuning, "physical_cores", lambda: cores)
        return runs

    return set_up


def test_the_fastest_way_wins_and_is_used_from_then_on(folder, machine):
    speed = {("t3", "dot", "copy"): 3.0}
    machine(lambda p, g, w, threads, run: 1 / speed.get((p, g, w), 1.0) / min(threads, 3))
    found = tune(folder)
    tuned = found.tuned
    assert (tuned.packing, tuned.gemv, tuned.weights) == ("t3", "dot", "copy")
    assert (tuned.threads, tuned.quiet_threads) == (3, 3)
    assert found.gain == pytest.approx(3.0)
    assert found.wins == found.rounds
    assert tuned.tokens_per_s == pytest.approx(9.0)
    tuning.keep(tuned)
    engine = Engine.load(folder)
    assert (engine.packing, engine.gemv_family, engine.num_threads) == ("t3", "dot", 3)


@pytest.mark.parametrize(("saves", "chosen"), [(0.5, "sparse"), (1.0, "dense")])
def test_idle_neurons_are_skipped_where_that_is_faster(saves, chosen, folder, machine, monkeypatch):
    machine(lambda *way: 1.0)
    even = race_module.run

    def run(engine, cache, case, counter, taken):
        even(engine, cache, case, counter, taken)
        taken.seconds[-1] *= saves if engine.ffn == "sparse" else 1

    monkeypatch.setattr(race_module, "run", run)
    found = tune(folder)
    assert [trial.candidate.ffn for trial in found.ffn] == ["dense", "sparse"]
    assert found.tuned.ffn == chosen
    tuning.keep(found.tuned)
    assert Engine.load(folder).ffn == chosen


def test_a_model_whose_neurons_are_never_idle_is_not_tried_sparse(tmp_path, machine):
    machine(lambda *way: 1.0)
    found = tune(tiny_checkpoint(tmp_path / "hf", LLAMA))
    assert (found.ffn, found.tuned.ffn, found.doubts) == ([], "dense", [])


def test_mapped_weights_can_win_against_a_copy(folder, machine):
    machine(lambda p, g, w, threads, run: 1.0 if (p, w) == ("i2", "mmap") else 1.2)
    assert (tune(folder).tuned.packing, tune(folder).tuned.weights) == ("i2", "mmap")


def test_where_all_are_as_fast_the_default_stays_with_one_thread(folder, machine):
    machine(lambda *way: 1.0)
    found = tune(folder)
    packing = runtime.auto_packing()
    assert found.tuned.packing == packing
    assert found.tuned.gemv == runtime.gemv_family(packing)
    assert found.tuned.weights == ("mmap" if packing == "i2" else "copy")
    assert (found.gain, found.tuned.threads) == (1.0, 1)


def test_a_binary_model_is_tuned_in_its_own_packing(machine, tmp_path):
    write_random_model(small("llama-8b"), tmp_path / "binary", packing="b1")
    machine(lambda p, g, w, threads, run: 1.0 if (g, w) == ("dot", "copy") else 2.0)
    found = tune(tmp_path / "binary")
    tried = {(t.candidate.packing, t.candidate.gemv, t.candidate.weights) for t in found.kernels}
    assert tried == {("b1", g, w) for g in ("addsub", "dot") for w in ("mmap", "copy")}
    assert (found.tuned.packing, found.tuned.gemv, found.tuned.weights) == ("b1", "dot", "copy")
    tuning.keep(found.tuned)
    engine = Engine.load(tmp_path / "binary")
    assert (engine.packing, engine.gemv_family, engine.weights) == ("b1", "dot", "copy")


def test_t3_is_not_tried_where_columns_are_in_groups(machine, tmp_path, monkeypatch):
    model = make_model("i2")
    folder = write_folder(tmp_path / "groups", model, groups_of(model))
    monkeypatch.setattr("bitinfer.runtime.auto_packing", lambda: "t3")
    machine(lambda p, g, w, threads, run: 1.0)
    found = tune(folder)
    assert {trial.candidate.packing for trial in found.kernels} == {"i2", "t5"}


def test_what_is_clearly_slow_is_not_run_again(folder, machine):
    runs = machine(lambda p, g, w, threads, run: 5.0 if p == "i2" else 1.0)
    found = tune(folder)
    slow = [trial for trial in found.kernels if trial.candidate.packing == "i2"]
    assert slow
    assert not any(trial.in_race for trial in slow)
    most = {way: count for way, count in runs.items() if way[0] == "i2"}
    assert max(most.values()) < found.rounds


def test_what_there_is_no_room_for_is_left_out_and_said(folder, machine, monkeypatch):
    machine(lambda *way: 1.0)
    monkeypatch.setattr(tune_module, "has_room", lambda num_bytes: False)
    found = tune(folder)
    tried = {(t.candidate.packing, t.candidate.weights) for t in found.kernels}
    packing = runtime.auto_packing()
    assert tried == {("i2", "mmap"), (packing, "mmap" if packing == "i2" else "copy")}
    *forms, neurons = found.doubts
    assert forms
    assert all("in memory of its own was not tried" in doubt for doubt in forms)
    assert neurons == "the sparse FFN was not tried: too little memory is left"


def test_a_busy_machine_is_said(folder, machine, monkeypatch):
    machine(lambda *way: 1.0)
    monkeypatch.setattr(hardware, "load", lambda: 3.0)
    (doubt,) = tune(folder).doubts
    assert doubt.startswith("other programs were running (load 3.0)")


def test_a_forced_gemv_is_the_only_one_tried(folder, machine):
    machine(lambda *way: 1.0)
    try:
        runtime._core.set_gemv("addsub")
        found = tune(folder)
    finally:
        runtime._core.set_gemv("auto")
    assert {trial.candidate.gemv for trial in found.kernels} == {"addsub"}


def test_a_raw_checkpoint_can_be_tuned(tmp_path, machine):
    machine(lambda p, *way: 1.0 if p == "t5" else 2.0)
    found = tune(tiny_checkpoint(tmp_path / "hf", TINY))
    assert (found.tuned.packing, found.tuned.weights) == ("t5", "copy")


@pytest.mark.parametrize(
    ("signs", "default", "packings"),
    [((-1, 0, 1), "i2", {"i2", "t5"}), ((-1, 1), "b1", {"b1"})],
)
def test_a_raw_checkpoint_in_groups_is_tried_only_as_it_can_be_packed(
    signs, default, packings, machine, tmp_path, monkeypatch
):
    tensors = scaled_tensors(BONSAI, "groups of 128", signs=signs)
    folder = write_checkpoint(tmp_path / "hf", BONSAI, tensors)
    monkeypatch.setattr("bitinfer.runtime.auto_packing", lambda: "t3")
    machine(lambda *way: 1.0)
    found = tune(folder)
    assert found.default.packing == default
    assert {trial.candidate.packing for trial in found.kernels} == packings


def trial(threads, rates, in_race=True):
    return Trial(Candidate("t5", "addsub", "mmap", threads), rates, in_race)


def test_a_way_that_does_not_win_nearly_every_round_is_not_taken():
    default = trial(1, [10.0] * 7)
    often = trial(2, [11.0] * 5 + [9.0] * 2)
    nearly_always = trial(3, [11.0] * 6 + [9.0])
    hardly = trial(4, [10.1] * 7)
    assert fastest([default, often])[0] == default.candidate
    assert fastest([default, hardly])[0] == default.candidate
    best, gain, wins = fastest([default, often, nearly_always])
    assert (best.threads, gain, wins) in [(2, 1.0, 0), (3, pytest.approx(1.1), 6), (1, 1.0, 0)]
    assert fastest([default, nearly_always]) == (nearly_always.candidate, pytest.approx(1.1), 6)


def test_the_default_stays_in_the_race_however_slow_it_began(folder, machine):
    packing = runtime.auto_packing()
    machine(lambda p, g, w, threads, run: 9.0 if p == packing and run < 6 else 1.0)
    found = tune(folder)
    assert found.kernels[0].candidate == found.default
    assert len(found.kernels[0].rates) == found.rounds


@pytest.mark.parametrize(
    ("rates", "as_fast", "quiet"),
    [
        ({1: 10.0, 2: 20.0, 3: 20.2, 4: 20.3}, 2, 2),
        ({1: 10.0, 2: 19.5, 3: 20.0}, 3, 2),
        ({1: 20.0, 2: 15.0}, 1, 1),
        ({1: 10.0, 2: 20.0}, 2, 2),
    ],
)
def test_the_fewest_threads_that_are_as_fast(rates, as_fast, quiet):
    trials = [trial(count, [rate] * 5) for count, rate in rates.items()]
    assert fewest_threads(trials, tune_module._AS_FAST) == as_fast
    assert fewest_threads(trials, tune_module._QUIET) == quiet


def test_threads_are_compared_round_by_round():
    drifting = [10.0, 20.0, 5.0, 40.0, 10.0]
    trials = [trial(2, drifting), trial(1, [rate * 0.97 for rate in drifting])]
    assert fewest_threads(trials, 0.98) == 2
    assert fewest_threads(trials, 0.95) == 1


def test_threads_that_were_clearly_slow_at_first_do_not_count():
    trials = [trial(2, [20.0] * 5), trial(1, [9.0, 50.0], in_race=False)]
    assert fewest_threads(trials, 0.95) == 2


@pytest.mark.parametrize("cores", [1, 2, 8, 14, 64, 192, 256])
def test_numbers_of_threads_that_are_tried(cores):
    counts = thread_counts(cores)
    assert counts[0] == cores
    assert counts[-1] == 1
    assert set(range(1, min(cores, 8) + 1)) <= set(counts)
    assert len(counts) < 20
    assert all(a < 2 * b + 1 for a, b in itertools.pairwise(counts))


def test_quiet_mode_measures_what_was_not_tuned_and_leaves_no_trace(folder, machine):
    machine(lambda p, g, w, threads, run: 1 / (1 - 0.5**threads))
    engine = Engine.load(folder, num_threads=8)
    assert quiet_threads(engine) == 5  # 1 - 1/32 = 0.97 of the peak, 4: 0.94
    assert engine.num_threads == 8
    assert engine.gemv_family == runtime.gemv_family(engine.packing)


# ---- command line ----


def run(*arguments, **options):
    return CliRunner().invoke(main, [*arguments], **options)


def test_the_command_measures_keeps_and_shows(place):
    done = run("tune")
    assert done.exit_code == 0, done.output
    assert max(map(len, done.stdout.splitlines()[:-1])) <= 80
    for text in ("packing", "tokens/s", "chosen: ", "in quiet mode: ", f"kept in {place}"):
        assert text in done.stdout
    (tuned,) = tuning.read()
    assert tuned.name == "tales-14m"
    shown = run("tune", "--show")
    assert shown.exit_code == 0
    assert "tales-14m" in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 80
    assert json.loads(run("tune", "--show", "--json").stdout)[0]["threads"] == tuned.threads
    assert f"removed {place}" in run("tune", "--clear").stdout
    assert "nothing was tuned" in run("tune", "--show").stdout
    assert "nothing was tuned" in run("tune", "--clear").stdout


def test_json_tells_all_that_was_measured(folder, machine):
    machine(lambda *way: 1.0)
    found = json.loads(run("tune", str(folder), "--json").stdout)
    assert found["tuned"]["name"] == folder.name
    assert {t["candidate"]["threads"] for t in found["threads"]} == {1, 2, 3, 4}
    assert all(t["rates"] for t in found["kernels"])


@pytest.mark.parametrize(
    "arguments", [["--show", "--clear"], ["--show", "folder"], ["--clear", "folder"]]
)
def test_only_one_thing_at_a_time(arguments):
    done = run("tune", *arguments)
    assert done.exit_code == 2
    assert "only one of them" in done.stderr


def test_a_file_that_could_not_be_kept_is_told_before_the_measurement(tmp_path, monkeypatch):
    monkeypatch.setenv("BITINFER_TUNING", str(tmp_path))
    monkeypatch.setattr(tune_module, "tune", lambda *a, **k: pytest.fail("it was measured"))
    done = run("tune")
    assert done.exit_code == 1
    assert done.stderr == f"error: tuning: expected a file at {tmp_path}, got something else\n"


@pytest.mark.filterwarnings("default")
def test_a_damaged_file_is_one_line_and_the_work_goes_on(place, monkeypatch):
    monkeypatch.setattr(runtime, "_noted", set())
    place.write_text("{")
    done = run("generate", "--json", "--max-tokens", "2", "Once")
    assert done.exit_code == 0
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"note: tuning: {place} is damaged")
    shown = run("tune", "--show")
    assert shown.exit_code == 1
    assert shown.stderr.startswith(f"error: tuning: {place} is damaged")


def threads_of(*arguments, **options):
    done = run("generate", "--json", "--max-tokens", "2", *arguments, "Once", **options)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)["model"]["threads"]


def test_quiet_mode_takes_the_threads_that_were_tuned(machine, tmp_path):
    machine(lambda p, g, w, threads, run: 1 / {1: 1.0, 2: 1.5, 3: 2.9, 4: 3.0}[threads])
    tuned = tune(default_model()).tuned
    assert (tuned.threads, tuned.quiet_threads) == (4, 3)
    tuning.keep(tuned)
    assert threads_of() == 4
    assert threads_of("--quiet-mode") == 3
    assert threads_of("--quiet-mode", "--threads", "2") == 2
    assert threads_of(env={"BITINFER_QUIET_MODE": "1"}) == 3
    config = tmp_path / "config.toml"
    config.write_text("quiet-mode = true\n")
    assert threads_of(env={"BITINFER_CONFIG": str(config)}) == 3
    assert threads_of("--no-quiet-mode", env={"BITINFER_CONFIG": str(config)}) == 4
    done = run("bench", "-p", "0", "-n", "2", "-r", "1", "--quiet-mode", "-o", "json")
    assert {record["threads"] for record in json.loads(done.stdout)} == {3}


@pytest.mark.parametrize("count", ["0", "10000", "-1", "many"])
@pytest.mark.parametrize("command", ["generate", "chat", "bench"])
def test_impossible_numbers_of_threads_are_refused(command, count):
    done = run(command, "--threads", count)
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1
    assert "256" in done.stderr


@pytest.mark.parametrize(
    ("option", "value"), [("--packing", "t9"), ("--weights", "disk"), ("--head", "int3")]
)
def test_unknown_names_list_the_choices(option, value):
    done = run("generate", option, value, "Once")
    assert done.exit_code == 2
    assert value in done.stderr
    assert "auto" in done.stderr or "int8" in done.stderr
