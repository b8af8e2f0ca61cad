/*
 * What calls the judged pieces of guest_memfd. A section is compiled where the tree has every piece that it needs.
 */
//section hole needs punch-hole gmem-begin gmem-end unmap begin range-add end free-folio
static long op_hole(int about)
{
	(void)about;
	return kvm_gmem_punch_hole(&a_inode, FIRST_PAGE * PAGE_SIZE, SO_MANY * PAGE_SIZE);
}
