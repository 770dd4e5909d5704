"""The table of norms: one row for each name that `keras_norm.get` takes.

Adding a norm touches six files:

1. `keras_norm/layers/<norm>.py`: the layer. Class attributes declare how it is
   converted; `_channel_layer.ChannelLayer` lists them.
2. `keras_norm/__init__.py`: its import, which makes it public.
3. `keras_norm/norm_table.py`: its row, with its activation. The help of
   `keras-norm` and of the recipes lists the names in this table.
4. `tests/reference.py`: its formula in float64 NumPy.
5. `tests/layers/members.py`: its entries in the table of contract tests.
6. `tests/layers/test_<norm>.py`: the properties that are its own.

This module imports nothing from Keras or the package, so that programs can
list the names without starting Keras (`keras_norm_cli.norm_names`).
"""

import dataclasses
from collections.abc import Mapping

# Batch moments as the residual networks of both papers were trained with.
BATCH_DEFAULTS = {"momentum": 0.9, "epsilon": 1e-5}
# Batch Renormalization widens its limits slowly, up to rmax = 3 and dmax = 5.
# Without that schedule such limits diverge (10% on digits after 12 epochs with
# ResNet-8, where these reach 99%). These are narrow enough to start with, and
# the statistics that renormalize follow as fast as the moving ones.
RENORM_OPTIONS = {
    "renorm": True,
    "renorm_clipping": {"rmax": 1.5, "rmin": 1 / 1.5, "dmax": 0.5},
    "renorm_momentum": 0.9,
}


@dataclasses.dataclass(frozen=True)
class NormRow:
    """A row of the table.

    Attributes:
        layer: Name of the layer class.
        activation: Activation that follows the layer, `"relu"` or `"tlu"`.
        defaults: Layer arguments that replace the defaults of the class. A
            conversion prefers the values of the layer that it replaces.
        options: Layer arguments that a conversion uses as well, unless the
            caller passes others.
        fixed: Layer arguments that the caller cannot change.
    """

    layer: str
    activation: str = "relu"
    defaults: Mapping = dataclasses.field(default_factory=dict)
    options: Mapping = dataclasses.field(default_factory=dict)
    fixed: Mapping = dataclasses.field(default_factory=dict)


NORMS = {
    "bn": NormRow("BatchNormalization", defaults=BATCH_DEFAULTS),
    "sync_bn": NormRow(
        "BatchNormalization",
        defaults=BATCH_DEFAULTS,
        options={"synchronized": True},
    ),
    "brn": NormRow(
        "BatchNormalization", defaults=BATCH_DEFAULTS, options=RENORM_OPTIONS
    ),
    "eval_norm": NormRow("EvalNorm", defaults=BATCH_DEFAULTS),
    "gn": NormRow("GroupNormalization"),
    "in": NormRow("GroupNormalization", fixed={"groups": -1}),
    # Over all positions and channels of an example, the variant that both
    # papers compare with.
    "ln": NormRow("GroupNormalization", fixed={"groups": 1}),
    # With a fixed epsilon, FRN of a plane with one value is sign(x).
    "frn": NormRow(
        "FRN", activation="tlu", defaults={"learned_epsilon": "auto"}
    ),
    "rbn": NormRow("RBN", defaults=BATCH_DEFAULTS),
    "frozen": NormRow(
        "FrozenBatchNormalization",
        defaults={"epsilon": BATCH_DEFAULTS["epsilon"]},
    ),
    "none": NormRow("NoNormalization"),
}
