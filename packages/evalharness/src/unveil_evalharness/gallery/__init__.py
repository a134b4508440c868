"""Predictions as small pictures for the report: boxes, masks, label maps, retrieval hits; needs no torch."""

from unveil_evalharness.gallery.boxes import draw_boxes, draw_masks
from unveil_evalharness.gallery.canvas import ImageLike, captioned, fitted, side_by_side, to_image
from unveil_evalharness.gallery.colours import PALETTE, class_palette
from unveil_evalharness.gallery.picture import choose, to_picture
from unveil_evalharness.gallery.retrieval import retrieval_strip
from unveil_evalharness.gallery.segmentation import draw_segmentation, legend

__all__ = [
    "PALETTE",
    "ImageLike",
    "captioned",
    "choose",
    "class_palette",
    "draw_boxes",
    "draw_masks",
    "draw_segmentation",
    "fitted",
    "legend",
    "retrieval_strip",
    "side_by_side",
    "to_image",
    "to_picture",
]
