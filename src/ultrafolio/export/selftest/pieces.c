/* piece: head */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <linux/falloc.h>
#include <linux/kvm.h>

/* include/uapi/linux/kvm.h of Linux 6.18, for headers that are older. */
#ifndef KVM_CAP_GUEST_MEMFD
#define KVM_CAP_GUEST_MEMFD 234
#endif
#ifndef KVM_CAP_VM_TYPES
#define KVM_CAP_VM_TYPES 235
#endif
#ifndef KVM_CAP_GUEST_MEMFD_FLAGS
#define KVM_CAP_GUEST_MEMFD_FLAGS 244
#endif
#ifndef GUEST_MEMFD_FLAG_MMAP
#define GUEST_MEMFD_FLAG_MMAP (1ULL << 0)
#endif
#ifndef GUEST_MEMFD_FLAG_INIT_SHARED
#define GUEST_MEMFD_FLAG_INIT_SHARED (1ULL << 1)
#endif
#ifndef KVM_X86_SW_PROTECTED_VM
#define KVM_X86_SW_PROTECTED_VM 1
#endif
#ifndef KVM_MEMORY_ATTRIBUTE_PRIVATE
#define KVM_MEMORY_ATTRIBUTE_PRIVATE (1ULL << 3)
#endif

#ifndef KVM_CREATE_GUEST_MEMFD
struct kvm_create_guest_memfd {
	uint64_t size;
	uint64_t flags;
	uint64_t reserved[6];
};
#define KVM_CREATE_GUEST_MEMFD _IOWR(KVMIO, 0xd4, struct kvm_create_guest_memfd)
#endif

/* "guest_memfd: In-place conversion support", as queued for Linux 7.4. */
#ifndef KVM_SET_MEMORY_ATTRIBUTES2
struct kvm_memory_attributes2 {
	union {
		uint64_t address;
		uint64_t offset;
	};
	uint64_t size;
	uint64_t attributes;
	uint64_t flags;
	uint64_t error_offset;
	uint64_t reserved[11];
};
#define KVM_SET_MEMORY_ATTRIBUTES2 _IOWR(KVMIO, 0xd2, struct kvm_memory_attributes2)
#endif

/* Exit codes and results of tools/testing/selftests/kselftest.h. */
#define KSFT_PASS 0
#define KSFT_FAIL 1
#define KSFT_SKIP 4

#define PAGE_BYTES 4096
/* piece: state */

static char *memory;			/* the file, as this process maps it */
static int memfd;
static char missing_conversion[128];	/* why no page can be converted, or "" */
static int unknown[PAGES];		/* the skipped test after which a page's attribute is not known; -1: the start */
static int number;			/* of the last test */
static int failures;

static void die(const char *what)
{
	printf("Bail out! %s: %s\n", what, strerror(errno));
	exit(KSFT_FAIL);
}

static void skip_all(const char *missing)
{
	printf("1..0 # SKIP missing: %s\n", missing);
	exit(KSFT_SKIP);
}

static void skip(const char *what, int page, int pages, const char *format, ...)
{
	va_list values;

	printf("ok %d - %s # SKIP missing: ", ++number, what);
	va_start(values, format);
	vprintf(format, values);
	va_end(values);
	printf("\n");
	for (int i = page; i < page + pages; i++)
		if (!unknown[i])
			unknown[i] = number;
}

/* Whether a test depends on one that was skipped; then it is skipped, too. */
static bool depends(const char *what, int page, int pages)
{
	for (int i = page; i < page + pages; i++) {
		if (unknown[i]) {
			if (unknown[i] < 0)
				skip(what, page, pages, "%s", missing_conversion);
			else
				skip(what, page, pages, "the result of test %d", unknown[i]);
			return true;
		}
	}
	return false;
}

static const char *word(int answer)
{
	switch (answer) {
	case 0:
		return "0";
	case SIGBUS:
		return "SIGBUS";
	case -EAGAIN:
		return "-EAGAIN";
	case -EFAULT:
		return "-EFAULT";
	default:
		return strerror(-answer);
	}
}

static void diagnosis(const char *who, int answer, int at)
{
	printf("# %s: %s", who, word(answer));
	if (at >= 0)
		printf(" at page %d", at);
	printf("\n");
}

/* An answer, and the page that it names, or -1; both as the rules have them, or the test fails. */
static void result_at(const char *what, int answer, int at, int wanted, int wanted_at)
{
	bool right = answer == wanted && at == wanted_at;

	failures += !right;
	printf("%sok %d - %s\n", right ? "" : "not ", ++number, what);
	if (right)
		return;
	diagnosis("the kernel", answer, at);
	diagnosis("the rules", wanted, wanted_at);
}

static void result(const char *what, int answer, int wanted)
{
	result_at(what, answer, -1, wanted, -1);
}
/* piece: touch */

static sigjmp_buf back;

static void on_sigbus(int signal)
{
	(void)signal;
	siglongjmp(back, 1);
}

/* Reads a byte of a page. Returns 0 or SIGBUS. */
static int touch(int page)
{
	volatile char *at = memory + page * PAGE_BYTES;

	if (sigsetjmp(back, 1))
		return SIGBUS;
	(void)*at;
	return 0;
}

static void check_touch(const char *what, int page, int wanted)
{
	if (!depends(what, page, 1))
		result(what, touch(page), wanted);
}
/* piece: process */

static struct {
	int to, from;
} process[PROCESSES];

/* Starts process `of`, which touches pages that it is told, with a page table of its own. */
static void start_process(int of)
{
	int to[2], from[2], page;

	if (pipe(to) || pipe(from))
		die("pipe");
	switch (fork()) {
	case -1:
		die("fork");
		break;
	case 0:
		close(to[1]);
		close(from[0]);
		while (read(to[0], &page, sizeof(page)) == sizeof(page)) {
			int answer = touch(page);

			if (write(from[1], &answer, sizeof(answer)) != sizeof(answer))
				break;
		}
		_exit(0);
	}
	close(to[0]);
	close(from[1]);
	process[of].to = to[1];
	process[of].from = from[0];
}

static void check_touch_by(const char *what, int of, int page, int wanted)
{
	int answer;

	if (depends(what, page, 1))
		return;
	if (write(process[of].to, &page, sizeof(page)) != sizeof(page) ||
	    read(process[of].from, &answer, sizeof(answer)) != sizeof(answer))
		die("another process");
	result(what, answer, wanted);
}
/* piece: lock */

/* Makes the mapping of a page VM_LOCKED, without faulting it in. */
static void check_locked_touch(const char *what, int page, int wanted)
{
	if (depends(what, page, 1))
		return;
	if (mlock2(memory + page * PAGE_BYTES, PAGE_BYTES, MLOCK_ONFAULT))
		skip(what, page, 1, "mlock2: %s", strerror(errno));
	else
		result(what, touch(page), wanted);
}
/* piece: cpu */

/* Runs on the nth CPU of this process. Returns false where it has fewer. */
static bool run_on(int nth)
{
	static cpu_set_t allowed;
	static bool known;
	cpu_set_t one;

	if (!known && sched_getaffinity(0, sizeof(allowed), &allowed))
		die("sched_getaffinity");
	known = true;
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (CPU_ISSET(cpu, &allowed) && nth-- == 0) {
			CPU_ZERO(&one);
			CPU_SET(cpu, &one);
			return !sched_setaffinity(0, sizeof(one), &one);
		}
	}
	return false;
}
/* piece: batch */

/*
 * The first touch of a page, on the nth CPU: a page that is added to the file enters that CPU's batch.
 * A later touch leaves the page where it is.
 */
static void check_batch(const char *what, int nth, int page)
{
	if (depends(what, page, 1))
		return;
	if (!run_on(nth))
		skip(what, page, 1, "CPU number %d", nth);
	else
		result(what, touch(page), 0);
}
/* piece: pin */

static int ring[ACTORS];
static bool pinned[ACTORS];

/* Pins pages for long, by a registered buffer of io_uring. */
static void check_pin(const char *what, int actor, int page, int pages, int wanted)
{
	struct iovec buffer = { memory + page * PAGE_BYTES, pages * PAGE_BYTES };
	char parameters[120] = { 0 };	/* struct io_uring_params */

	if (depends(what, page, pages))
		return;
	ring[actor] = syscall(__NR_io_uring_setup, 1, parameters);
	if (ring[actor] < 0) {
		skip(what, page, pages, "io_uring: %s", strerror(errno));
		return;
	}
	pinned[actor] = !syscall(__NR_io_uring_register, ring[actor], 0 /* IORING_REGISTER_BUFFERS */, &buffer, 1);
	result(what, pinned[actor] ? 0 : -errno, wanted);
	if (!pinned[actor])
		close(ring[actor]);
}
/* piece: unpin */

static void check_unpin(const char *what, int actor, int page, int pages)
{
	if (!pinned[actor]) {
		skip(what, page, pages, "the pin");
		return;
	}
	result(what, syscall(__NR_io_uring_register, ring[actor], 1 /* IORING_UNREGISTER_BUFFERS */, NULL, 0) ?
	       -errno : 0, 0);
	close(ring[actor]);
	pinned[actor] = false;
}
/* piece: reference */

static int spliced[ACTORS][2];
static bool in_pipe[ACTORS];

/* Puts a page into a pipe: a plain reference, which stays until the page is read. */
static void check_reference(const char *what, int actor, int page, int wanted)
{
	struct iovec one = { memory + page * PAGE_BYTES, PAGE_BYTES };

	if (depends(what, page, 1))
		return;
	if (!spliced[actor][1] && pipe(spliced[actor]))
		die("pipe");
	in_pipe[actor] = vmsplice(spliced[actor][1], &one, 1, 0) == PAGE_BYTES;
	result(what, in_pipe[actor] ? 0 : -errno, wanted);
}
/* piece: put */

static void check_put(const char *what, int actor, int page)
{
	static char content[PAGE_BYTES];

	if (!in_pipe[actor]) {
		skip(what, page, 1, "the reference");
		return;
	}
	result(what, read(spliced[actor][0], content, PAGE_BYTES) == PAGE_BYTES ? 0 : -errno, 0);
	in_pipe[actor] = false;
}
/* piece: hole */

static void check_hole(const char *what, int page, int pages)
{
	if (depends(what, page, pages))
		return;
	result(what, fallocate(memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)page * PAGE_BYTES,
			       (off_t)pages * PAGE_BYTES) ? -errno : 0, 0);
}
/* piece: convert */

/* Converts pages in place. Returns 0 or -errno; *at is the page that a refusal names. */
static int convert(int page, int pages, bool to_private, int *at)
{
	struct kvm_memory_attributes2 asked = {
		.offset = (uint64_t)page * PAGE_BYTES,
		.size = (uint64_t)pages * PAGE_BYTES,
		.attributes = to_private ? KVM_MEMORY_ATTRIBUTE_PRIVATE : 0,
	};
	int answer = ioctl(memfd, KVM_SET_MEMORY_ATTRIBUTES2, &asked) ? -errno : 0;

	*at = asked.error_offset / PAGE_BYTES;
	return answer;
}
/* piece: request */

/* changes: whether a skipped request leaves attributes unknown; at: the page that a refusal names. */
static void check_convert(const char *what, int page, int pages, bool to_private, int wanted, int at, bool changes)
{
	int answer, named;

	if (missing_conversion[0]) {
		skip(what, page, changes ? pages : 0, "%s", missing_conversion);
		return;
	}
	if (depends(what, page, pages))
		return;
	answer = convert(page, pages, to_private, &named);
	result_at(what, answer, answer ? named : -1, wanted, at);
}
/* piece: setup */

static void setup(void)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), type = 0, vm;
	struct kvm_create_guest_memfd file = { .size = PAGES * PAGE_BYTES, .flags = FLAGS };
	struct kvm_memory_attributes2 nothing = { 0 };

	if (kvm < 0)
		skip_all("/dev/kvm, or the right to open it");
	if (ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_GUEST_MEMFD) <= 0)
		skip_all("KVM_CAP_GUEST_MEMFD");
	if ((ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_GUEST_MEMFD_FLAGS) & FLAGS) != FLAGS)
		skip_all("KVM_CAP_GUEST_MEMFD_FLAGS: MMAP and INIT_SHARED");
#ifdef __x86_64__
	if (ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_VM_TYPES) >> KVM_X86_SW_PROTECTED_VM & 1)
		type = KVM_X86_SW_PROTECTED_VM;
#endif
	vm = ioctl(kvm, KVM_CREATE_VM, type);
	if (vm < 0)
		die("KVM_CREATE_VM");
	memfd = ioctl(vm, KVM_CREATE_GUEST_MEMFD, &file);
	if (memfd < 0)
		die("KVM_CREATE_GUEST_MEMFD");
	memory = mmap(NULL, PAGES * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
	if (memory == MAP_FAILED)
		die("mmap");
	if (ioctl(memfd, KVM_SET_MEMORY_ATTRIBUTES2, &nothing) && errno == ENOTTY)
		strcpy(missing_conversion, "KVM_CAP_GUEST_MEMFD_MEMORY_ATTRIBUTES (KVM_SET_MEMORY_ATTRIBUTES2: ENOTTY)");
	else if (!type)
		strcpy(missing_conversion, "KVM_CAP_VM_TYPES: KVM_X86_SW_PROTECTED_VM");
}
/* piece: allocate */

/* Allocates a page, as it is at the start. */
static void allocate(int page)
{
	if (fallocate(memfd, FALLOC_FL_KEEP_SIZE, (off_t)page * PAGE_BYTES, PAGE_BYTES))
		die("fallocate");
}

/* Drains this CPU's LRU batches, which a new page enters: mlock() of other memory begins with that. */
static void drain(void)
{
	void *other = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (other == MAP_FAILED)
		die("mmap");
	if (mlock(other, PAGE_BYTES))
		printf("# mlock: %s; new pages may be in this CPU's LRU batch\n", strerror(errno));
	munmap(other, PAGE_BYTES);
}
/* piece: start-private */

/* Makes a page private, as it is at the start. */
static void start_private(int page)
{
	int at;

	if (missing_conversion[0])
		unknown[page] = -1;
	else if (convert(page, 1, true, &at))
		die("the conversion of a page that is private at the start");
}
/* piece: needs */

/* No test of this story can be made without what it needs. */
static void needs(void)
{
	strcpy(missing_conversion, NEEDS);
	for (int page = 0; page < PAGES; page++)
		unknown[page] = -1;
}
