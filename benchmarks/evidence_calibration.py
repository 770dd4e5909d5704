"""What RBN's calibrations do in trained networks, on real images."""

import dataclasses

import numpy as np

NUM_IMAGES = 128
# The layer whose maps are drawn: early, where they still look like the image.
SHOWN = "stage1_block1_1_norm"


@dataclasses.dataclass(frozen=True)
class Calibration:
    """A trained network's RBN layers on some evaluation images.

    Attributes:
        rows: List of dicts a layer: `layer`; `before` and `after`, the mean
            over channels of the standard deviation around scaling calibration;
            `unequal_before` and `unequal_after`, how it differs between
            channels, as a share of that mean; `center_weight`, the mean of its
            size.
        scaling: The figure of the standard deviations.
        centering: The figure of feature maps.
    """

    rows: list
    scaling: object
    centering: object


def measure(config):
    """Runs the trained model of a run on evaluation images.

    Args:
        config: The `Config` of the run, whose workdir holds model.keras.

    Returns:
        A `Calibration`.
    """
    import keras

    from keras_norm import analysis
    from recipes.classification.task import ImageClassification
    from recipes.data import input_pipeline as data_lib

    model = keras.saving.load_model(
        config.folder / "model.keras", compile=False
    )
    images = []
    for batch, _, _ in data_lib.make_data(
        config, ImageClassification()
    ).evaluation():
        images.append(np.asarray(batch))
        if sum(map(len, images)) >= NUM_IMAGES:
            break
    images = np.concatenate(images)[:NUM_IMAGES]
    records = analysis.calibrations(model, images)
    learned = analysis.learned_values(model)
    rows = [
        {
            "layer": path,
            "before": float(record["std_before_scaling"].mean()),
            "after": float(record["std_after_scaling"].mean()),
            "unequal_before": _variation(record["std_before_scaling"]),
            "unequal_after": _variation(record["std_after_scaling"]),
            "center_weight": float(
                np.abs(learned[path]["center_weight"]).mean()
            ),
        }
        for path, record in records.items()
    ]
    shown = next((path for path in records if SHOWN in path), list(records)[0])
    return Calibration(
        rows,
        analysis.plot_scaling(records, max_layers=9),
        analysis.plot_centering(records, shown),
    )


def _variation(values):
    """Standard deviation over channels, as a share of the mean."""
    return float(values.std() / values.mean())
