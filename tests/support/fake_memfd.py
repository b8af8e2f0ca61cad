"""A kernel with guest_memfd and the conversion, as the rules have them, in a little Python; and its wrong answers.

The fake has no table, no lock and no thread: a page has an attribute, a content, and pins.
"""

from dataclasses import dataclass, field

from ultrafolio.calibrate.kvm import CAPABILITIES, Refused
from ultrafolio.model.layout import PAGE_SIZE

MMAP, INIT_SHARED = 1, 2
ERRNO = {"EINVAL": 22}


def refused(name):
    return Refused(OSError(ERRNO[name], name))


@dataclass
class Page:
    private: bool
    content: list = field(default_factory=lambda: [0])
    pins: int = 0
    batch: int | None = None


class FakeFile:
    def __init__(self, kernel, size, flags):
        self.kernel, self.flags, self.size = kernel, flags, size
        self.pages = [Page(not flags & INIT_SHARED) for _ in range(size // PAGE_SIZE)]
        self.pipe, self.bound, self.last = [], set(), set()

    def map(self, *, private=False):
        return "ENODEV" if not self.flags & MMAP else "EINVAL" if private else "0"

    def touch(self, page, process=0):
        return "SIGBUS" if self.pages[page].private else "0"

    def read(self, page, process=0):
        return -1 if self.pages[page].private else self.pages[page].content[0]

    def write(self, page, value, process=0):
        if self.touch(page) == "0":
            self.pages[page].content[0] = value
        return self.touch(page)

    def fill(self, page):
        self.pages[page].batch = self.kernel.cpu

    def pin(self, page):
        if self.pages[page].private:
            return "EFAULT"
        self.pages[page].pins += 1
        return "0"

    def unpin(self, page):
        self.pages[page].pins -= 1
        return "0"

    def splice(self, page):
        if self.pages[page].private:
            return "EFAULT"
        self.pipe.append(self.pages[page].content)
        return "0"

    def spliced(self):
        return self.pipe.pop(0)[0]

    def punch(self, start, length):
        if start % PAGE_SIZE or length % PAGE_SIZE or not length:
            return "EINVAL"
        for page in self.pages[start // PAGE_SIZE : (start + length) // PAGE_SIZE]:
            page.content, page.batch = [0], None
        return "0"

    def allocate(self, start, length):
        return "0" if start + length <= self.size else "EINVAL"

    def converts(self):
        return True

    def convert(self, page, pages, private):
        asked = self.pages[page : page + pages]
        for number, one in enumerate(asked, page):
            if private and one.pins:
                return "EAGAIN", number
            one.batch = None
        for one in asked:
            one.private = private
        return "0", -1

    def bind(self, start, length, *, elsewhere=False, flags=0):
        pages = set(range(start, start + length, PAGE_SIZE))
        if start % PAGE_SIZE or start + length > self.size or elsewhere or flags or pages & self.bound:
            return "EINVAL"
        self.bound, self.last = self.bound | pages, pages
        return "0"

    def unbind(self):
        self.bound -= self.last
        return "0"

    def meanwhile(self, page, *, pin=False):
        pass

    def is_on_lru(self, page):
        return self.pages[page].batch is None

    def guest_adds(self):
        self.pages[0].content[0] += 1
        return "0"


class FakeKernel:
    release = "7.4-fake"
    file = FakeFile

    def __init__(self, **answers):
        self.answers = {"KVM_CAP_GUEST_MEMFD": 1, "KVM_CAP_GUEST_MEMFD_FLAGS": 3, "KVM_CAP_VM_TYPES": 3} | answers
        self.cpu, self.files = 0, []

    def capability(self, name):
        assert name in CAPABILITIES
        return self.answers.get(name, 0)

    def create(self, size, flags, kind=0):
        if not 0 < size < 1 << 63 or size % PAGE_SIZE or flags & ~3:
            raise refused("EINVAL")
        self.files.append(self.file(self, size, flags))
        return self.files[-1]

    def cpus(self):
        return [0, 1]

    def run_on(self, cpu):
        self.cpu = cpu

    def drain(self):
        for page in (page for file in self.files for page in file.pages):
            page.batch = page.batch if page.batch != self.cpu else None


def wrong(name, answer, when=lambda file, *given, **named: True):
    """A kernel whose files answer a call `name` with `answer`, where `when` says so; else as the fake."""
    right = getattr(FakeFile, name)

    def call(self, *given, **named):
        return answer if when(self, *given, **named) else right(self, *given, **named)

    made = type("WrongFile", (FakeFile,), {name: call})
    return type("WrongKernel", (FakeKernel,), {"file": made})()


class NoZeroes(FakeFile):
    """A hole leaves the content."""

    def punch(self, start, length):
        kept = [page.content for page in self.pages]
        answer = super().punch(start, length)
        for page, content in zip(self.pages, kept, strict=True):
            page.content = content
        return answer


class PartlyDone(FakeFile):
    """A refused request leaves the pages before the refused one private."""

    def convert(self, page, pages, private):
        answer, at = super().convert(page, pages, private)
        for one in self.pages[page:at] if at >= 0 else ():
            one.private = private
        return answer, at


class Shares(FakeFile):
    """A hole makes its pages shared."""

    def punch(self, start, length):
        for page in self.pages[start // PAGE_SIZE : (start + length) // PAGE_SIZE]:
            page.private = False
        return super().punch(start, length)


class NeedsADrain(FakeFile):
    """The conversion does not drain batches."""

    def convert(self, page, pages, private):
        at = next((n for n in range(page, page + pages) if self.pages[n].batch is not None), -1)
        return ("EAGAIN", at) if private and at >= 0 else super().convert(page, pages, private)


class Keeps(FakeFile):
    """A page in a pipe is a copy."""

    def splice(self, page):
        answer = super().splice(page)
        self.pipe = [list(content) for content in self.pipe]
        return answer


class Copies(FakeFile):
    """The guest's pages are not those of the file."""

    def guest_adds(self):
        return "0"


def of(file):
    """A kernel with these files."""
    return type("WrongKernel", (FakeKernel,), {"file": file})()


class AnySize(FakeKernel):
    """Every size is as good as another."""

    def create(self, size, flags, kind=0):
        return super().create(max(1, size % (1 << 40) // PAGE_SIZE) * PAGE_SIZE, flags & 3)


MUTANTS = {
    "maps without the flag": (lambda: wrong("map", "0"), {"mapped_kind"}),
    "any size": (AnySize, {"sizes"}),
    "binds a page twice": (lambda: wrong("bind", "0"), {"bindings"}),
    "no touch": (lambda: wrong("touch", "SIGBUS"), {"to_shared", "to_private", "one_pinned", "shared_touch"}),
    "every touch": (
        lambda: wrong("touch", "0"),
        {"private_touch", "to_private", "nothing_to_do", "each_alone", "mixed_range", "own_batch", "other_batch",
         "two_processes", "race_of_a_fault", "not_allocated", "hole_private", "hole_of_converted"},
    ),
    "no pin": (lambda: wrong("pin", "EFAULT"), {"pin_shared", "one_pinned", "long_pin", "hole_under_pin"}),
    "every pin": (lambda: wrong("pin", "0"), {"pin_private", "race_of_a_pin"}),
    "a pin does not refuse": (
        lambda: wrong("convert", ("0", -1)), {"one_pinned", "each_alone", "pinned_and_batched", "long_pin"}
    ),
    "a refusal names page 0": (
        lambda: wrong("convert", ("EAGAIN", 0), lambda file, page, pages, private: any(p.pins for p in file.pages)),
        {"one_pinned", "each_alone"},
    ),
    "every request is refused": (
        lambda: wrong("convert", ("EAGAIN", 0)), {"to_shared", "nothing_to_do", "mixed_range", "not_allocated"}
    ),
    "another error": (lambda: wrong("convert", ("EBUSY", 0)), {"race_of_a_fault", "race_of_a_pin"}),
    "done in part": (lambda: of(PartlyDone), {"one_pinned"}),
    "no drain": (lambda: of(NeedsADrain), {"own_batch", "other_batch"}),
    "a hole keeps the content": (lambda: of(NoZeroes), {"hole", "hole_under_pin", "guest_fault"}),
    "a hole shares": (lambda: of(Shares), {"hole_private", "hole_of_converted"}),
    "a hole of any size": (lambda: wrong("punch", "0"), {"hole_sizes"}),
    "a hole waits for pins": (
        lambda: wrong("punch", "EBUSY", lambda file, *given: any(p.pins for p in file.pages)), {"hole_under_pin"}
    ),
    "a pipe copies": (lambda: of(Keeps), {"plain_reference"}),
    "no batch": (lambda: wrong("is_on_lru", True), {"batch"}),
    "never drained": (lambda: wrong("is_on_lru", False), {"batch"}),
    "another page for the guest": (lambda: of(Copies), {"guest_fault"}),
}  # fmt: skip
"""Name -> (a kernel with wrong answers, probes that must say so)."""
