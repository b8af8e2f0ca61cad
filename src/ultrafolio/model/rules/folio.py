"""A folio's pages, references, lock and arch bit, as every rule of the host reads and changes them.

The host never reads a page's ultravisor state: it keeps the arch bit, and tries (docs/model.md, section 2.3).
"""

from __future__ import annotations

from ultrafolio.model.layout import *
from ultrafolio.model.rule import fn


@fn
def head(s, p):
    """First page of the folio that page `p` belongs to; folios are naturally aligned."""
    order = s.mm[p].order
    return p >> order << order


@fn
def counted(s, p):
    """The page whose references and freeze an import of `p` looks at: the folio's head, or `p` (P.refs)."""
    return p if s.cfg[0].refs == REFS_PAGE else head(s, p)


@fn
def extra_refs(s, p):
    """References beyond the expected ones, counted over P.refs. Source: expected_folio_refs(), v6.14."""
    if s.cfg[0].refs == REFS_PAGE:
        m = s.mm[p]
        return m.pins + m.longs + m.spec + (1 if m.batch else 0)
    return s.mm[head(s, p)].refs


@fn
def pinned(s, p):
    """Whether any page of the folio of `p` is pinned, as folio_maybe_dma_pinned() asks."""
    h = head(s, p)
    for q in range(h, h + (1 << s.mm[p].order)):
        if s.mm[q].pins or s.mm[q].longs:
            return True
    return False


@fn
def bit_page(s, p):
    """Returns the page that has the arch bit which covers `p` (P.track)."""
    return head(s, p) if s.cfg[0].track == TRACK_FOLIO else p


@fn
def set_arch(s, p):
    """Set the arch bit that covers `p`, and count it in the folio's summary."""
    m = s.mm[bit_page(s, p)]
    if not m.arch:
        m.arch = 1
        s.mm[head(s, p)].marked += 1


@fn
def clear_arch(s, p):
    """Clear the arch bit that covers `p`."""
    m = s.mm[bit_page(s, p)]
    if m.arch:
        m.arch = 0
        s.mm[head(s, p)].marked -= 1


@fn
def writable(s, p):
    """Whether the guest's table maps page `p` for writing."""
    return s.pt[p].present == MAPPED and s.mm[head(s, p)].writable > 0


@fn
def unlock(s, p):
    s.mm[head(s, p)].locked = 0


@fn
def get_ref(s, p, what):
    """One more reference on page `p`: `what` is 0 short pin, 1 long-term pin, 2 a plain one."""
    m = s.mm[p]
    if what == 0:
        m.pins += 1
    elif what == 1:
        m.longs += 1
    else:
        m.spec += 1
    s.mm[head(s, p)].refs += 1


@fn
def put_ref(s, p, what):
    """Drop a reference taken by get_ref."""
    m = s.mm[p]
    if what == 0:
        m.pins -= 1
    elif what == 1:
        m.longs -= 1
    else:
        m.spec -= 1
    s.mm[head(s, p)].refs -= 1
