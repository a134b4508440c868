"""One parser under atheris, which looks for inputs that reach new lines of code: an extra tool, not one of the tests.

    pip install atheris
    python tests/fuzz/with_atheris.py test_run_files plan -runs=100000

The first word is a module of this folder, the second one of its parsers; the rest goes to libFuzzer. What atheris
offers are bytes: they seed the same structure-aware damage as in the tests, so that the input of a crash is printed as
the parser sees it.
"""

import importlib.util
import sys
import tempfile
from pathlib import Path
from random import Random

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
HELPERS = ("tests/helpers", "packages/evalharness/tests/helpers", "packages/pretrain/tests/helpers")


def main(module: str, name: str, options: list[str]) -> None:
    """Feed the parser until atheris finds a crash, or has done what the options say."""
    try:
        import atheris
    except ImportError:
        sys.exit("with_atheris: error: atheris is not installed; `pip install atheris` (needs clang), or run the tests")
    sys.path[:0] = [str(ROOT / folder) for folder in HELPERS]
    from fuzzing import Place, feed
    from good_files import Specimens

    spec = importlib.util.spec_from_file_location(module, HERE / f"{module}.py")
    if spec is None or spec.loader is None or not (HERE / f"{module}.py").is_file():
        sys.exit(f"with_atheris: error: there is no {module}.py in {HERE}")
    loaded = importlib.util.module_from_spec(spec)
    with atheris.instrument_imports():
        spec.loader.exec_module(loaded)
    if name not in loaded.PARSERS:
        sys.exit(f"with_atheris: error: {module} has no parser {name!r}; give one of {', '.join(loaded.PARSERS)}")
    root = Path(tempfile.mkdtemp(prefix="atheris-"))
    (root / "scratch").mkdir()
    parser = loaded.PARSERS[name](Place(good=Specimens(root / "specimens"), scratch=root / "scratch"))
    atheris.Setup([sys.argv[0], *options], lambda data: feed(parser, parser.make(Random(data))))
    atheris.Fuzz()


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python tests/fuzz/with_atheris.py MODULE PARSER [libFuzzer options]")
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
