"""A real S3-compatible store on loopback that holds shards, and a proxy before it."""

import os

import pytest
from object_store import CREDENTIALS, client, proxy_before, s3_server
from s3fs import S3FileSystem
from unveil_pretrain.data import ShardDataset


@pytest.fixture(scope="module")
def images(shards):
    """The samples of the training shard by key, each its files."""
    samples = ShardDataset(shards[0])
    return dict(zip(samples.keys, samples, strict=True))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, images, shard_writer):
    """Four shards of six samples on this disk, and a validation shard."""
    folder, keys = tmp_path_factory.mktemp("local"), list(images)
    for number in range(4):
        chosen = keys[6 * number : 6 * number + 6]
        shard_writer(folder / f"train-{number:02d}.tar", {key: images[key] for key in chosen})
    shard_writer(folder / "val-00.tar", {f"v{key}": images[key] for key in keys[:8]})
    return folder


@pytest.fixture(scope="module")
def server(folder):
    with s3_server() as endpoint:
        client(endpoint).create_bucket(Bucket="bucket")
        upload(endpoint, folder)
        yield endpoint


@pytest.fixture(scope="module")
def proxy(server):
    S3FileSystem.clear_instance_cache()  # those of another module's tests know another address
    with proxy_before(server) as proxy:
        yield proxy


@pytest.fixture
def store(proxy, monkeypatch):
    """The proxy before a server whose bucket holds the shards; the environment names both, as a user's would."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    proxy.begin_anew()
    yield proxy
    proxy.begin_anew()


@pytest.fixture
def changing(server, folder):
    """The server's client of boto3, to put other objects; what was there is put back."""
    yield client(server)
    upload(server, folder)


def upload(server, folder):
    for path in sorted(folder.glob("*.tar")):
        client(server).put_object(Bucket="bucket", Key=path.name, Body=path.read_bytes())
