"""Messages, files and resuming of a run, from its first step on."""

import contextlib
import errno
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import types

import keras
import pytest

if keras.backend.backend() != "tensorflow":
    pytest.skip("the recipes run on TensorFlow", allow_module_level=True)
pytest.importorskip("tensorflow_datasets")

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from recipes import imagenet  # noqa: E402
from recipes.classification import evaluation_report  # noqa: E402
from recipes.classification import examples  # noqa: E402
from recipes.classification.config import Config  # noqa: E402
from recipes.data import input_pipeline  # noqa: E402
from recipes.errors import RecipeError  # noqa: E402
from recipes.errors import explain_disk_errors  # noqa: E402
from recipes.models import pretrained  # noqa: E402
from recipes.run_dir import metrics_log  # noqa: E402
from recipes.run_dir import progress  # noqa: E402
from recipes.run_dir import recorded_run  # noqa: E402
from recipes.run_dir import run_dir  # noqa: E402
from recipes.training import checkpoints  # noqa: E402
from recipes.training import distribution  # noqa: E402
from recipes.training import multi_worker  # noqa: E402
from recipes.training import runner  # noqa: E402
from recipes.training import signals  # noqa: E402
from tests.recipes import command_line as process  # noqa: E402
from tests.recipes.command_line import parse_flags  # noqa: E402
from tests.recipes.experiments.fake_runs import write  # noqa: E402
from tests.recipes.small_runs import TASK  # noqa: E402
from tests.recipes.small_runs import make_config  # noqa: E402
from tests.recipes.small_runs import run  # noqa: E402

NUMBERS = (signal.SIGINT, signal.SIGTERM)
TWO_EPOCHS = types.SimpleNamespace(num_steps=4, steps_per_epoch=2, num_epochs=2)
CONSTANT = {"schedule": "constant", "train_steps": None, "mode": "train"}


@pytest.fixture(scope="module")
def sparse(tmp_path_factory):
    """A run of two epochs (44 steps) that logs every 50 steps."""
    folder = tmp_path_factory.mktemp("sparse") / "run"
    summary, rows = run(
        folder,
        log_every_steps=50,
        steps_per_execution=50,
        train_steps=44,
        virtual_replicas=2,
    )
    return folder, summary, rows


def test_first_step_and_every_epoch_have_an_entry(sparse):
    _, _, rows = sparse
    trained = [row["step"] for row in rows if "train/loss" in row]
    assert trained == [1, 22, 44]
    assert [r["step"] for r in rows if "eval/loss" in r] == [22, 44]


def test_summary_and_report_name_the_devices(sparse):
    folder, summary, _ = sparse
    text = "1 CPU as 2 replicas; TensorFlow sees no GPU"
    assert summary["devices"].startswith(text)
    assert (
        f"<td>{summary['devices']}</td>" in (folder / "report.html").read_text()
    )


def test_single_cpu_is_described_without_replicas(tmp_path):
    made = distribution.make_strategy(make_config(virtual_replicas=None))
    assert distribution.describe_devices(made).startswith(
        "1 CPU; TensorFlow sees no GPU"
    )


@pytest.mark.parametrize(
    ("input_rate", "waits"), [(19_000, False), (1501, False), (1499, True)]
)
def test_progress_shows_waiting_only_for_slow_input(input_rate, waits):
    bar = progress.Progress(TASK, TWO_EPOCHS, 0, input_rate)
    row = {
        "train/loss": 1.0,
        "train/accuracy": 0.5,
        "train/images_per_second": 1000.0,
        "train/input_wait": 0.36,
    }
    with bar:
        bar.show(row)
    assert ("waits 36% for input" in bar.training) == waits


def test_only_slow_input_is_reported(tmp_path, capsys, monkeypatch):
    """A whole run with 20 ms for each image.

    Input that is fast by itself is slow during training only, by chance.
    """
    read_example = examples.read_example
    measure_rate = input_pipeline.measure_rate
    now, flags = {}, {"train_steps": 5, "global_batch_size": 16}

    def wait(index):
        time.sleep(now["delay"])
        return index

    def read_slowly(split, index, *arguments):
        waited = tf.numpy_function(wait, [index], tf.int64)
        return read_example(split, tf.reshape(waited, []), *arguments)

    def measure(data):
        rate = measure_rate(data)
        now["delay"] = 0.02
        return rate

    monkeypatch.setattr(examples, "read_example", read_slowly)
    monkeypatch.setattr(input_pipeline, "measure_rate", measure)
    outputs = []
    for delay in (0.02, 0.0):
        now["delay"] = delay
        _, rows = run(tmp_path / str(delay), **flags, mode="train")
        assert rows[-1]["train/input_wait"] > 0.2
        outputs.append(capsys.readouterr().out)
    slow, fast = outputs
    assert re.search(r"images/s  waits \d+% for input\n", slow)
    assert "images/s\n" in fast and "waits" not in fast


def test_epoch_lines_stay_on_a_terminal(sparse, capsys, monkeypatch):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    with progress.Progress(TASK, TWO_EPOCHS, 0, 1e9) as bar:
        assert bar.console.is_terminal
        for step in (1, 2, 3, 4):
            bar.update(step)
            bar.show({"train/loss": float(step), "train/accuracy": 0.5})
            if step % 2 == 0:
                bar.end_epoch()
    output = capsys.readouterr().out
    assert output.count("epoch 1/2  step 2/4  loss 2.0000") == 1
    assert output.count("epoch 2/2  step 4/4  loss 4.0000") == 1


# Commands that fail before the first step


def test_failed_command_leaves_no_files(tmp_path):
    bad = make_config(
        workdir=str(tmp_path / "new" / "run"), dataset="folder:/nowhere"
    )
    with pytest.raises(RecipeError, match="/nowhere"):
        runner.run(bad, TASK)
    assert list(tmp_path.iterdir()) == []


def test_the_corrected_command_is_accepted(tmp_path):
    with pytest.raises(RecipeError, match="profile|--profile_steps"):
        run(tmp_path / "run", profile_steps="7,3")
    with pytest.raises(RecipeError):
        run(tmp_path / "run", model="nonesuch")
    assert not (tmp_path / "run").exists()
    summary, _ = run(tmp_path / "run", norm="bn", mode="train")
    assert summary["last"]["step"] == 3


@pytest.mark.parametrize("mode", ["eval", "export"])
def test_misspelled_workdir_is_not_created(sparse, mode):
    folder = sparse[0].with_name("rum")
    with pytest.raises(RecipeError) as caught:
        runner.run(make_config(workdir=str(folder), mode=mode), TASK)
    assert f"there is no run in {folder}." in str(caught.value)
    assert f"Did you mean {sparse[0]}?" in str(caught.value)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("given", "is_misspelled"),
    [
        (["--workdir=rum"], True),
        (["--workdir=rum", "--train_epochs=9"], True),
        (["--workdir=rum", "--mode=train", "--keep=3"], True),
        (["--workdir=other"], False),
        (["--workdir=rum", "--mode=eval"], False),
        (["--workdir=rum", "--preset=digits"], False),
        (["--workdir=rum", "--norm=bn"], False),
        (["--workdir=run"], False),
        (["--workdir=run", "--log_every_steps=5"], False),
    ],
)
def test_misspelled_workdir_alone_starts_no_other_run(
    sparse, monkeypatch, given, is_misspelled
):
    monkeypatch.chdir(sparse[0].parent)
    if not is_misspelled:
        parse_flags(Config, *given)
        return
    with pytest.raises(RecipeError) as caught:
        parse_flags(Config, *given)
    assert str(caught.value) == (
        "there is no run in rum. Did you mean run? Without a --dataset or "
        "--preset, --workdir resumes a run."
    )


def test_running_run_keeps_its_workdir(tmp_path):
    """The lock persists while another command in the workdir fails."""
    started, may_end = threading.Event(), threading.Event()
    errors = []

    def hold():
        from recipes.run_dir import lock

        with lock.acquire_lock(tmp_path / "run", "run", "workdir"):
            started.set()
            may_end.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    started.wait(60)
    try:
        run(tmp_path / "run", mode="train")
    except RecipeError as error:
        errors.append(str(error))
    may_end.set()
    thread.join()
    assert "is in use by another run" in errors[0]
    assert not (tmp_path / "run").exists()


# Messages after an error


def test_messages_name_a_checkpoint_only_if_it_exists(sparse, tmp_path):
    assert run_dir.describe_resumption(tmp_path) == (
        "no checkpoint was saved yet, the same command starts anew"
    )
    assert run_dir.describe_newest_checkpoint(tmp_path) == ""
    newest = checkpoints.CheckpointManager(sparse[0], keep=1).paths()[0]
    assert str(newest) in run_dir.describe_resumption(sparse[0])
    assert str(newest) in run_dir.describe_newest_checkpoint(sparse[0])


def test_nonfinite_first_loss_names_no_checkpoint(tmp_path):
    with pytest.raises(RecipeError) as caught:
        run(tmp_path / "run", learning_rate=1e38, train_steps=8, mode="train")
    assert "checkpoint" not in str(caught.value)
    assert "last save" not in str(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/x/lock"),
        OSError(errno.EROFS, os.strerror(errno.EROFS), "/x/lock"),
        tf.errors.ResourceExhaustedError(
            None, None, "/x/events; No space left on device"
        ),
        RuntimeError("Unable to write: errno 28, No space left on device"),
    ],
)
def test_full_disk_is_a_one_line_error(tmp_path, error):
    with (
        pytest.raises(RecipeError) as caught,
        explain_disk_errors(
            tmp_path, lambda: run_dir.describe_resumption(tmp_path)
        ),
    ):
        raise error
    text = str(caught.value)
    assert os.strerror(errno.ENOSPC) in text or "Read-only" in text
    assert "no checkpoint was saved yet" in text and "\n" not in text


def test_errors_recommend_only_existing_flags(tmp_path):
    image = keras.Input((8, 8, 1))
    x = keras.layers.Lambda(lambda t: t + 1.0, name="code")(image)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(image, keras.layers.Dense(10)(x))
    model.save(tmp_path / "code.keras")
    with pytest.raises(RecipeError) as caught:
        pretrained.read_model(str(tmp_path / "code.keras"), None, "float32")
    assert "unsafe" not in str(caught.value)
    assert "contains Python code" in str(caught.value)


# Damaged files


@pytest.mark.parametrize(
    "line",
    [
        b"{torn",
        b"[1]",
        b"\xff\xfe",
        b'{"epoch": 1}',
        b'{"step": 4}',
        b'{"step": 1.5, "epoch": 1}',
        b'{"step": 4, "epoch": 1, "train/loss": "x"}',
    ],
)
def test_damaged_metrics_entry_is_skipped_with_a_warning(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    good = [{"step": i, "epoch": i / 10, "train/loss": 1.0} for i in (1, 2, 3)]
    lines = [json.dumps(row).encode() for row in good]
    path.write_bytes(b"\n".join([lines[0], line, *lines[1:]]) + b"\n")
    rows, faults = metrics_log.read_metrics(path)
    assert rows == good
    assert faults == [f"{path}: line 2 is damaged and left out"]
    # A kill leaves an incomplete last line.
    path.write_bytes(b"\n".join(lines) + b"\n" + line)
    assert metrics_log.read_metrics(path) == (good, [])


def test_damaged_run_does_not_prevent_a_comparison(tmp_path):
    curve = [{"step": 1, "epoch": 1.0, "train/loss": 1.0}]
    good = write(tmp_path / "good", curve)
    bad = write(tmp_path / "bad", curve)
    (bad / "config.json").write_text("[]")
    found, faults = recorded_run.load_runs([good, bad], [Config])
    assert [r.folder for r in found] == [good]
    assert len(faults) == 1 and str(bad / "config.json") in faults[0]


@pytest.mark.parametrize(
    "damage",
    [
        b"{",
        b"[]",
        b"3",
        b"\xff",
        b'{"class_names": ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]}',
    ],
)
def test_damaged_evaluation_is_left_out_of_the_report(
    sparse, tmp_path, caplog, damage
):
    data = types.SimpleNamespace(
        source=types.SimpleNamespace(class_names=[str(i) for i in range(10)])
    )
    config = make_config(workdir=str(tmp_path))
    path = tmp_path / "evaluation.json"
    path.write_bytes(damage)
    assert evaluation_report.render_evaluation(config, data) == ""
    assert f"{path} is damaged" in caplog.text or damage == b"[]"


def test_checkpoint_with_a_flipped_bit_is_read_or_an_error(tmp_path):
    """ZIP archives have bits for encryption, compression and patches."""
    made = checkpoints.CheckpointManager(tmp_path, 2)
    arrays = {"a": np.arange(3.0), "b": np.arange(4)}
    made.save(arrays, {"step": 1, "seconds": 0.0}, None)
    path = made.path(1)
    good = path.read_bytes()
    names = []
    # These bits are in the directory at the end of the file.
    for place in range(good.index(b"PK\x01\x02"), len(good)):
        for bit in range(8):
            bad = bytearray(good)
            bad[place] ^= 1 << bit
            path.write_bytes(bad)
            try:
                found = checkpoints.read_checkpoint(path, arrays).arrays
            except RecipeError as error:
                names.append("\n" in str(error))
                continue
            for name, array in arrays.items():
                np.testing.assert_array_equal(found[name], array)
    assert len(names) > 500 and not any(names)


def test_compressed_checkpoint_with_a_flipped_bit_is_read_or_an_error(
    tmp_path,
):
    path = tmp_path / "step_000000001.npz"
    text = np.frombuffer(b'{"step": 1, "seconds": 0.0}', np.uint8)
    array = np.arange(100.0)
    members = {checkpoints.METADATA_MEMBER: text, "a": array}
    np.savez_compressed(path, **members)
    good = path.read_bytes()
    for place in range(len(good) // 4, len(good) // 2):
        bad = bytearray(good)
        bad[place] ^= 8
        path.write_bytes(bad)
        with contextlib.suppress(RecipeError):
            found = checkpoints.read_checkpoint(path, ["a"]).arrays["a"]
            np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("facts", [[], {}, {"step": "1", "seconds": 0.0}])
def test_checkpoint_without_a_step_is_an_error(tmp_path, facts):
    path = tmp_path / "step_000000001.npz"
    text = np.frombuffer(json.dumps(facts).encode(), np.uint8)
    np.savez(path, **{checkpoints.METADATA_MEMBER: text, "a": np.ones(1)})
    with pytest.raises(RecipeError, match="cannot be read"):
        checkpoints.read_checkpoint(path, ["a"])


# Longer training


def test_lengthened_run_equals_a_long_run(tmp_path):
    # Step 33, the last one of the shorter run, is not logged in a longer one.
    for folder, epochs in (("two", 1.5), ("two", 2), ("one", 2)):
        run(
            tmp_path / folder,
            **CONSTANT,
            train_epochs=epochs,
            log_every_steps=8,
        )
    first, second = (
        [
            {
                k: v
                for k, v in row.items()
                if "second" not in k and "wait" not in k
            }
            for row in recorded_run.load_run(tmp_path / name, [Config]).entries
        ]
        for name in ("one", "two")
    )
    steps = [row["step"] for row in first]
    assert first == second and steps == [1, 8, 16, 22, 24, 32, 40, 44]
    weights = [
        keras.saving.load_model(tmp_path / name / "model.keras").get_weights()
        for name in ("one", "two")
    ]
    for ours, theirs in zip(*weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_error_on_lengthening_names_the_model_to_start_from(sparse):
    folder, *_ = sparse
    with pytest.raises(RecipeError) as caught:
        run(folder, log_every_steps=50, train_steps=66)
    assert f"--init_model={folder / 'model.keras'}" in str(caught.value)
    assert "--schedule=constant" in str(caught.value)


# Ctrl-C


def test_ctrl_c_saves_and_the_run_resumes_unchanged(tmp_path):
    arguments = (*process.FAST, "--train_steps=400", "--mode=train")
    workdir = f"--workdir={tmp_path / 'run'}"
    # Background jobs and their children ignore Ctrl-C.
    outside = signal.signal(signal.SIGINT, signal.default_int_handler)
    started = process.start(*arguments, workdir)
    signal.signal(signal.SIGINT, outside)
    with started:
        metrics = tmp_path / "run" / "metrics.jsonl"
        end = time.monotonic() + 120
        while not metrics.exists() and time.monotonic() < end:
            time.sleep(0.05)
        started.send_signal(signal.SIGINT)
        output, errors = started.communicate(timeout=120)
    assert (started.returncode, errors) == (130, "")
    assert "Ctrl-C: saved after step" in output
    (newest, *_) = checkpoints.CheckpointManager(
        tmp_path / "run", keep=1
    ).paths()
    assert f"the same command resumes from {newest}" in output
    assert "devices: 1 CPU" in output.splitlines()[0]
    imagenet.run(parse_flags(Config, *arguments, workdir))
    steps = [
        row["step"]
        for row in recorded_run.load_run(tmp_path / "run", [Config]).entries
    ]
    assert steps == list(range(1, 401))


def test_second_ctrl_c_ends_the_process_at_once():
    """Python is busy in C code, as while TensorFlow computes."""
    code = (
        "import hashlib\n"
        "from recipes.classification.config import Config\n"
        "from recipes.training import signals\n"
        "with signals.exit_on_interrupt(Config()), signals.Preemption():\n"
        "    print('on', flush=True)\n"
        "    hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)\n"
    )
    outside = signal.signal(signal.SIGINT, signal.default_int_handler)
    started = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        cwd=process.ROOT,
    )
    signal.signal(signal.SIGINT, outside)
    with started:
        try:
            started.stdout.readline()
            started.send_signal(signal.SIGINT)
            with pytest.raises(subprocess.TimeoutExpired):
                started.wait(2 * signals.GRACE_SECONDS)
            started.send_signal(signal.SIGINT)
            assert started.wait(20 * signals.GRACE_SECONDS) == 130
        finally:
            started.kill()


@pytest.mark.parametrize("number", NUMBERS)
def test_signal_during_an_import_ends_the_process(tmp_path, number):
    """An exception inside the import of a C++ library crashes it."""
    (tmp_path / "tensorflow.py").write_text(
        "import os, time\n"
        "print('importing', flush=True)\n"
        "try: time.sleep(60)\n"
        "except BaseException: os.abort()\n"
    )
    code = (
        "import sys\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "from absl import flags\n"
        "from recipes import imagenet\n"
        "imagenet.recipe_flags.define_flags('', imagenet.Config)\n"
        "flags.FLAGS(['imagenet.py', '--workdir=no/run'])\n"
        "imagenet.main(['imagenet.py'])\n"
    )
    outside = signal.signal(signal.SIGINT, signal.default_int_handler)
    started = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=process.ROOT,
        text=True,
    )
    signal.signal(signal.SIGINT, outside)
    with started:
        started.stdout.readline()
        started.send_signal(number)
        output, errors = started.communicate(timeout=60)
    assert (started.returncode, errors) == (128 + number, "")
    assert output == (
        "\nstopped; no checkpoint was saved yet, the same command starts anew\n"
    )


def test_first_signal_counts_among_deferred_ones():
    with signals.DeferredInterrupts() as interrupts:
        assert not interrupts.requested
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert interrupts.requested and interrupts.num_keys == 1
        assert interrupts.number == signal.SIGTERM


def test_worker_names_no_checkpoint_that_only_the_chief_has(
    tmp_path, monkeypatch
):
    config = make_config(strategy="multi_worker", workdir=str(tmp_path))
    for index in (0, 1):
        monkeypatch.setenv("TF_CONFIG", process.cluster((2222, 2223), index))
        text = signals.describe_resumption(config)
        assert ("no checkpoint was saved yet" in text) == (index == 0)
        assert ("the checkpoint of the chief" in text) == (index == 1)


def test_worker_exits_after_another_one_was_interrupted(capsys):
    config = make_config()
    with (
        pytest.raises(SystemExit) as caught,
        signals.exit_on_interrupt(config),
    ):
        raise signals.Preempted(7, None)
    assert caught.value.code == 128 + signal.SIGTERM
    output = capsys.readouterr().out
    assert "another worker was interrupted: saved after step 7; " in output


def test_waiting_worker_says_so_and_can_be_ended(monkeypatch):
    seen = []

    def wait():
        seen.append([signal.getsignal(number) for number in NUMBERS])
        raise RuntimeError("no port")

    monkeypatch.setenv("TF_CONFIG", process.cluster((2222, 2223), 1))
    monkeypatch.setattr(tf.distribute, "MultiWorkerMirroredStrategy", wait)
    config = make_config(strategy="multi_worker", virtual_replicas=None)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(RecipeError, match="could not start: no port"):
            distribution.make_strategy(config)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    # Python runs no handlers while TensorFlow waits: the system must end it.
    assert seen == [[signal.SIG_DFL, signal.SIG_DFL]]
    assert multi_worker.read_workers("multi_worker").describe() == (
        "worker 1 of 2: waiting for 127.0.0.1:2222"
    )


def test_length_flags_alone_resume_the_stored_run(tmp_path):
    """`--workdir=... --train_epochs=2` uses the other stored settings."""
    run(tmp_path / "run", **CONSTANT, train_epochs=1)
    config = parse_flags(
        Config, f"--workdir={tmp_path / 'run'}", "--train_epochs=2"
    )
    assert (config.dataset, config.schedule) == ("digits", "constant")
    assert config.train_epochs == 2
