"""Checks a bill of materials against CycloneDX's strict schema; a process of its own, for jsonschema."""

import json
import sys

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator


def main() -> None:
    errors = JsonStrictValidator(SchemaVersion.V1_6).validate_str(sys.stdin.read(), all_errors=True) or ()
    json.dump([f"{error.data.json_path}: {error.data.message}" for error in errors], sys.stdout)


if __name__ == "__main__":
    main()
