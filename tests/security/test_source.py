"""Nothing that is shipped unpickles, evaluates or hands to a shell; and the guard that says so can fail."""

import hashlib
import subprocess
import sys

import pytest
import source_guard

PLANTED = [
    ("import pickle\npickle.load(f)", "pickle.load"),
    ("from pickle import loads as read\nread(data)", "pickle.loads"),
    ("import cloudpickle as c\nc.loads(data)", "cloudpickle.loads"),
    ("import marshal\nmarshal.loads(data)", "marshal.loads"),
    ("import shelve\nshelve.open(name)", "shelve.open"),
    ("import dill\ndill.load(f)", "dill.load"),
    ("eval(text)", "eval"),
    ("exec(text)", "exec"),
    ("compile(text, 'x', 'exec')", "compile"),
    ("list(map(eval, texts))", "eval"),
    ("__import__(name)", "__import__"),
    ("import importlib\nimportlib.import_module(name)", "importlib.import_module"),
    ("from importlib import import_module\nimport_module(name)", "importlib.import_module"),
    ("import os\nos.system(text)", "os.system"),
    ("import os\nos.popen(text)", "os.popen"),
    ("import subprocess\nsubprocess.run(text, shell=True)", "shell=True"),
    ("import subprocess\nsubprocess.run(text, shell=flag)", "shell=True"),
    ("import subprocess as s\ns.getoutput(text)", "subprocess.getoutput"),
    ("import torch\ntorch.load(path)", "torch.load"),
    ("import torch\ntorch.load(path, weights_only=False)", "torch.load"),
    ("import torch\ntorch.load(path, weights_only=flag)", "torch.load"),
    ("from torch import load\nload(path)", "torch.load"),
    ("import torch\ntorch.hub.load(a, b)", "torch.hub.load"),
    ("import torch\ntorch.jit.load(a)", "torch.jit.load"),
    ("import numpy as np\nnp.load(path, allow_pickle=True)", "numpy.load"),
    ("import numpy\nnumpy.load(path, allow_pickle=flag)", "numpy.load"),
    ("import yaml\nyaml.load(text, Loader=L)", "yaml.load"),
    ("import yaml\nyaml.unsafe_load(text)", "yaml.unsafe_load"),
    ("from mmengine import Config\nConfig.fromfile(p)", "mmengine.Config.fromfile"),
    ("from mmengine.config import Config\nConfig.fromfile(p)", "mmengine.config.Config.fromfile"),
    ("from mmengine.runner import load_checkpoint\nload_checkpoint(m, p)", "mmengine.runner.load_checkpoint"),
    (
        "from torch.distributed.checkpoint import FileSystemReader\nFileSystemReader(p)",
        "torch.distributed.checkpoint.FileSystemReader",
    ),
    ("import tempfile\ntempfile.mktemp()", "tempfile.mktemp"),
    ("archive.extractall(folder)", "extractall"),
    ("import pandas\npandas.read_pickle(p)", "read_pickle"),
    ("template.format(user=user)", "str.format"),
    ("import polars as pl\npl.sql(text)", "polars.sql"),
]
INNOCENT = [
    "import re\nre.compile(text)",
    "model.eval()",
    "module.compile(mode=m)",
    "import torch\ntorch.compile(f)",
    "import torch\ntorch.load(path, map_location='cpu', weights_only=True)",
    "import numpy as np\nnp.load(path, allow_pickle=False)",
    "import numpy as np\nnp.load(path)",
    "import subprocess\nsubprocess.run(['git', 'log'], shell=False)",
    "import pickle\ntry:\n    f()\nexcept pickle.UnpicklingError:\n    g()",
    "import yaml\nyaml.safe_load(text)",
    "'{} and {}'.format(a, b)",
    "import json\njson.loads(text)",
    "import polars as pl\npl.format('{} x', column)",
]


def test_every_dangerous_call_has_a_reason_and_every_reason_a_call():
    left, unused = source_guard.unexplained()
    assert left == []
    assert unused == []


def test_the_guard_looks_at_all_packages():
    files = [path for path, _ in source_guard.guarded_files()]
    assert len(files) > 400
    for name in ("masking", "backbones", "pretrain", "evalharness"):
        assert any(path.startswith(f"packages/{name}/src/") for path in files)
    for folder in ("demo/", "tools/", "benchmarks/", "study/"):
        assert any(path.startswith(folder) for path in files)


@pytest.mark.parametrize(("text", "what"), PLANTED, ids=[what for _, what in PLANTED])
def test_the_guard_finds_what_is_planted(text, what):
    found = source_guard.findings("packages/x/src/x.py", text)
    assert what in {one.what for one in found}, found
    assert all(one.line >= 1 and one.why for one in found)


@pytest.mark.parametrize("text", INNOCENT)
def test_the_guard_leaves_innocent_calls_alone(text):
    assert source_guard.findings("packages/x/src/x.py", text) == []


def test_bandits_rules_are_on_and_find_what_is_planted(root, tmp_path):
    planted = tmp_path / "planted.py"
    planted.write_text('import subprocess\nimport yaml\nyaml.load("x")\nsubprocess.run("ls", shell=True)\neval("1")\n')
    words = [sys.executable, "-m", "ruff", "check", "--config", str(root / "pyproject.toml"), "--output-format=concise"]
    done = subprocess.run([*words, str(planted)], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    for rule in ("S602", "S307", "S506"):
        assert rule in done.stdout, done.stdout


def test_pipes_are_refused_and_run_nothing(tmp_path):
    from unveil_pretrain.data import ShardDataset
    from unveil_pretrain.errors import DataError

    marker = tmp_path / "ran"
    for place in (f"pipe:touch {marker}; cat x.tar", f"a.tar::pipe:touch {marker}", f"pipe:touch {marker}" + "{0..1}"):
        with pytest.raises(DataError):
            ShardDataset(place)
    assert not marker.exists()


def test_a_task_that_only_a_file_names_is_not_imported(tmp_path, monkeypatch):
    from unveil_evalharness.commands.verify import VerifyOptions, examine
    from unveil_evalharness.compare.outcomes import metric_function
    from unveil_evalharness.fingerprint import canonical_json
    from unveil_evalharness.results import ResultRow, append_rows

    marker = tmp_path / "imported"
    folder = tmp_path / "received"
    folder.mkdir()
    (folder / "planted_task.py").write_text(f"open({str(marker)!r}, 'w').close()\nclass Task: pass\n")
    monkeypatch.syspath_prepend(str(folder))
    content = {"task": "planted_task:Task", "version": 1, "protocol": {}}
    protocol = hashlib.sha256(canonical_json(content).encode("ascii")).hexdigest()[:16]
    (folder / "protocols").mkdir()
    (folder / "protocols" / f"{protocol}.json").write_text(canonical_json(content))
    row = ResultRow(
        checkpoint="x", checkpoint_sha256="a" * 64, label="x", task="planted_task:Task", task_version=1, suite="quick",
        protocol=protocol, status="ok", metric="planted_task:Task.x", value=0.5, seed=0, data_hash="0" * 16,
    )  # fmt: skip
    append_rows(folder / "results.jsonl", [row])
    said = examine(VerifyOptions(folder=folder, data_root=tmp_path))
    assert any("import your own by --tasks" in finding.detail for finding in said), said
    assert not marker.exists()
    assert metric_function("planted_task") is None
    assert metric_function("..planted_task") is None
    said = examine(VerifyOptions(folder=folder, data_root=tmp_path, tasks=("planted_task:Task",)))
    assert any("is not a task" in finding.detail for finding in said), said
    assert marker.exists()  # because the user said so
