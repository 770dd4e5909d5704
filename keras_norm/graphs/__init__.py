"""The graph of a Keras model: its nodes, and the list of its calls."""
