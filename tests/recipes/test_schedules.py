import keras
import numpy as np
import pytest

from recipes import schedules
from tests.recipes.runs import make_config


def rates(steps, num_steps=100, steps_per_epoch=10, **flags):
    config = make_config(global_batch_size=256, learning_rate=0.2, **flags)
    schedule = schedules.make(config, num_steps, steps_per_epoch)
    return [float(schedule(step)) for step in steps]


def test_cosine_goes_from_the_peak_to_zero():
    assert rates([0, 50, 100]) == pytest.approx([0.2, 0.1, 0.0], abs=1e-8)


def test_step_divides_by_ten_every_30_percent():
    expected = [0.2, 0.2, 0.02, 0.02, 0.002, 0.0002]
    got = rates([0, 30, 31, 60, 61, 91], schedule="step")
    assert got == pytest.approx(expected)


def test_constant_stays():
    assert rates([0, 99], schedule="constant") == pytest.approx([0.2, 0.2])


@pytest.mark.parametrize(
    ("shape", "quarter"), [("linear", 0.25), ("cosine", 0.1464466)]
)
def test_a_ramp_rises_from_zero_to_the_peak(shape, quarter):
    got = rates(
        [0, 5, 10, 20],
        schedule="constant",
        warmup_epochs=2,
        warmup_shape=shape,
    )
    assert got == pytest.approx([0.0, 0.2 * quarter, 0.1, 0.2], abs=1e-7)


def test_the_schedule_after_a_ramp_ends_with_the_training():
    got = rates([20, 60, 100], warmup_epochs=2)
    assert got == pytest.approx([0.2, 0.1, 0.0], abs=1e-8)


def test_steps_of_the_rate_are_counted_from_the_start_with_a_ramp():
    got = rates([30, 31], schedule="step", warmup_epochs=2)
    assert got == pytest.approx([0.2, 0.02])


def test_a_ramp_reloads():
    inner = keras.optimizers.schedules.CosineDecay(0.1, 20)
    ramp = schedules.Ramp(inner, 5, "cosine")
    again = schedules.Ramp.from_config(ramp.get_config())
    steps = np.arange(25)
    np.testing.assert_array_equal(
        [ramp(s) for s in steps], [again(s) for s in steps]
    )
