"""The canonical representative of a state under permutation of interchangeable pages and guests. Loaded with bfs.py;
check/symmetry decides which are interchangeable.

Pages of a class are sorted by part id, then by the set of actors busy with them. Pages equal in both cannot be told
apart, so states that are page permutations of each other have one sorted form. Every permutation of guests is applied
to the state and sorted; the least result is the representative.

A state is permuted as a vector of part ids (x.vectors): pages, machines, actors.
"""

# mypy: disallow_untyped_defs=False, disallow_untyped_calls=False
from __future__ import annotations

from ultrafolio.check.kinds import DEVICES, WORKERS
from ultrafolio.check.search.memo import (
    intern_memory,
    intern_part,
    load_part,
    part_of,
    put_value,
    short_id,
    value_of,
)
from ultrafolio.model.layout import (
    AGAIN,
    DEAD,
    IDLE_PC,
    INTERRUPT,
    NON_SECURE,
    NOTHING,
    RUN,
    UNPIN,
    VCPU,
)
from ultrafolio.model.rule import fn


@fn
def busy_page(s, t):
    """Returns the page that actor `t` is busy with, of a device the first, or -1."""
    kind = s.who[t].kind
    if kind == VCPU:
        return s.actor[t].page if s.actor[t].op != NOTHING else -1
    if (kind in DEVICES or kind in WORKERS) and s.task[t].pc != IDLE_PC[kind]:
        return s.task[t].page
    return -1


@fn
def retarget(s, t, page):
    """Replace the page that actor `t` is busy with by `page`, in its task and actor records."""
    k = s.task[t]
    kind = s.who[t].kind
    by = page - busy_page(s, t)
    if k.end:
        k.start += by
        k.i += by
        k.end += by
    if k.failed:
        k.failed += by
    if kind == VCPU or (kind in DEVICES and kind != INTERRUPT and (k.pc != UNPIN or s.actor[t].page)):
        s.actor[t].page = page
    if kind != VCPU or k.pc not in (RUN, AGAIN, DEAD):
        k.page = page


@fn
def cached_busy_page(s, x, words, t, part):
    """Returns busy_page() of actor `t` with this part, cached. May overwrite the actor's part in the raw buffer."""
    if x.busy_pages[t, part] == 0:
        load_part(x, words, x.count[0].places + t, part)
        x.busy_pages[t, part] = busy_page(s, t) + 2
    return x.busy_pages[t, part] - 2


@fn
def retargeted(s, x, words, t, part, page):
    """Returns the id of the part of actor `t` after retarget() to `page`, cached."""
    if x.retargeted[part, page] == 0:
        load_part(x, words, x.count[0].places + t, part)
        retarget(s, t, page)
        c = x.count[0].places + t
        x.retargeted[part, page] = intern_part(x, words, x.spans[c, 0], x.spans[c, 1]) + 1
    return x.retargeted[part, page] - 1


@fn
def permute_names(s, x, k, c):
    """Apply permutation `k` to the page, mutex owner or page owner that the part at position `c` of the raw buffer
    names."""
    pages = len(x.page_class)
    width = x.count[0].places
    if c >= width:
        page = busy_page(s, c - width)
        if page >= 0:
            retarget(s, c - width, x.permutations[k, page])
    elif c >= pages:
        vm = s.vm[c - pages]
        if vm.mutex:
            vm.mutex = x.permutations[k, width + vm.mutex - 1] - width + 1
    elif s.uv[c].state != NON_SECURE:
        s.uv[c].owner = x.permutations[k, pages + s.uv[c].owner] - pages


@fn
def permuted(s, x, words, k, c, part):
    """Returns the id of the part at position `c` after permutation `k`, cached."""
    if x.image[k, c, part] == 0:
        for r in range(len(x.region_width)):
            x.loaded[r] = 0
        load_part(x, words, c, part)
        permute_names(s, x, k, c)
        x.image[k, c, part] = intern_part(x, words, x.spans[c, 0], x.spans[c, 1]) + 1
    return x.image[k, c, part] - 1


@fn
def sort_pages(s, x, words, r):
    """Sort the interchangeable pages of vector `r` by part id, then by busy actors; the busy actors move with their
    page."""
    width = x.count[0].places
    for p in range(len(x.page_class)):
        x.busy_actors[p] = 0
    for t in range(x.count[0].actors):
        page = cached_busy_page(s, x, words, t, x.vectors[r, width + t])
        if page >= 0:
            x.busy_actors[page] |= 1 << t
    for p in range(len(x.page_class)):
        least = p
        for q in range(p + 1, len(x.page_class) if x.page_class[p] else 0):
            if x.page_class[q] == x.page_class[p]:
                less = x.vectors[r, q] < x.vectors[r, least]
                equal = x.vectors[r, q] == x.vectors[r, least]
                if less or (equal and x.busy_actors[q] < x.busy_actors[least]):
                    least = q
        if least != p:
            part, actors = x.vectors[r, p], x.busy_actors[p]
            x.vectors[r, p], x.busy_actors[p] = x.vectors[r, least], x.busy_actors[least]
            x.vectors[r, least], x.busy_actors[least] = part, actors
    for t in range(x.count[0].actors):
        part = x.vectors[r, width + t]
        for page in range(len(x.page_class)):
            if (x.busy_actors[page] >> t) & 1 and cached_busy_page(s, x, words, t, part) != page:
                x.vectors[r, width + t] = retargeted(s, x, words, t, part, page)


@fn
def keep_least(x, r, q):
    """Copy vector `r` to vector `q` if it is lexicographically less."""
    for c in range(x.vectors.shape[1]):
        if x.vectors[r, c] != x.vectors[q, c]:
            for d in range(x.vectors.shape[1] if x.vectors[r, c] < x.vectors[q, c] else 0):
                x.vectors[q, d] = x.vectors[r, d]
            return


@fn
def canonicalise(s, x, words, i):
    """Replace the state in row `i` of candidate_rows by its canonical representative."""
    width, regions = x.count[0].places, len(x.region_width)
    least, trial = x.count[0].zero + 1, x.count[0].zero + 2
    for r in range(regions):
        m = value_of(x, x.candidate_rows, i, r)
        for place in range(x.region_width[r]):
            x.vectors[0, x.region_places[r, place]] = x.memories[r, m, place]
    for t in range(x.count[0].actors):
        x.vectors[0, width + t] = part_of(x, x.candidate_rows, i, t)
    for c in range(x.vectors.shape[1]):
        x.vectors[1, c] = x.vectors[0, c]
    sort_pages(s, x, words, least)
    for k in range(len(x.permutations)):
        for c in range(x.vectors.shape[1]):
            x.vectors[2, x.permutations[k, c]] = permuted(s, x, words, k, c, x.vectors[0, c])
        sort_pages(s, x, words, trial)
        keep_least(x, trial, least)
    for r in range(regions):
        new = x.memory_count[r]
        for place in range(x.region_width[r]):
            x.memories[r, new, place] = x.vectors[1, x.region_places[r, place]]
        put_value(x, x.candidate_rows, i, r, intern_memory(x, r))
    for t in range(x.count[0].actors):
        put_value(x, x.candidate_rows, i, regions + t, short_id(x, t, x.vectors[1, width + t]))
