/* The event loop and the measures of the peer program; see peer.c, of which this is the second half. */

/* ------------------------------------------------------------------------------------------------ measures */
INLINE i64 focus(M m, int t, int pc, int idle, i64 page)
{
	const Task *k = &m->task[t];

	if (idle)
		return page;
	if (pc == AGAIN)
		return m->actor[t].page;
	if (pc == ACC_PIN || pc == ACC_EXPORT || pc == ACC_CLEAR)
		return k->i < k->end ? k->i : k->start;
	if (pc == PIN_GET && k->at < k->n)
		return k->page + k->at;
	if (pc == UNPIN && k->at > 0)
		return k->page + k->at - 1;
	return k->page;
}

INLINE unsigned bucket(i64 v)
{
	int shift;

	if (v < 1 << HIST_SUB)
		return (unsigned)v;
	shift = 63 - __builtin_clzll((unsigned long long)v) - HIST_SUB;
	return (unsigned)(((shift + 1) << HIST_SUB) + (v >> shift) - (1 << HIST_SUB));
}

INLINE int over_indicated(M m, i64 p)
{
	const Mm *b = &m->mm[bit_page(m, p)];

	if (!b->arch)
		return 0;
	if (m->cfg->track == TRACK_FOLIO && b->order)
		return (1 << b->order) - m->secure[home_of(m, p)];
	return m->uv[p].state != SECURE;
}

INLINE void count_over(M m, i64 now, int change)
{
	Clock *g = m->clock;

	m->metric->over_page_ns += g->over * (now - g->over_at);
	g->over_at = now;
	g->over += change;
}

INLINE void stalled(M m, int t, int outcome)
{
	Metric *c = m->metric;

	if (m->wait[t].stalled)
		return;
	m->wait[t].stalled = 1;
	c->stalls++;
	switch (outcome) {
	case E_LOCKED:
	case W_LOCK:
		c->stall_lock++;
		break;
	case E_REFS:
		c->stall_refs++;
		break;
	case E_WRITEBACK:
	case W_WRITEBACK:
		c->stall_writeback++;
		break;
	default:
		c->stall_busy++;
	}
}

/* Whether a ring that is ready has a page of [first, end) pinned. */
INLINE int pins_stay(M m, i64 first, i64 end)
{
	i64 longs = 0;

	for (i64 q = first; q < end; q++)
		longs += m->mm[q].longs;
	for (int a = 0; longs && a < m->cfg->actors; a++) {
		const Task *k = &m->task[a];

		if (k->pc == RING_READY && k->page < end && first < k->page + k->at)
			return 1;
	}
	return 0;
}

/* Whether a reference that no fair step drops is in the way of vCPU `t`: waits/rules.py, class_of. */
INLINE int is_permanent(M m, int t)
{
	i64 p = m->actor[t].page, first = p, end = p + 1;
	const Uv *uv = &m->uv[p];

	if (m->pt[p].present == MAPPED && uv->state != NON_SECURE && uv->state != EXPORTED)
		return 0;
	if (m->cfg->refs == REFS_FOLIO || (m->mm[p].order && m->cfg->large == LARGE_SPLIT)) {
		first = head(m, p);
		end = first + (1 << m->mm[p].order);
	}
	return pins_stay(m, first, end);
}

INLINE void found_hang(M m, int t, i64 p, int outcome, i64 now)
{
	Clock *g = m->clock;

	if (m->wait[t].hung || !is_permanent(m, t))
		return;
	m->wait[t].hung = CLASS_PERMANENT;
	m->metric->hang_permanent++;
	if (m->metric->first_hang_ns < 0)
		m->metric->first_hang_ns = now;
	if (g->hangs < m->hang_count)
		m->hang[g->hangs++] = (Hang){
			.time = now, .waiter = t, .page = (int32_t)p, .kind = CLASS_PERMANENT, .reason = (int8_t)outcome};
}

INLINE void finished_touch(M m, int t, i64 now)
{
	Wait *a = &m->wait[t];

	if (a->stalled) {
		m->metric->stall_ns += now - a->since;
		m->stall[bucket(now - a->since)]++;
	}
	a->stalled = a->hung = 0;
	m->metric->touches++;
}

INLINE void exported(M m, int t, i64 p)
{
	const Task *k = &m->task[t];
	int kind = m->who[t].kind;

	m->metric->exports++;
	m->metric->bytes_encrypted += 4096;
	if ((kind == DISK || kind == RING) && p != k->page + k->at - 1) {
		m->metric->exports_collateral++;
		m->collateral[p] = 1;
	}
}

INLINE void measure(M m, int t, i64 p, int pc, int outcome, int was, i64 now, i64 spent)
{
	Metric *c = m->metric;

	switch (pc) {
	case RUN:
	case AGAIN:
		if (outcome == DONE)
			finished_touch(m, t, now);
		else if (pc == RUN)
			m->wait[t].since = now;
		break;
	case IMPORT_CALL:
		c->uv_calls++;
		c->uv_ns += spent;
		c->import_ns += spent;
		if (was != m->uv[p].state) {
			c->imports++;
			c->bytes_encrypted += 4096;
			c->imports_collateral += m->collateral[p];
			m->collateral[p] = 0;
		}
		break;
	case ACC_PIN:
		c->uv_calls++;
		c->uv_ns += spent;
		break;
	case ACC_EXPORT:
		c->uv_calls++;
		c->uv_ns += spent;
		if (was != m->uv[p].state)
			exported(m, t, p);
		break;
	case SPLIT:
		c->splits_tried++;
		if (outcome == DONE) {
			c->splits_done++;
			c->split_ns += spent;
		} else {
			c->splits_refused++;
		}
		break;
	case DRAIN_OWN:
		c->drains_own++;
		break;
	case DRAIN_ALL:
		c->drains_all++;
		break;
	case IO_START:
		c->io_started += outcome == OK;
		break;
	case WB_END:
		c->writebacks++;
		break;
	}
}

/* ------------------------------------------------------------------------------------------------ the loop */
INLINE void refused(M m, int t, int kind, i64 p, int pc, int outcome, i64 now)
{
	if (kind == VCPU && pc > AGAIN) {
		stalled(m, t, outcome);
		found_hang(m, t, p, outcome, now);
	}
	block(m, t, outcome == W_STOPPED ? m->cfg->pages + m->who[t].vm : home_of(m, p), -outcome);
}

INLINE i64 charge(M m, int t, int kind, i64 p, int pc, int outcome)
{
	i64 ns = m->cost[pc * OUTCOME_SLOTS + outcome] + exponential(m, t, m->cost[pc * OUTCOME_SLOTS]);

	if (pc == SPLIT && outcome == DONE)
		ns += m->clock->split_page << m->home[p];
	else if (pc == IO_START && outcome == OK)
		ns += exponential(m, t, m->load[t].latency);
	if (m->task[t].pc == IDLE_PC[kind])
		ns += exponential(m, t, m->load[t].think);
	return ns;
}

INLINE void disk_times(M m, int t, int pc, int outcome, i64 now)
{
	Wait *a = &m->wait[t];

	if (pc == DEVICE_IDLE) {
		a->since = now;
	} else if (pc == UNPIN && outcome == DONE) {
		m->metric->io_done++;
		m->metric->io_ns += now - a->since;
		m->latency[bucket(now - a->since)]++;
	}
}

INLINE i64 choose_page(M m, int t)
{
	const Load *a = &m->load[t];
	i64 r = a->first + (i64)(((uint64_t)draw(m, t) * (uint64_t)a->count) >> 32);

	return a->mode == UNIFORM ? r : m->choices[r].page;
}

INLINE void event(M m, int t, i64 now)
{
	int pc = m->task[t].pc, kind = m->who[t].kind, idle = pc == IDLE_PC[kind];
	i64 page = idle ? choose_page(m, t) : 0;
	i64 p = focus(m, t, pc, idle, page), ns;
	int was = m->uv[p].state, bit = m->mm[bit_page(m, p)].arch, over = over_indicated(m, p);
	int refs = m->mm[head(m, p)].refs;
	int outcome = step(m, t, pc, page), state = m->uv[p].state;
	unsigned mask;

	m->metric->events++;
	if (outcome < 0) {
		refused(m, t, kind, p, pc, outcome, now);
		return;
	}
	m->fired[pc]++;
	if (state != was)
		m->secure[home_of(m, p)] += (int16_t)((state == SECURE) - (was == SECURE));
	if (state != was || m->mm[bit_page(m, p)].arch != bit)
		count_over(m, now, over_indicated(m, p) - over);
	ns = charge(m, t, kind, p, pc, outcome);
	measure(m, t, p, pc, outcome, was, now, ns);
	if (kind == DISK) {
		disk_times(m, t, pc, outcome, now);
	} else if (kind == VCPU && pc > AGAIN && (outcome == E_LOCKED || outcome == E_REFS || outcome == E_WRITEBACK)) {
		stalled(m, t, outcome);
		found_hang(m, t, p, outcome, now);
	}
	mask = RELEASES[pc] & (m->mm[head(m, p)].refs < refs ? ALL_REASONS : ALL_REASONS ^ REFS_REASONS);
	if (mask & PAGE_REASONS && m->queue[home_of(m, p)] >= 0)
		wake(m, home_of(m, p), mask, now);
	if (mask & VM_REASONS && m->queue[m->cfg->pages + m->who[t].vm] >= 0)
		wake(m, m->cfg->pages + m->who[t].vm, mask, now);
	if (m->wait[t].hung && m->task[t].pc == AGAIN)
		block(m, t, home_of(m, p), PARKED);
	else
		schedule(m, t, (now + ns) << ACTOR_BITS | t);
}

static __attribute__((noinline)) i64 simulate(const Model *given, i64 limit)
{
	const Model m = *given;

	for (i64 n = 0; n < limit; n++) {
		i64 key = m.tree[1], now = key >> ACTOR_BITS;

		if (now >= m.clock->until)
			return n;
		m.clock->now = now;
		event(&m, (int)(key & ACTOR_MASK), now);
	}
	return limit;
}

/* ------------------------------------------------------------------------------------------------ the program */
static void fail(const char *why)
{
	fprintf(stderr, "peer: %s\n", why);
	exit(2);
}

/* The subset: what other policies, actors or recordings would need is not in this program. */
static int accepts(const Model *m)
{
	const Cfg *c = m->cfg;

	if (c->track == TRACK_BITMAP || c->accessible == ACC_UNIT_LITERAL || c->large == LARGE_REFUSE ||
	    c->after_split != SPLIT_AGAIN || c->drain != DRAIN_OWN_THEN_ALL || c->import_lock != LOCK_NONE ||
	    c->on_busy != BUSY_REFAULT || c->vms != 1 || m->clock->checked || m->clock->tracing)
		return 0;
	for (i64 t = 0; t < c->actors; t++) {
		int kind = m->who[t].kind;

		if ((kind != VCPU && kind != DISK && kind != RING && kind != WRITEBACK) || m->load[t].share_rate ||
		    m->load[t].recorded || m->load[t].mode == RECORDED || m->who[t].vm || m->actor[t].budget != ENDLESS)
			return 0;
	}
	for (i64 p = 0; p < c->pages; p++)
		if (m->mm[p].backing == IOMAP || m->uv[p].refuses || m->uv[p].owner)
			return 0;
	return 1;
}

/* One array of IN: its length in bytes, then the bytes. Large ones get huge pages, as NumPy's do. */
static void *load_array(FILE *in, i64 *bytes)
{
	size_t round = 1 << 21;
	void *at;

	if (fread(bytes, sizeof(*bytes), 1, in) != 1)
		fail("IN is too short");
	if ((size_t)*bytes < round)
		round = 64;
	at = aligned_alloc(round, ((size_t)*bytes + round) / round * round);
	if (!at)
		fail("out of memory");
	if (round > 64)
		madvise(at, (size_t)*bytes, MADV_HUGEPAGE);
	if (fread(at, 1, (size_t)*bytes, in) != (size_t)*bytes)
		fail("IN is too short");
	return at;
}

static i64 cpu_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return now.tv_sec * (i64)1000000000 + now.tv_nsec;
}

int main(int argc, char **argv)
{
	Model m;
	FILE *in, *out;
	i64 took;

	if (argc != 4)
		fail("usage: peer IN OUT LIMIT");
	in = fopen(argv[1], "rb");
	if (!in)
		fail("IN cannot be read");
#define LOAD_ARRAY(name, type) m.name = load_array(in, &m.name##_count);
	ARRAYS(LOAD_ARRAY)
	fclose(in);
#define COUNT_RECORDS(name, type) m.name##_count /= (i64)sizeof(type);
	ARRAYS(COUNT_RECORDS)
	if (!accepts(&m))
		fail("a policy, an actor or a page that is not in the subset");
	took = cpu_ns();
	if (simulate(&m, atoll(argv[3])) < 0)
		return 1;
	took = cpu_ns() - took;
	out = fopen(argv[2], "wb");
	if (!out)
		fail("OUT cannot be written");
#define DUMP_ARRAY(name, type) fwrite(m.name, sizeof(type), (size_t)m.name##_count, out);
	ARRAYS(DUMP_ARRAY)
	if (fclose(out))
		fail("OUT cannot be written");
	printf("%lld\n", (long long)took);
	return 0;
}
