"""flowc for Python programs: what the command line itself calls.

Everything raises the exceptions of `flowc.errors`: `FlowError` and its kinds, whose `diagnostics` hold all that was
found, each with a code, a place in the spec and a hint.
"""

from __future__ import annotations

from flowc.api.building import Built, build
from flowc.api.checking import Checked, check
from flowc.api.running import Ran, run
from flowc.api.specs import Form, load
from flowc.api.verifying import Verified, verify
from flowc.errors import CheckFailed, Diagnostic, FlowError, MissingTool, SpecError, WeightsError
from flowc.spec.spec import Spec

__all__ = [
    "Built",
    "CheckFailed",
    "Checked",
    "Diagnostic",
    "FlowError",
    "Form",
    "MissingTool",
    "Ran",
    "Spec",
    "SpecError",
    "Verified",
    "WeightsError",
    "build",
    "check",
    "load",
    "run",
    "verify",
]
