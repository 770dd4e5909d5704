"""The interface between a kind of training and the code that all of them share.

An entry point names its task once and hands the object on.
"""

import abc


class Task(abc.ABC):
    """A kind of training: its data, model, metrics and reports.

    Attributes:
        training_progress: Format of a training log line; its fields are the
            names of the `train/` metrics.
        evaluation_progress: The same for the `eval/` metrics.
        panels: Tuple with the four figures of the report. Each is
            `(axis label, factor, keys)`, where `keys` maps `"train"` and
            `"eval"` to the metric that is drawn in the color of that split.
        prediction_columns: Header of the CSV file of predictions.
    """

    training_progress: str
    evaluation_progress: str
    panels: tuple
    prediction_columns: tuple

    @abc.abstractmethod
    def open_source(self, config):
        """Opens the dataset.

        Returns:
            An object with the splits `train` and `evaluation`, each with
            `num_examples`, and with `num_classes` and `num_channels`.
        """

    @abc.abstractmethod
    def training_examples(self, config, source, bad_images):
        """Returns the `ExampleReader` of training examples.

        Args:
            config: The config of the run.
            source: The dataset that `open_source` returned.
            bad_images: The `BadImages` of the run.
        """

    @abc.abstractmethod
    def evaluation_examples(self, config, source, bad_images):
        """Returns the `ExampleReader` of evaluation examples."""

    def batch_mixer(self, config, source, pipeline):
        """Returns `f(step, batch)` that mixes the examples of a batch, or None.

        Args:
            config: The config of the run.
            source: The dataset that `open_source` returned.
            pipeline: Index of the input pipeline, whose batches are mixed.
        """
        del config, source, pipeline
        return None

    @abc.abstractmethod
    def build_model(self, config, data, fit=None):
        """Builds the Keras model to train.

        Args:
            config: The config of the run.
            data: Its `Data`.
            fit: Dict of arguments of `keras_norm.convert` to fit the model of
                `--convert_to` to data, or None to copy the weights alone.
        """

    @abc.abstractmethod
    def head_layers(self, model):
        """Returns the layers that `--freeze=backbone` keeps trainable."""

    @abc.abstractmethod
    def make_trainer(self, model, config, data, pads):
        """Returns the `Trainer` of a model.

        Args:
            model: The model that `build_model` returned.
            config: The config of the run.
            data: The `Data` of the run.
            pads: Whether training batches may hold examples of weight 0.
        """

    @abc.abstractmethod
    def export(self, config, data, model):
        """Exports the model and returns a message that names the files."""

    @abc.abstractmethod
    def describe_result(self, last, best, summary):
        """Returns the result of a run as a sentence, or an empty string.

        Args:
            last: Dict of the newest value of every metric.
            best: Metrics entry of the best evaluation; may be empty.
            summary: Dict with the content of summary.json.
        """

    @abc.abstractmethod
    def describe_evaluation(self, metrics):
        """Returns the metrics of an evaluation as a line of text."""

    @abc.abstractmethod
    def report_tiles(self, last, best):
        """Returns the first figures of the report as `(name, text)` pairs."""

    @abc.abstractmethod
    def report_pictures(self, config, data):
        """Returns HTML with the pictures of the report, or an empty string."""

    @abc.abstractmethod
    def open_images(self, metadata, paths):
        """Opens images without labels for `--mode=predict`.

        Args:
            metadata: Dict of the dataset's metadata, as in summary.json.
            paths: List of image files.

        Returns:
            A dataset, as `open_source` does, whose evaluation examples are the
            images.
        """

    @abc.abstractmethod
    def image_examples(self, config, source, bad_images):
        """Returns the `ExampleReader` of images without labels.

        Its targets hold the index of the image.
        """

    @abc.abstractmethod
    def predict_batch(self, config, trainer, batch):
        """Returns the predictions for a batch as a dict of tensors.

        `indices` and `weights` are the indices of the images and 0 for the
        images that are left out.
        """

    @abc.abstractmethod
    def prediction_entry(self, config, class_names, outputs):
        """Returns the prediction for one image as a dict that JSON can hold.

        Args:
            config: The config of the run.
            class_names: Tuple of names.
            outputs: Dict of the arrays of one image, from `predict_batch`.
        """

    @abc.abstractmethod
    def prediction_rows(self, entry):
        """Returns the lines of the CSV file for a prediction entry."""
