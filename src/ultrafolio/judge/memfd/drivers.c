/*
 * What calls the judged pieces of guest_memfd. A section is compiled where the tree has every piece that it needs.
 */
//section hole needs punch-hole gmem-begin gmem-end unmap begin range-add end free-folio
static long op_hole(int about)
{
	(void)about;
	return kvm_gmem_punch_hole(&a_inode, FIRST_PAGE * PAGE_SIZE, SO_MANY * PAGE_SIZE);
}
//section fault-private needs fault free-folio
static long op_fault_private(int about)
{
	struct kvm_page_fault fault = { .gfn = FIRST_PAGE, .slot = &a_slot, .is_private = true };

	(void)about;
	return kvm_tdp_mmu_page_fault(&a_vcpu, &fault);
}
//section fault-shared needs fault free-folio
static long op_fault_shared(int about)
{
	struct kvm_page_fault fault = { .gfn = FIRST_PAGE, .slot = &a_slot };

	(void)about;
	return kvm_tdp_mmu_page_fault(&a_vcpu, &fault);
}
//section to-private needs set-attributes before-set after-arch begin end
static long op_to_private(int about)
{
	(void)about;
	return kvm_vm_set_mem_attributes(&a_kvm, FIRST_PAGE, FIRST_PAGE + SO_MANY, KVM_MEMORY_ATTRIBUTE_PRIVATE);
}
//section to-shared needs set-attributes before-set after-arch begin end
static long op_to_shared(int about)
{
	(void)about;
	return kvm_vm_set_mem_attributes(&a_kvm, FIRST_PAGE, FIRST_PAGE + SO_MANY, 0);
}
