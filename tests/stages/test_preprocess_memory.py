"""The memory of the serving preprocess: large images one after the other, and no image leaves any behind."""

import subprocess
import sys

LARGE = """
import io, resource, sys
from PIL import Image
from slipway.steps.preprocess import Preprocessor
config = dict(decoder="cpu", exif_orientation=True, input_height=64, input_width=64, crop_fraction=1.0, resize="crop",
              interpolation="linear", antialias=True, mean=[0.5] * 3, std=[0.5] * 3, pad_value=0, jpeg_scaling=False)
encoded = io.BytesIO()
Image.new("L", (7000, 7000), 128).save(encoded, "JPEG")
preprocessor = Preprocessor(config, max_batch_size=8, threads=1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
_, status_n = preprocessor.run([encoded.getvalue()] * 6)
assert not status_n.any()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_a_batch_of_large_images_takes_the_memory_of_one() -> None:
    """Six times 49 million pixels: seen were 955 MiB when decoded at once, and 259 MiB one after the other."""
    done = subprocess.run([sys.executable, "-c", LARGE], capture_output=True, text=True, timeout=120, check=True)
    assert int(done.stdout) < 500, "MiB above what the process had before"


KEPT = """
import ctypes, gc, sys
from tests.support.bad_images import corpus
from tests.support.grey_levels import preprocessor

class InUse(ctypes.Structure):  # struct mallinfo2 of glibc
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    ]

libc = ctypes.CDLL("libc.so.6")
libc.mallinfo2.restype = InUse

def in_use():
    gc.collect()
    malloc = libc.mallinfo2()
    return sys.getallocatedblocks(), malloc.uordblks + malloc.hblkhd

def rounds(count):
    for _ in range(count):
        for case in small:
            preprocess.run([case.data])
    return in_use()

small = [case for case in corpus() if len(case.data) < 100_000]
preprocess = preprocessor(max_batch=1)
first, last = rounds(3), rounds(40)
print(len(small), last[0] - first[0], last[1] - first[1])
"""


def test_no_image_of_the_corpus_leaves_memory_behind() -> None:
    """With `np.asarray` an integer of each image stayed, and without the guard the pixels of a JPEG with two scans."""
    run = [sys.executable, "-c", KEPT]
    done = subprocess.run(run, capture_output=True, text=True, timeout=300, check=True)
    images, blocks, malloc_bytes = map(int, done.stdout.split())
    assert images > 200
    assert blocks < 5 * images, "Python's blocks after 40 rounds of all images"
    assert malloc_bytes < 30_000, "bytes of malloc after 40 rounds of all images"
