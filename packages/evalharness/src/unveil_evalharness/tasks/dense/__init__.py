"""What detection and segmentation share: the encoder as an OpenMMLab backbone, its gates, and fixed subsets."""
