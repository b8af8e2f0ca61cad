"""A kernel with guest_memfd whose touches, pins, batches, holes and conversions are those of the rules.

A call runs one thread of a system to its end, by the interpreter. So a row of `calibrate` that agrees with this kernel
asks for what the rules say, and a rule that is broken makes it differ.
"""

from dataclasses import replace

from fake_memfd import FakeFile, FakeKernel
from ultrafolio.check.verdicts.replay import take
from ultrafolio.engine.interp import to_lists
from ultrafolio.export.selftest import calls
from ultrafolio.model import layout as model
from ultrafolio.model import scenario
from ultrafolio.model.designs import GUEST_MEMFD
from ultrafolio.model.guest_memfd import layout as memfd
from ultrafolio.model.guest_memfd.policy import PRESETS
from ultrafolio.model.layout import PAGE_SIZE

POLICY = replace(PRESETS["gmem-7.4"][1], retries=1)
"""One refusal ends a request, as it ends a call."""
ENDLESS = {"starts": model.ENDLESS}
RESTS = (memfd.DMA_STANDS, *memfd.IDLE_PC)


def system_of(pages, private, holes):
    """Every process, pin, batch and request that a probe may use on a file; beside holes no pin and no batch."""
    ranges = [*((page, 1) for page in range(pages)), (0, pages)]
    asked = [
        {"page": page, "pages": n, "to": to, "cpu": cpu, **ENDLESS}
        for page, n in ranges
        for to in ("shared", "private")
        for cpu in (0, 1)
    ]
    every = list(range(pages))
    document = {
        "design": "guest_memfd",
        "memory": {"folios": [0] * pages, "state": ["private" if private else "shared"], "allocated": False},
        "user": [{"page": every, "process": process, **ENDLESS} for process in (0, 1)],
        "vmm": asked,
    }
    if holes:
        document["hole"] = [{"page": page, **ENDLESS} for page in every]
    else:
        document["pin"] = [{"page": page, **ENDLESS} for page in every]
        document["lru"] = [{"page": every, "cpu": cpu, **ENDLESS} for cpu in (0, 1)]
    return scenario.system(scenario.parse(document, "a file"), POLICY)


class RulesFile(FakeFile):
    holes = False
    rules = None

    def __init__(self, kernel, size, flags):
        super().__init__(kernel, size, flags)
        self.system = system_of(len(self.pages), self.pages[0].private, self.holes)
        self.state = to_lists(self.system.state)

    def thread(self, kind, **wanted):
        """The actor of this kind that has these values, or can choose them."""
        for t, who in enumerate(self.state.who):
            ops, pages = zip(*self.system.choices[t], strict=True)
            has = {"cpu": [who.cpu], "process": [who.process], "n": [self.state.actor[t].n], "op": ops, "page": pages}
            if GUEST_MEMFD.kinds[who.kind] == kind and all(value in has[name] for name, value in wanted.items()):
                return t
        raise LookupError((kind, wanted))

    def run(self, what, t, page=0):
        """Run a thread from where it rests to where it rests again. Returns the answer, and the page of a refusal."""
        steps, at = [], -1
        choice = next((n for n, (_, one) in enumerate(self.system.choices[t]) if one == page), 0)
        while True:
            steps.append(take(self.system, self.state, t << 16 | (0 if steps else choice), self.rules))
            if steps[-1].outcome == memfd.E_AGAIN:
                at = self.state.task[t].failed - 1
            if self.state.task[t].pc in RESTS:
                return calls.answer_of(what, steps).removeprefix("-"), at

    def touch(self, page, process=0):
        return self.run(calls.TOUCH, self.thread("user", process=process), page)[0]

    def read(self, page, process=0):
        return -1 if self.touch(page, process) != "0" else self.pages[page].content[0]

    def fill(self, page):
        self.touch(page)
        self.run(calls.BATCH, self.thread("lru", cpu=self.kernel.cpu), page)

    def pin(self, page):
        t = self.thread("pin", page=page)
        stands = self.state.task[t].pc == memfd.DMA_STANDS
        return "0" if stands else self.run(calls.PIN, t, page)[0]

    def unpin(self, page):
        return self.run(calls.UNPIN, self.thread("pin", page=page))[0]

    def convert(self, page, pages, private):
        op = model.UNSHARE if private else model.SHARE
        t = self.thread("vmm", page=page, n=pages, op=op, cpu=self.kernel.cpu)
        return self.run(calls.CONVERT, t, page)

    def punch(self, start, length):
        return self.run(calls.HOLE, self.thread("hole", page=start // PAGE_SIZE))[0]


def kernel(*, holes=False, rules=None):
    """A kernel of the rules; holes: one whose files have holes in place of pins and batches."""
    made = FakeKernel()
    made.file = type("File", (RulesFile,), {"holes": holes, "rules": rules})
    return made
