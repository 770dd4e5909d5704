"""The anchors of a feature pyramid: the boxes that detection starts from."""

import dataclasses
import functools

import numpy as np

from recipes.errors import RecipeError


@dataclasses.dataclass(frozen=True)
class Anchors:
    """Anchors as in RetinaNet (Lin et al. 2017, section 4).

    The map of level l has `image_size / 2**l` locations on a side, which lie
    `2**l` pixels apart, that level's stride. At each of them there is an anchor
    for every scale and ratio, centered on the location's cell.

    Attributes:
        image_size: Side of the square image, in pixels.
        min_level: The finest level.
        max_level: The coarsest level.
        size: Side of the smallest square anchor of a level, in strides.
        num_scales: Sizes of a level, evenly spaced in an octave.
        ratios: Height by width of the anchors; the area is that of the size.

    Raises:
        RecipeError: if there is no level, or the coarsest one does not divide
            the image.
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
                f"--max_level={self.max_level} lies below --min_level="
                f"{self.min_level}: a pyramid needs at least one level."
            )
        stride = 2**self.max_level
        below = self.image_size // stride * stride
        if self.image_size != below or self.image_size < stride:
            nearest = max(below, stride)
            raise RecipeError(
                f"--image_size={self.image_size} cannot be divided by the "
                f"pyramid, whose coarsest level {self.max_level} has a stride "
                f"of {stride}: choose a multiple of {stride}, such as "
                f"{nearest} or {nearest + stride}."
            )

    @property
    def levels(self):
        """The levels, from the finest to the coarsest."""
        return range(self.min_level, self.max_level + 1)

    @property
    def num_per_location(self):
        """Anchors that share a center."""
        return self.num_scales * len(self.ratios)

    @property
    def num_anchors(self):
        """Anchors of all levels together."""
        return len(self.boxes)

    def map_size(self, level):
        """Locations on a side of a level's map."""
        return self.image_size // 2**level

    @functools.cached_property
    def boxes(self):
        """float32 `(num_anchors, 4)`, in pixels of the image, read-only.

        In the order of level, row, column, scale, ratio. Anchors at the border
        reach beyond the image.
        """
        boxes = np.concatenate([self._level(level) for level in self.levels])
        boxes.setflags(write=False)
        return boxes

    def _level(self, level):
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
