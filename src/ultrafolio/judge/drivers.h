/*
 * What calls the judged functions: the parts of the kernel between them, in the order that the kernel has, reduced to
 * what the rules know. Each PIECE_ name is defined where the tree has that piece.
 */
#ifdef PIECE_split_count
static int judged_split(struct folio *folio)
{
	int ret = 0, extra_pins = 0;

	/* split_folio(): the block between takes locks and memory only */
	SPLIT_WRITEBACK
	SPLIT_COUNT
	ask(Q_UNMAP_SPLIT, folio->nr, 0);
	if (folio_ref_freeze(folio, 1 + extra_pins)) {
		ask(Q_SPLIT, folio->nr, 0);
		return 0;
	}
	ask(Q_REMAP, folio->nr, 0);
	return -EAGAIN;
out:
out_unlock:
	return ret;
}
#endif
