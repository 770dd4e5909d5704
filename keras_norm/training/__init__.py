"""Training on several replicas with the results of a single device.

Requires the TensorFlow backend. The rest of the package does not import it.
"""

from keras_norm.training.nonfinite import NonFiniteError
from keras_norm.training.replica_model import ReplicaModel

__all__ = ["NonFiniteError", "ReplicaModel"]
