"""The artefacts of an image, by type."""

from slipway.oci.documents import Descriptor
from slipway.oci.layout import ImageLayout

SBOM = "application/vnd.cyclonedx+json"
SIGNATURE = "application/vnd.dev.sigstore.bundle.v0.3+json"


def of_type(layout: ImageLayout, subject: Descriptor, artifact_type: str) -> list[tuple[Descriptor, Descriptor]]:
    """The artefacts of an image of one type: the manifest of each, and its blob, both checked."""
    found = []
    for descriptor, manifest in layout.referrers(subject):
        if manifest.artifact_type == artifact_type:
            for blob in manifest.layers:
                layout.read_artefact(blob, what=f"a part of the artefact {artifact_type}")
                found.append((descriptor, blob))
    return found
