"""The table of layers that every contract test runs over."""

import dataclasses
import functools
from collections.abc import Callable
from collections.abc import Mapping

import keras
import numpy as np
import pytest

from keras_norm import FRN
from keras_norm import RBN
from keras_norm import TLU
from keras_norm import BatchNormalization
from keras_norm import EvalNorm
from keras_norm import FrozenBatchNormalization
from keras_norm import GroupNormalization
from tests import reference


@keras.saving.register_keras_serializable(package="keras_norm_tests")
def largest(x, axis, keepdims):
    return keras.ops.max(x, axis=axis, keepdims=keepdims)


@dataclasses.dataclass(frozen=True)
class Member:
    """A layer with arguments, and what its formula needs to know of them."""

    cls: type
    oracle: Callable
    kwargs: Mapping = dataclasses.field(default_factory=dict)
    oracle_kwargs: Mapping = dataclasses.field(default_factory=dict)
    uses_batch: bool = False
    normalizes: bool = True

    def build(self, shape, **kwargs):
        """A built layer whose weights all hold different values."""
        layer = self.cls(**{**self.kwargs, **kwargs})
        layer.build(shape)
        generator = np.random.default_rng(1)
        for weight in layer.variables:
            low, high = 0.5, 1.5
            if weight.name in ("mean_mix", "variance_mix"):
                low, high = 0.2, 0.8
            if weight.name in ("beta", "tau", "moving_mean", "alpha"):
                low, high = -0.5, 0.5
            if weight.name in ("center_weight", "scale_weight"):
                low, high = -1.0, 1.0
            weight.assign(generator.uniform(low, high, weight.shape))
        return layer

    def expected(self, x, weights, **kwargs):
        if self.uses_batch:
            kwargs.setdefault("training", False)
        else:
            kwargs.pop("training", None)
        return self.oracle(
            np.asarray(x, np.float64), weights, **self.oracle_kwargs, **kwargs
        )


def weights_of(layer):
    """The layer's weights by name, as float64 arrays."""
    return {
        v.name: keras.ops.convert_to_numpy(v).astype(np.float64)
        for v in layer.variables
    }


def _rbn(**kwargs):
    oracle_kwargs = {
        key: "max" if callable(value) else value
        for key, value in kwargs.items()
    }
    uses_batch = kwargs.get("statistics", "batch") == "batch"
    return Member(RBN, reference.rbn, kwargs, oracle_kwargs, uses_batch)


def _frn(**kwargs):
    known = ("groups", "subtract_mean")
    oracle_kwargs = {k: v for k, v in kwargs.items() if k in known}
    return Member(FRN, reference.frn, kwargs, oracle_kwargs)


def _tlu(**kwargs):
    oracle_kwargs = {k: v for k, v in kwargs.items() if k == "max_value"}
    return Member(TLU, reference.tlu, kwargs, oracle_kwargs, normalizes=False)


MEMBERS = {
    "frn": _frn(),
    "frn_tlu": _frn(activation="tlu"),
    "frn_scalar_epsilon": _frn(learned_epsilon=True),
    "frn_channel_epsilon": _frn(learned_epsilon="channel", activation="tlu"),
    "frn_no_affine": _frn(center=False, scale=False),
    "frn_tlu_no_affine": _frn(center=False, scale=False, activation="tlu"),
    "gfrn": _frn(groups=3),
    "lfrn": _frn(groups=1, activation="tlu"),
    "frn_centered": _frn(subtract_mean=True, activation="tlu"),
    "gfrn_centered": _frn(groups=1, subtract_mean=True),
    "tlu": _tlu(),
    "tlu_affine": _tlu(affine=True),
    "tlu_capped": _tlu(max_value=0.7),
    "tlu_affine_capped": _tlu(affine=True, max_value=0.7),
    "bn": Member(BatchNormalization, reference.batch_norm, uses_batch=True),
    "frozen": Member(
        FrozenBatchNormalization,
        functools.partial(reference.batch_norm, training=False),
    ),
    "eval_norm": Member(EvalNorm, reference.eval_norm, uses_batch=True),
    "gn": Member(GroupNormalization, reference.group_norm),
    "rbn": _rbn(),
    "rbn_std": _rbn(center_statistic="std", scale_statistic="std"),
    "rbn_function": _rbn(center_statistic=largest, scale_statistic=largest),
    "rbn_center_only": _rbn(scale_statistic=None),
    "rbn_scale_only": _rbn(center_statistic=None),
    "rbn_instance": _rbn(statistics="instance", center_statistic=None),
    "rbn_group": _rbn(statistics="group", groups=1),
}

each_member = pytest.mark.parametrize("name", MEMBERS)
each_batch_member = pytest.mark.parametrize(
    "name", [name for name, member in MEMBERS.items() if member.uses_batch]
)
# Inference differs from training only in layers that use the batch.
each_member_and_mode = pytest.mark.parametrize(
    ("name", "training"),
    [
        (name, training)
        for name, member in MEMBERS.items()
        for training in ((False, True) if member.uses_batch else (True,))
    ],
)
