"""Semantic segmentation: UPerNet on data in ADE20K's SceneParsing layout."""
