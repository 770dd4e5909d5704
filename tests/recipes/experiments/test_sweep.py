"""Sweeps: runs that succeed, fail, are killed or stopped, and resume."""

import contextlib
import dataclasses
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from recipes.errors import RecipeError
from recipes.experiments import launcher
from recipes.experiments import plots
from recipes.experiments import run_sweep
from recipes.experiments import scheduler
from recipes.experiments.gpu_assignment import Share
from recipes.run_dir import lock as lock_lib
from recipes.training.signals import DeferredInterrupts
from tests.recipes.command_line import FAST
from tests.recipes.command_line import ROOT
from tests.recipes.experiments import small_sweeps
from tests.recipes.experiments.small_sweeps import make_cells
from tests.recipes.experiments.small_sweeps import read_results
from tests.recipes.experiments.small_sweeps import read_starts
from tests.recipes.experiments.small_sweeps import wait_for
from tests.recipes.small_runs import rows
from tests.recipes.small_runs import summary

# Names of TFDS or Keras would load TensorFlow.
STAND_IN = ("--dataset=digits", "--model=resnet8_cifar", "--train_steps=4")
LOG = "output.log"
SHARE = Share({}, (), 0)


@pytest.fixture(autouse=True)
def speed(monkeypatch):
    monkeypatch.setattr(scheduler, "POLL_SECONDS", 0.02)
    # Figures take longer than the runs, and have their own tests.
    monkeypatch.setattr(plots, "save", lambda figure, path: None)


def run(folder, *axes, num_shares=1, **settings):
    """Runs a sweep of the stand-in in this process; its jobs by name."""
    cells = make_cells(folder, *axes, **settings)
    shares = [SHARE] * num_shares
    jobs = run_sweep.run_sweep(cells, folder, shares, "the command")
    return {job.cell.name: job for job in jobs}


def get_statuses(jobs):
    return {name: job.status for name, job in jobs.items()}


@contextlib.contextmanager
def in_thread(function):
    """Runs a function in a thread while the block runs."""
    thread = threading.Thread(target=function)
    thread.start()
    yield
    thread.join()


def sending(when, *numbers):
    """Sends signals to this process as soon as a file exists."""

    def send():
        wait_for(when)
        for number in numbers:
            os.kill(os.getpid(), number)
            time.sleep(0.2)

    return in_thread(send)


def require_no_processes(folder, seconds=30):
    """Checks that no process has the folder in its command line."""
    deadline = time.monotonic() + seconds
    while small_sweeps.find_processes(f"{folder}/"):
        assert time.monotonic() < deadline
        time.sleep(0.05)


# Runs


def test_a_sweep_runs_every_cell_and_then_only_added_ones(tmp_path, capsys):
    jobs = run(tmp_path, "--norm=bn | frn", "--seed=0 | 1", momentum=0.25)
    names = [f"norm={n}-seed={s}" for n in ("bn", "frn") for s in (0, 1)]
    assert get_statuses(jobs) == dict.fromkeys(names, "done")
    for name, job in jobs.items():
        (arguments,) = read_starts(tmp_path / name)
        assert "--momentum=0.25" in arguments
        assert f"--workdir={tmp_path / name}" in arguments
        assert job.log.read_text() == "ended\n"
    assert read_results(tmp_path)["norm=frn-seed=1"]["accuracy"] == 0.2
    output = capsys.readouterr().out
    assert "4/4  norm=frn-seed=1  done\n" in output
    assert "| `--norm=bn` | 15.00 ± 7.07 |" in output
    assert f"wrote {tmp_path}/results.json" in output

    (tmp_path / "results.json").unlink()
    axes = "--norm=gn | frn | bn", "--seed=0 | 1"
    jobs = run(tmp_path, *axes, momentum=0.25)
    assert set(get_statuses(jobs).values()) == {"done"}
    assert all(len(read_starts(tmp_path / name)) == 1 for name in jobs)
    assert read_results(tmp_path)["norm=frn-seed=1"]["accuracy"] == 0.2
    assert "4 of 6 runs were done before" in capsys.readouterr().out


def test_longer_training_runs_again(tmp_path):
    run(tmp_path, "--norm=bn", schedule="constant")
    run(tmp_path, "--norm=bn", schedule="constant", train_steps=5)
    assert len(read_starts(tmp_path / "norm=bn")) == 2


def test_arguments_are_passed_unchanged(tmp_path):
    axis = '--norm=gn --norm_kwargs=\'{"a": "it is | $HOME", "b": [1]}\''
    data_dir = "a \"b\" 'c' $d\n*"
    folder = tmp_path / "it's a sweep"
    (job,) = run(folder, axis, data_dir=data_dir, xla=False).values()
    config = json.loads((job.cell.config.folder / "config.json").read_text())
    assert config["norm_kwargs"] == {"a": "it is | $HOME", "b": [1]}
    assert config["data_dir"] == data_dir
    assert config["xla"] is False
    assert config["workdir"] == str(job.cell.config.folder)


def test_a_failed_run_does_not_affect_others_and_runs_again(tmp_path, capsys):
    small_sweeps.set_behaviors(
        tmp_path, bn="mistake", gn="silent", rbn="lie", frn="end"
    )
    axis = "--norm=bn | gn | rbn | frn"
    jobs = run(tmp_path, axis)
    errors = {
        "norm=bn": "exit code 1: the norm is of no use",
        "norm=gn": "exit code 3: no output",
        "norm=rbn": "exit code 0: nothing to do",
        "norm=frn": None,
    }
    assert {name: job.error for name, job in jobs.items()} == errors
    assert get_statuses(jobs) == {
        name: "failed" if error else "done" for name, error in errors.items()
    }
    found = read_results(tmp_path)
    assert {n: run.get("error") for n, run in found.items()} == errors
    page = (tmp_path / "table.md").read_text()
    assert "* `norm=bn`: exit code 1: the norm is of no use" in page
    assert "1 of 4 runs are done." in page
    assert "2/4  norm=gn  failed exit code 3" in capsys.readouterr().out

    small_sweeps.set_behaviors(tmp_path, gn="silent")
    jobs = run(tmp_path, axis)
    statuses = list(get_statuses(jobs).values())
    assert statuses == ["done", "failed", "done", "done"]
    assert [len(read_starts(tmp_path / name)) for name in jobs] == [2, 2, 2, 1]
    assert "error" not in read_results(tmp_path)["norm=bn"]


def test_a_killed_run_reports_the_signal_instead_of_an_older_error(tmp_path):
    small_sweeps.set_behaviors(tmp_path, bn="mistake")
    assert "no use" in run(tmp_path, "--norm=bn")["norm=bn"].error
    small_sweeps.set_behaviors(tmp_path, bn="stubborn")
    waiting = tmp_path / "norm=bn" / "waiting"

    def kill():
        wait_for(waiting)
        for process in small_sweeps.find_processes(f"{waiting.parent}"):
            os.kill(process, signal.SIGKILL)

    with in_thread(kill):
        (job,) = run(tmp_path, "--norm=bn").values()
    assert job.status == "failed"
    assert job.error == "ended by SIGKILL, maybe for lack of memory: training"
    assert read_results(tmp_path)["norm=bn"]["error"] == job.error

    small_sweeps.set_behaviors(tmp_path)
    assert run(tmp_path, "--norm=bn")["norm=bn"].status == "done"


@pytest.mark.skipif(sys.platform != "linux", reason="cores are set on Linux")
def test_concurrent_runs_have_different_shares(tmp_path):
    core = min(os.sched_getaffinity(0))
    program = tmp_path / "program.py"
    program.write_text(
        "import os, time; print(os.environ['CUDA_VISIBLE_DEVICES'], "
        "os.sched_getaffinity(0), os.getsid(0) == os.getpid(), "
        "time.monotonic()); time.sleep(0.3); print(time.monotonic())"
    )
    shares = [
        Share({"CUDA_VISIBLE_DEVICES": name}, (core,), 1) for name in "45"
    ]
    program = dataclasses.replace(small_sweeps.PROGRAM, script=program)
    axis = "--norm=bn | gn | frn | rbn | ln"
    cells = make_cells(tmp_path, axis, program=program)
    jobs = [scheduler.Job(cell) for cell in cells]
    scheduler.run_jobs(jobs, shares, lambda job: None)
    times = {}
    for job in jobs:
        name, cores, leads, start, end = job.log.read_text().split()
        assert (cores, leads) == (f"{{{core}}}", "True")
        times.setdefault(name, []).append((float(start), float(end)))
    assert set(times) == {"4", "5"}
    for spans in times.values():
        spans.sort()
        for (_, end), (start, _) in zip(spans, spans[1:], strict=False):
            assert end <= start  # One run at a time on each share.
    (first, *_), (second, *_) = times.values()
    assert first[0] < second[1] and second[0] < first[1]


def test_the_launcher_does_not_start_a_program_without_its_parent(tmp_path):
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
def test_a_stopped_sweep_saves_and_resumes(tmp_path, capsys, number):
    small_sweeps.set_behaviors(tmp_path, frn="wait", gn="wait")
    axis = "--norm=bn | frn | gn | rbn"
    before = signal.getsignal(number)
    with sending(tmp_path / "norm=gn" / "waiting", number):
        with pytest.raises(KeyboardInterrupt) as caught:
            run(tmp_path, axis, num_shares=2)
    assert caught.value.args == (number,)
    assert signal.getsignal(number) is before
    require_no_processes(tmp_path)
    assert "stopping: 2 runs save a checkpoint" in capsys.readouterr().out
    for name in ("norm=frn", "norm=gn"):
        assert (tmp_path / name / "saved").exists()
    found = read_results(tmp_path)
    assert {name: run["status"] for name, run in found.items()} == {
        "norm=bn": "done",
        "norm=frn": "waiting",
        "norm=gn": "waiting",
        "norm=rbn": "waiting",
    }
    assert "1 of 4 runs are done." in (tmp_path / "table.md").read_text()
    assert not read_starts(tmp_path / "norm=rbn")

    jobs = run(tmp_path, axis, num_shares=2)
    assert set(get_statuses(jobs).values()) == {"done"}
    assert [len(read_starts(tmp_path / name)) for name in jobs] == [1, 2, 2, 1]


def test_a_second_ctrl_c_kills_the_runs(tmp_path):
    small_sweeps.set_behaviors(tmp_path, bn="stubborn")
    # A second SIGTERM does not: supervisors may send several.
    numbers = [signal.SIGTERM, signal.SIGTERM, signal.SIGINT]
    start = time.monotonic()
    with sending(tmp_path / "norm=bn" / "waiting", *numbers):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, "--norm=bn")
    assert 0.3 < time.monotonic() - start < scheduler.GRACE_SECONDS / 2
    require_no_processes(tmp_path)
    assert read_results(tmp_path)["norm=bn"]["status"] == "waiting"


def test_a_run_that_does_not_save_in_time_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(scheduler, "GRACE_SECONDS", 0.2)
    small_sweeps.set_behaviors(tmp_path, bn="stubborn")
    with sending(tmp_path / "norm=bn" / "waiting", signal.SIGTERM):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, "--norm=bn")
    require_no_processes(tmp_path)


def test_a_signal_while_a_process_starts_leaves_no_process_behind(
    tmp_path, monkeypatch
):
    small_sweeps.set_behaviors(tmp_path, bn="wait", frn="wait")

    class Interrupted(subprocess.Popen):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "--norm=bn | frn")
    assert not small_sweeps.find_processes(f"{tmp_path}/")
    assert not (tmp_path / "norm=frn" / LOG).exists()


def test_a_run_that_ends_while_the_sweep_stops_is_done(tmp_path):
    small_sweeps.set_behaviors(tmp_path, bn="slow")
    with sending(tmp_path / "norm=bn" / "waiting", signal.SIGTERM):
        (job,) = run(tmp_path, "--norm=bn").values()
    assert job.status == "done"


def test_an_error_of_the_sweep_stops_its_runs(tmp_path):
    small_sweeps.set_behaviors(tmp_path, frn="wait")
    cells = make_cells(tmp_path, "--norm=bn | frn")
    jobs = [scheduler.Job(cell) for cell in cells]

    def fail(job):
        wait_for(tmp_path / "norm=frn" / "waiting")
        raise OSError("no terminal")

    with pytest.raises(OSError, match="no terminal"):
        scheduler.run_jobs(jobs, [SHARE, SHARE], fail)
    assert (tmp_path / "norm=frn" / "saved").exists()
    assert not small_sweeps.find_processes(f"{tmp_path}/")


def test_interrupts_are_counted_and_handlers_restored():
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


def test_a_folder_belongs_to_one_sweep_at_a_time(tmp_path):
    tmp_path.joinpath("norm=bn").mkdir()
    with lock_lib.acquire_lock(tmp_path, "sweep", "out"):
        message = f"in use by another sweep .process {os.getpid()}"
        with pytest.raises(RecipeError, match=message) as caught:
            run(tmp_path, "--norm=bn")
    assert "\n" not in str(caught.value)
    assert not read_starts(tmp_path / "norm=bn")
    assert not (tmp_path / "results.json").exists()


def test_workdirs_of_other_runs_are_refused_before_the_sweep_starts(tmp_path):
    run(tmp_path, "--norm=bn")
    with pytest.raises(RecipeError, match="workdir of a run.*another --out"):
        run(tmp_path / "norm=bn", "--norm=bn")
    with pytest.raises(RecipeError, match="momentum is 0.9 there and 0.5 now"):
        run(tmp_path, "--norm=frn | bn", momentum=0.5)
    assert not read_starts(tmp_path / "norm=frn")


def test_a_sweep_waits_for_the_runs_of_a_killed_sweep(tmp_path, capsys):
    (tmp_path / "norm=bn").mkdir()
    with (tmp_path / "norm=bn" / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        timer = threading.Timer(0.5, fcntl.flock, (lock, fcntl.LOCK_UN))
        timer.start()
        start = time.monotonic()
        jobs = run(tmp_path, "--norm=bn | frn")
        timer.join()
    assert time.monotonic() - start >= 0.4
    assert set(get_statuses(jobs).values()) == {"done"}
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "waiting for norm=bn to end"


def test_a_workdir_that_stays_in_use_fails_its_run_only(tmp_path, monkeypatch):
    monkeypatch.setattr(scheduler, "GRACE_SECONDS", 0.1)
    (tmp_path / "norm=bn").mkdir()
    with (tmp_path / "norm=bn" / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        jobs = run(tmp_path, "--norm=bn | frn")
    assert get_statuses(jobs) == {"norm=bn": "failed", "norm=frn": "done"}


# The program


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--vary=--nrm=bn"], "Unknown command line flag 'nrm'"),
        (
            ["--x=norm", "--vary=--seed=0|1"],
            "--x=norm is not varied. Varied flags: seed",
        ),
        (["--out="], "--out needs the name of a folder"),
        (["bn"], "unexpected argument 'bn'"),
        (["--out=file/a"], "cannot write to the workdir"),
    ],
)
def test_mistakes_print_one_line(tmp_path, arguments, message):
    (tmp_path / "file").touch()
    arguments = [a.replace("file", f"{tmp_path}/file") for a in arguments]
    out = f"--out={tmp_path / 'out'}"
    code, output, errors = small_sweeps.finish(*STAND_IN, out, *arguments)
    assert code == 1 and output == ""
    assert errors.startswith("error: ") and message in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("program", ["imagenet", "coco"])
def test_list_prints_the_commands_without_running_them(tmp_path, program):
    code, output, errors = small_sweeps.finish(
        *(f"--program={program}", "--train_steps=4", f"--out={tmp_path}/out"),
        *("--vary=--norm=bn | frn", "--list"),
    )
    assert (code, errors) == (0, "")
    assert output.splitlines() == [
        f"python recipes/{program}.py --train_steps=4 --norm={norm} "
        f"--workdir={tmp_path}/out/norm={norm}"
        for norm in ("bn", "frn")
    ]
    assert not (tmp_path / "out").exists()


def test_failed_runs_are_named_and_the_exit_code_is_1(tmp_path):
    small_sweeps.set_behaviors(tmp_path, bn="mistake")
    code, output, errors = small_sweeps.finish(
        *STAND_IN, f"--out={tmp_path}", "--vary=--norm=bn | frn", "--jobs=1"
    )
    assert code == 1
    log = tmp_path / "norm=bn" / "output.log"
    assert errors.splitlines() == [
        "error: some runs failed; the same command runs them again:",
        f"  norm=bn: exit code 1: the norm is of no use ({log})",
    ]
    assert "2/2  norm=frn  done" in output
    assert read_results(tmp_path)["norm=bn"]["status"] == "failed"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_exit_code_of_a_stopped_sweep_is_that_of_the_signal(
    tmp_path, number
):
    small_sweeps.set_behaviors(tmp_path, bn="wait")
    arguments = (*STAND_IN, f"--out={tmp_path}", "--vary=--norm=bn | frn")
    with small_sweeps.start(*arguments) as process:
        wait_for(tmp_path / "norm=bn" / "waiting", process)
        # A terminal sends it to the whole process group.
        os.killpg(process.pid, number)
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (128 + number, "")
    assert "the same command resumes the sweep" in output
    assert (tmp_path / "norm=bn" / "saved").exists()
    assert read_results(tmp_path)["norm=frn"]["status"] == "waiting"
    assert not small_sweeps.find_processes(f"{tmp_path}/")


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux' death signal")
def test_the_runs_of_a_killed_sweep_save_and_end(tmp_path):
    small_sweeps.set_behaviors(tmp_path, bn="wait")
    arguments = (*STAND_IN, f"--out={tmp_path}", "--vary=--norm=bn | frn")
    with small_sweeps.start(*arguments) as process:
        wait_for(tmp_path / "norm=bn" / "waiting", process)
        code, _, errors = small_sweeps.finish(*arguments)
        assert code == 1
        assert errors.startswith(
            f"error: {tmp_path} is in use by another sweep"
        )
        assert f"process {process.pid}" in errors
        process.kill()
    # Resumes while the run is still saving.
    code, _, errors = small_sweeps.finish(*arguments)
    assert (code, errors) == (0, "")
    assert (tmp_path / "norm=bn" / "saved").exists()
    assert len(read_starts(tmp_path / "norm=bn")) == 2
    require_no_processes(tmp_path)


def test_sweeps_and_their_help_do_not_import_tensorflow():
    # Its memory is left to the runs.
    program = (
        "import sys; from recipes import sweep; sweep.define_flags(['']); "
        "text = sweep.format_help(); "
        "assert all(f'--{name}\\n' in text for name in sweep.OWN_FLAGS); "
        "assert 'Examples' in text and '--norm\\n' not in text; "
        "assert not {'pandas', 'matplotlib'} & set(sys.modules); "
        "from recipes.experiments import gpu_assignment, grid, run_sweep; "
        "assert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_a_sweep_of_the_training_program(tmp_path):
    arguments = (
        *FAST,
        *("--train_steps=4", "--virtual_replicas=2", f"--out={tmp_path}"),
        "--vary=--norm=bn --norm_kwargs='{\"epsilon\": 1e-4}'",
    )
    code, output, errors = small_sweeps.finish(*arguments, stand_in=False)
    assert (code, errors) == (0, ""), output
    found = read_results(tmp_path)
    ((name, result),) = found.items()
    assert name == "norm=bn-norm_kwargs=_epsilon_0.0001"
    last = summary(tmp_path / name)
    assert result["accuracy"] == last["last"]["eval/accuracy"]
    assert result["loss"] == last["last"]["eval/loss"]
    assert result["num_replicas"] == 2
    assert result["examples_trained_on"] == 4 * 64
    # A process with TensorFlow takes some 500 MB.
    assert 1e8 < result["peak_memory_bytes"] == last["peak_memory_bytes"]
    assert result["seconds_per_step"] > 0
    config = json.loads((tmp_path / name / "config.json").read_text())
    assert config["norm_kwargs"] == {"epsilon": 1e-4}

    log = (tmp_path / name / LOG).read_text()
    assert log.startswith("devices: 1 CPU")
    code, output, errors = small_sweeps.finish(*arguments, stand_in=False)
    assert (code, errors) == (0, "")
    assert "1 of 1 runs were done before" in output
    assert read_results(tmp_path) == found
    assert log == (tmp_path / name / LOG).read_text()


@pytest.mark.long
def test_a_resumed_sweep_of_the_training_program_has_the_same_losses(tmp_path):
    def arguments(out):
        return (
            *FAST,
            *("--train_steps=400", "--save_every_steps=100"),
            *("--norm=frn", "--vary=--seed=0 | 1", f"--out={out}"),
        )

    code, _, errors = small_sweeps.finish(
        *arguments(tmp_path / "a"), stand_in=False
    )
    assert code == 0, errors
    saves = tmp_path / "b" / "seed=0" / "checkpoints"
    with small_sweeps.start(
        *arguments(tmp_path / "b"), stand_in=False
    ) as process:
        wait_for(saves / "step_000000100.npz", process)
        process.terminate()
        output, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (143, ""), output
    log = (tmp_path / "b" / "seed=0" / LOG).read_text()
    assert "SIGTERM: saved after step" in log
    code, _, errors = small_sweeps.finish(
        *arguments(tmp_path / "b"), stand_in=False
    )
    assert code == 0, errors
    for seed in ("seed=0", "seed=1"):
        ours, theirs = rows(tmp_path / "a" / seed), rows(tmp_path / "b" / seed)
        key = "eval/loss"
        assert [r[key] for r in ours if key in r] == [
            r[key] for r in theirs if key in r
        ]
