import keras
import numpy as np
import pytest

from recipes.errors import RecipeError
from recipes.training import learning_rate
from tests.recipes.small_runs import make_config


def rates(steps, num_steps=100, steps_per_epoch=10, **flags):
    config = make_config(
        **{"global_batch_size": 256, "learning_rate": 0.2, **flags}
    )
    schedule = learning_rate.make_schedule(config, num_steps, steps_per_epoch)
    return [float(schedule(step)) for step in steps]


def test_cosine_decays_from_the_peak_to_zero():
    assert rates([0, 50, 100]) == pytest.approx([0.2, 0.1, 0.0], abs=1e-8)


@pytest.mark.parametrize(
    ("schedule", "middle"), [("cosine", 0.11), ("polynomial", 0.02 + 0.18 / 8)]
)
def test_final_learning_rate_is_reached(schedule, middle):
    got = rates(
        [0, 50, 100, 120],
        schedule=schedule,
        end_learning_rate=0.02,
        polynomial_power=3.0,
    )
    assert got == pytest.approx([0.2, middle, 0.02, 0.02], rel=1e-5)


def test_polynomial_of_power_one_is_linear():
    got = rates([0, 25, 100], schedule="polynomial", polynomial_power=1.0)
    assert got == pytest.approx([0.2, 0.15, 0.0], abs=1e-8)


@pytest.mark.parametrize("schedule", ["cosine", "polynomial"])
def test_peak_and_end_scale_with_the_global_batch(schedule):
    got = rates(
        [0, 100],
        schedule=schedule,
        end_learning_rate=0.02,
        global_batch_size=1024,
    )
    assert got == pytest.approx([0.8, 0.08], rel=1e-5)


def test_final_rate_above_the_peak_is_an_error():
    with pytest.raises(RecipeError, match="end_learning_rate=0.3"):
        rates([0], end_learning_rate=0.3)


def test_learning_rate_of_zero_stays_zero():
    assert rates([0, 50, 100], learning_rate=0.0) == [0.0, 0.0, 0.0]


def test_step_divides_by_ten_every_30_percent():
    expected = [0.2, 0.2, 0.02, 0.02, 0.002, 0.0002]
    got = rates([0, 30, 31, 60, 61, 91], schedule="step")
    assert got == pytest.approx(expected)


def test_constant_schedule_is_constant():
    assert rates([0, 99], schedule="constant") == pytest.approx([0.2, 0.2])


@pytest.mark.parametrize(
    ("shape", "quarter"), [("linear", 0.25), ("cosine", 0.1464466)]
)
def test_warmup_rises_from_zero_to_the_peak(shape, quarter):
    got = rates(
        [0, 5, 10, 20],
        schedule="constant",
        warmup_epochs=2,
        warmup_shape=shape,
    )
    assert got == pytest.approx([0.0, 0.2 * quarter, 0.1, 0.2], abs=1e-7)


def test_schedule_after_warmup_ends_with_training():
    got = rates([20, 60, 100], warmup_epochs=2)
    assert got == pytest.approx([0.2, 0.1, 0.0], abs=1e-8)


def test_step_boundaries_include_the_warmup():
    got = rates([30, 31], schedule="step", warmup_epochs=2)
    assert got == pytest.approx([0.2, 0.02])


def test_step_boundaries_within_the_warmup_follow_it():
    got = rates([70, 71, 90, 91], schedule="step", warmup_epochs=7)
    assert got == pytest.approx([0.2, 0.002, 0.002, 0.0002])


@pytest.mark.parametrize("shape", ["linear", "cosine"])
@pytest.mark.parametrize("schedule", ["cosine", "polynomial"])
def test_warmup_ends_at_the_first_value_of_each_schedule(schedule, shape):
    flags = {"schedule": schedule, "end_learning_rate": 0.02}
    got = rates([20, 60, 100], warmup_epochs=2, warmup_shape=shape, **flags)
    expected = rates([0, 40, 80], num_steps=80, **flags)
    assert got == pytest.approx(expected, rel=1e-5)


def test_warmup_reloads():
    inner = keras.optimizers.schedules.CosineDecay(0.1, 20)
    ramp = learning_rate.Warmup(inner, 5, "cosine")
    again = learning_rate.Warmup.from_config(ramp.get_config())
    steps = np.arange(25)
    np.testing.assert_array_equal(
        [ramp(s) for s in steps], [again(s) for s in steps]
    )


@pytest.mark.parametrize(
    "schedule", ["cosine", "polynomial", "step", "constant"]
)
@pytest.mark.parametrize("warmup_epochs", [0, 2])
def test_description_matches_the_schedule(schedule, warmup_epochs):
    config = make_config(
        schedule=schedule,
        warmup_epochs=warmup_epochs,
        learning_rate=0.4,
        end_learning_rate=0.02,
        global_batch_size=64,
    )
    rates = learning_rate.make_schedule(config, 1000, 100)
    text = learning_rate.describe_schedule(config, 1000, 100)
    peak = "Peak 0.1 = --learning_rate 0.4 * global batch 64 / 256."
    assert text.startswith(peak)
    start = 100 * warmup_epochs
    np.testing.assert_allclose(rates(start), 0.1, rtol=1e-6)
    if warmup_epochs:
        assert "Rises from 0 over 200 steps (2 epochs, cosine), then" in text
        assert rates(0) == 0.0
    end, words = {
        "cosine": (0.005, "a cosine to 0.005 at step 1,000"),
        "polynomial": (0.005, "polynomial of power 2 to 0.005 at step 1,000"),
        "step": (0.0001, "a tenth of it every 30% of 1,000 steps"),
        "constant": (0.1, "constant to step 1,000"),
    }[schedule]
    assert words in text
    np.testing.assert_allclose(rates(1000), end, rtol=1e-5)
