"""Any shape, axis, dtype and mask, against the oracle."""

import hypothesis
import keras
import numpy as np
import pytest
from hypothesis import strategies
from hypothesis.extra import numpy as arrays

from tests.layers.members import MEMBERS
from tests.layers.members import weights_of

NAMES = [name for name in MEMBERS if name != "rbn_function"]
NUM_CHANNELS = 6  # 1, 2 and 3 groups divide them
settings = hypothesis.settings(
    # JAX compiles every operation anew for every shape.
    max_examples=4 if keras.backend.backend() == "jax" else 15,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(hypothesis.HealthCheck),
)


@strategies.composite
def cases(draw):
    """Inputs with channels last, the axis to move them to, and a mask."""
    num_positions = draw(strategies.integers(1, 3))
    sizes = draw(
        strategies.lists(
            strategies.integers(1, 6),
            min_size=num_positions,
            max_size=num_positions,
        )
    )
    batch_size = draw(strategies.integers(1, 4))
    shape = (batch_size, *sizes, NUM_CHANNELS)
    dtype = draw(strategies.sampled_from(["float32", "float64"]))
    values = strategies.floats(-100.0, 100.0, width=32)
    x = draw(arrays.arrays(dtype, shape, elements=values))
    axis = draw(strategies.integers(1, len(shape) - 1))
    if draw(strategies.booleans()):
        axis -= len(shape)
    mask = None
    if draw(strategies.booleans()):
        mask = draw(arrays.arrays(bool, shape[:-1]))
    return x, axis, mask, draw(strategies.booleans())


@pytest.mark.filterwarnings("ignore:FRN .* sees 1x1 maps:UserWarning")
@pytest.mark.parametrize("name", NAMES)
@settings
@hypothesis.given(case=cases())
def test_every_member_equals_the_oracle(name, case):
    x, axis, mask, training = case
    member = MEMBERS[name]
    # This epsilon keeps the formulas well conditioned: the test compares
    # arithmetic, and a plane of equal values would have variance 0.
    kwargs = {"epsilon": 1e-2} if member.normalizes else {}
    moved = np.moveaxis(x, -1, axis)
    layer = member.build(moved.shape, axis=axis, dtype=str(x.dtype), **kwargs)
    call = {"training": training}
    if member.normalizes:
        call["mask"] = mask
    expected = member.expected(x, weights_of(layer), **call, **kwargs)
    output = keras.ops.convert_to_numpy(layer(moved, **call))
    output = np.moveaxis(output, axis, -1)
    assert output.dtype == x.dtype
    rtol = 1e-9 if x.dtype == "float64" else 2e-4
    scale = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(output, expected, rtol=rtol, atol=rtol * scale)
