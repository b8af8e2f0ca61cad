/*
 * A library for LD_PRELOAD: guest_memfd with the conversion, for a program that asks /dev/kvm for it.
 *
 * The file is a memfd, registered with userfaultfd(2) and UFFD_FEATURE_SIGBUS: a page that is in it is shared, one that
 * is not is private, and a touch of it is SIGBUS. A pin is a registered buffer of io_uring, or a page in a pipe by
 * vmsplice(). FAKE_WRONG names a wrong answer: `no-refusal`, `page-0`, `not-stored`, `done-in-part`, `keeps-shared`.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/kvm.h>
#include <linux/userfaultfd.h>
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

enum { PAGE = 4096, MOST = 64, KVM = 1000, VM = 1001, IN_PIPE = 2000 };
struct request { uint64_t offset, size, attributes, flags, error_offset, reserved[11]; };
#define CREATE_GUEST_MEMFD _IOC(_IOC_READ | _IOC_WRITE, KVMIO, 0xd4, 64)
#define SET_ATTRIBUTES2 _IOC(_IOC_READ | _IOC_WRITE, KVMIO, 0xd2, sizeof(struct request))

static int file = -1, pages;
static char *at;
static bool private[MOST];
static int pinned_by[MOST];	/* the descriptor of the ring; of a pipe, IN_PIPE more */
static int writer_of[MOST];	/* the other end of a pipe */

static void *next(const char *name) { return dlsym(RTLD_NEXT, name); }
static bool wrong(const char *how) { return getenv("FAKE_WRONG") && !strcmp(getenv("FAKE_WRONG"), how); }

static void fail(const char *what)
{
	fprintf(stderr, "fake: %s: %s\n", what, strerror(errno));
	_exit(77);
}

static int change(int mode, int page)
{
	int (*real)(int, int, off_t, off_t) = next("fallocate");

	return real(file, mode, (off_t)page * PAGE, PAGE);
}

static void set(int page, bool to_private)
{
	private[page] = to_private;
	if (to_private)
		change(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, page);
	else
		change(0, page);
}

static void watch(void)
{
	long (*real)(long, ...) = next("syscall");
	int (*call)(int, unsigned long, ...) = next("ioctl");
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_SIGBUS };
	struct uffdio_register range = { .range = { (uintptr_t)at, (uint64_t)pages * PAGE }, .mode = UFFDIO_REGISTER_MODE_MISSING };
	int fd = real(__NR_userfaultfd, O_CLOEXEC);

	if (fd < 0 || call(fd, UFFDIO_API, &api) || call(fd, UFFDIO_REGISTER, &range))
		fail("userfaultfd");
}

int open(const char *path, int flags, ...)
{
	int (*real)(const char *, int, ...) = next("open");

	return strcmp(path, "/dev/kvm") ? real(path, flags) : KVM;
}

static int convert(struct request *asked)
{
	int first = asked->offset / PAGE, last = (asked->offset + asked->size) / PAGE;
	bool to_private = asked->attributes & 8;

	if (!asked->size) {
		errno = EINVAL;
		return -1;
	}
	for (int page = first; page < last && to_private && !wrong("no-refusal"); page++) {
		if (!pinned_by[page])
			continue;
		for (int done = first; done < page && wrong("done-in-part"); done++)
			set(done, true);
		asked->error_offset = wrong("page-0") ? 0 : (uint64_t)page * PAGE;
		errno = EAGAIN;
		return -1;
	}
	for (int page = first; page < last && !wrong("not-stored"); page++)
		set(page, to_private);
	return 0;
}

int ioctl(int fd, unsigned long number, ...)
{
	va_list values;
	void *argument;
	int (*real)(int, unsigned long, ...) = next("ioctl");

	va_start(values, number);
	argument = va_arg(values, void *);
	va_end(values);
	if (fd == KVM && number == KVM_CHECK_EXTENSION)
		return (long)argument == 234 ? 1 : 3;
	if (fd == KVM && number == KVM_CREATE_VM)
		return VM;
	if (fd == VM && number == CREATE_GUEST_MEMFD) {
		uint64_t *asked = argument;

		pages = asked[0] / PAGE;
		file = memfd_create("fake", 0);
		if (pages > MOST || file < 0 || ftruncate(file, asked[0]))
			fail("memfd_create");
		for (int page = 0; page < pages; page++)
			set(page, !(asked[1] & 2));
		return file;
	}
	if (fd == file && number == SET_ATTRIBUTES2)
		return convert(argument);
	return real(fd, number, argument);
}

void *mmap(void *where, size_t size, int protection, int flags, int fd, off_t offset)
{
	void *(*real)(void *, size_t, int, int, int, off_t) = next("mmap");
	void *made = real(where, size, protection, flags, fd, offset);

	if (fd >= 0 && fd == file) {
		at = made;
		watch();
	}
	return made;
}

pid_t fork(void)
{
	pid_t (*real)(void) = next("fork");
	pid_t child = real();

	if (!child && at && !wrong("keeps-shared"))
		watch();
	return child;
}

int fallocate(int fd, int mode, off_t start, off_t size)
{
	int (*real)(int, int, off_t, off_t) = next("fallocate");

	if (fd != file)
		return real(fd, mode, start, size);
	for (int page = start / PAGE; page < (start + size) / PAGE; page++)
		if (!private[page] && mode & FALLOC_FL_PUNCH_HOLE && !change(mode, page))
			change(0, page);
	return 0;
}

int pipe(int ends[2])
{
	int (*real)(int[2]) = next("pipe");
	int answer = real(ends);

	if (!answer && ends[0] < MOST)
		writer_of[ends[0]] = ends[1];
	return answer;
}

ssize_t vmsplice(int fd, const struct iovec *vector, size_t count, unsigned int flags)
{
	ssize_t (*real)(int, const struct iovec *, size_t, unsigned int) = next("vmsplice");
	ssize_t answer = real(fd, vector, count, flags);

	if (answer > 0)
		pinned_by[((char *)vector->iov_base - at) / PAGE] = IN_PIPE + fd;
	return answer;
}

ssize_t read(int fd, void *where, size_t size)
{
	ssize_t (*real)(int, void *, size_t) = next("read");

	for (int page = 0; page < pages; page++)
		if (fd < MOST && writer_of[fd] && pinned_by[page] == IN_PIPE + writer_of[fd])
			pinned_by[page] = 0;
	return real(fd, where, size);
}

long syscall(long number, ...)
{
	va_list values;
	long a, b, c, d, answer;
	long (*real)(long, ...) = next("syscall");

	va_start(values, number);
	a = va_arg(values, long);
	b = va_arg(values, long);
	c = va_arg(values, long);
	d = va_arg(values, long);
	va_end(values);
	answer = real(number, a, b, c, d);
	if (number != __NR_io_uring_register || answer)
		return answer;
	for (int page = 0; page < pages; page++) {
		if (b == 0) {
			struct iovec *buffer = (struct iovec *)c;
			char *mine = at + page * PAGE, *from = buffer->iov_base;

			if (mine >= from && mine < from + buffer->iov_len)
				pinned_by[page] = a;
		} else if (pinned_by[page] == a) {
			pinned_by[page] = 0;
		}
	}
	return 0;
}
