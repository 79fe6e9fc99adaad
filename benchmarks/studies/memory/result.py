"""The result file of the study."""

from slipway.contract.evidence.studies import Part, Share, StudyResult


class Memory(Part):
    """Memory of a process and its descendants, in MiB."""

    own_mib: float
    """Pages that belong to no file, such as the heap."""
    shared_mib: float
    """Size of the segments in `/dev/shm` that one of the processes has mapped. Triton allocates all of a segment at
    once, and a container's limit counts it."""
    held_mib: float
    """Sum of `own_mib` and `shared_mib`, which the kernel cannot drop."""
    total_mib: float
    """`held_mib` and the pages of files, most of them of libraries, each once. Several servers share these, and the
    kernel can drop them and read them again."""
    peaks_mib: float
    """Sum of the processes' own peaks, which counts a shared page in each of them."""
    processes: int


class MemoryResult(StudyResult):
    """The study `memory`."""

    images: int
    photographs: int
    target: float
    """Largest memory of the layout that `auto` chooses, relative to `steps` with two instances of each."""
    serving: dict[str, str]
    """Layout, processes and threads of each server."""
    memory: dict[str, dict[str, tuple[Memory, ...]]]
    """Memory of each server after each kind of image, by round."""
    ratios: dict[str, dict[str, dict[str, Share]]]
    """Memory of the default server relative to each other server, after each kind of image, by figure."""
