"""Image embeddings and class vectors of a checkpoint's towers."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from unveil_evalharness.tasks.zs_classification.metrics import class_vectors
from unveil_evalharness.tasks.zs_classification.prompts import Template
from unveil_evalharness.tasks.zs_retrieval.model import PairEmbedder

__all__ = ["PairEmbedder", "embed_classes"]


def embed_classes(
    embedder: PairEmbedder, names: Sequence[str], templates: Sequence[Template]
) -> Float[np.ndarray, "c d"]:
    """One unit vector per class name: see `metrics.class_vectors`."""
    texts = [template(name) for name in names for template in templates]
    return class_vectors(embedder.texts(texts).reshape(len(names), len(templates), -1))
