"""The runs behind docs/results.md: what is varied, and what is the same."""

import dataclasses

from recipes.experiments import grid as grid_lib

# Two replicas of one machine. What an evaluation does not depend on is chosen
# for speed: its batch size, the steps an execution.
SAME = {
    "dataset": "fashion_mnist",
    "model": "resnet8_cifar",
    "image_size": 28,
    "augmentation": "none",
    "virtual_replicas": 2,
    "learning_rate": 0.8,
    "train_epochs": 0.4,
    "warmup_epochs": 0.04,
    "eval_batch_size": 200,
    "steps_per_execution": 100,
    "keep": 1,
}
LARGE = "--replica_batch_size=32"
SYSTEMS = (
    "--norm=bn | sync_bn | brn | eval_norm | gn | frn | frn --activation=relu "
    "| rbn"
)
# FRN as it is, without TLU, with the mean subtracted, over groups of channels
# (GFRN), over all of them (LFRN).
PARTS = (
    "--norm=frn | frn --activation=relu "
    "| frn --norm_kwargs='{\"subtract_mean\": true}' "
    "| frn --norm_kwargs='{\"groups\": 8}' "
    "| frn --norm_kwargs='{\"groups\": 1}'"
)
# FRN that learns its epsilon where a plane has one value; one that starts it at
# 0, where its gradient is 0, so that the fixed 1e-6 is left; and two others.
EPSILONS = (
    "--norm=frn "
    '| frn --norm_kwargs=\'{"learned_epsilon_initializer": "zeros"}\' '
    "| bn | gn"
)
# Colour patches, 32 pixels wide, cut from aerial photos.
TREES = {
    **SAME,
    "dataset": "folder:{data}/trees",
    "image_size": 32,
    "augmentation": "crop_flip",
    "train_epochs": 6,
    "warmup_epochs": 0.5,
}
VGG = {**SAME, "model": "vgg_a_by8", "image_size": 32}


@dataclasses.dataclass(frozen=True)
class Grid:
    """A sweep of the evidence.

    Attributes:
        settings: Dict of what all its runs share.
        axes: What is varied, as `--vary` of recipes/sweep.py takes it.
        log_every_examples: Images from a row of the records to the next.
        x: The setting along the x axis, or None.
    """

    settings: dict
    axes: tuple
    log_every_examples: int = 3200
    x: str | None = None


GRIDS = {
    # The learning rate of all the others: the best of bn's.
    "rate": Grid(
        SAME,
        ("--norm=bn | frn", LARGE, "--learning_rate=0.2 | 0.4 | 0.8 | 1.6"),
        x="learning_rate",
    ),
    # FRN's headline: how much is lost as batches get small?
    "batch": Grid(
        SAME,
        (SYSTEMS, "--replica_batch_size=32 | 8 | 4 | 2", "--seed=0 | 1"),
        x="replica_batch_size",
    ),
    # RBN's headline: training loss and test error over the epochs.
    "curves": Grid(
        {
            **SAME,
            "train_epochs": 1,
            "warmup_epochs": 0.1,
            "eval_every_steps": 93,
        },
        ("--norm=bn | rbn", LARGE, "--seed=0 | 1 | 2"),
        log_every_examples=640,
    ),
    "trees": Grid(
        TREES,
        ("--norm=bn | rbn | frn", LARGE, "--seed=0 | 1 | 2"),
        log_every_examples=640,
    ),
    # The FRN paper's ablations.
    "parts": Grid(
        SAME,
        (
            PARTS,
            LARGE,
            "--warmup_epochs=0.04 | 0",
            "--seed=0 | 1",
        ),
        x="warmup_epochs",
    ),
    "epsilon": Grid(
        VGG,
        (
            EPSILONS,
            LARGE,
            "--seed=0 | 1",
        ),
    ),
}


def cells(grid, folder, data_dir):
    """The `grid.Cell` of all runs of a `Grid`.

    Args:
        grid: A `Grid`.
        folder: Path of its sweep.
        data_dir: Where the data is.
    """
    settings = dict(grid.settings)
    settings["dataset"] = settings["dataset"].format(data=data_dir)
    settings["data_dir"] = str(data_dir)
    return grid_lib.make(
        folder,
        settings,
        [grid_lib.parse_axis(axis) for axis in grid.axes],
        log_every_examples=grid.log_every_examples,
    )
