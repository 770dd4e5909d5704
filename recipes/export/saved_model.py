"""Export as a TensorFlow SavedModel."""

from recipes.export.signature import INPUT
from recipes.export.signature import make_signature

FILE = ""
PACKAGES = {}
SUPPORTS_NMS = True


def write(network, path):
    """Writes a network to a folder."""
    network.export(
        path,
        format="tf_saved_model",
        input_signature=make_signature(network),
        verbose=False,
    )


def load(path):
    """Returns `f(images)` that runs the exported network."""
    import tensorflow as tf

    loaded = tf.saved_model.load(path)

    def run(images):
        # Refers to `loaded`, because the signature alone does not keep its
        # variables alive.
        serve = loaded.signatures["serving_default"]
        outputs = serve(**{INPUT: tf.constant(images)})
        return {name: value.numpy() for name, value in outputs.items()}

    return run
