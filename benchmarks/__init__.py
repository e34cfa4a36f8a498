import resource
import sys
from pathlib import Path


def peak_memory() -> float:
    """The peak memory of this process so far, in GiB. On Linux, `ru_maxrss` of a process starts from the peak of the process
    that started it; the kernel's own high-water mark does not."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)
