"""How `make bench-check` decides, tested on made-up figures: nothing is timed here."""

import json
import subprocess

import check
import instructions
import pytest
import ratios
import write_rate

BEFORE = {"uniform": 10.0, "normal": 20.0}


def test_slower_than_allowed_fails_and_is_named():
    changes = check.compare(BEFORE, {"uniform": 10.0, "normal": 20 / 1.11}, check.ratio_change)
    (failed,) = check.slower(changes, 0.10)
    assert failed.case == "normal"
    assert failed.slowdown == pytest.approx(0.11)
    (line,) = check.report("ratio", changes, 0.10)
    assert line.startswith("ratio: normal is 11.0% slower (20 before, 18.018 now, 10% allowed)")


def test_slower_within_what_is_allowed_and_faster_pass():
    changes = check.compare(BEFORE, {"uniform": 30.0, "normal": 20 / 1.09}, check.ratio_change)
    assert check.slower(changes, 0.10) == []
    assert [each.case for each in changes] == ["normal", "uniform"]  # the worst comes first


def test_more_instructions_fail():
    before, now = {"a": 1000, "b": 1000}, {"a": 1019, "b": 1021}
    (failed,) = check.slower(check.compare(before, now, check.count_change), 0.02)
    assert failed.case == "b"


def test_a_case_that_is_lost_fails_and_a_new_one_is_told(capsys):
    assert check.lost({"a": 1, "b": 1}, {"b": 1, "c": 1}) == [
        "a: in the baseline, but not measured"
    ]
    assert "c NOT compared: not in the baseline" in capsys.readouterr().out


def steady(ratio, turns=20):
    """Turns of ours and of a peer that takes 1 second."""
    return [1 / ratio] * turns, [1.0] * turns


def measured(answers):
    """A fake measurement with given turns, and the list of cases that it was asked for."""
    asked = []

    def measure(names):
        asked.append(names)
        return {case: answers[case].pop(0) for case in (answers if names is None else names)}

    return measure, asked


QUIET = {"uniform": 1.0, "normal": 1.0}


def test_only_what_failed_is_measured_again():
    noisy = [1 / 8.0] * 20, [2.0] * 20  # ratio 16
    measure, asked = measured({"uniform": [steady(9.5)], "normal": [noisy, steady(19.0, 2)]})
    found = check.persistent(BEFORE, measure, QUIET)
    assert found == {"uniform": pytest.approx(9.5), "normal": pytest.approx(19.0)}
    assert asked == [None, ["normal"]]


def test_three_failures_are_one_and_all_turns_count():
    # The best of three measurements would be 18.5, and pass.
    normal = [steady(16.0), steady(18.5, 10), steady(16.0)]
    measure, asked = measured({"uniform": [steady(11.0)], "normal": normal})
    found = check.persistent(BEFORE, measure, QUIET)
    assert found["normal"] == pytest.approx(16.0)
    assert asked == [None, ["normal"], ["normal"]]
    assert check.slower(check.compare(BEFORE, found, check.ratio_change), 0.10)


@pytest.mark.parametrize("peers, rounds", [(QUIET, check.MOST_ROUNDS), ({}, check.ATTEMPTS)])
def test_disturbed_measurements_are_no_failures_but_do_not_go_on_for_ever(peers, rounds):
    noisy = [1 / 8.0] * 20, [2.0] * 20
    normal = [(list(noisy[0]), list(noisy[1])) for _ in range(rounds)]
    measure, asked = measured({"uniform": [steady(11.0)], "normal": normal})
    found = check.persistent(BEFORE, measure, peers)
    assert found["normal"] == pytest.approx(16.0)  # still a failure
    assert asked == [None, *[["normal"]] * (rounds - 1)]


@pytest.fixture
def machine(monkeypatch):
    """A made-up processor P and compiler C with made-up figures."""
    figures = {"ratios": {"normal": 20.0}, "counts": {"avx2: normal": 1000}}
    monkeypatch.setattr(check, "processor", lambda: "P")
    monkeypatch.setattr(instructions, "compiler_version", lambda: "C")
    monkeypatch.setattr(instructions, "count", lambda: dict(figures["counts"]))
    monkeypatch.setattr(check, "PAUSE", 0.0)
    monkeypatch.setattr(
        check,
        "measure_turns",
        lambda names=None: {case: steady(ratio) for case, ratio in figures["ratios"].items()},
    )
    return figures


def test_what_was_recorded_passes_and_a_slower_kernel_does_not(machine, tmp_path):
    path = tmp_path / "baseline.json"
    check.record(path)
    assert check.check(path) == []
    machine["ratios"]["normal"] = 10.0
    machine["counts"]["avx2: normal"] = 1030
    count, ratio = check.check(path)
    assert "avx2: normal is 3.0% slower" in count
    assert "normal is 100.0% slower" in ratio


def test_recording_keeps_other_machines(machine, tmp_path):
    path = tmp_path / "baseline.json"
    others = {"ratios": {"Q": {"normal": 1.0}}, "peers": {"Q": {"normal": 2.0}}}
    path.write_text(json.dumps(others | {"instructions": {}}))
    check.record(path)
    baseline = json.loads(path.read_text())
    assert baseline["peers"] == {"Q": {"normal": 2.0}, "P": {"normal": 1.0}}
    assert baseline["ratios"] == {"Q": {"normal": 1.0}, "P": {"normal": 20.0}}
    assert baseline["instructions"] == {"C": {"avx2: normal": 1000}}


def test_what_cannot_be_compared_is_said(machine, tmp_path, capsys):
    path = tmp_path / "baseline.json"
    counts = {"C": {"avx2: normal": 1000}}
    path.write_text(json.dumps({"ratios": {}, "peers": {}, "instructions": counts}))
    assert check.check(path) == []
    assert "ratios NOT compared: none of 'P'" in capsys.readouterr().out
    path.write_text(json.dumps({"ratios": {"Q": {}}, "instructions": {"D": {}}}))
    with pytest.raises(SystemExit, match="does not know 'C' nor 'P'"):
        check.check(path)


def test_counts_alone(machine, tmp_path, capsys):
    path = tmp_path / "baseline.json"
    check.record(path)
    machine["ratios"]["normal"] = 10.0
    machine["counts"]["avx2: new"] = 1
    capsys.readouterr()
    assert check.check(path, counts_only=True) == []
    said = capsys.readouterr().out
    assert "avx2: new NOT compared" in said and "ratio" not in said
    machine["counts"]["avx2: normal"] = 1030
    assert len(check.check(path, counts_only=True)) == 1
    path.write_text(json.dumps({"ratios": {"P": {"normal": 20.0}}, "instructions": {}}))
    with pytest.raises(SystemExit, match="does not know 'C': record"):
        check.check(path, counts_only=True)


def test_turns_in_which_the_peer_was_disturbed_do_not_count():
    quiet, noisy = [(1.0, 4.0)] * 3, [(1.5, 8.0)] * 30
    ours, theirs = zip(*noisy, *quiet, strict=True)
    assert ratios.quiet_ratio(ours, theirs) == 4.0
    # A disturbed turn of ours counts, and a slower fill shows, however noisy the machine is.
    ours, theirs = zip(*noisy, *quiet, (4.0, 4.1), strict=True)
    assert ratios.quiet_ratio(ours, theirs) == 4.0
    slow, theirs = [1.2 * seconds for seconds in ours], list(theirs)
    assert ratios.quiet_ratio(slow, theirs) == pytest.approx(4.0 / 1.2)


def test_the_slowest_peer_is_the_limit(monkeypatch):
    times = [[1.0, 1.0], [0.5, 3.0], [2.0, 2.9]]  # ours, memory, arithmetic
    monkeypatch.setattr(ratios, "turns", lambda contestants, seconds, least: times)
    assert ratios.timed(ratios.Case(list, (list, list)), seconds=1.0) == ([1.0, 1.0], [2.0, 3.0])


def test_every_case_can_be_made_and_run(monkeypatch):
    monkeypatch.setattr(ratios, "BEYOND", 1 << 12)
    monkeypatch.setattr(ratios, "SHARED", 1 << 12)
    isa = ratios._core.isa()
    made = ratios.cases()
    assert len(made) > 15
    for make in made.values():
        case = make()
        for contestant in (case.ours, *case.theirs):
            contestant()
    assert ratios._core.isa() == isa


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float8_e5m2"])
def test_arrays_begin_with_a_page(dtype):
    array = ratios.buffer((3, 5), dtype)
    assert array.ctypes.data % 4096 == 0
    assert array.shape == (3, 5) and array.dtype.name == dtype and (array == 1).all()


def test_callgrinds_files():
    dump = "version: 1\ndesc: Trigger: Client Request: avx2: normal float32\ntotals: 1234\n"
    assert instructions.parse(dump) == ("avx2: normal float32", 1234)
    assert instructions.parse("desc: Trigger: Program termination\ntotals: 0\n") is None


def test_the_baseline_in_the_repository_can_be_read():
    baseline = json.loads(check.BASELINE.read_text())
    assert baseline.keys() == {"ratios", "peers", "instructions"}
    for figures in (figures for kind in baseline.values() for figures in kind.values()):
        assert figures
        assert all(value > 0 for value in figures.values())


def test_a_missing_compiler_is_no_silent_pass(monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises((OSError, subprocess.CalledProcessError)):
        instructions.compiler_version()


def test_the_writers_of_zeros_and_weights_write_the_same_files(tmp_path):
    sizes = []
    for write in (write_rate.write_zeros, write_rate.write_weights):
        directory = tmp_path / write.__name__
        directory.mkdir()
        write(directory, "pythia-14m", "bfloat16", 2)
        sizes.append({path.name: path.stat().st_size for path in directory.glob("*.safetensors")})
    zeros, weights = sizes
    assert zeros.keys() == weights.keys()
    # The header of the weights also says where they come from.
    assert all(0 < weights[name] - zeros[name] < 1000 for name in zeros)
