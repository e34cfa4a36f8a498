"""The architecture: imports go one way, only the outer layers touch the world, and the front door opens at once."""

import ast
import functools
import os
import subprocess
import sys
from pathlib import Path

import tsjax as ts

ROOT = Path(ts.__file__).parent
# From the bottom up: a module imports from its own layer and those before it.
LAYERS = [
    ["compilation", "display", "hints", "cache", "versions", "status"],
    ["tables"],
    ["oneof", "precision", "rates", "size"],
    ["kernels"],
    ["activations"],
    ["network"],
    ["networks"],
    ["task", "optim"],
    ["fast"],
    ["losses"],
    ["attacks", "subspaces", "train"],
    ["problem", "mixtures", "patches"],
    ["estimators"],
    ["risk", "theory"],
    ["classification", "recovery", "data", "sklearn"],
    ["sweep"],
    ["studies"],
    ["report"],
    ["cli"],
]
# Imports inside functions that go up: how a result reports itself, and where a study is looked up by its name.
UPWARD = {("sweep.result", "report"), ("sweep.run", "report"), ("sweep.warm", "studies"), ("sweep.spec", "studies")}
# The modules that may look at devices, files or the clock; `tables` reads the files of the user, which `data` and its study
# name, `fast.native` compiles one into the folder that `cache` makes, `versions` reads `pyproject.toml`.
OUTER = (
    "sweep",
    "report",
    "cli",
    "data",
    "tables",
    "studies.real_data",
    "fast.native",
    "fast.fused",
    "cache",
    "versions",
)


@functools.cache
def _modules():
    named = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in sorted(ROOT.rglob("*.py"))}
    return [(name, ast.parse(path.read_text())) for name, path in named.items() if name != "__init__"]


def _layer(name):
    return next(i for i, layer in enumerate(LAYERS) if name.split(".")[0] in layer)


def _imports(name, tree):
    """The modules of tsjax that it imports, from anywhere in its code."""
    parts = name.split(".")
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = parts[: len(parts) - node.level] + (node.module.split(".") if node.module else [])
            if base:
                yield ".".join(base)
            else:
                yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] != "tsjax", f"{name}: import relatively"
        elif isinstance(node, ast.Import):
            assert all(alias.name.split(".")[0] != "tsjax" for alias in node.names), f"{name}: import relatively"


def test_imports_go_one_way():
    edges = {(name, target) for name, tree in _modules() for target in _imports(name, tree)}
    assert len(edges) > 40, "the imports were not read"
    upward = {(a, b.split(".")[0]) for a, b in edges if _layer(b) > _layer(a)}
    assert upward == UPWARD


def test_the_rules_of_single_modules():
    imports = {name: set(_imports(name, tree)) for name, tree in _modules()}
    # Functions of every module are compiled in the same way.
    heads = lambda name: {target.split(".")[0] for target in imports[name]} - {"compilation"}
    assert not heads("precision") and not heads("display")
    assert heads("activations") <= {"kernels", "precision"} and heads("network") <= {"activations"}
    assert heads("problem") <= {"activations", "display", "network", "precision", "size", "task"} and heads(
        "optim"
    ) <= {"precision"}
    for name in imports:
        if name.startswith("rates."):
            assert heads(name) <= {"display", "rates"}, name
        if name.startswith("kernels."):
            assert heads(name) <= {"kernels", "precision", "versions"}, name
        if name.startswith("estimators."):
            assert not heads(name) & {"risk", "theory", "rates", "sweep", "studies", "report"}, name


def test_no_cycles():
    imports = {name: {t for t in _imports(name, tree) if t != name} for name, tree in _modules()}
    imports = {a: {b for b in bs if b in imports and (a, b.split(".")[0]) not in UPWARD} for a, bs in imports.items()}
    while imports:
        leaves = {name for name, targets in imports.items() if not targets & imports.keys()}
        assert leaves, f"a cycle among {sorted(imports)}"
        imports = {name: targets for name, targets in imports.items() if name not in leaves}


def test_only_the_outer_layers_touch_devices_files_and_the_clock():
    seen = set()
    for name, tree in _modules():
        for node in ast.walk(tree):
            used = {
                ast.Import: lambda n: {alias.name.split(".")[0] for alias in n.names} & {"time", "pathlib"},
                ast.ImportFrom: lambda n: {n.module} & {"time", "pathlib"} if not n.level else set(),
                ast.Attribute: lambda n: (
                    {n.attr} & {"devices", "local_devices"}
                    if isinstance(n.value, ast.Name) and n.value.id == "jax"
                    else set()
                ),
                ast.Call: lambda n: {"open"} if isinstance(n.func, ast.Name) and n.func.id == "open" else set(),
            }.get(type(node), lambda n: set())(node)
            seen |= {(name, word) for word in used}
    assert ("sweep.devices", "local_devices") in seen and ("sweep.store", "pathlib") in seen
    assert not [pair for pair in seen if pair[0].split(".")[0] not in OUTER and pair[0] not in OUTER]


def test_every_public_name_is_documented():
    names = set(ts.__all__)
    assert {"TwoPhaseStudent", "Problem", "sweep", "fit_rate", "kernels"} <= names and len(names) > 40
    undocumented = []
    for name in sorted(names):
        value = getattr(ts, name)
        # A dataclass without a docstring is given its signature as one.
        if not (value.__doc__ or "").strip() or value.__doc__.startswith(f"{name}("):
            undocumented.append(name)
    assert not undocumented


def _python(*arguments):
    """The best of three runs, in seconds of the processor, which other programs do not slow, and what the last one wrote."""
    seconds, out = [], ""
    spent = lambda: sum(os.times()[2:4])
    for _ in range(3):
        start = spent()
        run = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT.parent, timeout=60)
        seconds.append(spent() - start)
        assert run.returncode == 0, run.stderr
        out = run.stdout
    return min(seconds), out


def test_importing_is_instant():
    code = "import sys, tsjax; print([m for m in ('jax', 'pandas', 'matplotlib', 'scipy') if m in sys.modules])"
    seconds, out = _python("-c", code)
    assert out.strip() == "[]" and seconds < 1.5


def test_rates_load_no_jax():
    _, out = _python("-c", "import sys, tsjax.rates; print('jax' in sys.modules)")
    assert out.strip() == "False"


def test_help_is_instant():
    seconds, out = _python("-m", "tsjax.cli", "--help")
    assert "quickstart" in out and seconds < 1.0
