"""Writing a checkpoint to an S3 server, which runs here and listens to the loopback address."""

import fsspec
import pytest
from moto.server import ThreadedMotoServer

import winit_fast as wf
from winit_fast.checkpoint import segments, write_checkpoint
from winit_fast.models.tensor_spec import TensorSpec

TENSORS = (
    TensorSpec("table", (1031, 1019), wf.RandomNormal(0.0, 0.02)),
    TensorSpec("long", (1 << 21,), wf.RandomUniform(), dtype="bfloat16"),
    TensorSpec("empty", (0, 4), wf.RandomUniform()),
    TensorSpec("norm", (1601,), wf.Ones()),
    TensorSpec("ortho", (40, 30), wf.Orthogonal()),
)
OPTIONS = {"seed": 7, "texts": {"config.json": "{}"}}


@pytest.fixture(scope="module")
def endpoint():
    """The address of a server of moto."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(endpoint, monkeypatch):
    """The server as fsspec's file system, with an empty bucket."""
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(fsspec.get_filesystem_class("s3"), "default_block_size", 5 << 20)
    system = fsspec.filesystem("s3", skip_instance_cache=True)
    if system.exists("bucket"):
        system.rm("bucket", recursive=True)
    system.mkdir("bucket")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    yield system
    fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.mark.parametrize("limit", [10**9, 5 << 20])
@pytest.mark.parametrize("num_threads", [1, 3])
def test_the_bytes_are_those_of_a_local_one(tmp_path, s3, limit, num_threads):
    options = OPTIONS | {"max_shard_size": limit}
    local = write_checkpoint(tmp_path, TENSORS, **options)
    summary = write_checkpoint("s3://bucket/model", TENSORS, **options, num_threads=num_threads)
    names = [path.name for path in tmp_path.iterdir()]
    assert ("model.safetensors.index.json" in names) == (limit < 10**9)
    found = {place.rpartition("/")[2]: s3.cat_file(place) for place in s3.find("bucket/model")}
    assert found == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    if limit == 10**9:  # a large file is uploaded in several parts
        assert s3.info("bucket/model/model.safetensors")["ETag"].strip('"').endswith("-2")
    assert summary.files == tuple(f"s3://bucket/model/{path.name}" for path in local.files)
    assert (summary.parameters, summary.nbytes) == (local.parameters, local.nbytes)


def test_what_is_there_already_stays(s3):
    s3.pipe_file("bucket/model/thesis.tex", b"all of it")
    with pytest.raises(FileExistsError, match="s3://bucket/model exists and is not empty"):
        write_checkpoint("s3://bucket/model", TENSORS, **OPTIONS)
    assert s3.find("bucket") == ["bucket/model/thesis.tex"]
    assert s3.cat_file("bucket/model/thesis.tex") == b"all of it"


@pytest.mark.parametrize("limit", [10**9, 2 << 20])
def test_a_failure_removes_the_files(s3, monkeypatch, limit):
    """Complete files, and one of which parts have been uploaded."""
    fill, count = segments.Segment.fill, 0

    def failing(self, memory):
        nonlocal count
        count += 1
        if count >= 7:
            raise OSError("the machine is tired")
        return fill(self, memory)

    monkeypatch.setattr(segments.Segment, "fill", failing)
    with pytest.raises(OSError, match="the machine is tired"):
        write_checkpoint("s3://bucket/model", TENSORS, **OPTIONS, max_shard_size=limit)
    s3.invalidate_cache()
    assert s3.find("bucket") == []
