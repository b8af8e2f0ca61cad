/*
 * What calls the judged pieces: the parts of the kernel between them, in the kernel's order, reduced to what the rules
 * know. A section is compiled where the tree has every piece that it needs; @name@ is replaced by the text of a block.
 */
//section split needs split-writeback split-count
static int split_folio(struct folio *folio)
{
	int ret = 0, extra_pins = 0;
	gfp_t gfp __attribute__((unused)) = 0;

	/* the kernel takes memory and the locks of the mapping between these two */
	@split-writeback@
	if (!folio_test_anon(folio)) {
		@split-release@
	}
	@split-count@
	ask(Q_UNMAP_SPLIT, folio->nr, 0);
	if (folio_ref_freeze(folio, 1 + extra_pins)) {
		ask(Q_SPLIT, folio->nr, 0);
		return 0;
	}
	ask(Q_REMAP, folio->nr, 0);
	return -EAGAIN;
out: __attribute__((unused));
out_unlock: __attribute__((unused));
	return ret;
}
//section import needs import make-secure convert
static long op_import(int page)
{
	return gmap_convert_to_secure(&a_gmap, PFN_PHYS(page));
}
//section unshare needs import unshare
static long op_unshare(int page)
{
	a_request.header.cmd = UVC_CMD_REMOVE_SHARED_ACCESS;
	a_request.paddr = PFN_PHYS(page);
	return handle_pv_uvc(&a_vcpu);
}
//section pin needs pin accessible
static struct page *slow_pin(int page)
{
	struct dev_pagemap *map = NULL;
	struct page *got;

	for (;;) {
		got = follow_page_pte(&a_vma, PFN_PHYS(page), tables, FOLL_PIN | FOLL_WRITE, &map);
		if (got)
			return got;
		ask(Q_FAULT, page, FAULT_FLAG_WRITE); /* faultin_page() */
	}
}

static long op_pin(int page)
{
	struct page *got = slow_pin(page);

	return IS_ERR(got) ? (long)got : 0;
}
//section pin-fast needs pin pin-fast accessible
static long op_pin_fast(int page)
{
	struct page *list[1];
	int done = 0, further;

	further = GUP_FAST(tables[0], tables, PFN_PHYS(page), PFN_PHYS(page + 1), FOLL_PIN | FOLL_WRITE, list, &done);
	if (done)
		return 0;
	/* told to go on, the walk takes the pages of the next table, and this page is left out */
	return further ? PAGE_SKIPPED : op_pin(page);
}
//section writeback needs start-writeback accessible
static long op_writeback(int page)
{
	struct folio *folio = page_folio(&all_pages[page]);

	/* a file system's writepages, in the order of write_cache_pages(); it looks for the folio by its page */
	folio_lock(folio);
	while (page_folio(&all_pages[page]) != folio) {
		folio_unlock(folio);
		folio = page_folio(&all_pages[page]);
		folio_lock(folio);
	}
	folio_wait_writeback(folio);
	ask(Q_CLEAN, folio->nr, 0);
	__folio_start_writeback(folio, false);
	folio_unlock(folio);
	ask(Q_END_WRITEBACK, folio->nr, 0);
	return 0;
}
//section reclaim needs reclaim-anon reclaim-pinned unmap convert
static int unmap_one(struct folio *folio, int page)
{
	spinlock_t *lock;
	pte_t *entry = lock_table(page, &lock);

	/* try_to_unmap_one(): an exclusive anon page that is pinned by now gets its entry back */
	if (pte_present(*entry)) {
		ptep_clear_flush(&a_vma, PFN_PHYS(page), entry);
		if (folio_test_anon(folio) && ask(Q_PINNED, page, 0))
			ask(Q_RESTORE_ENTRY, page, 0);
	}
	ask(Q_TABLE_UNLOCK, page, 0);
	return 0;
}

static long op_reclaim(int page)
{
	struct scan_control *sc __attribute__((unused)) = &a_scan;
	struct list_head *folio_list __attribute__((unused)) = NULL;
	unsigned long nr_pages __attribute__((unused)) = 1;
	struct folio *folio = page_folio(&all_pages[page]);

	if (!folio_trylock(folio))
		return -EAGAIN;
	/* a split before the lock: the page is in a folio of its own, which is reclaimed another time */
	if (page_folio(&all_pages[page]) != folio)
		goto keep_locked;
	if (folio_test_writeback(folio))
		goto keep_locked;
	if (!folio_mapped(folio))
		goto keep_locked;
	@reclaim-anon@
	unmap_one(folio, page);
	if (folio_mapped(folio))
		goto keep_locked;
	@reclaim-pinned@
	if (!ask(Q_SWAP_OUT, page, 0))
		goto keep_locked;
	return 0;
activate_locked_split: __attribute__((unused));
activate_locked: __attribute__((unused));
keep_locked:
	folio_unlock(folio);
	return -EBUSY;
}
//section unmap-lazy needs unmap-lazy convert
static long op_unmap_lazy(int page)
{
	ptep_get_and_clear(&a_process, PFN_PHYS(page), &all_entries[page]);
	return 0;
}
//section unmap-flush needs unmap convert
static long op_unmap_flush(int page)
{
	ptep_clear_flush(&a_vma, PFN_PHYS(page), &all_entries[page]);
	return 0;
}
//section unmap-full needs unmap-full convert
static long op_unmap_full(int page)
{
	ptep_get_and_clear_full(&a_process, PFN_PHYS(page), &all_entries[page], 0);
	return 0;
}
