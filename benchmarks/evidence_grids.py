"""The grids of runs behind docs/results.md."""

import dataclasses

from recipes.experiments import grid as grid_lib
from recipes.experiments.programs import PROGRAMS

# Two replicas on one machine. Settings that do not change the results, such as
# the batch size of the evaluation, are chosen for speed.
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
# FRN; without TLU; with the mean subtracted; over groups of channels (GFRN);
# over all channels (LFRN).
PARTS = (
    "--norm=frn | frn --activation=relu "
    "| frn --norm_kwargs='{\"subtract_mean\": true}' "
    "| frn --norm_kwargs='{\"groups\": 8}' "
    "| frn --norm_kwargs='{\"groups\": 1}'"
)
# FRN that learns its epsilon where a plane has a single value; FRN that starts
# it at 0, where its gradient is 0, so that only the fixed 1e-6 remains; others.
EPSILONS = (
    "--norm=frn "
    '| frn --norm_kwargs=\'{"learned_epsilon_initializer": "zeros"}\' '
    "| bn | gn"
)
# Color patches of 32x32 pixels from aerial photos.
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
        settings: Dict of the settings shared by all runs.
        axes: Varied settings, as values of `--vary` of recipes/sweep.py.
        log_every_examples: Number of examples between two metrics entries, or
            None.
        x: Name of the setting along the x axis, or None.
        program: Name of the training program.
    """

    settings: dict
    axes: tuple
    log_every_examples: int | None = 3200
    x: str | None = None
    program: str = "imagenet"


GRIDS = {
    # Selects the learning rate of all other grids: the best one of bn.
    "rate": Grid(
        SAME,
        ("--norm=bn | frn", LARGE, "--learning_rate=0.2 | 0.4 | 0.8 | 1.6"),
        x="learning_rate",
    ),
    # FRN's main claim: how much accuracy do small batches cost?
    "batch": Grid(
        SAME,
        (SYSTEMS, "--replica_batch_size=32 | 8 | 4 | 2", "--seed=0 | 1"),
        x="replica_batch_size",
    ),
    # RBN's main claim: training loss and test error over the epochs.
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
    "detection": Grid(
        {"preset": "trees"},
        ("--norm=frn | gn | bn | rbn",),
        log_every_examples=None,
        program="coco",
    ),
}


def make_cells(grid, folder, data_dir):
    """Makes the `grid.Cell` of all runs of a `Grid`.

    Args:
        grid: A `Grid`.
        folder: Path of its sweep.
        data_dir: Path of the data.
    """
    program = PROGRAMS[grid.program]
    settings = {**grid.settings, "data_dir": str(data_dir)}
    if "dataset" in settings:
        settings["dataset"] = settings["dataset"].format(data=data_dir)
    return grid_lib.make_cells(
        program,
        folder,
        settings,
        [grid_lib.parse_axis(axis, program) for axis in grid.axes],
        log_every_examples=grid.log_every_examples,
    )
