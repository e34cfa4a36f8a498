"""What stores and chunks record about the process and the devices that made them, and the size classes for these devices."""

import platform
from collections.abc import Mapping
from typing import Any

import jax

from ..fast.fused import kernel_in_use
from ..kernels import neural_tangents
from .classes import Shared
from .commits import version
from .devices import usable_devices
from .experiment import Experiment
from .manifest import Manifest
from .plan import Plan
from .sharing import shared_plan
from .spec import SweepSpec
from .store import identity_of


def provenance() -> dict[str, Any]:
    """Versions and devices, for `sweep.json`."""
    packages = ("tsjax", "jax", "jaxlib", "numpy", "scipy", "optax", "neural-tangents")
    return {
        "versions": {name: version(name) for name in packages},
        "python": platform.python_version(),
        "devices": [device.device_kind for device in usable_devices()],
        "platform": jax.default_backend(),
    }


def manifest_of(spec: SweepSpec, experiment: Experiment) -> Manifest:
    """The manifest of the chunks that this process writes."""
    described, device = experiment.description, usable_devices()[0]
    return Manifest(
        identity=identity_of(spec, described),
        defaults={name: default[0] for name, default in described.arguments.items() if default},
        device=device.device_kind,
        kernel=kernel_in_use(device.platform),
        ntk=neural_tangents.source(),
        x64=described.x64,
        source=described.source,
        versions={name: version(name) for name in ("jax", "tsjax")},
    )


def shared_here(plan: Plan, kept: Mapping[str, Shared]) -> Plan:
    """The plan with the programs that groups share (`shared_plan`) on the devices of this process; `kept` is the `sharing_of`
    its store."""
    platform = usable_devices()[0].platform
    return shared_plan(plan, platform, kernel_in_use(platform) != "xla", kept)
