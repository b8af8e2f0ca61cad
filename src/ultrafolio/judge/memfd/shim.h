/*
 * KVM's names over questions, for the functions of guest_memfd. Every primitive that reads or changes shared state asks
 * the program that drives this one. The numbers of an invalidation are fields that the kernel reads and writes without a
 * function: they come with the MMU lock and go back with it, and without the lock each access asks for them.
 */
typedef uint64_t u64;
typedef uint32_t u32;
typedef uint16_t u16;
typedef uint8_t u8;
typedef u64 gfn_t, gpa_t, hva_t, hpa_t, kvm_pfn_t;
typedef unsigned long pgoff_t;
typedef long loff_t;
typedef unsigned int gfp_t;

#define PAGES 8
#define GENERATIONS 64
#define PAGE_SHIFT 12
#define PAGE_SIZE 4096UL
#define EIO 5
#define EFAULT 14
#define EHWPOISON 133
#define IS_ERR_VALUE(x) ((unsigned long)(x) >= (unsigned long)-4095)
#define ERR_PTR(x) ((void *)(long)(x))
#define PTR_ERR(x) ((long)(x))
#define IS_ERR(x) IS_ERR_VALUE((unsigned long)(x))
#define likely(x) (x)
#define unlikely(x) (x)
#define __always_inline inline
#define WARN_ON(x) (x)
#define WARN_ON_ONCE(x) (x)
#define KVM_BUG_ON(x, kvm) ((void)(kvm), (x))
#define EXPORT_SYMBOL_GPL(x)
#define BUILD_BUG_ON(x)
#define READ_ONCE(x) (x)
#define smp_rmb() ((void)0)
#define smp_wmb() ((void)0)
#define cond_resched() ((void)0)
#define lockdep_assert_held(lock) ((void)(lock))
#define lockdep_assert_held_write(lock) ((void)(lock))
#define lockdep_assert_once(condition) ((void)0)
#define max(a, b) ((a) > (b) ? (a) : (b))
#define min(a, b) ((a) < (b) ? (a) : (b))

/* ---- questions; the driver reads their names from this list */
enum question {
	Q_INVALIDATE_LOCK, Q_INVALIDATE_UNLOCK, Q_MMU_LOCK, Q_MMU_UNLOCK, Q_MMU_READ, Q_ZAP, Q_TRUNCATE, Q_RECLAIM,
	Q_SLOTS_LOCK, Q_SLOTS_UNLOCK, Q_ATTRIBUTE, Q_STORE, Q_GRAB, Q_UP_TO_DATE, Q_MARK, Q_UNLOCK, Q_PUT, Q_PREPARE, Q_MAP,
};

/* ---- a file that one virtual machine has bound */
struct list_head { int unused; };
struct xarray { int unused; };
struct inode;
struct address_space { struct inode *host; struct list_head i_private_list; };
struct inode { struct address_space *i_mapping; };
struct file { void *private_data; struct inode *f_inode; struct address_space *f_mapping; };
struct page { int nr; };
struct folio { int nr; };
struct kvm_memory_slot {
	gfn_t base_gfn;
	unsigned long npages;
	u32 flags;
	int id;
	u16 as_id;
	struct { struct file *file; pgoff_t pgoff; } gmem;
};
struct kvm {
	unsigned long seq[1];
	long progress[1];
	gfn_t range_start[1], range_end[1];
	int mmu_lock, slots_lock;
	struct xarray mem_attr_array;
};
struct kvm_gmem { struct kvm *kvm; struct xarray bindings; struct list_head entry; };
enum kvm_gfn_range_filter { KVM_FILTER_SHARED = 1, KVM_FILTER_PRIVATE = 2 };
union kvm_mmu_notifier_arg { unsigned long attributes; };
struct kvm_gfn_range {
	struct kvm_memory_slot *slot;
	gfn_t start, end;
	union kvm_mmu_notifier_arg arg;
	enum kvm_gfn_range_filter attr_filter;
	bool may_block;
};

static struct folio folios[PAGES * GENERATIONS];
static struct page all_pages[PAGES * GENERATIONS];
static struct inode a_inode;
static struct address_space a_mapping = { .host = &a_inode };
static struct kvm a_kvm;
static struct kvm_gmem a_gmem = { .kvm = &a_kvm };
static struct file a_file = { .private_data = &a_gmem, .f_inode = &a_inode, .f_mapping = &a_mapping };
static struct kvm_memory_slot a_slot = { .npages = PAGES, .gmem.file = &a_file };

/* ---- the numbers of an invalidation: progress, start, end, sequence, a byte each but the last; 255 is no page */
#define INVALID_GPA (~(gpa_t)0)
#define BYTE(x) ((unsigned long)(x) & 0xff)
static int locked; /* this run holds the MMU lock */

static void unpack(long numbers)
{
	gfn_t start = BYTE(numbers >> 8), end = BYTE(numbers >> 16);

	a_kvm.progress[0] = BYTE(numbers);
	a_kvm.range_start[0] = start == 255 ? INVALID_GPA : start;
	a_kvm.range_end[0] = end == 255 ? INVALID_GPA : end;
	a_kvm.seq[0] = numbers >> 24;
}

static long packed(void)
{
	return BYTE(a_kvm.progress[0]) | BYTE(a_kvm.range_start[0]) << 8 | BYTE(a_kvm.range_end[0]) << 16 |
	       a_kvm.seq[0] << 24;
}

static int now(void)
{
	if (!locked)
		unpack(ask(Q_MMU_READ, 0, 0));
	return 0;
}
#define mmu_invalidate_seq seq[now()]
#define mmu_invalidate_in_progress progress[now()]
#define mmu_invalidate_range_start range_start[now()]
#define mmu_invalidate_range_end range_end[now()]

static void lock_mmu(void)
{
	unpack(ask(Q_MMU_LOCK, 0, 0));
	locked = 1;
}

static void unlock_mmu(void)
{
	ask(Q_MMU_UNLOCK, packed(), 0);
	locked = 0;
}
#define KVM_MMU_LOCK(kvm) ((void)(kvm), lock_mmu())
#define KVM_MMU_UNLOCK(kvm) unlock_mmu()

/* ---- locks of the file */
#define filemap_invalidate_lock(mapping) ((void)(mapping), ask(Q_INVALIDATE_LOCK, 0, 0))
#define filemap_invalidate_unlock(mapping) ((void)(mapping), ask(Q_INVALIDATE_UNLOCK, 0, 0))
#define filemap_invalidate_lock_shared(mapping) ((void)(mapping), ask(Q_INVALIDATE_LOCK, 0, 1))
#define filemap_invalidate_unlock_shared(mapping) ((void)(mapping), ask(Q_INVALIDATE_UNLOCK, 0, 1))

#define mutex_lock(mutex) ((void)(mutex), ask(Q_SLOTS_LOCK, 0, 0))
#define mutex_unlock(mutex) ((void)(mutex), ask(Q_SLOTS_UNLOCK, 0, 0))
#define read_lock(lock) ((void)(lock), lock_mmu())
#define read_unlock(lock) ((void)(lock), unlock_mmu())

/* ---- one virtual machine and one binding, of the whole file */
#define list_for_each_entry(gmem, list, entry) for ((void)(list), gmem = &a_gmem; gmem; gmem = NULL)
#define XA_PRESENT 8
#define xa_for_each_range(xa, index, slot, first, last) \
	for (index = (first), (void)index, slot = &a_slot; slot; slot = NULL)
#define xa_find(xa, index, last, filter) (&a_slot)

/* ---- KVM's tables */
#define kvm_flush_remote_tlbs(kvm) ((void)(kvm))

/* the kernel may give the lock away between two pages; what it does without is one of the orders in which it does */
static bool zap_range(gfn_t start, gfn_t end, bool may_block)
{
	gfn_t gfn;
	long mapped = 0;

	for (gfn = start; gfn < end; gfn++) {
		if (gfn > start && may_block) {
			unlock_mmu();
			lock_mmu();
		}
		mapped |= ask(Q_ZAP, gfn, 0);
	}
	return mapped != 0;
}
struct kvm_mmu_page { int unused; };
static struct kvm_mmu_page a_root;
#define tdp_mmu_enabled 1
#define kvm_memslots_have_rmaps(kvm) 0
#define __kvm_rmap_zap_gfn_range(kvm, slot, start, end, may_block, flush) (flush)
#define __for_each_tdp_mmu_root_yield_safe(kvm, root, as_id, shared) \
	for ((void)(as_id), root = &a_root; root; root = NULL)
#define tdp_mmu_zap_leafs(kvm, root, start, end, may_block, flush) (zap_range(start, end, may_block) || (flush))
#define APIC_ACCESS_PAGE_PRIVATE_MEMSLOT 1000
#define KVM_REQ_APIC_PAGE_RELOAD 0
#define kvm_make_all_cpus_request(kvm, request) ((void)0)
static struct { void *set_apic_access_page_addr; } kvm_x86_ops;

/* ---- folios: number N is the folio of page N % PAGES, after N / PAGES holes at it */
#define folio_page(folio, n) (&all_pages[(folio)->nr + (n)])
#define page_to_pfn(page) ((page)->nr)
#define folio_order(folio) 0
#define kvm_arch_gmem_invalidate(start, end) ask(Q_RECLAIM, (start) % PAGES, (end) - (start))
static void kvm_gmem_free_folio(struct folio *folio);

static void truncate_inode_pages_range(struct address_space *mapping, loff_t first, loff_t last)
{
	pgoff_t index;
	long freed;

	for (index = first >> PAGE_SHIFT; index <= (pgoff_t)(last >> PAGE_SHIFT); index++) {
		freed = ask(Q_TRUNCATE, index, 0); /* the folio's number and 1, or 0: nothing is freed */
		if (freed)
			kvm_gmem_free_folio(&folios[freed - 1]);
	}
}

/* ---- the attributes: an entry for a private page, none for a shared one */
#define GFP_KERNEL_ACCOUNT 0U
#define KVM_MEMORY_ATTRIBUTE_PRIVATE 8UL
#define CONFIG_KVM_PRIVATE_MEM 1
#define IS_ENABLED(option) 1
#define xa_mk_value(value) ((void *)((value) << 1 | 1))
#define xa_to_value(entry) ((unsigned long)(entry) >> 1)
#define xa_err(result) (result)
#define xa_reserve(xa, index, gfp) 0
#define xa_store(xa, index, entry, gfp) ((int)ask(Q_STORE, index, (entry) != NULL))
#define kvm_supported_mem_attributes(kvm) KVM_MEMORY_ATTRIBUTE_PRIVATE
#define kvm_arch_has_private_mem(kvm) 1
#define guard(lock) guard_##lock
#define guard_rcu() ((void)0)

static void *attribute(pgoff_t index)
{
	return ask(Q_ATTRIBUTE, index, 0) ? xa_mk_value(KVM_MEMORY_ATTRIBUTE_PRIVATE) : NULL;
}

static void *xa_load(struct xarray *xa, pgoff_t index)
{
	return xa == &a_kvm.mem_attr_array ? attribute(index) : (void *)&a_slot;
}
struct xa_state { unsigned long xa_index; bool begun; };
#define XA_STATE(xas, xa, first) struct xa_state xas = { .xa_index = (first) }
#define xas_retry(xas, entry) 0

static void *xas_next(struct xa_state *xas)
{
	if (xas->begun)
		xas->xa_index++;
	xas->begun = true;
	return attribute(xas->xa_index);
}

static void *xas_next_entry(struct xa_state *xas, unsigned long last)
{
	void *entry = NULL;

	while (!entry && xas->xa_index + xas->begun <= last)
		entry = xas_next(xas);
	return entry;
}
#define PG_LEVEL_4K 1
#define PG_LEVEL_2M 2
#define KVM_MAX_HUGEPAGE_LEVEL 3
#define KVM_PAGES_PER_HPAGE(level) (1UL << 9 * ((level) - 1))
#define gfn_round_for_level(gfn, level) ((gfn) & ~(KVM_PAGES_PER_HPAGE(level) - 1))
#define hugepage_test_mixed(slot, gfn, level) 0
#define hugepage_has_attrs(kvm, slot, gfn, level, attributes) ((void)(attributes), 1)
#define hugepage_clear_mixed(slot, gfn, level) ((void)(slot))
#define hugepage_set_mixed(slot, gfn, level) ((void)(slot))
struct kvm_memslots { int unused; };
struct kvm_memslot_iter { struct kvm_memory_slot *slot; };
struct kvm_mmu_notifier_range {
	u64 start, end;
	union kvm_mmu_notifier_arg arg;
	bool (*handler)(struct kvm *kvm, struct kvm_gfn_range *range);
	void (*on_lock)(struct kvm *kvm);
	bool flush_on_ret, may_block;
};
#define IS_KVM_NULL_FN(function) (!(function))
#define kvm_arch_nr_memslot_as_ids(kvm) 1
#define __kvm_memslots(kvm, as_id) NULL
#define kvm_for_each_memslot_in_gfn_range(iter, slots, start, end) \
	for ((void)(slots), (iter)->slot = &a_slot; (iter)->slot; (iter)->slot = NULL)

/* ---- a folio of the file; a frame from OTHER_FRAMES on is one of the process's own memory */
#define OTHER_FRAMES (PAGES * GENERATIONS)
#define IS_ALIGNED(x, a) (((x) & ((a) - 1)) == 0)
#define ALIGN_DOWN(x, a) ((x) & ~((a) - 1UL))
#define CONFIG_HAVE_KVM_ARCH_GMEM_PREPARE 1
#define pr_warn_ratelimited(...) ((void)0)
#define filemap_grab_folio(mapping, index) ((void)(mapping), &folios[ask(Q_GRAB, index, 0)])
#define folio_nr_pages(folio) 1UL
#define folio_pfn(folio) ((folio)->nr)
#define folio_file_pfn(folio, index) ((void)(index), (kvm_pfn_t)folio_pfn(folio))
#define folio_test_hwpoison(folio) 0
#define folio_test_uptodate(folio) ask(Q_UP_TO_DATE, (folio)->nr, 0)
#define folio_mark_uptodate(folio) ask(Q_MARK, (folio)->nr, 0)
#define folio_unlock(folio) ask(Q_UNLOCK, (folio)->nr, 0)
#define clear_highpage(page) ((void)(page))
#define kvm_arch_gmem_prepare(kvm, gfn, pfn, order) ((void)(pfn), (int)ask(Q_PREPARE, gfn, 0))
#define kvm_gmem_get_index(slot, gfn) ((gfn) - (slot)->base_gfn + (slot)->gmem.pgoff)
#define kvm_gmem_get_file(slot) ((slot)->gmem.file)
#define file_inode(file) ((file)->f_inode)
#define fput(file) ((void)(file))

static void folio_put(struct folio *folio)
{
	if (ask(Q_PUT, folio->nr, 0)) /* the last reference of a folio that the file has no more */
		kvm_gmem_free_folio(folio);
}

static void kvm_release_pfn_clean(kvm_pfn_t pfn)
{
	if (pfn < OTHER_FRAMES)
		folio_put(&folios[pfn]);
}

/* ---- a fault */
enum { RET_PF_CONTINUE, RET_PF_RETRY, RET_PF_EMULATE, RET_PF_WRITE_PROTECTED, RET_PF_INVALID, RET_PF_FIXED };
struct mmu_root { hpa_t hpa; };
struct kvm_mmu { struct mmu_root root; };
struct kvm_vcpu { struct kvm *kvm; struct { struct kvm_mmu *mmu; } arch; };
struct kvm_page_fault {
	gpa_t addr;
	bool prefetch, write, exec, is_private, map_writable;
	u8 max_level;
	gfn_t gfn;
	struct kvm_memory_slot *slot;
	unsigned long mmu_seq;
	kvm_pfn_t pfn;
	hva_t hva;
};
static struct kvm_mmu a_mmu;
static struct kvm_vcpu a_vcpu = { .kvm = &a_kvm, .arch.mmu = &a_mmu };
#define ACC_ALL 7
#define KVM_MEM_READONLY 2
#define KVM_MEMSLOT_INVALID 4
#define KVM_REQ_APF_HALT 0
#define KVM_REQ_MMU_FREE_OBSOLETE_ROOTS 0
#define kvm_slot_can_be_private(slot) 1
#define kvm_mmu_prepare_memory_fault_exit(vcpu, fault) ((void)(fault))
#define kvm_max_private_mapping_level(kvm, pfn, level, order) ((void)(order), PG_LEVEL_4K)
#define __gfn_to_pfn_memslot(slot, gfn, atomic, interruptible, async, write, writable, hva) \
	(*(writable) = true, OTHER_FRAMES + (gfn))
#define kvm_can_do_async_pf(vcpu) 0
#define kvm_find_async_pf_gfn(vcpu, gfn) 0
#define kvm_arch_setup_async_pf(vcpu, fault) 0
#define kvm_make_request(request, vcpu) ((void)0)
#define kvm_test_request(request, vcpu) 0
#define trace_kvm_try_async_get_page(address, gfn) ((void)0)
#define trace_kvm_async_pf_repeated_fault(address, gfn) ((void)0)
#define kvm_handle_noslot_fault(vcpu, fault, access) ((void)(access), -EFAULT)
#define kvm_handle_error_pfn(vcpu, fault) (-EFAULT)
#define is_guest_mode(vcpu) 0
#define kvm_apicv_activated(kvm) 1
#define is_error_pfn(pfn) 0
#define is_noslot_pfn(pfn) 0
#define root_to_sp(hpa) ((void)(hpa), &a_root)
#define is_obsolete_sp(kvm, sp) 0
#define page_fault_handle_page_track(vcpu, fault) 0
#define fast_page_fault(vcpu, fault) RET_PF_INVALID
#define mmu_topup_memory_caches(vcpu, indirect) 0
#define kvm_tdp_mmu_map(vcpu, fault) (ask(Q_MAP, (fault)->gfn, (fault)->is_private), RET_PF_FIXED)

static void begin(void)
{
	int i;

	for (i = 0; i < PAGES * GENERATIONS; i++)
		folios[i].nr = all_pages[i].nr = i;
	a_inode.i_mapping = &a_mapping;
	locked = 0;
}
/* what a run is about: its first page, and how many */
#define FIRST_PAGE (subject & 15)
#define SO_MANY (subject >> 4)
