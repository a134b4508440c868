"""Recall at 1, 5 and 10 in both directions from embeddings: counted in tiles, against sorting and against top-k.

    OMP_NUM_THREADS=1 python -m benchmarks.retrieval --json figures.json

Peers, written from what they do: sorting the whole score matrix (with NumPy's and with PyTorch's argsort), and
CLIP_benchmark's way, top k of every row compared with one-hot rows of right answers, once for each k. All recalls are
compared before anything is timed. ``--only memory`` is our peak in a process of its own. ``docs/benchmarks.md`` says
what every column means.
"""

import argparse
import sys
from collections.abc import Callable, Iterator

import numpy as np
import torch

from benchmarks._compare import Candidate, Comparison, UnequalOutputsError, compare
from benchmarks._device import open_device
from benchmarks._report import Report, add_arguments, settings_of
from benchmarks._retrieval_work import Problem, counted, memory_row, one_hot_top_k, problem, sorted_by

__all__ = ["main"]

_SIZES = ((1000, 5000), (5000, 25_000))
_PEERS = ("NumPy", "PyTorch", "one-hot")
_LARGEST = (31_000, 155_000)


def main(arguments: list[str] | None = None) -> int:
    """Run the rows that are asked for; return 0, or 1 if recalls were unequal."""
    chosen = _parser().parse_args(arguments)
    device = open_device(chosen.device, chosen.threads)
    report = Report(device.name, headline=device.headline, threads=chosen.threads, path=chosen.json)
    try:
        for comparison in _comparisons(chosen):
            report.add(compare(comparison, settings_of(chosen), device.clock))
            sys.stdout.flush()
        if "memory" in chosen.only:
            print("\n" + memory_row((200, 1000) if chosen.quick else _LARGEST, chosen.width))
    except UnequalOutputsError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _comparisons(chosen: argparse.Namespace) -> Iterator[Comparison]:
    sizes = ((100, 500),) if chosen.quick else _SIZES
    for num_images, num_captions in sizes:
        if f"{num_images // 1000}k" in chosen.only or chosen.quick:
            yield _comparison(
                problem(num_images, num_captions, chosen.width), chosen, bar=8.0 if num_images >= 5000 else None
            )


def _comparison(given: Problem, chosen: argparse.Namespace, *, bar: float | None) -> Comparison:
    peers: dict[str, Callable[[Problem], np.ndarray]] = {
        "whole matrix sorted, NumPy": lambda given: sorted_by(given, lambda scores: np.argsort(-scores, axis=1)),
        "whole matrix sorted, PyTorch": lambda given: sorted_by(
            given, lambda scores: torch.argsort(torch.from_numpy(scores), dim=1, descending=True).numpy()
        ),
        "top k and one-hot": one_hot_top_k,
    }
    peers = {name: peer for name, peer in peers.items() if any(word in name for word in chosen.peers)}

    def differences() -> dict[str, float]:
        ours = counted(given)
        return {name: float(np.abs(peer(given) - ours).max()) for name, peer in peers.items()}

    return Comparison(
        title=f"recall@1/5/10 both ways, {len(given.images)} images x {len(given.texts)} captions",
        ours=Candidate(name="ours, counted in tiles", run=lambda: counted(given)),
        peers=[
            *(Candidate(name=name, run=_bound(peer, given)) for name, peer in peers.items()),
            Candidate(name="the product alone", run=lambda: given.images @ given.texts.T),
        ],
        differences=lambda: {**differences(), "the product alone": 0.0},
        tolerance=0.0,
        bars={} if bar is None else {name: bar for name in peers if "sorted" in name},
    )


def _bound(peer: Callable[[Problem], np.ndarray], given: Problem) -> Callable[[], object]:
    return lambda: peer(given)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.retrieval", description=__doc__)
    add_arguments(parser)
    parser.add_argument("--only", nargs="+", choices=("1k", "5k", "memory"), default=["1k", "5k", "memory"])
    parser.add_argument("--peers", nargs="+", choices=_PEERS, default=list(_PEERS), help="whom to compare with")
    parser.add_argument("--width", type=int, default=512, help="width of an embedding")
    parser.add_argument("--quick", action="store_true", help="a small set: shows that it runs, measures nothing")
    return parser


if __name__ == "__main__":
    sys.exit(main())
