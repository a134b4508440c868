"""Requests and speed of reading shards from an S3-compatible server on this machine, against the same files on disk.

    OMP_NUM_THREADS=1 python -m benchmarks.object_storage --samples 256 --threads 1 4

The server is moto's, written in Python and run in this process: the speeds are those of a reader that shares its cores
with a slow store, and a lower bound for a real one. The numbers of requests and bytes are exact.
"""

import argparse
import io
import logging
import os
import secrets
import tarfile
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import boto3
import numpy as np
from moto.server import ThreadedMotoServer
from unveil_pretrain.data import ShardDataset

__all__ = ["main"]

_NUM_SHARDS = 4
_BUCKET = "bench"


def main(arguments: list[str] | None = None) -> int:
    """Print what was counted and timed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=256, help="in four shards")
    parser.add_argument("--bytes", type=int, default=110_000, help="of each sample, about ImageNet's mean")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 4], help="that read at once")
    parser.add_argument("--rounds", type=int, default=3, help="of which the median is printed")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as place, _server() as (endpoint, requests):
        _write_shards(Path(place), endpoint, chosen.samples, chosen.bytes)
        names = f"train-{{0..{_NUM_SHARDS - 1}}}.tar"
        requests.clear()
        remote = ShardDataset(f"s3://{_BUCKET}/{names}")
        print(f"opening   {len(requests)} requests for {_NUM_SHARDS} shards, {len(remote):,} samples")
        requests.clear()
        read = sum(len(content) for files in remote for content in files.values())
        print(f"reading   {len(requests) / len(remote):.3f} requests a sample, {read / len(remote):,.0f} bytes of it")
        for name, dataset in (("disk", ShardDataset(f"{place}/{names}")), ("store", remote)):
            for threads in chosen.threads:
                speed = np.median([_speed(dataset, threads) for _ in range(chosen.rounds)])
                print(f"{name:9s} {threads:2d} threads {speed:9,.0f} samples/s {speed * chosen.bytes / 1e6:9,.0f} MB/s")
    return 0


@contextmanager
def _server() -> Iterator[tuple[str, list[str]]]:
    """The endpoint of a server and the requests that it got; the environment names it, as a user's would."""
    requests: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: requests.append(record.getMessage())
    log = logging.getLogger("werkzeug")
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    log.propagate = False
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    os.environ.update(
        AWS_ENDPOINT_URL=endpoint, AWS_ACCESS_KEY_ID="nobody", AWS_SECRET_ACCESS_KEY=secrets.token_hex(8),
        AWS_DEFAULT_REGION="us-east-1",
    )  # fmt: skip
    try:
        yield endpoint, requests
    finally:
        server.stop()


def _write_shards(place: Path, endpoint: str, num_samples: int, num_bytes: int) -> None:
    client = boto3.client("s3", endpoint_url=endpoint)
    client.create_bucket(Bucket=_BUCKET)
    draw = np.random.default_rng(0)
    for number in range(_NUM_SHARDS):
        path = place / f"train-{number}.tar"
        with tarfile.open(path, "w") as archive:
            for index in range(number, num_samples, _NUM_SHARDS):
                info = tarfile.TarInfo(f"{index:06d}.bin")
                info.size = num_bytes
                archive.addfile(info, io.BytesIO(draw.bytes(num_bytes)))
        client.upload_file(str(path), _BUCKET, path.name)


def _speed(dataset: ShardDataset, num_threads: int) -> float:
    order = np.random.default_rng(0).permutation(len(dataset))
    begin = time.perf_counter()
    with ThreadPoolExecutor(num_threads) as pool:
        for _ in pool.map(lambda index: dataset.read(int(index)), order):
            pass
    return len(dataset) / (time.perf_counter() - begin)


if __name__ == "__main__":
    raise SystemExit(main())
