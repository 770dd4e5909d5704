"""Functions and layers of Keras 2 that Keras 3 lacks or computes differently.

They are registered, so that a model of Keras 2 that uses them can be saved and
loaded again after `import keras_norm`.
"""

import keras

PACKAGE = "keras_norm"


@keras.saving.register_keras_serializable(package=PACKAGE)
def keras2_hard_sigmoid(x):
    """Computes `hard_sigmoid` of Keras 2, `clip(0.2 * x + 0.5, 0, 1)`.

    `keras.activations.hard_sigmoid` of Keras 3 is `relu6(x + 3) / 6`, another
    function of the same name.

    Args:
        x: Float tensor of any shape.
    """
    return keras.ops.clip(0.2 * x + 0.5, 0.0, 1.0)
