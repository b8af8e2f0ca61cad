#!/bin/sh
# Unpacks into DIR/linux-source-VERSION what `ultrafolio judge` reads of Debian's kernel sources, and the tools kunit.py
# and dot2k, without installing them, about 27 MB a version. A version that the package manager does not have is named
# and left out; one that DIR has whole stays as it is.
#
#   tools/kernel-trees.sh DIR [VERSION ...]      6.1 and 6.12 unless versions are given
#   ultrafolio judge --tree DIR/linux-source-6.12
#
# Needs apt-get, dpkg-deb, tar and xz. Exit 0 even where a version is left out.
set -u
[ $# -ge 1 ] || { sed -n 's/^# \{0,1\}//p' "$0" >&2; exit 2; }
mkdir -p "$1" || exit 2
dir=$(cd "$1" && pwd); shift
[ $# -gt 0 ] || set -- 6.1 6.12
for version; do
  name=linux-source-$version
  [ -f "$dir/$name/mm/gup.c" ] && [ -f "$dir/$name/drivers/s390/virtio/virtio_ccw.c" ] &&
    [ -f "$dir/$name/tools/testing/kunit/kunit.py" ] && [ -d "$dir/$name/tools/verification" ] &&
    [ -f "$dir/$name/arch/x86/kvm/mmu/mmu.c" ] && continue
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  if (cd "$work" && apt-get download -qq "$name" >/dev/null 2>&1) &&
     dpkg-deb --fsys-tarfile "$work/$name"_*.deb | tar -xO "./usr/src/$name.tar.xz" | xz -dc -T0 |
       tar -x -C "$work" --wildcards --no-wildcards-match-slash "$name/Makefile" "$name/mm/*.[ch]" "$name/include/linux/*.h" "$name/fs/*.[ch]" \
         "$name/arch/s390/kernel/*.[ch]" "$name/arch/s390/kvm/*.[ch]" "$name/arch/s390/mm/*.[ch]" \
         "$name/arch/s390/include/asm/*.h" "$name/arch/x86/kvm/mmu/*.[ch]" "$name/virt/kvm/*.[ch]" "$name/block/*.[ch]" \
         "$name/drivers/s390/virtio/*.[ch]" "$name/tools/testing/kunit/*" \
         "$name/tools/verification/*/*"
  then mkdir -p "$dir/$name" && cp -R "$work/$name/." "$dir/$name/"
  else echo "$name: the package manager does not have it, or it did not unpack; what needs it is skipped" >&2
  fi
  rm -rf "$work"
done
