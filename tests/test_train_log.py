"""The log of a run: what was kept is read back, what comes again is cut off, CSV says the same."""

import csv
import io
import math

import pytest

from bitinfer.errors import TrainingError
from bitinfer.train.config import TrainConfig
from bitinfer.train.log import RunLog, StepRecord, perplexity, read_log
from bitinfer.train.run_folder import RunFolder


def record(step: int, **validation: float) -> StepRecord:
    return StepRecord(step, step * 10, 1 / (3 + step), 0.5, 1e-3, 0.1, 99.5, validation)


def test_records_are_read_back_to_the_last_bit(tmp_path):
    with RunLog(tmp_path, 0) as log:
        log.add(record(1))
        log.add(record(2, val=0.1 + 0.2))
        assert read_log(tmp_path) == log.records == [record(1), record(2, val=0.1 + 0.2)]


@pytest.mark.parametrize("torn", ["", '{"step": 4, "tok', '{"step": 4}\n'])
def test_a_resumed_log_has_each_step_once(torn, tmp_path):
    with RunLog(tmp_path, 0) as log:
        for step in (1, 2, 3):
            log.add(record(step))
    with log.path.open("a") as file:
        file.write(torn)
    with RunLog(tmp_path, 2) as resumed:
        resumed.add(record(3))
    assert [r.step for r in resumed.records] == [1, 2, 3]
    assert [r.step for r in read_log(tmp_path)] == [1, 2, 3]


def test_the_table_has_columns_for_each_validation_file(tmp_path):
    with RunLog(tmp_path, 0) as log:
        log.add(record(1))
        log.add(record(2, **{"a.txt": 2.0, "b.txt": 800.0}))
        log.keep()
    rows = list(csv.DictReader(io.StringIO((tmp_path / "log.csv").read_text())))
    assert float(rows[0]["loss"]) == record(1).loss
    assert rows[0]["loss a.txt"] == ""
    assert float(rows[1]["perplexity a.txt"]) == perplexity(2.0) == math.exp(2)
    assert float(rows[1]["perplexity b.txt"]) == math.inf


def test_the_log_that_cannot_be_written_is_told(tmp_path):
    with pytest.raises(TrainingError, match=r"log\.jsonl: cannot be written: No such file"):
        RunLog(tmp_path / "none", 0)


def test_a_new_run_needs_a_new_folder_and_a_resumed_one_its_own(tmp_path):
    config, folder = TrainConfig(data=("a.txt",)), RunFolder(tmp_path / "run")
    with pytest.raises(TrainingError, match=r"expected the folder of a run, got no run\.json"):
        folder.begin(config, resume=True)
    folder.begin(config, resume=False)
    assert folder.read_config() == config
    folder.begin(config, resume=True)
    with pytest.raises(TrainingError, match=r"got one with a run: resume it \(--resume\)"):
        folder.begin(config, resume=False)


def test_a_run_never_begins_in_a_folder_of_others(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(TrainingError, match=r"got one that holds notes\.txt"):
        RunFolder(tmp_path).begin(TrainConfig(), resume=False)
    with pytest.raises(TrainingError, match="cannot be written: No such file"):
        RunFolder(tmp_path / "no" / "run").begin(TrainConfig(), resume=False)


def test_one_process_at_a_time_trains_in_a_folder(tmp_path):
    first, second = RunFolder(tmp_path).locked(), RunFolder(tmp_path).locked()
    with first, pytest.raises(TrainingError, match="another process trains"), second:
        pass
    with RunFolder(tmp_path).locked():
        pass
