import pytest
import tensorflow as tf

from recipes.errors import RecipeError
from recipes.training import distribution
from tests.recipes.small_runs import make_config


def make(**flags):
    return distribution.make_strategy(
        make_config(virtual_replicas=None, **flags)
    )


def test_cpu_has_one_replica_by_default():
    assert make().num_replicas_in_sync == 1


@pytest.mark.parametrize("num_replicas", [1, 2, 4])
def test_mirrored_strategy_has_the_requested_replicas(num_replicas):
    made = make(num_replicas=num_replicas)
    assert isinstance(made, tf.distribute.MirroredStrategy)
    assert made.num_replicas_in_sync == num_replicas


def test_one_device_has_one_replica():
    made = make(strategy="one_device")
    assert isinstance(made, tf.distribute.OneDeviceStrategy)
    with pytest.raises(RecipeError, match="--num_replicas=2"):
        make(strategy="one_device", num_replicas=2)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"num_replicas": 5}, "5 replicas .* 4 of kind CPU are available"),
        ({"num_replicas": 3}, "64 cannot be split evenly over 3"),
    ],
)
def test_unavailable_replicas_are_an_error(flags, message):
    with pytest.raises(RecipeError, match=message):
        make(**flags)


def test_initialized_cpu_cannot_be_split():
    with pytest.raises(RecipeError, match="--virtual_replicas=8"):
        distribution.make_strategy(make_config(virtual_replicas=8))
