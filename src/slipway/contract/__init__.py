"""Data models that all stages share. They import only numpy, pydantic and YAML."""

from slipway.contract.bundle import Bundle, BundleEngine, bundle_id
from slipway.contract.choice import Choice
from slipway.contract.decision import Decision, Unknown
from slipway.contract.engine import EngineSettings, PlanSettings
from slipway.contract.fleet import Fleet
from slipway.contract.labels import check_labels, read_labels, write_labels
from slipway.contract.lane import Lane
from slipway.contract.manifest import Manifest
from slipway.contract.preprocess import Preprocess
from slipway.contract.spec import Spec
from slipway.errors import (
    CompileError,
    DataError,
    ExportError,
    GateError,
    ManifestError,
    MissingDependencyError,
    OciImageError,
    QuantizeError,
    RepositoryError,
    ServingError,
    SlipwayError,
    SpecError,
    StorageError,
)

__all__ = [
    "Bundle",
    "BundleEngine",
    "Choice",
    "CompileError",
    "DataError",
    "Decision",
    "EngineSettings",
    "ExportError",
    "Fleet",
    "GateError",
    "Lane",
    "Manifest",
    "ManifestError",
    "MissingDependencyError",
    "OciImageError",
    "PlanSettings",
    "Preprocess",
    "QuantizeError",
    "RepositoryError",
    "ServingError",
    "SlipwayError",
    "Spec",
    "SpecError",
    "StorageError",
    "Unknown",
    "bundle_id",
    "check_labels",
    "read_labels",
    "write_labels",
]
