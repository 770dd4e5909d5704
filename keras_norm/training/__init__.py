"""Training that any number of replicas does as one device would.

On the TensorFlow backend alone; nothing else of the package imports it.
"""

from keras_norm.training.nonfinite import NonFiniteError
from keras_norm.training.replica_model import ReplicaModel

__all__ = ["NonFiniteError", "ReplicaModel"]
