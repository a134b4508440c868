"""The stand-in for mmcv._ext, the torch.load allow-list, and that neither leaks into other code."""

import io
import os
import pickle
import subprocess
import sys
import types
import warnings

import pytest
import torch
from unveil_evalharness import compat
from unveil_evalharness.compat import extension
from unveil_evalharness.errors import DependencyError

mm = pytest.mark.mm


def test_an_operator_that_is_not_offered_says_so_when_called():
    module = extension.stand_in()
    operator = module.carafe_forward  # asking is allowed: mmcv.ops asks for all of them on import
    with pytest.raises(compat.OperatorNotOfferedError, match=r"'carafe_forward'.*install a compiled mmcv") as caught:
        operator(1, key=2)
    assert isinstance(caught.value, NotImplementedError)


def test_the_stand_in_is_no_black_hole_for_introspection():
    module = extension.stand_in()
    assert not hasattr(module, "__file__")
    assert not hasattr(module, "__wrapped__")
    assert module.__spec__.name == "mmcv._ext"


@mm
def test_install_gives_mmcv_its_operators_and_is_idempotent():
    pytest.importorskip("mmcv")
    compat.install()
    first = sys.modules["mmcv._ext"]
    allowed = len(torch.serialization.get_safe_globals())
    compat.install()
    assert sys.modules["mmcv._ext"] is first
    assert len(torch.serialization.get_safe_globals()) == allowed
    from mmcv.ops import batched_nms, roi_align

    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 9]])
    _, kept = batched_nms(
        boxes, torch.tensor([0.9, 0.8, 0.7]), torch.tensor([0, 0, 1]), {"type": "nms", "iou_threshold": 0.5}
    )
    assert kept.tolist() == [0, 2]
    pooled = roi_align(
        torch.arange(16.0).reshape(1, 1, 4, 4), torch.tensor([[0.0, 0, 0, 4, 4]]), (2, 2), 1.0, 2, "avg", True
    )
    assert pooled.flatten().tolist() == [2.5, 4.5, 10.5, 12.5]


@mm
def test_mmcv_soft_nms_and_focal_loss_modules_work_on_the_stand_in():
    pytest.importorskip("mmcv")
    compat.install()
    from mmcv.ops import sigmoid_focal_loss, soft_nms

    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9]])
    dets, _ = soft_nms(boxes, torch.tensor([0.8, 0.9]), iou_threshold=0.5, method="linear", min_score=0.01)
    assert dets[:, 4].tolist() == pytest.approx([0.9, 0.08])
    logits = torch.zeros(1, 1, requires_grad=True)
    sigmoid_focal_loss(logits, torch.tensor([0]), 2.0, 0.25, None, "sum").backward()
    # d/dx of -0.25 (1-p)² ln p at p = 1/2: 0.25 (2 p (1-p)² ln p - (1-p)³) = 0.25 (-0.25 ln 2 - 0.125)
    assert logits.grad.item() == pytest.approx(0.25 * (-0.25 * 0.6931472 - 0.125))


@pytest.fixture
def foreign_mmcv(tmp_path, monkeypatch):
    """A folder with a package ``mmcv`` that holds a module ``_ext``, in place of the installed one."""

    def make(source):
        package = tmp_path / "mmcv"
        package.mkdir()
        (package / "__init__.py").write_text("")
        (package / "_ext.py").write_text(source)
        for name in [name for name in sys.modules if name.split(".")[0] == "mmcv"]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.syspath_prepend(str(tmp_path))

    yield make
    for name in [name for name in sys.modules if name.split(".")[0] == "mmcv"]:
        del sys.modules[name]


def test_a_compiled_extension_is_used_untouched(foreign_mmcv):
    foreign_mmcv("def nms(*args, **options):\n    return 'compiled'\n")
    module = compat.install_operators()
    assert module.nms() == "compiled"
    assert compat.install_operators() is module
    assert not hasattr(module, "roi_align_forward")


def test_a_compiled_extension_that_does_not_load_is_named(foreign_mmcv):
    foreign_mmcv("raise ImportError('undefined symbol: _ZN3c105ErrorC2E')\n")
    with pytest.raises(DependencyError, match=r"_ext\.py do not load .*undefined symbol.*mmcv-lite==2\.1\.0"):
        compat.install_operators()
    assert "mmcv._ext" not in sys.modules


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DependencyError, match=r"mmengine is not installed; run: pip install"):
        compat.install()
    monkeypatch.delitem(sys.modules, "mmcv._ext", raising=False)
    with pytest.raises(DependencyError, match=r"mmcv is not installed; run: pip install"):
        compat.install_operators()


@mm
def test_mmengine_checkpoints_load_with_weights_only(tmp_path):
    pytest.importorskip("mmengine")
    compat.install()
    from mmengine.logging import HistoryBuffer

    buffer = HistoryBuffer([0.5, 0.25], [1, 1])
    content = {"state_dict": {"w": torch.ones(2)}, "message_hub": {"loss": buffer, "lr": torch.tensor(0.1).numpy()}}
    torch.save(content, tmp_path / "iter_1.pth")
    loaded = torch.load(tmp_path / "iter_1.pth", weights_only=True)  # noqa: TID251 - what mmengine calls
    assert loaded["message_hub"]["loss"].mean() == pytest.approx(0.375)
    assert loaded["message_hub"]["lr"] == pytest.approx(0.1)


class _GetattrCall:
    """Pickles as a call of builtins.getattr, the way a hostile file reaches for functions."""

    def __init__(self, owner, name):
        self.arguments = (owner, name)

    def __reduce__(self):
        return getattr, self.arguments


@mm
@pytest.mark.parametrize("name", ["tell", "__init__"])
def test_a_foreign_getattr_pickle_is_refused(name):
    pytest.importorskip("mmengine")
    compat.install()
    from mmengine.logging import HistoryBuffer

    owner = torch.ones(1) if name == "tell" else HistoryBuffer
    file = io.BytesIO()
    torch.save({"payload": _GetattrCall(owner, name)}, file)
    file.seek(0)
    with pytest.raises(pickle.UnpicklingError, match="do not load files from sources you do not trust"):
        torch.load(file, weights_only=True)  # noqa: TID251 - the loader under test


def test_stdout_of_third_parties_goes_to_stderr(capsys):
    with compat.third_party_stdout():
        print("creating index...")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "creating index...\n"


def test_warning_filters_end_with_the_block():
    module = types.ModuleType("mmdet.models.probe")
    code = compile("import warnings\ndef warn():\n    warnings.warn('old api', UserWarning)\n", "probe", "exec")
    exec(code, vars(module))
    with compat.third_party_warnings():
        module.warn()
        with pytest.raises(UserWarning, match="ours"):
            warnings.warn("ours", UserWarning, stacklevel=1)
    with pytest.raises(UserWarning, match="old api"):
        module.warn()


@mm
def test_importing_the_package_changes_nothing_and_pkg_resources_is_not_needed():
    """In a fresh process without pkg_resources (setuptools from 82 on has none)."""
    pytest.importorskip("mmdet")
    program = """
import sys, warnings
sys.modules["pkg_resources"] = None
import unveil_evalharness.compat as compat
assert not {"mmengine", "mmcv", "timm", "torchvision"} & set(sys.modules), "import has side effects"
warnings.simplefilter("error")
compat.install()
with compat.third_party_warnings():
    import mmdet.models, mmdet.datasets, mmdet.evaluation
    from mmengine.runner import Runner
from mmdet.registry import MODELS
neck = MODELS.build({"type": "FPN", "in_channels": [4, 4], "out_channels": 4, "num_outs": 2})
print(type(neck).__name__)
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "FPN\n"
