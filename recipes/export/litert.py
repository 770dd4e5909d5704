"""Export to LiteRT, formerly TensorFlow Lite."""

from recipes.export.signature import INPUT
from recipes.export.signature import make_signature

FILE = "model.tflite"
PACKAGES = {"ai_edge_litert": "ai-edge-litert"}
SUPPORTS_NMS = False


def write(network, path):
    """Writes a network to a file that needs built-in operations only."""
    import tensorflow as tf

    # TensorFlow's own operations would need a larger runtime.
    builtins = {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]}
    network.export(
        path,
        format="litert",
        input_signature=make_signature(network),
        verbose=False,
        target_spec=builtins,
    )


def load(path):
    """Returns `f(images)` that runs the exported network."""
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(path).get_signature_runner()
    return lambda images: runner(**{INPUT: images})
