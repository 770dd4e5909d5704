"""Trains a converted model towards the outputs of the original model.

The targets are the original model's outputs, so no labels are needed. Both
models are in inference mode: dropout is off, and moving statistics stay. FRN's
epsilon is lowered meanwhile, from where the layer half normalizes to its final
value: the model is usable at every step.
"""

import dataclasses
import math
import time

import keras
import numpy as np

from keras_norm import variables
from keras_norm.calibration.annealing import EpsilonSchedule
from keras_norm.calibration.output_loss import OutputLoss
from keras_norm.calibration.output_loss import pack_inputs
from keras_norm.data.batch_inputs import take
from keras_norm.errors import ConversionError
from keras_norm.progress import show_progress

LEARNING_RATE = 1e-3
# The rate of smaller batches is lower, by the root of their size.
FULL_BATCH = 32
WARMUP = 0.05
# Parts of the training after which epsilon changes and the loss is measured.
NUM_PARTS = 50
# Held-out examples that the loss is measured on.
MAX_MEASURED = 512


@dataclasses.dataclass(frozen=True)
class DistillationResult:
    """Result of a distillation.

    Attributes:
        steps: Number of steps.
        batch_size: Number of examples in a batch.
        best_step: Step whose weights the model has: those with the smallest
            loss on held-out examples since epsilon is final; 0 if the
            calibrated weights are better.
        loss_before: Loss on the held-out examples before the first step: the
            mean squared difference of the outputs relative to their variance.
        loss_after: The same at `best_step`.
        seconds: Time in seconds.
    """

    steps: int
    batch_size: int
    best_step: int
    loss_before: float
    loss_after: float
    seconds: float

    def summary(self):
        """Returns a part of a sentence."""
        return (
            f"distilled {self.steps} steps of {self.batch_size}, best after "
            f"{self.best_step}"
        )


def distill(
    teacher, student, calibrated, fitted, held_out, steps, batch_size, annealed
):
    """Trains a converted model, whose weights are changed.

    Args:
        teacher: The original model.
        student: The converted model.
        calibrated: The converted model that the result must be better than; it
            may be `student`.
        fitted: List of arrays, the examples to train on.
        held_out: List of arrays, the examples that choose the best weights.
        steps: Number of steps.
        batch_size: Number of examples in a batch.
        annealed: List of `AnnealedLayer`.

    Returns:
        `DistillationResult`.

    Raises:
        ConversionError: if the outputs of `calibrated` are not finite.
    """
    start = time.monotonic()
    held_out = take(held_out, slice(0, MAX_MEASURED))
    loss = OutputLoss(teacher, fitted)
    expected = loss.compute(teacher, held_out)

    def measure(model):
        found = loss.compute(model, held_out)
        return float(keras.ops.convert_to_numpy(loss(expected, found)))

    schedule = EpsilonSchedule(annealed)
    before = measure(calibrated)
    best = _BestWeights(student, before)
    parts = _parts(len(loss.targets[0]), steps, batch_size)
    text = f"distilling {student.name}, {steps} steps"
    with schedule.frozen(), show_progress(text, len(parts)) as advance:
        student_model = _StudentModel(student, loss, steps, batch_size)
        done = 0
        for number, indices in enumerate(parts):
            is_final = schedule.set_progress(number / max(len(parts) - 1, 1))
            student_model.fit_part(
                take(fitted, indices), take(loss.targets, indices)
            )
            done += len(indices) // batch_size
            if is_final:
                best.update(done, measure(student))
            advance()
    best.restore()
    return DistillationResult(
        steps,
        batch_size,
        best.step,
        before,
        best.loss,
        time.monotonic() - start,
    )


class _StudentModel(keras.Model):
    """The converted model in inference mode, with a loss on its outputs."""

    def __init__(self, model, loss, steps, batch_size):
        super().__init__(name="student")
        self.model = model
        self.output_loss = loss
        self.batch_size = batch_size
        rate = LEARNING_RATE * min(1.0, math.sqrt(batch_size / FULL_BATCH))
        warmup = max(int(WARMUP * steps), 1)
        schedule = keras.optimizers.schedules.CosineDecay(
            0.0,
            decay_steps=max(steps - warmup, 1),
            warmup_target=rate,
            warmup_steps=warmup,
        )
        # XLA would compile for longer than it saves on TensorFlow.
        is_tensorflow = keras.backend.backend() == "tensorflow"
        self.compile(
            optimizer=keras.optimizers.Adam(schedule),
            jit_compile=False if is_tensorflow else "auto",
        )

    def call(self, inputs):
        return self.output_loss.undo(self.model(inputs, training=False))

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        del x, sample_weight, training
        return self.output_loss(keras.tree.flatten(y), y_pred)

    def fit_part(self, arrays, targets):
        self.fit(
            pack_inputs(self.model, arrays),
            targets,
            batch_size=self.batch_size,
            shuffle=False,
            verbose=0,
        )


class _BestWeights:
    """The weights with the smallest loss so far.

    Args:
        model: The model that is trained.
        loss: The loss to beat.

    Attributes:
        step: Step of these weights; 0 for those of the start.
        loss: Their loss.
    """

    def __init__(self, model, loss):
        if not math.isfinite(loss):
            raise ConversionError(
                "The outputs of the calibrated model are not finite on the "
                "held-out examples: it cannot be distilled."
            )
        self._variables = model.variables
        self._values = self._read()
        self.step, self.loss = 0, loss

    def update(self, step, loss):
        if loss < self.loss:
            self._values = self._read()
            self.step, self.loss = step, loss

    def restore(self):
        for variable, value in zip(self._variables, self._values, strict=True):
            variables.assign_copy(variable, value)

    def _read(self):
        return [variables.read_copy(v) for v in self._variables]


def _parts(num_examples, steps, batch_size):
    """Returns the numbers of the examples of each part, in random order."""
    generator = np.random.default_rng(0)
    size = steps * batch_size
    order = np.concatenate(
        [
            generator.permutation(num_examples)
            for _ in range(-(-size // num_examples))
        ]
    )
    edges = np.linspace(0, steps, min(NUM_PARTS, steps) + 1).astype(int)
    return np.split(order[:size], edges[1:-1] * batch_size)
