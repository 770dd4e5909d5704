"""Export to ONNX with tf2onnx."""

import numpy as np

from recipes.export.signature import INPUT
from recipes.export.signature import make_signature

FILE = "model.onnx"
PACKAGES = {
    "tf2onnx": "tf2onnx",
    "onnx": "onnx",
    "onnxruntime": "onnxruntime",
}
SUPPORTS_NMS = True


def write(network, path):
    """Writes a network to a file.

    `Model.export` of Keras is not used, because it turns constant tensors of
    layers, such as the mean of `Normalization`, into inputs.
    """
    import tensorflow as tf

    from recipes import tf_internals

    (signature,) = make_signature(network)[0].values()
    names = list(network.output)

    def call(images):
        outputs = network({INPUT: images}, training=False)
        # Gives each output its own tensor, which has its name.
        return [tf.identity(outputs[name]) for name in names]

    function = tf.function(call, input_signature=[signature])
    frozen = tf_internals.freeze_variables(function.get_concrete_function())
    model = _convert_function(frozen, names, network.name)
    _keep_zero_padding_before_max_pools(model.graph)
    with open(path, "wb") as file:
        file.write(model.SerializeToString())


def load(path):
    """Returns `f(images)` that runs the exported network."""
    import onnxruntime

    session = onnxruntime.InferenceSession(
        path, providers=["CPUExecutionProvider"]
    )

    def run(images):
        names = [output.name for output in session.get_outputs()]
        outputs = session.run(names, {INPUT: images})
        return dict(zip(names, outputs, strict=True))

    return run


def _convert_function(frozen, output_names, name):
    import tensorflow as tf
    from tf2onnx import optimizer
    from tf2onnx import tf_loader
    from tf2onnx import tfonnx

    from recipes import tf_internals

    class KeepTransposes(optimizer.TransposeOptimizer):
        """Does not replace transposes of 1x1 maps by reshapes.

        The replacement uses shapes that the optimizer permuted twice if both
        factors of a product are the same tensor, as in the squares in norms.
        """

        def post_optimize_action(self):
            pass

    optimizers = tf_internals.get_onnx_optimizers()
    optimizers["optimize_transpose"] = KeepTransposes
    inputs = [frozen.inputs[0].name]
    outputs = [tensor.name for tensor in frozen.outputs]
    renamed = dict(zip(outputs, output_names, strict=True))
    with tf.device("CPU:0"):
        with tf.Graph().as_default():
            graph_def = tf_loader.tf_optimize(
                inputs, outputs, frozen.graph.as_graph_def(add_shapes=True)
            )
        with tf.Graph().as_default() as tf_graph:
            tf.import_graph_def(graph_def, name="")
            graph = tfonnx.process_tf_graph(
                tf_graph,
                input_names=inputs,
                output_names=outputs,
                tensors_to_rename={inputs[0]: INPUT, **renamed},
            )
            graph = optimizer.optimize_graph(graph, optimizers=optimizers)
            model = graph.make_model(name)
    # Removes intermediate shapes, some of which are wrong for the same reason.
    # Runtimes infer them.
    del model.graph.value_info[:]
    return model


def _keep_zero_padding_before_max_pools(graph):
    """Replaces zero padding before max pools by the smallest positive number.

    ONNX Runtime fuses zero padding into the following max pool, where the
    border never is the maximum. The result differs if all other values are
    negative, for example before the first pool of ResNet50V2. Padding with
    other numbers is not fused.
    """
    from onnx import numpy_helper

    pooled = {n.input[0] for n in graph.node if n.op_type == "MaxPool"}
    pads = [
        node
        for node in graph.node
        if node.op_type == "Pad"
        and node.output[0] in pooled
        and not any(
            a.name == "mode" and a.s != b"constant" for a in node.attribute
        )
    ]
    constants = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    smallest = np.array(np.finfo("float32").tiny, "float32")
    for node in pads:
        value = node.input[2] if len(node.input) > 2 else ""
        if value and constants[value] != 0.0:
            continue
        name = f"{node.output[0]}_padding"
        graph.initializer.append(numpy_helper.from_array(smallest, name))
        del node.input[2:3]
        node.input.insert(2, name)
