"""Name and shape of the exported input, shared by all formats."""

INPUT = "images"


def make_signature(network):
    """Returns the input signature; unknown sizes stay unknown."""
    import tensorflow as tf

    shape = (None, *network.inputs[0].shape[1:])
    return [{INPUT: tf.TensorSpec(shape, tf.float32, name=INPUT)}]
