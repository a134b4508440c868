"""The work of ``benchmarks.retrieval``: a problem, our recalls and those of the peers, and our peak memory.

``python -m benchmarks._retrieval_work IMAGES CAPTIONS WIDTH`` ranks once and prints three numbers: bytes resident
before the work, the most during it, and the seconds of CPU it took. A fresh process is the only honest way on a CPU,
where freed memory stays with the allocator.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from unveil_evalharness.tasks.zs_retrieval.ranking import ranks_both_ways

from benchmarks._memory import high_water_mark, resident

__all__ = ["Problem", "counted", "memory_row", "one_hot_top_k", "problem", "sorted_by"]

_AT = (1, 5, 10)


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """Unit vectors in float32, and whose caption each text is."""

    images: np.ndarray
    """[n d]"""
    texts: np.ndarray
    """[c d], in the order of the images."""
    owner: np.ndarray
    """[c]: image of each caption."""


def problem(num_images: int, num_captions: int, width: int) -> Problem:
    """Random images with captions near them: some are found at once, some late."""
    random = np.random.default_rng(0)
    images = random.standard_normal((num_images, width), dtype=np.float32)
    owner = np.arange(num_captions) * num_images // num_captions
    texts = images[owner] * 0.2 + random.standard_normal((num_captions, width), dtype=np.float32)
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    return Problem(images=images, texts=texts, owner=owner)


def counted(given: Problem) -> np.ndarray:
    """Recalls of captions, then of images, as the task `zs_retrieval` computes them."""
    number = np.arange(len(given.texts))
    captions, images = ranks_both_ways(given.images, given.texts, number, number, given.owner)
    return np.array([(ranks <= k).mean() for ranks in (captions, images) for k in _AT])


def sorted_by(given: Problem, order: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The whole score matrix and the order of every row and of every column."""
    scores = given.images @ given.texts.T
    recalls = []
    for table, right in ((np.ascontiguousarray(scores.T), given.owner[:, None]), (scores, None)):
        ranked = order(table)
        hits = ranked == right if right is not None else given.owner[ranked] == np.arange(len(table))[:, None]
        first = hits.argmax(axis=1) + 1
        recalls += [float((first <= k).mean()) for k in _AT]
    return np.array(recalls)


def one_hot_top_k(given: Problem) -> np.ndarray:
    """The whole score matrix, a matrix of right pairs, and for each k the top k as one-hot rows over all candidates."""
    scores = torch.from_numpy(given.texts) @ torch.from_numpy(given.images).T
    right = torch.zeros(scores.shape, dtype=torch.bool)
    right[torch.arange(len(given.texts)), torch.from_numpy(given.owner)] = True
    recalls = []
    for table, good in ((scores, right), (scores.T, right.T)):
        for k in _AT:
            found = torch.cat([_num_found(*rows, k) for rows in zip(table.split(64), good.split(64), strict=True)])
            recalls.append(float((found > 0).double().mean()))
    return np.array(recalls)


def _num_found(scores: torch.Tensor, right: torch.Tensor, k: int) -> torch.Tensor:
    top = torch.topk(scores, k, dim=1)[1]
    one_hot = torch.nn.functional.one_hot(top, num_classes=scores.shape[1])
    return (right[:, None, :] * one_hot).sum(dim=(1, 2))


def memory_row(size: tuple[int, int], width: int) -> str:
    """Our peak and time at this size, measured in a new process."""
    command = [sys.executable, "-m", "benchmarks._retrieval_work", *map(str, (*size, width))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    before, peak, seconds = (float(word) for word in done.stdout.split()[-3:])
    return (
        f"{size[0]} images x {size[1]} captions in a process of its own: peak {peak / 2**30:.2f} GiB, of which "
        f"{(peak - before) / 2**20:.0f} MiB are the ranking's; {seconds:.0f} s of CPU; bar 2 GB: "
        f"{'reached' if peak < 2e9 else 'missed'}"
    )


def main(words: list[str]) -> None:
    """Rank once and print the three numbers."""
    torch.set_num_threads(1)
    given = problem(*map(int, words))
    before = resident()
    begin = time.process_time()
    counted(given)
    print(before, high_water_mark(), time.process_time() - begin)


if __name__ == "__main__":
    main(sys.argv[1:])
