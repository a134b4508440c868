"""Object detection and instance segmentation: Mask R-CNN on COCO-format data."""
