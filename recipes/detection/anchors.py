"""Anchor boxes of a feature pyramid."""

import dataclasses
import functools

import numpy as np

from recipes.errors import RecipeError


@dataclasses.dataclass(frozen=True)
class Anchors:
    """Anchors as in RetinaNet (Lin et al. 2017, section 4).

    The feature map of level l has `image_size / 2**l` locations per side with a
    stride of `2**l` pixels. Each location has an anchor for every scale and
    ratio, centered on the location's cell.

    Attributes:
        image_size: Side of the square image, in pixels.
        min_level: The finest level.
        max_level: The coarsest level.
        size: Side of a level's smallest square anchor, in strides.
        num_scales: Number of sizes per level, evenly spaced in an octave.
        ratios: Ratios of height to width. The area depends only on the size.

    Raises:
        RecipeError: if there is no level, or `image_size` is not a multiple of
            the coarsest level's stride.
    """

    image_size: int
    min_level: int
    max_level: int
    size: float = 4.0
    num_scales: int = 3
    ratios: tuple = (0.5, 1.0, 2.0)

    def __post_init__(self):
        if self.max_level < self.min_level:
            raise RecipeError(
                "--max_level must be at least --min_level. "
                f"Received: max_level={self.max_level}, "
                f"min_level={self.min_level}"
            )
        stride = 2**self.max_level
        lower = self.image_size // stride * stride
        if self.image_size != lower or self.image_size < stride:
            nearest = max(lower, stride)
            raise RecipeError(
                f"--image_size must be a multiple of {stride}, the stride of "
                f"the coarsest level {self.max_level}, such as {nearest} or "
                f"{nearest + stride}. Received: image_size={self.image_size}"
            )

    @property
    def levels(self):
        """The levels, from the finest to the coarsest."""
        return range(self.min_level, self.max_level + 1)

    @property
    def num_per_location(self):
        """Number of anchors per location."""
        return self.num_scales * len(self.ratios)

    @property
    def num_anchors(self):
        """Number of anchors on all levels."""
        return len(self.boxes)

    def map_size(self, level):
        """Returns the number of locations per side of a level."""
        return self.image_size // 2**level

    @functools.cached_property
    def boxes(self):
        """Read-only float32 `(num_anchors, 4)`, in pixels of the image.

        Ordered by level, row, column, scale and ratio. Anchors at the border
        extend beyond the image.
        """
        boxes = np.concatenate(
            [self._make_level(level) for level in self.levels]
        )
        boxes.setflags(write=False)
        return boxes

    def _make_level(self, level):
        stride, num_cells = 2**level, self.map_size(level)
        sides = (
            self.size
            * stride
            * 2 ** np.linspace(0, 1, self.num_scales, endpoint=False)
        )
        roots = np.sqrt(np.array(self.ratios, np.float64))
        sizes = np.stack([np.outer(sides, roots), np.outer(sides, 1 / roots)])
        halves = sizes.reshape(2, -1).T / 2
        centers = (np.arange(num_cells) + 0.5) * stride
        grid = np.stack(np.meshgrid(centers, centers, indexing="ij"), axis=-1)
        grid = grid.reshape(-1, 1, 2)
        boxes = np.concatenate([grid - halves, grid + halves], axis=-1)
        return boxes.reshape(-1, 4).astype(np.float32)
