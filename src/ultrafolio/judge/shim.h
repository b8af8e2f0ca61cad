/*
 * The kernel's names over questions: every primitive that reads or changes shared state asks the program that drives
 * this one, and goes on with the answer. Nothing shared is kept here, so a function is determined by its arguments and
 * the answers that it was given, and runs again up to any point.
 */
typedef uint64_t u64;
typedef uint16_t u16;
typedef unsigned long phys_addr_t;
typedef unsigned int gfp_t;
typedef long pgoff_t;
typedef struct { int held; } spinlock_t;
typedef struct { int counter; } atomic_t;

#define PAGES 16
#define PAGE_SKIPPED 1
#define ENOMEM 12
#define EAGAIN 11
#define E2BIG 7
#define ENXIO 6
#define EFAULT 14
#define EBUSY 16
#define EINVAL 22
#define EMLINK 31
#define likely(x) (x)
#define unlikely(x) (x)
#define __maybe_unused __attribute__((unused))
#define data_race(x) (x)
#define IS_ERR_VALUE(x) ((unsigned long)(x) >= (unsigned long)-4095)
#define ERR_PTR(x) ((void *)(long)(x))
#define IS_ERR(x) IS_ERR_VALUE((unsigned long)(x))
#define IS_ERR_OR_NULL(x) (!(x) || IS_ERR(x))
#define EXPORT_SYMBOL_GPL(x)
#define WARN_ON_ONCE(x) (x)
#define WARN_ONCE(x, ...) (x)
#define VM_WARN_ON(x) ((void)(x))
#define VM_BUG_ON(x) ((void)0)
#define VM_BUG_ON_PAGE(x, page) ((void)0)
/* of these tests only one is more than a check of the caller: that a page in writeback was made accessible */
#define VM_BUG_ON_FOLIO(x, folio) (#x[0] == 'a' && (x) ? too_late() : (void)0)
#define PAGE_SIZE 4096UL
#define PAGE_MASK (~(PAGE_SIZE - 1))
#define PFN_PHYS(pfn) ((unsigned long)(pfn) << 12)

/* ---- questions; the driver reads their names from this list */
enum question {
	Q_HEAD, Q_LARGE, Q_TRYLOCK, Q_LOCK, Q_UNLOCK, Q_WRITEBACK, Q_WAIT_WRITEBACK, Q_GET, Q_PUT, Q_FREEZE, Q_UNFREEZE,
	Q_MAPCOUNT, Q_SWAPCACHE, Q_IN_FILE, Q_SET_BIT, Q_CLEAR_BIT, Q_TEST_BIT, Q_CALL, Q_DRAIN_OWN, Q_DRAIN_ALL,
	Q_TABLE_LOCK, Q_TABLE_UNLOCK, Q_ENTRY, Q_FAULT, Q_OWNER_MOVES, Q_GUESTS, Q_PIN, Q_UNPIN, Q_CLEAR_ENTRY,
	Q_RESTORE_ENTRY, Q_START_WRITEBACK, Q_CLEAN, Q_END_WRITEBACK, Q_ANON, Q_PINNED, Q_MAPPED, Q_REFS, Q_SWAP_OUT,
	Q_SPLIT, Q_LATE, Q_UNMAP_SPLIT, Q_REMAP, Q_DIRTY_FILE, Q_PAGES, Q_RELEASE,
};

/* ---- pages, folios, tables */
struct inode { int unused; };
struct address_space { struct inode *host; int i_pages; };
struct list_head { int unused; };
struct folio {
	unsigned long flags;
	void *private;
	struct address_space *mapping;
	struct list_head lru, _deferred_list;
	int nr;
};
struct page { unsigned long flags; int nr; };
typedef struct { unsigned long val; } pte_t;
typedef struct { unsigned long val; } pmd_t;
struct mm_struct { struct { atomic_t protected_count; } context; };
struct vm_area_struct { struct mm_struct *vm_mm; };
struct gmap { struct mm_struct *mm; u64 guest_handle; };
struct dev_pagemap { int unused; };
struct bdi { int capabilities; };
#define backing_dev_info bdi
struct bdi_writeback { int unused; };
struct scan_control { gfp_t gfp_mask; unsigned long nr_scanned; };

static struct page all_pages[PAGES];
static struct folio folios[PAGES];
static pte_t all_entries[PAGES];
static pmd_t tables[1];
static struct inode an_inode;
static struct address_space a_file = { .host = &an_inode };
static struct mm_struct a_process;
static struct vm_area_struct a_vma = { .vm_mm = &a_process };
static struct gmap a_gmap = { .mm = &a_process };
static struct scan_control a_scan = { .gfp_mask = ~0U };
static struct bdi a_bdi;

#define ENTRY_PRESENT 1UL
#define ENTRY_WRITE 2UL
#define _PAGE_INVALID 4UL
#define pte_val(pte) ((pte).val)
#define pmd_val(pmd) ((pmd).val)
#define __pte(x) ((pte_t){ (x) })
#define pte_present(pte) ((pte).val & ENTRY_PRESENT)
#define pte_write(pte) ((pte).val & ENTRY_WRITE)
#define pte_none(pte) (!(pte).val)
#define pte_pfn(pte) ((pte).val >> 12)
#define pte_page(pte) (&all_pages[(pte).val >> 12])
#define pte_dirty(pte) 1
#define pte_devmap(pte) 0
#define pte_special(pte) 0
#define pte_protnone(pte) 0
#define pte_access_permitted(pte, write) (pte_present(pte) && (!(write) || pte_write(pte)))
#define pfn_valid(pfn) 1
#define pfn_folio(pfn) page_folio(&all_pages[pfn])
#define page_to_phys(page) PFN_PHYS((page)->nr)
#define phys_to_page(address) (&all_pages[(address) >> 12])
#define folio_pfn(folio) ((folio)->nr)
#define folio_to_phys(folio) PFN_PHYS((folio)->nr)

static struct folio *page_folio(struct page *page)
{
	return &folios[ask(Q_HEAD, page->nr, 0)];
}

static pte_t entry_of(int page)
{
	pte_t entry = { ask(Q_ENTRY, page, 0) | (unsigned long)page << 12 };

	all_entries[page] = entry;
	return entry;
}

static pte_t *lock_table(int page, spinlock_t **lock)
{
	*lock = NULL;
	ask(Q_TABLE_LOCK, page, 0);
	entry_of(page);
	return &all_entries[page];
}
#define get_locked_pte(mm, address, lock) lock_table((address) >> 12, lock)
#define pte_offset_map_lock(mm, pmd, address, lock) lock_table((address) >> 12, lock)
#define pte_unmap_unlock(pte, lock) ask(Q_TABLE_UNLOCK, (pte) - all_entries, 0)
#define pte_offset_map(pmd, address) (&all_entries[(address) >> 12])
#define pte_unmap(pte) ((void)(pte))
#define ptep_get_lockless(pte) entry_of((pte) - all_entries)
#define ptep_get(pte) entry_of((pte) - all_entries)
#define mmap_read_lock(mm) ((void)(mm))
#define mmap_read_unlock(mm) ((void)(mm))
#define vma_lookup(mm, address) (&a_vma)
#define is_vm_hugetlb_page(vma) 0
#define mm_is_protected(mm) 1
#define __gmap_translate(gmap, address) ((unsigned long)(address))
#define FAULT_FLAG_WRITE 1
#define gmap_fault(gmap, address, flags) ask(Q_FAULT, (address) >> 12, flags)

static pte_t clear_entry(int page)
{
	pte_t entry = { ask(Q_CLEAR_ENTRY, page, 0) | (unsigned long)page << 12 };

	return entry;
}
#define ptep_xchg_lazy(mm, address, pte, new) clear_entry((address) >> 12)
#define ptep_xchg_direct(mm, address, pte, new) clear_entry((address) >> 12)
/* the entry goes with the whole mapping: the same question as above */
#define set_pte(pte, new) ((void)clear_entry((pte) - all_entries))

/* ---- folio locks, flags, references */
#define folio_test_large(folio) ask(Q_LARGE, (folio)->nr, 0)
#define folio_trylock(folio) ask(Q_TRYLOCK, (folio)->nr, 0)
#define folio_lock(folio) ask(Q_LOCK, (folio)->nr, 0)
#define folio_unlock(folio) ask(Q_UNLOCK, (folio)->nr, 0)
#define folio_test_writeback(folio) ask(Q_WRITEBACK, (folio)->nr, 0)
#define folio_wait_writeback(folio) ask(Q_WAIT_WRITEBACK, (folio)->nr, 0)
#define folio_get(folio) ask(Q_GET, (folio)->nr, 0)
#define folio_put(folio) ask(Q_PUT, (folio)->nr, 0)
#define get_page(page) ask(Q_GET, (page)->nr, 0)
#define put_page(page) ask(Q_PUT, (page)->nr, 0)
#define folio_mapcount(folio) ((int)ask(Q_MAPCOUNT, (folio)->nr, 0))
#define folio_entire_mapcount(folio) 0
#define folio_ref_count(folio) ((int)ask(Q_REFS, (folio)->nr, 0))
#define folio_mapped(folio) ask(Q_MAPPED, (folio)->nr, 0)
#define folio_test_swapcache(folio) ask(Q_SWAPCACHE, (folio)->nr, 0)
#define folio_test_swapbacked(folio) 1
#define folio_mapping(folio) (ask(Q_IN_FILE, (folio)->nr, 0) ? &a_file : NULL)
#define folio_test_anon(folio) ask(Q_ANON, (folio)->nr, 0)
#define folio_page(folio, n) (&all_pages[(folio)->nr + (n)])
#define folio_nr_pages(folio) ask(Q_PAGES, (folio)->nr, 0)
#define folio_ref_freeze(folio, count) ask(Q_FREEZE, (folio)->nr, count)
#define folio_ref_unfreeze(folio, count) ask(Q_UNFREEZE, (folio)->nr, count)
#define folio_maybe_dma_pinned(folio) ask(Q_PINNED, (folio)->nr, 0)
#define lru_add_drain() ask(Q_DRAIN_OWN, subject, 0)
#define lru_add_drain_all() ask(Q_DRAIN_ALL, subject, 0)
#define PG_arch_1 9

static int nr_of(void *flags)
{
	if ((char *)flags >= (char *)all_pages && (char *)flags < (char *)(all_pages + PAGES))
		return ((struct page *)flags)->nr;
	return ((struct folio *)flags)->nr;
}
#define set_bit(bit, flags) ask(Q_SET_BIT, nr_of(flags), 0)
#define clear_bit(bit, flags) ask(Q_CLEAR_BIT, nr_of(flags), 0)
#define test_bit(bit, flags) ask(Q_TEST_BIT, nr_of(flags), 0)
#define PageHuge(page) 0

/* ---- the ultravisor: one answer a call, an index of the model's results */
struct uv_cb_header { u16 len, cmd, rc, rrc; };
struct uv_cb_cfs { struct uv_cb_header header; u64 paddr; };
struct uv_cb_cts { struct uv_cb_header header; u64 guest_handle, gaddr; };
#define UVC_CMD_CONV_TO_SEC_STOR 0x0200
#define UVC_CMD_CONV_FROM_SEC_STOR 0x0201
#define UVC_CMD_DESTR_SEC_STOR 0x0202
#define UVC_CMD_PIN_PAGE_SHARED 0x0341
#define UVC_CMD_UNPIN_PAGE_SHARED 0x0342
#define UVC_CC_OK 0
#define UVC_CC_ERROR 1
#define UVC_CC_BUSY 2
#define UVC_CC_PARTIAL 3
#define BIT_UV_FEAT_MISC 4
#define uv_has_feature(feature) ask(Q_OWNER_MOVES, 0, 0)
#define atomic_read(counter) ((void)(counter), (int)ask(Q_GUESTS, 0, 0))

static int uv_call_once(u64 block)
{
	struct uv_cb_header *header = (void *)block;
	bool import = header->cmd == UVC_CMD_CONV_TO_SEC_STOR || header->cmd == UVC_CMD_UNPIN_PAGE_SHARED;
	u64 address = import ? ((struct uv_cb_cts *)block)->gaddr : ((struct uv_cb_cfs *)block)->paddr;
	long answer = ask(Q_CALL, address >> 12, header->cmd);

	header->rc = answer >> 8;
	return answer & 0xff;
}
struct uv_cb_share { struct uv_cb_header header; u64 paddr; };
#define UVC_CMD_REMOVE_SHARED_ACCESS 0x1001
struct sie_block { u64 sidad; };
struct kvm_vcpu { struct { struct sie_block *sie_block; struct gmap *gmap; } arch; void *kvm; };
static struct uv_cb_share a_request;
static struct sie_block a_sie;
static struct kvm_vcpu a_vcpu = { .arch.gmap = &a_gmap, .arch.sie_block = &a_sie };
#define sida_addr(block) (&a_request)
#define kvm_s390_pv_get_handle(kvm) 0
#define __uv_call(unused, block) uv_call_once(block)
#define uv_call(unused, block) uv_call_once(block)

/* ---- pins */
#define FOLL_WRITE 1
#define FOLL_GET 2
#define FOLL_DUMP 4
#define FOLL_TOUCH 8
#define FOLL_PIN 16
#define FOLL_LONGTERM 32
#define FOLL_MIGRATION 64
#define no_page_table(...) NULL
#define gup_can_follow_protnone(...) 1
#define vm_normal_page(vma, address, pte) pte_page(pte)
#define can_follow_write_pte(pte, page, vma, flags) pte_write(pte)
#define follow_huge_pmd_pte(...) NULL
#define pmd_bad(pmd) 0
#define is_zero_pfn(pfn) 0
#define follow_pfn_pte(...) (-EFAULT)
#define get_dev_pagemap(...) NULL
#define put_dev_pagemap(pgmap) ((void)(pgmap))
#define gup_fast_undo_dev_pagemap(...) ((void)nr_start)
#define undo_dev_pagemap(...) ((void)nr_start)
#define gup_fast_folio_allowed(...) 1
#define page_is_secretmem(page) 0
#define folio_fast_pin_allowed(...) 1
#define gup_must_unshare(...) 0
#define set_page_dirty(page) ((void)0)
#define mark_page_accessed(page) ((void)0)
#define folio_set_referenced(folio) ((void)0)
#define PageDirty(page) 1
typedef struct { unsigned long val; } swp_entry_t;
#define pte_to_swp_entry(pte) ((swp_entry_t){ 0 })
#define is_migration_entry(entry) ((entry).val != 0)
#define migration_entry_wait(...) ((void)0)

/* the caller looks at the entry again without a function, so it is read anew here */
static struct folio *grab_fast(struct page *page)
{
	struct folio *folio = ask(Q_PIN, page->nr, 0) ? page_folio(page) : NULL;

	entry_of(page->nr);
	return folio;
}
#define try_grab_folio_fast(page, refs, flags) grab_fast(page)
#define gup_put_folio(folio, refs, flags) ask(Q_UNPIN, subject, 0)
#define unpin_user_page(page) ask(Q_UNPIN, (page)->nr, 0)

/* ---- writeback */
static void too_late(void)
{
	ask(Q_LATE, subject, 0);
}
#define XA_STATE(name, ...) int name __attribute__((unused)) = 0
#define folio_index(folio) 0
#define folio_memcg_lock(folio) ((void)0)
#define folio_memcg_unlock(folio) ((void)0)
#define mapping_use_writeback_tags(mapping) ask(Q_DIRTY_FILE, subject, 0)
#define inode_to_bdi(inode) ((void)(inode), &a_bdi)
#define inode_to_wb(inode) ((struct bdi_writeback *)NULL)
#define xas_lock_irqsave(xas, flags) ((void)(xas), (flags) = 0)
#define xas_unlock_irqrestore(xas, flags) ((void)(flags))
#define xas_load(xas) ((void)(xas))
#define xas_set_mark(...) ((void)0)
#define xas_clear_mark(...) ((void)0)
#define mapping_tagged(...) true
#define BDI_CAP_WRITEBACK_ACCT 1
#define wb_stat_mod(wb, ...) ((void)(wb), (void)nr)
#define wb_inode_writeback_start(wb) ((void)(wb))
#define sb_mark_inode_writeback(inode) ((void)(inode))
#define folio_test_dirty(folio) 1
#define folio_test_set_writeback(folio) ask(Q_START_WRITEBACK, (folio)->nr, 0)
#define lruvec_stat_mod_folio(folio, item, nr) ((void)(nr))
#define zone_stat_mod_folio(folio, item, nr) ((void)(nr))

#define filemap_release_folio(folio, gfp) ask(Q_RELEASE, (folio)->nr, 0)

/* ---- reclaim */
#define __GFP_IO 1U
#define list_empty(list) ((void)(list), 1)
#define folio_test_partially_mapped(folio) 0
#define split_folio_to_list(folio, list) 1
#define add_to_swap(folio) 1
#define folio_order(folio) 0
#define folio_has_private(folio) 0
#define folio_test_private(folio) 0

static void begin(void)
{
	int i;

	for (i = 0; i < PAGES; i++) {
		all_pages[i].nr = i;
		folios[i].nr = i;
		folios[i].mapping = &a_file;
	}
	a_sie.sidad = (u64)&a_request;
}
