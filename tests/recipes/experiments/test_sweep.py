"""Sweeps: processes that end well, fail, are killed, stopped and go on."""

import fcntl
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from recipes import atomic_io
from recipes.errors import RecipeError
from recipes.experiments import launcher
from recipes.experiments import run_sweep
from recipes.experiments import scheduler as jobs_lib
from recipes.experiments import sweep_report
from recipes.experiments.resources import Share
from recipes.run_dir import lock
from recipes.training.signals import DeferredInterrupts
from tests.recipes.command_line import FAST
from tests.recipes.command_line import ROOT
from tests.recipes.experiments import small_sweeps
from tests.recipes.experiments.small_sweeps import results
from tests.recipes.experiments.small_sweeps import starts
from tests.recipes.experiments.small_sweeps import wait_for
from tests.recipes.small_runs import rows
from tests.recipes.small_runs import summary

STANDIN = ("--train_steps=4",)
ALL = [Share({}, (), 0)]


@pytest.fixture
def standin(monkeypatch):
    """What starts in the place of the program, here."""
    monkeypatch.setattr(jobs_lib, "PROGRAM", small_sweeps.STANDIN)
    monkeypatch.setattr(jobs_lib, "POLL_SECONDS", 0.02)
    # Figures take longer than all the rest; their tests are elsewhere.
    monkeypatch.setattr(sweep_report, "_save", lambda figure, path: None)


def run(folder, *axes, shares=ALL, **settings):
    """Runs a sweep of the stand-in here; its jobs by name."""
    made = small_sweeps.cells(folder, *axes, **settings)
    jobs = run_sweep.run(made, folder, shares, "the command")
    return {job.cell.name: job for job in jobs}


def statuses(jobs):
    return {name: job.status for name, job in jobs.items()}


def interrupted(when, *numbers):
    """A thread that sends signals to this process once a file is there."""

    def send():
        wait_for(when)
        for number in numbers:
            os.kill(os.getpid(), number)
            time.sleep(0.2)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


def require_gone(folder, seconds=30):
    """No process is left that has the folder in its command."""
    deadline = time.monotonic() + seconds
    while small_sweeps.processes(f"{folder}/"):
        assert time.monotonic() < deadline, small_sweeps.processes(f"{folder}/")
        time.sleep(0.05)


# Runs, some at a time


@pytest.mark.usefixtures("standin")
def test_every_run_ends_in_its_folder(tmp_path, capsys):
    made = run(tmp_path, "--norm=bn | frn", "--seed=0 | 1", momentum=0.25)
    assert statuses(made) == dict.fromkeys(
        [f"norm={n}-seed={s}" for n in ("bn", "frn") for s in (0, 1)], "done"
    )
    for name, job in made.items():
        (arguments,) = starts(tmp_path / name)
        assert "--momentum=0.25" in arguments
        assert f"--workdir={tmp_path / name}" in arguments
        assert job.log.read_text() == "ended\n"
    assert results(tmp_path)["norm=frn-seed=1"]["accuracy"] == 0.2
    output = capsys.readouterr().out
    assert "4/4  norm=frn-seed=1  top-1 20.00%" in output
    assert f"wrote {tmp_path}/results.json" in output


@pytest.mark.usefixtures("standin")
def test_arguments_reach_a_run_unharmed(tmp_path):
    axis = '--norm=gn --norm_kwargs=\'{"a": "it is | $HOME", "b": [1]}\' | bn'
    data_dir = "a \"b\" 'c' $d\n*"
    run(tmp_path / "it's a sweep", axis, data_dir=data_dir, xla=False)
    name = next(p for p in (tmp_path / "it's a sweep").glob("norm=gn*"))
    config = json.loads((name / "config.json").read_text())
    assert config["norm_kwargs"] == {"a": "it is | $HOME", "b": [1]}
    assert config["data_dir"] == data_dir
    assert config["xla"] is False
    assert config["workdir"] == str(name)


@pytest.mark.usefixtures("standin")
def test_a_sweep_that_ended_runs_nothing_and_writes_its_report(
    tmp_path, capsys
):
    run(tmp_path, "--norm=bn | frn")
    (tmp_path / "results.json").unlink()
    capsys.readouterr()
    made = run(tmp_path, "--norm=bn | frn")
    assert set(statuses(made).values()) == {"done"}
    assert len(starts(tmp_path / "norm=bn")) == 1
    assert results(tmp_path)["norm=frn"]["accuracy"] == 0.1
    assert "2 of 2 runs ended before" in capsys.readouterr().out


@pytest.mark.usefixtures("standin")
def test_what_is_added_is_run_alone(tmp_path):
    run(tmp_path, "--norm=bn | frn")
    made = run(tmp_path, "--norm=gn | frn | bn")
    assert set(statuses(made).values()) == {"done"}
    assert [len(starts(tmp_path / name)) for name in made] == [1, 1, 1]


@pytest.mark.usefixtures("standin")
def test_a_run_that_fails_leaves_the_others_and_is_tried_again(tmp_path):
    small_sweeps.behave(tmp_path, bn="mistake", gn="silent", rbn="lie")
    axis = "--norm=bn | gn | rbn | frn"
    made = run(tmp_path, axis)
    errors = {
        "norm=bn": "exit code 1: the norm is of no use",
        "norm=gn": "exit code 3: it printed nothing",
        "norm=rbn": "exit code 0: nothing to do",
        "norm=frn": None,
    }
    assert {name: job.error for name, job in made.items()} == errors
    assert statuses(made) == {
        name: "failed" if error else "done" for name, error in errors.items()
    }
    found = results(tmp_path)
    assert {n: run.get("error") for n, run in found.items()} == errors
    page = (tmp_path / "table.md").read_text()
    assert "* `norm=bn`: exit code 1: the norm is of no use" in page
    assert "1 of 4 runs ended." in page

    small_sweeps.behave(tmp_path, gn="silent")
    made = run(tmp_path, axis)
    assert [job.status for job in made.values()] == [
        "done",
        "failed",
        "done",
        "done",
    ]
    assert [len(starts(tmp_path / name)) for name in made] == [2, 2, 2, 1]
    assert "error" not in results(tmp_path)["norm=bn"]


@pytest.mark.usefixtures("standin")
def test_a_run_that_is_killed_says_so_rather_than_an_older_error(tmp_path):
    small_sweeps.behave(tmp_path, bn="mistake")
    assert "no use" in run(tmp_path, "--norm=bn")["norm=bn"].error
    small_sweeps.behave(tmp_path, bn="stubborn")
    killed = tmp_path / "norm=bn" / "waiting"

    def kill():
        wait_for(killed)
        for process in small_sweeps.processes(f"--workdir={killed.parent}"):
            os.kill(process, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    (job,) = run(tmp_path, "--norm=bn").values()
    thread.join()
    assert job.status == "failed"
    assert job.error == "ended by SIGKILL, as where memory runs out: training"
    assert results(tmp_path)["norm=bn"]["error"] == job.error

    small_sweeps.behave(tmp_path)
    assert run(tmp_path, "--norm=bn")["norm=bn"].status == "done"


@pytest.mark.usefixtures("standin")
def test_at_most_as_many_run_at_a_time_as_there_are_shares(tmp_path):
    made = small_sweeps.cells(tmp_path, "--norm=bn | frn | gn | rbn | ln")
    jobs = jobs_lib.make(made)
    most, slots = [], set()

    def watch(jobs):
        running = [job for job in jobs if job.status == "running"]
        most.append(len(running))
        taken = [job.slot for job in running]
        assert len(set(taken)) == len(taken)
        slots.update(taken)

    jobs_lib.finish(jobs, [*ALL, *ALL], watch)
    assert max(most) == 2 and slots == {0, 1}
    assert {job.status for job in jobs} == {"done"}


@pytest.mark.skipif(sys.platform != "linux", reason="cores are of Linux")
@pytest.mark.usefixtures("standin")
def test_a_run_gets_its_share(tmp_path, monkeypatch):
    core = min(os.sched_getaffinity(0))
    program = tmp_path / "program.py"
    program.write_text(
        "import os; print(os.environ['CUDA_VISIBLE_DEVICES'], "
        "os.sched_getaffinity(0), os.getsid(0) == os.getpid())"
    )
    monkeypatch.setattr(jobs_lib, "PROGRAM", program)
    share = Share({"CUDA_VISIBLE_DEVICES": "4,5"}, (core,), 2)
    (job,) = run(tmp_path, shares=[share]).values()
    assert job.log.read_text() == f"4,5 {{{core}}} True\n"


def test_a_program_whose_parent_is_gone_does_not_start(tmp_path):
    mark = tmp_path / "mark"
    program = tmp_path / "program.py"
    program.write_text(f"open({str(mark)!r}, 'w')")
    for parent, code in ((os.getpid(), 0), (os.getppid(), 143)):
        done = subprocess.run(
            [sys.executable, launcher.__file__, str(parent), "", str(program)],
            check=False,
        )
        assert done.returncode == code
        assert mark.exists() == (code == 0)
        mark.unlink(missing_ok=True)


# Signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.usefixtures("standin")
def test_a_sweep_that_is_stopped_saves_and_goes_on(tmp_path, capsys, number):
    small_sweeps.behave(tmp_path, frn="wait", gn="wait")
    axis = "--norm=bn | frn | gn | rbn"
    before = signal.getsignal(number)
    thread = interrupted(tmp_path / "norm=gn" / "waiting", number)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, axis, shares=[*ALL, *ALL])
    thread.join()
    assert signal.getsignal(number) is before
    require_gone(tmp_path)
    assert "stopping: 2 running save first" in capsys.readouterr().out
    for name in ("norm=frn", "norm=gn"):
        assert (tmp_path / name / "saved").exists()
    assert {n: run["status"] for n, run in results(tmp_path).items()} == {
        "norm=bn": "done",
        "norm=frn": "waiting",
        "norm=gn": "waiting",
        "norm=rbn": "waiting",
    }
    assert "1 of 4 runs ended." in (tmp_path / "table.md").read_text()
    assert not starts(tmp_path / "norm=rbn")

    made = run(tmp_path, axis, shares=[*ALL, *ALL])
    assert set(statuses(made).values()) == {"done"}
    assert [len(starts(tmp_path / name)) for name in made] == [1, 2, 2, 1]


@pytest.mark.usefixtures("standin")
def test_a_second_ctrl_c_ends_what_does_not_end(tmp_path):
    small_sweeps.behave(tmp_path, bn="stubborn")
    waiting = tmp_path / "norm=bn" / "waiting"
    # A second SIGTERM does not: what sends one may send several.
    numbers = [signal.SIGTERM, signal.SIGTERM, signal.SIGINT]
    thread = interrupted(waiting, *numbers)
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "--norm=bn")
    thread.join()
    assert 0.3 < time.monotonic() - start < jobs_lib.GRACE_SECONDS / 2
    require_gone(tmp_path)
    assert results(tmp_path)["norm=bn"]["status"] == "waiting"


@pytest.mark.usefixtures("standin")
def test_what_does_not_save_in_time_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs_lib, "GRACE_SECONDS", 0.2)
    small_sweeps.behave(tmp_path, bn="stubborn")
    thread = interrupted(tmp_path / "norm=bn" / "waiting", signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "--norm=bn")
    thread.join()
    require_gone(tmp_path)


@pytest.mark.usefixtures("standin")
def test_a_signal_while_a_process_starts_leaves_none_behind(
    tmp_path, monkeypatch
):
    small_sweeps.behave(tmp_path, bn="wait", frn="wait")
    popen = subprocess.Popen

    class Interrupted(popen):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "--norm=bn | frn", shares=[*ALL, *ALL])
    assert not small_sweeps.processes(f"{tmp_path}/")
    assert not (tmp_path / "norm=frn" / jobs_lib.LOG).exists()


@pytest.mark.usefixtures("standin")
def test_a_run_that_ends_while_it_is_stopped_is_done(tmp_path):
    (job,) = jobs_lib.make(small_sweeps.cells(tmp_path, "--norm=bn"))
    jobs_lib._start(job, ALL[0])
    job.process.wait()
    assert job.status == "running"
    jobs_lib._stop([job], DeferredInterrupts())
    assert job.status == "done"


@pytest.mark.usefixtures("standin")
def test_an_error_of_the_sweep_ends_its_runs(tmp_path):
    small_sweeps.behave(tmp_path, bn="wait")
    jobs = jobs_lib.make(small_sweeps.cells(tmp_path, "--norm=bn"))

    def fail(jobs):
        if (tmp_path / "norm=bn" / "waiting").exists():
            raise OSError("no terminal")

    with pytest.raises(OSError, match="no terminal"):
        jobs_lib.finish(jobs, ALL, fail)
    assert (tmp_path / "norm=bn" / "saved").exists()
    assert not small_sweeps.processes(f"{tmp_path}/")


def test_interrupts_are_noted_and_handlers_put_back():
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with DeferredInterrupts() as interrupts:
        assert not interrupts.requested
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupts.requested and interrupts.num_keys == 0
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.num_keys == 1
    after = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    assert after == before


# Folders


@pytest.mark.usefixtures("standin")
def test_a_folder_is_of_one_sweep_at_a_time(tmp_path):
    tmp_path.joinpath("norm=bn").mkdir()
    with lock.acquire_lock(tmp_path, "sweep", "out"):
        message = f"in use by another sweep .process {os.getpid()}"
        with pytest.raises(RecipeError, match=message) as caught:
            run(tmp_path, "--norm=bn")
    assert "\n" not in str(caught.value)
    assert not starts(tmp_path / "norm=bn")
    assert not (tmp_path / "results.json").exists()
    run(tmp_path, "--norm=bn")


@pytest.mark.usefixtures("standin")
def test_the_folder_of_a_run_is_no_folder_of_a_sweep(tmp_path):
    run(tmp_path, "--norm=bn")
    with pytest.raises(RecipeError, match="workdir of a run.*another --out"):
        run(tmp_path / "norm=bn", "--norm=bn")


@pytest.mark.usefixtures("standin")
def test_runs_of_a_sweep_that_was_killed_may_end_first(tmp_path, capsys):
    (tmp_path / "norm=bn").mkdir()
    with (tmp_path / "norm=bn" / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        timer = threading.Timer(0.5, fcntl.flock, (lock, fcntl.LOCK_UN))
        timer.start()
        start = time.monotonic()
        made = run(tmp_path, "--norm=bn | frn")
        timer.join()
    assert time.monotonic() - start >= 0.4
    assert set(statuses(made).values()) == {"done"}
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "waiting for the end of norm=bn"


@pytest.mark.usefixtures("standin")
def test_a_workdir_that_stays_in_use_is_left_to_its_run(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs_lib, "GRACE_SECONDS", 0.1)
    (tmp_path / "norm=bn").mkdir()
    with (tmp_path / "norm=bn" / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = run(tmp_path, "--norm=bn | frn")
    assert statuses(made) == {"norm=bn": "failed", "norm=frn": "done"}


@pytest.mark.usefixtures("standin")
def test_a_run_of_another_config_stops_the_sweep_at_its_start(tmp_path):
    run(tmp_path, "--norm=bn")
    with pytest.raises(RecipeError, match="momentum is 0.9 there and 0.5 now"):
        run(tmp_path, "--norm=frn | bn", momentum=0.5)
    assert not starts(tmp_path / "norm=frn")


# The program


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--vary=--nrm=bn"], "Unknown command line flag 'nrm'"),
        (["--jobs=9999"], "--jobs=9999 runs at a time need as many"),
        (
            ["--x=norm", "--vary=--seed=0|1"],
            "--x=norm is not varied. Varied: s",
        ),
        (["--x=norm"], "Varied: nothing"),
        (["--out="], "--out needs the name of a folder"),
        (["bn"], "unexpected argument 'bn'"),
        (["--out=file/a"], "cannot write to the workdir"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, arguments, message):
    (tmp_path / "file").touch()
    arguments = [a.replace("file", f"{tmp_path}/file") for a in arguments]
    out = f"--out={tmp_path / 'out'}"
    code, output, errors = small_sweeps.finish(*STANDIN, out, *arguments)
    assert code == 1 and output == ""
    assert errors.startswith("error: ") and message in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_list_prints_commands_and_starts_nothing(tmp_path):
    code, output, errors = small_sweeps.finish(
        *STANDIN, f"--out={tmp_path}/out", "--vary=--norm=bn | frn", "--list"
    )
    assert (code, errors) == (0, "")
    assert output.splitlines() == [
        f"python recipes/imagenet.py --train_steps=4 --norm={norm} "
        f"--workdir={tmp_path}/out/norm={norm}"
        for norm in ("bn", "frn")
    ]
    assert not (tmp_path / "out").exists()


def test_failures_are_named_and_the_exit_code_is_1(tmp_path):
    small_sweeps.behave(tmp_path, bn="mistake")
    code, output, errors = small_sweeps.finish(
        *STANDIN, f"--out={tmp_path}", "--vary=--norm=bn | frn", "--jobs=1"
    )
    assert code == 1
    log = tmp_path / "norm=bn" / "output.log"
    assert errors.splitlines() == [
        "error: some runs failed, the same command tries them again:",
        f"  norm=bn: exit code 1: the norm is of no use ({log})",
    ]
    assert "2/2  norm=frn  top-1 10.00%" in output
    assert results(tmp_path)["norm=bn"]["status"] == "failed"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_program_that_is_stopped_exits_with_130(tmp_path, number):
    small_sweeps.behave(tmp_path, bn="wait")
    arguments = (*STANDIN, f"--out={tmp_path}", "--vary=--norm=bn | frn")
    with small_sweeps.start(*arguments) as process:
        wait_for(tmp_path / "norm=bn" / "waiting", process)
        # A terminal sends it to all of a group.
        os.killpg(process.pid, number)
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "")
    assert "the same command goes on" in output
    assert (tmp_path / "norm=bn" / "saved").exists()
    assert results(tmp_path)["norm=frn"]["status"] == "waiting"
    assert not small_sweeps.processes(f"{tmp_path}/")


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells of a kill")
def test_a_sweep_that_is_killed_ends_its_runs_which_save(tmp_path):
    small_sweeps.behave(tmp_path, bn="wait")
    arguments = (*STANDIN, f"--out={tmp_path}", "--vary=--norm=bn | frn")
    with small_sweeps.start(*arguments) as process:
        wait_for(tmp_path / "norm=bn" / "waiting", process)
        code, _, errors = small_sweeps.finish(*arguments)
        assert code == 1
        assert errors.startswith(
            f"error: {tmp_path} is in use by another sweep"
        )
        assert f"process {process.pid}" in errors
        process.kill()
    # At once, while the run is still saving.
    code, _, errors = small_sweeps.finish(*arguments)
    assert (code, errors) == (0, "")
    assert (tmp_path / "norm=bn" / "saved").exists()
    assert len(starts(tmp_path / "norm=bn")) == 2
    require_gone(tmp_path)


def test_a_terminal_of_80_columns_shows_a_table(tmp_path):
    ours, theirs = pty.openpty()
    name = "--norm_kwargs='" + json.dumps({"long": "name " * 12}) + "'"
    with subprocess.Popen(
        [
            *(sys.executable, "-c", small_sweeps._WITH_STANDIN, *STANDIN),
            *(f"--out={tmp_path}", f"--vary=--norm=bn | gn {name}"),
            "--vary=--seed=0 | 1",
        ],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=ROOT,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"},
    ) as process:
        os.close(theirs)
        text = b""
        while True:
            try:
                text += os.read(ours, 4096)
            except OSError:
                break  # The other end is closed.
    os.close(ours)
    assert process.returncode == 0
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text.decode())
    final = text.rpartition("4 of 4 runs done")[2]
    assert "test top-1, %" in final and "15.00 ± 7.07 (2)" in final
    lines = final.split("wrote")[0].splitlines()
    assert lines and all(len(line) <= 80 for line in lines)


def test_nothing_imports_tensorflow(tmp_path):
    # Of the modules behind the program, whose runs need the memory.
    program = (
        "import sys; from recipes.experiments import run_sweep, "
        "resources, grid; "
        "sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, check=False
    )
    assert done.returncode == 0


def test_help_is_of_this_program():
    code, output, _ = small_sweeps.finish("--help")
    assert code == 0
    for text in ("--vary", "--x", "--jobs", "--out", "--list", "Examples"):
        assert text in output
    assert "absl.logging" not in output and "  --norm\n" not in output


def test_a_sweep_of_the_program_itself(tmp_path):
    arguments = (
        *FAST,
        "--train_steps=4",
        "--virtual_replicas=2",
        "--vary=--norm=frn | bn --norm_kwargs='{\"epsilon\": 1e-4}'",
        f"--out={tmp_path}",
    )
    code, output, errors = small_sweeps.finish(*arguments, standin=False)
    assert (code, errors) == (0, ""), output
    found = results(tmp_path)
    assert list(found) == ["norm=frn", "norm=bn-norm_kwargs=_epsilon_0.0001"]
    for name, result in found.items():
        last = summary(tmp_path / name)
        assert result["accuracy"] == last["last"]["eval/accuracy"]
        assert result["loss"] == last["last"]["eval/loss"]
        assert result["num_replicas"] == 2
        assert result["examples_trained_on"] == 4 * 64
        # A process with TensorFlow takes some 500 MB.
        assert 1e8 < result["peak_memory_bytes"] == last["peak_memory_bytes"]
        assert result["seconds_per_step"] > 0
    config = json.loads((tmp_path / list(found)[1] / "config.json").read_text())
    assert config["norm_kwargs"] == {"epsilon": 1e-4}

    logs = [(tmp_path / name / jobs_lib.LOG).read_text() for name in found]
    code, output, errors = small_sweeps.finish(*arguments, standin=False)
    assert (code, errors) == (0, "")
    assert "2 of 2 runs ended before" in output
    assert results(tmp_path) == found
    assert logs == [(tmp_path / n / jobs_lib.LOG).read_text() for n in found]


@pytest.mark.long
def test_a_stopped_sweep_of_the_program_goes_on_to_the_same_numbers(tmp_path):
    def arguments(out):
        return (
            *FAST,
            *("--train_steps=400", "--save_every_steps=100"),
            *("--norm=frn", "--vary=--seed=0 | 1", f"--out={out}"),
        )

    code, _, errors = small_sweeps.finish(
        *arguments(tmp_path / "a"), standin=False
    )
    assert code == 0, errors
    saves = tmp_path / "b" / "seed=0" / "checkpoints"
    with small_sweeps.start(
        *arguments(tmp_path / "b"), standin=False
    ) as process:
        wait_for(saves / "step_000000100.npz", process)
        process.terminate()
        output, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (130, ""), output
    assert (
        "SIGTERM: saved after step"
        in (tmp_path / "b" / "seed=0" / jobs_lib.LOG).read_text()
    )
    code, _, errors = small_sweeps.finish(
        *arguments(tmp_path / "b"), standin=False
    )
    assert code == 0, errors
    for seed in ("seed=0", "seed=1"):
        ours, theirs = rows(tmp_path / "a" / seed), rows(tmp_path / "b" / seed)
        key = "eval/loss"
        assert [r[key] for r in ours if key in r] == [
            r[key] for r in theirs if key in r
        ]


def test_files_of_the_report_are_whole(tmp_path, monkeypatch):
    # As those of a run: what is there is never half of it.
    names = []
    write = atomic_io.atomic_file

    def noted(path):
        names.append(path.name)
        return write(path)

    monkeypatch.setattr(atomic_io, "file", noted)
    monkeypatch.setattr(jobs_lib, "PROGRAM", small_sweeps.STANDIN)
    run(tmp_path, "--norm=bn")
    assert names == ["results.json", "table.md", "table.png", "curves.png"]
