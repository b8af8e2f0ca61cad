/*
 * The peer: the event loop and a fixed subset of the rules as a plain C program, to measure ours against.
 *
 *     peer IN OUT LIMIT      run LIMIT events from the arrays in IN, write the arrays to OUT, print the CPU ns taken
 *
 * This is the one allowed second copy of rules, of src/ultrafolio/model, waits and sim/loop.py: vCPUs that touch, the
 * import, direct I/O, virtio rings and writeback, for the choices in which per-page, whole-folio and split differ.
 * Proof that it does the same work: every array of state and world is equal, byte for byte, at the end.
 * What it leaves out can not happen in what it accepts (see accepts()). Property checking is left out too.
 *
 * Constants, records and the list of arrays come from layout.h, which peer_c.py writes from the same dtypes. Initial
 * state, placement, costs and random number seeds come with IN. All functions are inlined into the loop, so that
 * the array addresses are values and not memory that a store to a byte could change.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#include "layout.h"

#define INLINE static inline __attribute__((always_inline))

typedef int64_t i64;
typedef const Model *restrict M;

/* ------------------------------------------------------------------------------------------- random numbers */
INLINE uint32_t draw(M m, int t)
{
	Load *a = &m->load[t];
	uint32_t s0 = (uint32_t)a->rng0, s1 = (uint32_t)a->rng1;
	uint32_t r = s0 * 0x9E3779BBu;

	r = ((r << 5) | (r >> 27)) * 5;
	s1 ^= s0;
	a->rng0 = (uint32_t)(((s0 << 26) | (s0 >> 6)) ^ s1 ^ (s1 << 9));
	a->rng1 = (uint32_t)((s1 << 13) | (s1 >> 19));
	return r;
}

INLINE i64 exponential(M m, int t, i64 mean)
{
	return mean ? (mean * m->expo[draw(m, t) >> 22]) >> 10 : 0;
}

/* --------------------------------------------------------------------------------------------- winner tree */
INLINE void schedule(M m, int t, i64 key)
{
	i64 *tree = m->tree, least = key;
	size_t i = (size_t)m->clock->leaves + (size_t)t;

	tree[i] = key;
	while (i > 1) {
		i64 other = tree[i ^ 1];

		least = other < least ? other : least;
		i >>= 1;
		tree[i] = least;
	}
}

/* Out of line, as wake below: waiting is rare, and the loop is the smaller for it, which measures 4 % faster. */
static __attribute__((noinline)) void block(M m, int t, i64 queue, int reason)
{
	Wait *a = &m->wait[t];

	a->reason = (uint8_t)reason;
	a->queue = (int32_t)queue;
	a->next = m->queue[queue];
	m->queue[queue] = t;
	schedule(m, t, NEVER);
}

static __attribute__((noinline)) void wake(M m, i64 queue, unsigned mask, i64 now)
{
	int t = m->queue[queue], kept = -1;

	while (t >= 0) {
		Wait *a = &m->wait[t];
		int after = a->next;

		if ((mask >> a->reason) & 1) {
			a->queue = -1;
			schedule(m, t, now << ACTOR_BITS | t);
		} else {
			a->next = kept;
			kept = t;
		}
		t = after;
	}
	m->queue[queue] = kept;
}

/* --------------------------------------------------------------------------------------------------- folios */
INLINE i64 head(M m, i64 p)
{
	int order = m->mm[p].order;

	return p >> order << order;
}

INLINE i64 home_of(M m, i64 p)
{
	return p >> m->home[p] << m->home[p];
}

INLINE i64 counted(M m, i64 p)
{
	return m->cfg->refs == REFS_PAGE ? p : head(m, p);
}

INLINE i64 bit_page(M m, i64 p)
{
	return m->cfg->track == TRACK_FOLIO ? head(m, p) : p;
}

INLINE int extra_refs(M m, i64 p)
{
	const Mm *a = &m->mm[p];

	if (m->cfg->refs == REFS_PAGE)
		return a->pins + a->longs + a->spec + (a->batch ? 1 : 0);
	return m->mm[head(m, p)].refs;
}

INLINE void set_arch(M m, i64 p)
{
	Mm *a = &m->mm[bit_page(m, p)];

	if (!a->arch) {
		a->arch = 1;
		m->mm[head(m, p)].marked++;
	}
}

INLINE void clear_arch(M m, i64 p)
{
	Mm *a = &m->mm[bit_page(m, p)];

	if (a->arch) {
		a->arch = 0;
		m->mm[head(m, p)].marked--;
	}
}

INLINE void unlock(M m, i64 p)
{
	m->mm[head(m, p)].locked = 0;
}

/* -------------------------------------------------------------------------------------------- vCPU, import */
INLINE int execute(M m, int t)
{
	Actor *a = &m->actor[t];
	Task *k = &m->task[t];
	const Uv *uv = &m->uv[a->page];

	if (m->pt[a->page].present == MAPPED && uv->state != NON_SECURE && uv->state != EXPORTED) {
		a->op = NOTHING;
		a->page = 0;
		k->pc = RUN;
		return DONE;
	}
	k->call = TOUCH;
	k->page = a->page;
	k->pc = IMPORT_MAP;
	return FAULT;
}

INLINE int leave(Task *k, int outcome)
{
	k->call = k->drained = k->splits = k->back = 0;
	k->page = 0;
	k->pc = AGAIN;
	return outcome;
}

INLINE int too_many_refs(Task *k)
{
	k->pc = k->drained ? DRAIN_ALL : DRAIN_OWN;
	return E_REFS;
}

INLINE void drain(M m, i64 p, int cpu)
{
	i64 h = head(m, p), end = h + (1 << m->mm[p].order);

	for (i64 q = h; q < end; q++) {
		Mm *a = &m->mm[q];

		if (a->batch && (!cpu || a->batch == cpu)) {
			a->batch = 0;
			m->mm[h].refs--;
		}
	}
}

INLINE int import_map(M m, Task *k)
{
	Pt *a = &m->pt[k->page];
	Mm *h = &m->mm[head(m, k->page)];

	if (a->present == MAPPED && h->writable) {
		k->pc = IMPORT_LARGE;
		return OK;
	}
	a->present = MAPPED;
	h->writable = 1;
	return leave(k, E_NXIO);
}

INLINE int import_trylock(M m, Task *k)
{
	Mm *h = &m->mm[head(m, k->page)];

	if (h->locked)
		return leave(k, E_LOCKED);
	h->locked = 1;
	k->pc = IMPORT_WRITEBACK;
	return OK;
}

INLINE int import_writeback(M m, Task *k)
{
	Mm *h = &m->mm[head(m, k->page)];

	if (h->writeback != NO_WRITEBACK) {
		h->locked = 0;
		k->pc = WAIT_WRITEBACK;
		return E_WRITEBACK;
	}
	k->pc = IMPORT_FREEZE;
	return OK;
}

INLINE int import_freeze(M m, Task *k)
{
	if (extra_refs(m, k->page)) {
		unlock(m, k->page);
		return too_many_refs(k);
	}
	m->mm[counted(m, k->page)].frozen = 1;
	k->pc = IMPORT_ARCH;
	return OK;
}

INLINE int import_call(M m, int t, Task *k)
{
	Uv *uv = &m->uv[k->page];

	if (uv->state == NON_SECURE) {
		uv->state = SECURE;
		uv->owner = m->who[t].vm;
		uv->shared = uv->altered = 0;
	} else if (uv->state == EXPORTED) {
		uv->state = uv->shared ? SHARED : SECURE;
		uv->altered = m->mm[k->page].altered;
		uv->shared = 0;
	}
	k->pc = IMPORT_END;
	return OK;
}

INLINE int import_end(M m, Task *k)
{
	m->mm[counted(m, k->page)].frozen = 0;
	unlock(m, k->page);
	k->tries = 0;
	return leave(k, SUCCESS);
}

INLINE int split_lock(M m, Task *k)
{
	Mm *h = &m->mm[head(m, k->page)];

	if (!m->mm[k->page].order) {
		k->pc = IMPORT_MAP;
		return OK;
	}
	if (h->locked)
		return W_LOCK;
	h->locked = 1;
	k->pc = SPLIT;
	return OK;
}

INLINE int split(M m, Task *k)
{
	i64 first = head(m, k->page);
	Mm *h = &m->mm[first];

	h->locked = 0;
	if (h->writeback != NO_WRITEBACK) {
		k->pc = WAIT_WRITEBACK;
		return E_WRITEBACK;
	}
	if (h->refs)
		return too_many_refs(k);
	for (Mm *q = h + (1 << h->order); --q >= h;) { /* the head, whose order says where to stop, comes last */
		q->dirty = h->dirty;
		q->writable = h->writable;
		if (m->cfg->track == TRACK_FOLIO)
			q->arch = h->arch;
		q->marked = q->arch;
		q->order = 0;
	}
	k->pc = IMPORT_MAP;
	return DONE;
}

/* ----------------------------------------------------------------------------------------- make accessible */
INLINE void make_accessible(M m, Task *k, i64 p, int whole, int then)
{
	i64 start = whole ? head(m, p) : p;

	k->start = k->i = (int32_t)start;
	k->end = (int32_t)(start + (whole ? 1 << m->mm[p].order : 1));
	k->exporting = 0;
	k->failed = 0;
	k->then = (uint8_t)then;
	k->pc = ACC_TEST;
}

INLINE void accessible_done(M m, Task *k)
{
	if (k->then == PIN_GET)
		m->mm[k->page + k->at - 1].granted++;
	k->pc = k->then;
	k->start = k->end = k->i = k->failed = 0;
	k->exporting = k->then = 0;
}

INLINE void next_marked(M m, Task *k)
{
	int by_folio = m->cfg->track == TRACK_FOLIO;

	if (!by_folio)
		while (k->i < k->end && !m->mm[k->i].arch)
			k->i++;
	if (k->i < k->end)
		k->pc = ACC_PIN;
	else if (by_folio)
		k->pc = ACC_CLEAR;
	else
		accessible_done(m, k);
}

INLINE int page_done(M m, Task *k)
{
	if (m->cfg->track != TRACK_FOLIO) {
		k->pc = ACC_CLEAR;
	} else {
		k->i++;
		next_marked(m, k);
	}
	return OK;
}

INLINE int accessible_test(M m, Task *k)
{
	if (m->cfg->track == TRACK_FOLIO && !m->mm[head(m, k->start)].arch)
		accessible_done(m, k);
	else
		next_marked(m, k);
	return OK;
}

INLINE int accessible_pin(M m, Task *k)
{
	Uv *uv = &m->uv[k->i];

	if (uv->state == SHARED || uv->state == PINNED_SHARED) {
		uv->state = PINNED_SHARED;
		return page_done(m, k);
	}
	k->failed = k->i + 1;
	k->pc = ACC_EXPORT;
	return OK;
}

INLINE int accessible_export(M m, Task *k)
{
	Uv *uv = &m->uv[k->i];

	if (uv->state != NON_SECURE && uv->state != EXPORTED) {
		uv->shared = uv->state != SECURE;
		uv->state = EXPORTED;
	}
	m->mm[k->i].altered = 0;
	return page_done(m, k);
}

INLINE int accessible_clear(M m, Task *k)
{
	if (m->cfg->track == TRACK_FOLIO) {
		clear_arch(m, k->start);
		accessible_done(m, k);
	} else {
		clear_arch(m, k->i);
		k->i++;
		next_marked(m, k);
	}
	return OK;
}

/* ------------------------------------------------------------------------------------------ devices, pins */
INLINE int device_start(M m, int t, Task *k, i64 page)
{
	Actor *a = &m->actor[t];

	a->page = k->page = (int32_t)page;
	k->n = a->n;
	k->at = 0;
	k->pc = PIN_GET;
	return OK;
}

INLINE int pin_get(M m, int t, Task *k)
{
	i64 p = k->page + k->at;

	if (k->at == k->n) {
		k->pc = IO_START;
		return DONE;
	}
	if (m->mm[counted(m, p)].frozen)
		return W_FROZEN;
	m->pt[p].present = MAPPED;
	if (m->who[t].kind == RING)
		m->mm[p].longs++;
	else
		m->mm[p].pins++;
	m->mm[head(m, p)].refs++;
	make_accessible(m, k, p, m->cfg->accessible != ACC_UNIT_PAGE, PIN_GET);
	k->at++;
	return OK;
}

INLINE int unpin(M m, Task *k)
{
	if (k->at) {
		i64 p = k->page + --k->at;

		m->mm[p].granted--;
		m->mm[p].pins--;
		m->mm[head(m, p)].refs--;
	}
	if (k->at)
		return OK;
	k->page = k->n = 0;
	k->pc = DEVICE_IDLE;
	return DONE;
}

INLINE int io_start(M m, int t, Task *k)
{
	const Actor *a = &m->actor[t];

	if (m->who[t].kind != DISK) {
		k->pc = RING_READY;
		return DONE;
	}
	for (i64 p = a->page; p < a->page + a->n; p++)
		m->io[p].flying++;
	k->pc = IO_END;
	return OK;
}

INLINE int io_end(M m, int t, Task *k)
{
	Actor *a = &m->actor[t];

	for (i64 p = a->page; p < a->page + a->n; p++)
		m->io[p].flying--;
	a->page = 0;
	k->pc = UNPIN;
	return OK;
}

/* ----------------------------------------------------------------------------------------------- writeback */
INLINE int writeback_lock(M m, Task *k)
{
	Mm *h = &m->mm[head(m, k->page)];

	if (h->locked)
		return W_LOCK;
	if (h->writeback != NO_WRITEBACK)
		return W_WRITEBACK;
	h->locked = 1;
	k->pc = WB_START;
	return OK;
}

INLINE int writeback_flag(M m, Task *k)
{
	Mm *h = &m->mm[head(m, k->page)];

	h->writeback = FLAGGED;
	h->dirty = h->writable = 0;
	make_accessible(m, k, k->page, 1, WB_IO);
	return OK;
}

INLINE int writeback_io(M m, Task *k)
{
	Mm *h = &m->mm[head(m, k->page)];

	h->writeback = WRITING;
	h->locked = 0;
	k->pc = WB_END;
	return OK;
}

INLINE int writeback_end(M m, Task *k)
{
	m->mm[head(m, k->page)].writeback = NO_WRITEBACK;
	k->pc = k->back;
	if (k->back == WB_IDLE)
		k->page = 0;
	k->back = 0;
	return DONE;
}

INLINE int step(M m, int t, int pc, i64 page)
{
	Task *k = &m->task[t];

	switch (pc) {
	case RUN:
		m->actor[t].op = TOUCH;
		m->actor[t].page = (int32_t)page;
		return execute(m, t);
	case AGAIN:
		return execute(m, t);
	case IMPORT_MAP:
		return import_map(m, k);
	case IMPORT_LARGE:
		k->pc = !m->mm[k->page].order || m->cfg->large == LARGE_DIRECT ? IMPORT_TRYLOCK : SPLIT_LOCK;
		return OK;
	case IMPORT_TRYLOCK:
		return import_trylock(m, k);
	case IMPORT_WRITEBACK:
		return import_writeback(m, k);
	case WAIT_WRITEBACK:
		return m->mm[head(m, k->page)].writeback != NO_WRITEBACK ? W_WRITEBACK : leave(k, OK);
	case IMPORT_FREEZE:
		return import_freeze(m, k);
	case DRAIN_OWN:
		drain(m, k->page, m->who[t].cpu + 1);
		k->drained = 1;
		k->pc = IMPORT_MAP;
		return OK;
	case DRAIN_ALL:
		drain(m, k->page, 0);
		return leave(k, E_REFS);
	case IMPORT_ARCH:
		set_arch(m, k->page);
		k->pc = IMPORT_CALL;
		return OK;
	case IMPORT_CALL:
		return import_call(m, t, k);
	case IMPORT_END:
		return import_end(m, k);
	case SPLIT_LOCK:
		return split_lock(m, k);
	case SPLIT:
		return split(m, k);
	case ACC_TEST:
		return accessible_test(m, k);
	case ACC_PIN:
		return accessible_pin(m, k);
	case ACC_EXPORT:
		return accessible_export(m, k);
	case ACC_CLEAR:
		return accessible_clear(m, k);
	case DEVICE_IDLE:
		return device_start(m, t, k, page);
	case PIN_GET:
		return pin_get(m, t, k);
	case IO_START:
		return io_start(m, t, k);
	case IO_END:
		return io_end(m, t, k);
	case UNPIN:
		return unpin(m, k);
	case RING_READY:
		return W_STOPPED;
	case WB_IDLE:
		k->page = (int32_t)page;
		k->back = WB_IDLE;
		k->pc = WB_LOCK;
		return OK;
	case WB_LOCK:
		return writeback_lock(m, k);
	case WB_START:
		return writeback_flag(m, k);
	case WB_IO:
		return writeback_io(m, k);
	case WB_END:
		return writeback_end(m, k);
	}
	return W_IDLE;
}

#include "peer_loop.h"
