"""The programs of a run. They are compiled ahead of their use, as many at a time as there are cores. Groups that differ only in
their sizes share a program, which is released when the last of these groups is done."""

import os
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from .experiment import Experiment
from .kept import KeptCosts
from .plan import Group
from .program import Program, check_outputs, compile_group, keep_program, kept_program, memory_budget, settings

# If groups share a program, its chunks are as small as the smallest group, but not so small that the largest group needs more
# calls than this.
_MOST_CALLS = 4


class Programs:
    """The programs of `groups`, the groups of a whole plan, for chunks of at most `chunk` cells."""

    def __init__(self, experiment: Experiment, groups: Sequence[Group], key: int, chunk: int, costs: KeptCosts):
        self.experiment, self.key, self.costs = experiment, key, costs
        self.budget = memory_budget()
        """Bytes that a chunk may take; lowered when memory runs out."""
        self._names = {id(group): group.program(experiment) for group in groups}
        # A chunk is filled up by repeating a cell, so groups of few cells call for smaller chunks. Sizes depend on the whole
        # plan, so that a resumed sweep has exactly the programs that it began with.
        self._largest: dict[str, Group] = {}
        smallest: dict[str, int] = {}
        for group in groups:
            name, cells = self._names[id(group)], min(chunk, len(group.cells))
            smallest[name] = min(cells, smallest.get(name, cells))
            self._largest[name] = max(group, self._largest.get(name, group), key=lambda one: len(one.cells))
        most = {name: min(chunk, len(group.cells)) for name, group in self._largest.items()}
        self._sizes = {name: max(smallest[name], -(-most[name] // _MOST_CALLS)) for name in most}
        # Tracing holds the interpreter's lock, compilation does not.
        self._cores = os.cpu_count() or 1
        self._compiler = ThreadPoolExecutor(self._cores)
        # Programs that are ready or being compiled, and those that wait. Each takes memory, so few are held at a time.
        self._made: dict[str, Future[Program]] = {}
        self._coming: deque[tuple[str, int]] = deque()
        self._needed: Counter[str] = Counter()

    def begin(self, missing: Iterable[tuple[Group, int]]) -> None:
        """Begins to compile the programs of these groups, in the order in which they are needed. Each group comes with the
        number of cells of its largest missing chunk."""
        most: dict[str, int] = {}
        for group, cells in missing:
            name = self._names[id(group)]
            self._needed[name] += 1
            most[name] = max(cells, most.get(name, 0))
        for name, cells in most.items():
            # A smaller program if only few cells are missing.
            size = self._sizes[name]
            self._coming.append((name, cells if cells * _MOST_CALLS <= size else size))
        self._make_next()

    def is_there(self, group: Group) -> bool:
        """Whether `of(group)` would not wait."""
        promise = self._made.get(self._names[id(group)])
        return promise is not None and promise.done()

    def wait(self, seconds: float) -> None:
        """Waits until a program is ready, for at most `seconds`."""
        wait(self._made.values(), seconds, FIRST_COMPLETED)

    def of(self, group: Group) -> Program:
        """The program of a group, which this waits for. **Raises:** the errors of its function and of the compiler."""
        return self._made[self._names[id(group)]].result()

    def smaller(self, group: Group, size: int) -> Program:
        """Compiles the program of a group again, for chunks of fewer cells or for the present `budget`. Groups that share the
        program get the new one too."""
        name = self._names[id(group)]
        self._made[name] = self._submit(name, size)
        return self._made[name].result()

    def done(self, group: Group) -> None:
        """Releases the program of a group, unless another group needs it."""
        name = self._names[id(group)]
        self._needed[name] -= 1
        if not self._needed[name]:
            del self._made[name]
            self._make_next()

    def close(self) -> None:
        """Stops compiling programs."""
        self._compiler.shutdown(wait=False, cancel_futures=True)

    def _make_next(self) -> None:
        # One for each core, besides the program that runs.
        while self._coming and len(self._made) <= self._cores:
            name, size = self._coming.popleft()
            self._made[name] = self._submit(name, size)

    def _submit(self, name: str, size: int) -> Future[Program]:
        return self._compiler.submit(self._compile, self._largest[name], size)

    def _compile(self, group: Group, size: int) -> Program:
        # JAX keeps these flags for each thread.
        with settings(self.experiment.x64):
            program = kept_program(self.experiment, group, size, self.budget)
            if program is not None:
                return program
            program = compile_group(self.experiment, group, self.key, size, self.budget)
        check_outputs(self.experiment, group, program.outputs)
        self.costs.note_program(self.experiment, group, program.compile_seconds, program.bytes / program.size)
        keep_program(self.experiment, group, size, self.budget, program)
        return program
