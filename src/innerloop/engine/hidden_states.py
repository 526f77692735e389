"""Hidden states below a cut, in a memory-mapped file that the operating system pages in and out.

HiddenStates   one file for all runs that share it
Below          its states of one model at one cut: what a trunk looks up in

The file has no name: it is gone when the process is, however that ends. It is only ever appended to, up to a bound;
from then on what is new isn't kept, and is computed each time. Nothing is evicted: examples come back at random, so
no order of eviction would beat another, and a file that only grows needs no bookkeeping.
"""

import errno
import mmap
import os
import tempfile
import warnings
from dataclasses import dataclass
from itertools import count
from typing import IO
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from innerloop.files import cache_folder

# Bytes that the file grows by, or a quarter of what it is. What is read can't move, so each growth is a mapping of its
# own, and each of those takes a file descriptor.
SEGMENT, SHARE = 2**26, 4
LEFT_FREE = 2**30  # bytes of the disk that are left to what the run writes
_ALIGNED = 64

_Key = tuple[int, int, bytes]  # (number of the model, cut, digest of the tokens)


class HiddenStates:
    """Hidden states (S, D) of examples, in one file that is made when the first ones are kept.

    A model is told from others by the object, not by its name or weights: what was computed with one is never read
    with another, even if that was loaded from the same folder with another dtype, device or config.

    size   bytes of the file; kept   of the states in it
    """

    def __init__(self) -> None:
        self.size = self.kept = 0
        self._known: dict[_Key, Tensor] = {}
        self._models: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()
        self._numbers = count()
        self._file: IO[bytes] | None = None
        self._refused = False
        self._segment: mmap.mmap | None = None
        self._used = 0  # bytes of the last segment

    def below(self, model: nn.Module, cut: int, *, most: int) -> "Below":
        """most: bytes that the file may have after it has grown for these."""
        if model not in self._models:
            self._models[model] = next(self._numbers)
        return Below(self, self._models[model], cut, most)

    def get(self, key: _Key) -> Tensor | None:
        """A view of the file."""
        return self._known.get(key)

    def keep(self, key: _Key, states: Tensor, *, most: int) -> None:
        """Copies the states into the file, if they have room."""
        if self._segment is None or self._used + states.nbytes > len(self._segment):
            self._segment = self._grown(states.nbytes, most) or self._segment
        if self._segment is None or self._used + states.nbytes > len(self._segment):
            return
        flat = torch.frombuffer(self._segment, dtype=states.dtype, count=states.numel(), offset=self._used)
        self._known[key] = flat.view(states.shape).copy_(states)
        self._used += -(-states.nbytes // _ALIGNED) * _ALIGNED
        self.kept += states.nbytes

    def _grown(self, needed: int, most: int) -> mmap.mmap | None:
        """A new segment; None at the bound, and for good where the disk refused one. What was left of the last one
        stays empty."""
        page = mmap.ALLOCATIONGRANULARITY
        length = min(-(-max(needed, SEGMENT, self.size // SHARE) // page), (most - self.size) // page) * page
        if self._refused or length < needed:
            return None
        try:
            self._file = self._file or _nameless()
            _allocate(self._file.fileno(), self.size, length)
            segment = mmap.mmap(self._file.fileno(), length, offset=self.size)
        except OSError as error:
            self._refuse(error)
            return None
        self.size, self._used = self.size + length, 0
        return segment

    def _refuse(self, error: OSError) -> None:
        self._refused = True
        if self._file:
            os.ftruncate(self._file.fileno(), self.size)  # gives back what was allocated before it failed
        said = f"no more hidden states are kept than {self.kept:,} bytes, and others are computed each time: {error}"
        warnings.warn(said, RuntimeWarning, stacklevel=2)


@dataclass(frozen=True)
class Below:
    """The states of one model at one cut, by the digest of an example's tokens."""

    states: HiddenStates
    model: int
    cut: int
    most: int

    def get(self, key: bytes, /) -> Tensor | None:
        return self.states.get((self.model, self.cut, key))

    def __setitem__(self, key: bytes, states: Tensor, /) -> None:
        """Nothing happens where there is no room."""
        self.states.keep((self.model, self.cut, key), states, most=self.most)


def _nameless() -> IO[bytes]:
    """Beside dequantized weights, because /tmp may lie in memory."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryFile(dir=folder, buffering=0)


def _allocate(descriptor: int, start: int, length: int) -> None:
    """Blocks on the disk for these bytes: a page of a sparse file that finds the disk full ends the process.

    Raises OSError where there is no room for them.
    """
    disk = os.fstatvfs(descriptor)
    if disk.f_bavail * disk.f_frsize < length + LEFT_FREE:
        said = f"{os.strerror(errno.ENOSPC)}, {LEFT_FREE / 1e9:.1f} GB for the run itself aside"
        raise OSError(errno.ENOSPC, said)
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, start, length)
        return
    zeros = bytes(2**20)
    for place in range(start, start + length, len(zeros)):
        rest = zeros[: start + length - place]
        if os.pwrite(descriptor, rest, place) < len(rest):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
