"""Measures RBN's calibrations in trained networks, on real images."""

import numpy as np

NUM_IMAGES = 128
# The layer whose maps are drawn: an early one, whose maps resemble the image.
SHOWN = "stage1_block1_1_norm"


def measure(config):
    """Runs the trained model of a run on evaluation images.

    Args:
        config: The run's config; its workdir contains model.keras.

    Returns:
        List with a dict per RBN layer: `layer`; `before` and `after`, the mean
        over channels of the standard deviation around scaling calibration;
        `unequal_before` and `unequal_after`, its deviation between channels
        relative to that mean; `center_weight`, the mean of its absolute values.
        Then the figure of the standard deviations, and one of feature maps.
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
    return (
        rows,
        analysis.plot_scaling(records, max_layers=9),
        analysis.plot_centering(records, shown),
    )


def _variation(values):
    """Computes the standard deviation over channels, relative to the mean."""
    return float(values.std() / values.mean())
